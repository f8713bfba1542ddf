"""Images and their latent vectors: a generator, an encoder, and their files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._core.checks import check_integer
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.typing import Array, Shape
from .model_files import check_keras_path, load_model, save_keras

__all__ = ["CHANNELS_LAST", "FLOAT32", "LatentModel", "seeded_weights"]

BATCH = 1024  # images that `sample` makes at once
# What layers are told, for otherwise they follow the global settings of Keras.
FLOAT32 = {"dtype": "float32"}
CHANNELS_LAST = {"data_format": "channels_last", **FLOAT32}


class LatentModel:
    """Base of models that generate images from latent vectors; a subclass writes `fit`.

    Parameters
    ----------
    latent_dim : int, default 8
        Length of a latent vector.
    units : int, default 256
        Width of the hidden layers.
    seed : int, default 0
        Seed of the initial weights and of all that is drawn in training.

    Attributes
    ----------
    input_shape : tuple of int or None
        (H, W, C) of the images; None before training.
    """

    def __init__(self, latent_dim: int = 8, units: int = 256, *, seed: int = 0) -> None:
        check_integer("latent_dim", latent_dim, 1)
        check_integer("units", units, 1)
        check_integer("seed", seed, 0)
        self.latent_dim = int(latent_dim)
        self.units = int(units)
        self.seed = int(seed)
        self.input_shape: Shape | None = None
        self._networks: tuple[Any, Any] | None = None  # encoder and generator

    def __repr__(self) -> str:
        """Constructor call."""
        return f"{type(self).__name__}(latent_dim={self.latent_dim}, units={self.units}, seed={self.seed})"

    @property
    def is_fitted(self) -> bool:
        """Whether it has been trained or loaded."""
        return self._networks is not None

    @property
    def encoder(self) -> Any:
        """The Keras model that maps images in [0, 1] to latent vectors `(N, latent_dim)`."""
        return self._fitted()[0]

    @property
    def generator(self) -> Any:
        """The Keras model that maps latent vectors to images `(N, H, W, C)` in [0, 1]."""
        return self._fitted()[1]

    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Generate images from latent vectors of the standard normal distribution.

        Parameters
        ----------
        n : int
            How many.
        seed : int, default 0
            Seed of the latent vectors.

        Returns
        -------
        ndarray of float32, shape (n, H, W, C)
            In [0, 1].
        """
        check_integer("n", n, 0)
        check_integer("seed", seed, 0)
        generator = self.generator
        latents = np.random.default_rng(int(seed)).standard_normal((int(n), self.latent_dim), np.float32)
        images = [generator.predict_on_batch(latents[i : i + BATCH]) for i in range(0, len(latents), BATCH)]
        return np.concatenate([np.empty((0, *generator.output_shape[1:]), np.float32), *images])

    def save(self, path: str | Path) -> None:
        """Write the model to a file.

        Parameters
        ----------
        path : str or Path
            A ``.keras`` file, which Keras too can load: the encoder, followed by the generator.

        Raises
        ------
        ValueError
            If the file is of another kind, or the model is not trained.
        """
        check_keras_path(path)
        keras = require("keras", extra="tensorflow")
        save_keras(keras.Sequential(self._fitted(), name=type(self).__name__), path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : str or Path
            A ``.keras`` file. Only its weights are used; no code from the file runs.

        Returns
        -------
        object
            Ready for use.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or holds another model.
        """
        model = load_model(path)
        try:
            encoder, generator = model.layers
            loaded = cls(*generator.get_layer("hidden_1").kernel.shape)
            loaded.input_shape = tuple(model.input_shape[1:])
            loaded._networks = loaded._new_networks(loaded.input_shape)
            for network, source in zip(loaded._networks, (encoder, generator), strict=True):
                network.set_weights(source.get_weights())
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ArgumentError(f"cannot load {str(path)!r}: it does not hold a {cls.__name__}") from error
        if model.name != cls.__name__:
            raise ArgumentError(f"cannot load {str(path)!r}: it holds a {model.name}, not a {cls.__name__}")
        return loaded

    def _fitted(self) -> tuple[Any, Any]:
        if self._networks is None:
            name = type(self).__name__
            raise ArgumentError(f"This {name} is not trained yet: call fit(x) first, or {name}.load(path).")
        return self._networks

    def _new_networks(self, shape: Shape) -> tuple[Any, Any]:
        """Encoder and generator with new weights."""
        keras = require("keras", extra="tensorflow")
        weights = seeded_weights(self.seed)

        def dense(x: Any, width: int, activation: str | None, name: str) -> Any:
            layer = keras.layers.Dense(
                width, activation, kernel_initializer=next(weights), name=name, **FLOAT32
            )
            return layer(x)

        def hidden(x: Any) -> Any:
            return dense(dense(x, self.units, "relu", "hidden_1"), self.units, "relu", "hidden_2")

        images, latents = keras.Input(shape, **FLOAT32), keras.Input((self.latent_dim,), **FLOAT32)
        flat = keras.layers.Flatten(**CHANNELS_LAST)(images)
        found = dense(hidden(flat), self.latent_dim, None, "latents")
        made = dense(hidden(latents), int(np.prod(shape)), "sigmoid", "images")
        made = keras.layers.Reshape(shape, **FLOAT32)(made)
        return keras.Model(images, found, name="encoder"), keras.Model(latents, made, name="generator")


def seeded_weights(seed: int | list[int]) -> Iterator[Any]:
    """Initialisers of weights, one for each layer."""
    keras = require("keras", extra="tensorflow")
    rng = np.random.default_rng(seed)
    while True:
        yield keras.initializers.GlorotUniform(seed=int(rng.integers(1 << 31)))
