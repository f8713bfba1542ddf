"""An autoregressive model of images, and its training."""

from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._core.checks import check_integer
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.threads import map_blocks
from .._core.typing import Array, Shape
from .latent_model import CHANNELS_LAST, FLOAT32
from .model_files import check_keras_path, load_model, save_keras
from .pixel_levels import check_images, to_images, to_levels
from .training import check_training, shuffled, split, train

__all__ = ["PixelCNN"]

BLOCK = 8  # samples that a thread decodes at once; their states fit into its cache


class PixelCNN:
    """Probabilities of the 256 levels of each pixel and channel, given those before it in raster order [1]_.

    Gated convolutions in two stacks, one for the rows above and one for the pixels to the left: a pixel
    sees what comes before it, without a blind spot, and nothing else. A channel also sees the channels of its
    pixel that come before it. Keras trains the model; from then on it needs NumPy and Numba alone.

    Parameters
    ----------
    filters : int, default 32
        Feature maps of each stack.
    blocks : int, default 4
        Residual blocks, each with kernels of 3 x 3 pixels.
    kernel_size : int, default 5
        Side of the first kernel, in pixels; odd.
    seed : int, default 0
        Seed of the initial weights, of the choice of the validation images and of the order of training.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule.

    Notes
    -----
    Images are `(N, H, W, C)` with any number of channels, as `uint8` or as floats in [0, 1], which are
    rounded to 8 bits; those that come back are `float32` in [0, 1].

    A pass through the pixels keeps what later ones need of the earlier ones, as in [2]_, so that decoding
    costs about as much as one evaluation of the network, instead of one for each pixel and channel. Every
    sample is computed in the same order of operations: results depend neither on the batch nor on the
    threads. `model` computes the same in another order, with other last bits of the logits; levels that are
    equally probable up to those bits may change places.

    References
    ----------
    .. [1] van den Oord et al. Conditional Image Generation with PixelCNN Decoders. NeurIPS 2016.
       arXiv:1606.05328
    .. [2] Ramachandran et al. Fast Generation for Convolutional Autoregressive Models. ICLR Workshop 2017.
       arXiv:1704.06001

    Examples
    --------
    >>> import pytest
    >>> keras = pytest.importorskip("keras")
    >>> import numpy as np
    >>> x = np.zeros((8, 4, 4, 1), dtype=np.uint8)
    >>> x[:, :, 2:] = 255  # each image: the left half black, the right half white
    >>> cnn = PixelCNN(filters=4, blocks=1).fit(x, epochs=60)
    >>> noisy = x[:1] + np.uint8(20) * (x[:1] == 0)
    >>> cnn.decode(noisy, eps=32)[0, 0, :, 0]
    array([0., 0., 1., 1.], dtype=float32)
    """

    def __init__(self, filters: int = 32, blocks: int = 4, kernel_size: int = 5, *, seed: int = 0) -> None:
        check_integer("filters", filters, 1)
        check_integer("blocks", blocks, 0)
        check_integer("kernel_size", kernel_size, 3)
        if kernel_size % 2 == 0:
            raise ArgumentError(f"`kernel_size` must be odd, got {kernel_size!r}.")
        check_integer("seed", seed, 0)
        self.filters = int(filters)
        self.blocks = int(blocks)
        self.kernel_size = int(kernel_size)
        self.seed = int(seed)
        self.input_shape: Shape | None = None
        self._weights: dict[str, list[Array]] = {}  # kernel and bias of each convolution

    def __repr__(self) -> str:
        """Constructor call."""
        return (
            f"PixelCNN(filters={self.filters}, blocks={self.blocks}, kernel_size={self.kernel_size}, "
            f"seed={self.seed})"
        )

    @property
    def is_fitted(self) -> bool:
        """Whether it has been trained or loaded."""
        return self.input_shape is not None

    @property
    def model(self) -> Any:
        """A Keras model of its own that maps images in [0, 1] to logits `(N, H, W, C, 256)`."""
        model = self._network(self._fitted_shape())
        for name, weights in self._weights.items():
            model.get_layer(name).set_weights(weights)
        return model

    def fit(
        self,
        x: Any,
        *,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 5e-3,
        validation: float = 0.1,
        patience: int = 5,
        verbose: bool = False,
    ) -> Self:
        """Train on images, from new weights.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images, `uint8` or floats in [0, 1].
        epochs : int, default 20
            Passes over the data; in each, the images that fill no step are left out.
        batch_size : int, default 32
            Images in a step. With fewer images all of them make one step.
        learning_rate : float, default 5e-3
            Of Adam in the first step; it falls to zero along a cosine.
        validation : float, default 0.1
            Share of the images that are not trained on, by which the best weights are chosen. If this is less
            than one image, the training loss chooses.
        patience : int, default 5
            Epochs without a new best after which training stops.
        verbose : bool, default False
            Whether to show a progress bar.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the images or a parameter break a rule; before any work starts.
        FloatingPointError
            If the loss is no longer finite; the message names the epoch, and the model stays as it was.
        ImportError
            If Keras is missing.
        """
        images = check_training(
            x,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation=validation,
            patience=patience,
            verbose=verbose,
        )
        rng = np.random.default_rng(self.seed)
        learned, test = split(to_levels(images), validation, rng)
        size = min(int(batch_size), len(learned))
        model = self._network(images.shape[1:])
        _compile(model, learning_rate, int(epochs) * (len(learned) // size))

        def epoch() -> float:
            batches = (learned[rows] for rows in shuffled(len(learned), size, rng))
            loss = _epoch(model.train_on_batch, model, batches)
            if len(test) and np.isfinite(loss):
                batches = (test[i : i + size] for i in range(0, len(test), size))
                loss = _epoch(model.test_on_batch, model, batches)
            return loss

        self._weights = train(
            epoch,
            lambda: _weights_of(model),
            name="PixelCNN",
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            shown=lambda loss: {"bits per dimension": f"{loss / np.log(2):.3f}"},
            verbose=verbose,
        )
        self.input_shape = images.shape[1:]
        return self

    def log_likelihood(self, x: Any) -> Array:
        """Binary logarithm of the probability of each image, divided by its H W C dimensions.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images.

        Returns
        -------
        ndarray of float64, shape (N,)
            In bits per dimension; at most 0. The figure that papers report is its negative.
        """
        levels = self._checked(x)
        return self._scan(levels, likelihood=True)[1] / np.prod(levels.shape[1:])

    def decode(self, x: Any, eps: int, *, sequential: bool = True, progress: str | None = None) -> Array:
        """Replace each value by the most probable one within `eps`; of equals, by the lowest.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images.
        eps : int
            Reach, in levels of 8 bits.
        sequential : bool, default True
            Whether each value is conditioned on those decoded before it; on those of `x` otherwise.
        progress : str, optional
            Shows a progress bar with this caption.

        Returns
        -------
        ndarray of float32, shape (N, H, W, C)
            In [0, 1].
        """
        check_integer("eps", eps, 0, 255)
        levels = self._checked(x)
        return to_images(self._scan(levels, eps=int(eps), feedback=sequential, progress=progress)[0])

    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Draw images, pixel by pixel.

        Parameters
        ----------
        n : int
            How many.
        seed : int, default 0
            Seed of the draws.

        Returns
        -------
        ndarray of float32, shape (n, H, W, C)
            In [0, 1].
        """
        check_integer("n", n, 0)
        check_integer("seed", seed, 0)
        draws = np.random.default_rng(int(seed)).random((int(n), *self._fitted_shape()))
        return to_images(self._scan(np.zeros(draws.shape, np.uint8), draws=draws)[0])

    def save(self, path: str | Path) -> None:
        """Write the model to a file.

        Parameters
        ----------
        path : str or Path
            A ``.keras`` file, which Keras too can load.

        Raises
        ------
        ValueError
            If the file is of another kind, or the model is not trained.
        """
        check_keras_path(path)
        save_keras(self.model, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : str or Path
            A ``.keras`` file. Only its weights are used; no code from the file runs.

        Returns
        -------
        PixelCNN
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
            first = model.get_layer("above_0").kernel.shape
            blocks = next(
                b for b in count() if f"above_{b + 1}" not in {layer.name for layer in model.layers}
            )
            cnn = cls(first[3] // 2, blocks, first[1])
            cnn.input_shape, cnn._weights = tuple(model.input_shape[1:]), _weights_of(model)
            fits = _shapes(cnn._weights) == _shapes(_weights_of(cnn._network(cnn.input_shape)))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ArgumentError(f"cannot load {str(path)!r}: it does not hold a PixelCNN") from error
        if not fits:
            raise ArgumentError(f"cannot load {str(path)!r}: its layers are not those of a PixelCNN")
        return cnn

    def _network(self, shape: Shape) -> Any:
        """A Keras model with new weights."""
        keras = require("keras", extra="tensorflow")
        layers, ops = keras.layers, keras.ops
        seeds = np.random.SeedSequence(self.seed).generate_state(4 * self.blocks + 2 * shape[2] + 3).tolist()
        filters, reach = self.filters, self.kernel_size // 2

        def convolve(x: Any, name: str, outputs: int, size: Any = 1, activation: str | None = None) -> Any:
            weights = keras.initializers.GlorotUniform(seed=seeds.pop())
            return layers.Conv2D(
                outputs, size, activation=activation, kernel_initializer=weights, name=name, **CHANNELS_LAST
            )(x)

        def pad(x: Any, top: int, left: int, right: int) -> Any:
            return layers.ZeroPadding2D(((top, 0), (left, right)), **CHANNELS_LAST)(x)

        def gate(x: Any) -> Any:
            signal, sigmoid = ops.split(x, 2, axis=-1)
            return ops.multiply(ops.tanh(signal), ops.sigmoid(sigmoid))

        image = keras.Input(shape, **FLOAT32)
        centred = layers.Rescaling(2.0, -1.0, **FLOAT32)(image)
        # The first kernels end before the pixel itself, the others with it; no mask is needed then.
        above = convolve(pad(centred, reach, reach, reach), "above_0", 2 * filters, (reach, 2 * reach + 1))
        above = layers.Cropping2D(((0, 1), (0, 0)), **CHANNELS_LAST)(above)
        left = convolve(pad(centred, 0, reach, 0), "left_0", 2 * filters, (1, reach))
        left = layers.Cropping2D(((0, 0), (0, 1)), **CHANNELS_LAST)(left)
        features = gate(layers.Add(**FLOAT32)([left, convolve(above, "link_0", 2 * filters)]))
        for b in range(1, self.blocks + 1):
            above = convolve(pad(gate(above), 1, 1, 1), f"above_{b}", 2 * filters, (2, 3))
            left = convolve(pad(features, 0, 1, 0), f"left_{b}", 2 * filters, (1, 2))
            gated = gate(layers.Add(**FLOAT32)([left, convolve(above, f"link_{b}", 2 * filters)]))
            features = layers.Add(**FLOAT32)([features, convolve(gated, f"residual_{b}", filters)])
        features = layers.ReLU(**FLOAT32)(features)
        logits = []
        for c in range(shape[2]):
            known = layers.Concatenate(**FLOAT32)([features, centred[..., :c]]) if c else features
            hidden = convolve(known, f"hidden_{c}", 2 * filters, activation="relu")
            logits.append(convolve(hidden, f"logits_{c}", 256))
        return keras.Model(image, ops.stack(logits, axis=3))

    def _fitted_shape(self) -> Shape:
        if self.input_shape is None:
            raise ArgumentError(
                "This PixelCNN is not trained yet: call fit(x) first, or PixelCNN.load(path)."
            )
        return self.input_shape

    def _checked(self, x: Any) -> Array:
        """Levels of images of the size that the model knows."""
        shape, levels = self._fitted_shape(), to_levels(check_images(x))
        if levels.shape[1:] != shape:
            raise ArgumentError(
                f"`x` must hold images of the shape {shape} that the PixelCNN was trained on, got "
                f"{levels.shape[1:]}."
            )
        return levels

    def _scan(
        self,
        levels: Array,
        *,
        eps: int = 0,
        feedback: bool = True,
        draws: Array | None = None,
        likelihood: bool = False,
        progress: str | None = None,
    ) -> tuple[Array, Array]:
        """Chosen levels, and the binary logarithms of their probabilities if asked for."""
        from .._core.kernels.pixel_cnn import scan

        weights = self._kernel_weights()
        chosen, bits = np.empty_like(levels), np.zeros(len(levels) if likelihood else 0)
        if draws is None:
            draws = np.empty((0, *levels.shape[1:]))

        def work(rows: slice) -> None:
            scan(chosen[rows], bits[rows], levels[rows], draws[rows], eps, feedback, weights)

        map_blocks(work, len(levels), BLOCK, progress=progress)
        return chosen, bits

    def _kernel_weights(self) -> Any:
        """The weights as the kernel takes them."""
        from .._core.kernels.pixel_cnn import Weights

        filters, channels = self.filters, self._fitted_shape()[2]

        def stacked(name: str, numbers: range, inputs: int, outputs: int) -> tuple[Array, Array]:
            matrices = np.zeros((len(numbers), inputs, outputs), np.float32)
            biases = np.zeros((len(numbers), outputs), np.float32)
            for at, k in enumerate(numbers):
                kernel, biases[at] = self._weights[f"{name}_{k}"]
                rows = kernel.reshape(-1, outputs)
                matrices[at, : len(rows)] = rows
            return matrices, biases

        blocks, every = range(1, self.blocks + 1), range(self.blocks + 1)
        (first_above, first_left) = (self._weights[f"{name}_0"] for name in ("above", "left"))
        above, above_bias = stacked("above", blocks, 6 * filters, 2 * filters)
        left, left_bias = stacked("left", blocks, 2 * filters, 2 * filters)
        link, link_bias = stacked("link", every, 2 * filters, 2 * filters)
        return Weights(
            np.arange(256, dtype=np.float32) / np.float32(255) * 2 - 1,
            first_above[0].reshape(-1, 2 * filters),
            first_left[0].reshape(-1, 2 * filters),
            first_above[1],
            above,
            above_bias,
            left,
            link,
            link_bias + np.concatenate([first_left[1][None], left_bias]),
            *stacked("residual", blocks, filters, filters),
            # The first rows are those of the features; those of channels to come are zero.
            *stacked("hidden", range(channels), filters + channels, 2 * filters),
            *stacked("logits", range(channels), 2 * filters, 256),
        )


def _compile(model: Any, learning_rate: float, steps: int) -> None:
    keras = require("keras", extra="tensorflow")
    schedule = keras.optimizers.schedules.CosineDecay(float(learning_rate), steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)  # or the first step would be traced twice


def _weights_of(model: Any) -> dict[str, list[Array]]:
    """Kernel and bias of each convolution of a Keras model, by name."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def _shapes(weights: dict[str, list[Array]]) -> dict[str, list[Shape]]:
    return {name: [array.shape for array in arrays] for name, arrays in weights.items()}


def _epoch(step: Callable[[Array, Array], Any], model: Any, batches: Iterable[Array]) -> float:
    """Mean loss of the steps, in nats per dimension."""
    model.reset_metrics()
    loss = 0.0
    for levels in batches:
        loss = float(step(to_images(levels), levels))  # the mean of all steps so far
    return loss
