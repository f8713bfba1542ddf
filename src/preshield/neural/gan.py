"""A generative adversarial network, and its training."""

from typing import Any, Self

import numpy as np

from .._core.checks import check_integer
from .._core.optional import require
from .._core.typing import Shape
from .latent_model import CHANNELS_LAST, FLOAT32, LatentModel, seeded_weights
from .pixel_levels import to_images
from .training import check_training, shuffled, train

__all__ = ["WassersteinGAN"]

PENALTY = 10.0  # weight of the gradient penalty, as in the paper


class WassersteinGAN(LatentModel):
    """A generator of images, trained against a critic, and an encoder [1]_.

    The critic learns a function whose mean over real images exceeds that over generated ones as far as its
    gradient, of norm 1, allows: the Wasserstein distance of the two distributions. The generator learns to
    reduce it. In each step the encoder is then trained to find the latents of generated images, and those
    from which the generator makes the real ones; the generator is not trained by this.

    Parameters
    ----------
    latent_dim : int, default 8
        Length of a latent vector.
    units : int, default 256
        Width of the two hidden layers of the generator, the encoder and the critic.
    seed : int, default 0
        Seed of the initial weights and of all that is drawn in training.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule.

    See Also
    --------
    VariationalAutoencoder : Trains faster, and restored at least as much in our measurements.

    Notes
    -----
    Images are `(N, H, W, C)` of any size and number of channels, as `uint8` or as floats in [0, 1]; those
    that come back are `float32` in [0, 1]. Latents are standard normal. Training needs TensorFlow as the
    backend of Keras, for the penalty has second derivatives; what was saved runs on any.

    References
    ----------
    .. [1] Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. Improved Training of Wasserstein GANs.
       NeurIPS 2017. arXiv:1704.00028

    Examples
    --------
    >>> import pytest
    >>> tensorflow = pytest.importorskip("tensorflow")
    >>> import numpy as np
    >>> x = np.zeros((8, 4, 4, 1), dtype=np.uint8)
    >>> x[::2, :, 2:] = 255  # every other image: the right half white
    >>> gan = WassersteinGAN(latent_dim=2, units=16).fit(x, epochs=2)
    >>> gan.sample(5).shape
    (5, 4, 4, 1)
    """

    def fit(
        self,
        x: Any,
        *,
        epochs: int = 150,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        critic_steps: int = 5,
        verbose: bool = False,
    ) -> Self:
        """Train on images, from new weights.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images, `uint8` or floats in [0, 1].
        epochs : int, default 150
            Passes of the generator over as many images as there are; in each, the images that fill no step
            are left out. The critic sees the data `critic_steps` times in an epoch.
        batch_size : int, default 64
            Images in a step. With fewer images all of them make one step.
        learning_rate : float, default 2e-3
            Of Adam in the first step; it falls to zero along a cosine.
        critic_steps : int, default 5
            Steps of the critic before each of the generator.
        verbose : bool, default False
            Whether to show a progress bar, with the critic's estimate of the Wasserstein distance.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the images or a parameter break a rule; before any work starts.
        FloatingPointError
            If a loss is no longer finite; the message names the epoch, and the model stays as it was.
        ImportError
            If TensorFlow is missing.
        RuntimeError
            If Keras runs on another backend.
        """
        critic_steps = check_integer("critic_steps", critic_steps, 1)
        images = to_images(
            check_training(
                x, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, verbose=verbose
            )
        )
        rng = np.random.default_rng(self.seed)
        size = min(int(batch_size), len(images))
        networks = self._new_networks(images.shape[1:])
        critic_step, generator_step = self._steps(
            *networks, float(learning_rate), int(epochs) * (len(images) // size), critic_steps
        )

        def latents() -> Any:
            return rng.standard_normal((size, self.latent_dim), np.float32)

        def epoch() -> float:
            losses = []
            for batches in zip(*(shuffled(len(images), size, rng) for _ in range(critic_steps)), strict=True):
                for rows in batches:
                    shares = rng.random((size, 1, 1, 1), np.float32)
                    distance = critic_step(images[rows], latents(), shares)
                error = generator_step(images[rows], latents())
                losses.append(float(distance + 0 * error))  # not finite if either is not
            return float(np.mean(losses))

        self._networks = train(
            epoch,
            lambda: networks,
            name="WassersteinGAN",
            epochs=epochs,
            patience=None,
            learning_rate=learning_rate,
            shown=lambda loss: {"Wasserstein distance": f"{loss:.3f}"},
            verbose=verbose,
        )
        self.input_shape = images.shape[1:]
        return self

    def _steps(
        self, encoder: Any, generator: Any, learning_rate: float, steps: int, critic_steps: int
    ) -> tuple[Any, ...]:
        """One step of the critic; one of the generator, and of the encoder after it."""
        keras = require("keras", extra="tensorflow")
        if keras.config.backend() != "tensorflow":
            raise RuntimeError(
                f"WassersteinGAN is trained by TensorFlow, but Keras runs on {keras.config.backend()}: set "
                "the environment variable KERAS_BACKEND=tensorflow before Keras is imported, or train a "
                "VariationalAutoencoder."
            )
        tf = require("tensorflow", extra="tensorflow")
        critic = self._critic(generator.output_shape[1:])

        def adam(model: Any, updates: int) -> Any:
            schedule = keras.optimizers.schedules.CosineDecay(learning_rate, updates)
            optimiser = keras.optimizers.Adam(schedule, beta_1=0.5, beta_2=0.9)
            optimiser.build(model.trainable_variables)
            return optimiser

        of_critic = adam(critic, steps * critic_steps)
        of_generator, of_encoder = adam(generator, steps), adam(encoder, steps)

        def descend(optimiser: Any, model: Any, tape: Any, loss: Any) -> None:
            variables = model.trainable_variables
            optimiser.apply(tape.gradient(loss, variables), variables)

        def critic_step(real: Any, latents: Any, shares: Any) -> Any:
            made = generator(latents)
            with tf.GradientTape() as tape:
                distance = tf.reduce_mean(critic(real)) - tf.reduce_mean(critic(made))
                loss = PENALTY * gradient_penalty(critic, made + shares * (real - made)) - distance
            descend(of_critic, critic, tape, loss)
            return distance

        def generator_step(real: Any, latents: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(critic(generator(latents)))
            descend(of_generator, generator, tape, loss)
            made = generator(latents)
            with tf.GradientTape() as tape:
                of_latents = tf.reduce_mean(tf.square(encoder(made) - latents))
                of_images = tf.reduce_mean(tf.square(generator(encoder(real)) - real))
                error = self.latent_dim * of_latents + real[0].shape.num_elements() * of_images
            descend(of_encoder, encoder, tape, error)
            return error

        return tuple(tf.function(step, autograph=False) for step in (critic_step, generator_step))

    def _critic(self, shape: Shape) -> Any:
        """A Keras model that gives images a score."""
        keras = require("keras", extra="tensorflow")
        weights = seeded_weights([self.seed, 1])
        critic = keras.Sequential([keras.Input(shape, **FLOAT32), keras.layers.Flatten(**CHANNELS_LAST)])
        for width, activation in ((self.units, "leaky_relu"), (self.units, "leaky_relu"), (1, None)):
            critic.add(keras.layers.Dense(width, activation, kernel_initializer=next(weights), **FLOAT32))
        return critic


def gradient_penalty(critic: Any, images: Any) -> Any:
    """Mean over images of ``(|gradient| - 1)**2``, of the score that a critic gives to each."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = critic(images)
    squares = tf.reduce_sum(tf.square(tape.gradient(scores, images)), axis=(1, 2, 3))
    return tf.reduce_mean(tf.square(tf.sqrt(squares + 1e-12) - 1))  # the root has no derivative at 0
