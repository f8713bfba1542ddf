"""A variational autoencoder, and its training."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from .._core.optional import require
from .._core.typing import Array
from .latent_model import FLOAT32, LatentModel, seeded_weights
from .pixel_levels import to_images
from .training import check_training, shuffled, split, train

__all__ = ["VariationalAutoencoder"]

ROUNDING = 1 / (12 * 255**2)  # mean squared error of rounding to 8 bits


class VariationalAutoencoder(LatentModel):
    """An encoder of images and the generator that inverts it, trained together [1]_.

    The encoder tells the mean and the variance of the latents of an image, the generator the mean of the
    image that such latents belong to. Training maximises the evidence lower bound: the likelihood of the
    images, less the Kullback-Leibler divergence of their latents from a standard normal distribution. The
    variance of the pixels is the mean squared error of the batch, the most likely one [2]_, so that nothing
    weighs the two terms against each other by hand.

    Parameters
    ----------
    latent_dim : int, default 8
        Length of a latent vector.
    units : int, default 256
        Width of the two hidden layers of the encoder and of the generator.
    seed : int, default 0
        Seed of the initial weights, of the choice of the validation images and of all that is drawn in
        training.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule.

    See Also
    --------
    WassersteinGAN : The generator of the paper on Defense-GAN.

    Notes
    -----
    Images are `(N, H, W, C)` of any size and number of channels, as `uint8` or as floats in [0, 1]; those
    that come back are `float32` in [0, 1]. `encoder` gives the mean of the latents. Any backend of Keras
    trains and runs the model.

    Training on few images can end where the latents tell nothing and every image made is the mean of the data
    (posterior collapse); ``generator(encoder(x))`` beside `x` shows it.

    References
    ----------
    .. [1] Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
    .. [2] Rybkin, Daniilidis, Levine. Simple and Effective VAE Training with Calibrated Decoders. ICML 2021.
       arXiv:2006.13202

    Examples
    --------
    >>> import pytest
    >>> keras = pytest.importorskip("keras")
    >>> import numpy as np
    >>> x = np.zeros((8, 4, 4, 1), dtype=np.uint8)
    >>> x[::2, :, 2:] = 255  # every other image: the right half white
    >>> vae = VariationalAutoencoder(latent_dim=2, units=16).fit(x, epochs=200)
    >>> vae.generator(vae.encoder(x[:1] / 255)).numpy()[0, 0, :, 0].round()
    array([0., 0., 1., 1.], dtype=float32)
    """

    def fit(
        self,
        x: Any,
        *,
        epochs: int = 60,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        validation: float = 0.1,
        patience: int = 20,
        verbose: bool = False,
    ) -> Self:
        """Train on images, from new weights.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images, `uint8` or floats in [0, 1].
        epochs : int, default 60
            Passes over the data; in each, the images that fill no step are left out.
        batch_size : int, default 64
            Images in a step. With fewer images all of them make one step.
        learning_rate : float, default 2e-3
            Of Adam in the first step; it falls to zero along a cosine.
        validation : float, default 0.1
            Share of the images that are not trained on, by which the best weights are chosen. If this is less
            than one image, the training loss chooses.
        patience : int, default 20
            Epochs without a new best after which training stops.
        verbose : bool, default False
            Whether to show a progress bar, with the loss: the negative evidence lower bound, in nats for an
            image, but for a constant.

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
        images = to_images(
            check_training(
                x,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                validation=validation,
                patience=patience,
                verbose=verbose,
            )
        )
        rng = np.random.default_rng(self.seed)
        learned, test = split(images, validation, rng)
        size = min(int(batch_size), len(learned))
        networks = self._new_networks(images.shape[1:])
        model = self._trainer(*networks, float(learning_rate), int(epochs) * (len(learned) // size))
        test_noise = rng.standard_normal((len(test), self.latent_dim), np.float32)

        def mean_loss(step: Any, rows: Iterable[Any], images: Array, noise: Array) -> float:
            model.reset_metrics()
            loss = 0.0
            for batch in rows:
                inputs = [images[batch], noise[batch]]
                targets = {"images": inputs[0], "latents": inputs[1]}  # latents have no target: any will do
                loss = float(step(inputs, targets, return_dict=True)["loss"])  # the mean of all steps so far
            return loss

        def epoch() -> float:
            noise = rng.standard_normal((len(learned), self.latent_dim), np.float32)
            loss = mean_loss(model.train_on_batch, shuffled(len(learned), size, rng), learned, noise)
            if len(test) and np.isfinite(loss):
                rows = (slice(i, i + size) for i in range(0, len(test), size))
                loss = mean_loss(model.test_on_batch, rows, test, test_noise)
            return loss

        weights = train(
            epoch,
            lambda: [network.get_weights() for network in networks],
            name="VariationalAutoencoder",
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            shown=lambda loss: {"negative ELBO": f"{loss:.2f}"},
            verbose=verbose,
        )
        for network, arrays in zip(networks, weights, strict=True):
            network.set_weights(arrays)
        self._networks, self.input_shape = networks, images.shape[1:]
        return self

    def _trainer(self, encoder: Any, generator: Any, learning_rate: float, steps: int) -> Any:
        """A Keras model of images and noise, whose loss is the negative evidence lower bound."""
        keras = require("keras", extra="tensorflow")
        weights = seeded_weights([self.seed, 1])
        log_variance = keras.layers.Dense(self.latent_dim, kernel_initializer=next(weights), **FLOAT32)(
            encoder.get_layer("hidden_2").output
        )
        noise = keras.Input((self.latent_dim,), **FLOAT32)
        made = generator(encoder.output + keras.ops.exp(log_variance / 2) * noise)
        posterior = keras.layers.Concatenate(**FLOAT32)([encoder.output, log_variance])
        model = keras.Model([encoder.input, noise], {"images": made, "latents": posterior})
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule), loss={"images": distortion, "latents": divergence}
        )
        model.optimizer.build(model.trainable_variables)  # or the first step would be traced twice
        return model


def distortion(images: Any, made: Any) -> Any:
    """Negative logarithm of the likelihood of an image, for the best variance; a constant is left out."""
    from keras import ops

    error = ops.mean(ops.square(images - made))
    return np.prod(images.shape[1:]) / 2 * ops.log(error + ROUNDING)


def divergence(_: Array, posterior: Any) -> Any:
    """Kullback-Leibler divergence of each posterior from the standard normal distribution, in nats."""
    from keras import ops

    mean, log_variance = ops.split(posterior, 2, axis=-1)
    return ops.sum(ops.exp(log_variance) + ops.square(mean) - 1 - log_variance, axis=-1) / 2
