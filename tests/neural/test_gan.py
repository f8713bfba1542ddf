"""The generative adversarial network: its penalty, and that training moves the generator to the data."""

import numpy as np
import pytest

from preshield import WassersteinGAN
from preshield.neural import gan

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Keras runs on another backend"
)


def images(n=64):
    """Images of 3 x 2 pixels with a left half of any brightness and a dark right half."""
    x = np.zeros((n, 3, 2, 1), np.float32)
    x[:, :, :1] = np.linspace(0.2, 0.8, n)[:, None, None, None]
    return x


@pytest.fixture(scope="module")
def trained():
    return WassersteinGAN(1, 16).fit(images(), epochs=250, batch_size=32, learning_rate=3e-3)


# The penalty


def test_the_penalty_of_a_linear_critic():
    weights = tf.constant([[3.0], [0.0], [4.0], [0.0]])  # of norm 5

    def critic(x):
        return tf.reshape(x, (len(x), -1)) @ weights

    x = tf.random.stateless_normal((6, 2, 2, 1), seed=(0, 0))
    np.testing.assert_allclose(gan.gradient_penalty(critic, x), (5 - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(gan.gradient_penalty(lambda x: critic(x) / 5, x), 0, atol=1e-10)


def test_the_penalty_is_a_mean_over_images_and_has_a_derivative_where_the_gradient_is_zero():
    x = tf.constant([[0.0, 0.0], [1.0, 2.0]])[..., None, None]  # gradients of sum(x**2) / 2: norms 0, sqrt(5)
    scale = tf.Variable(1.0)

    def critic(x):
        return scale * tf.reduce_sum(x**2, axis=(1, 2, 3))[:, None] / 2

    with tf.GradientTape() as tape:
        penalty = gan.gradient_penalty(critic, x)
    root = np.sqrt(5)
    np.testing.assert_allclose(penalty, (1 + (root - 1) ** 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(penalty, scale), (root - 1) * root, rtol=1e-5)


# The losses


def test_the_error_of_the_encoder_is_that_of_latents_and_images_of_one_sample():
    made = WassersteinGAN(3, 4)
    encoder, generator = made._new_networks((3, 2, 1))
    _, step = made._steps(encoder, generator, 0.0, 1, 1)  # at a rate of 0 nothing moves
    latents = np.random.default_rng(0).standard_normal((7, 3), np.float32)
    x = np.random.default_rng(1).random((7, 3, 2, 1), np.float32)
    of_latents = encoder(generator(latents)).numpy() - latents
    of_images = generator(encoder(x)).numpy() - x
    expected = [(a**2).sum() + (b**2).sum() for a, b in zip(of_latents, of_images, strict=True)]
    np.testing.assert_allclose(step(x, latents), np.mean(expected), rtol=1e-5)


def test_the_slope_of_a_critic_is_where_distance_and_penalty_balance(monkeypatch):
    """A linear critic of norm n gains n d for a shift by d and pays 10 (n - 1)**2: n = 1 + d / 20."""
    critic = keras.Sequential([keras.Input((1, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    monkeypatch.setattr(WassersteinGAN, "_critic", lambda self, shape: critic)
    made = WassersteinGAN(1, 4)
    encoder, generator = made._new_networks((1, 2, 1))
    step, _ = made._steps(encoder, generator, 0.1, 1, 300)
    latents = np.zeros((4, 1), np.float32)
    start = generator(latents).numpy()
    shift = np.float32([3, 4]).reshape(1, 2, 1)
    for _ in range(300):
        distance = step(start + shift, latents, np.full((4, 1, 1, 1), 0.5, np.float32))
    np.testing.assert_allclose(critic.get_weights()[0].ravel(), 1.25 * np.array([0.6, 0.8]), rtol=1e-3)
    np.testing.assert_allclose(distance, 1.25 * 5, rtol=1e-3)
    np.testing.assert_array_equal(generator(latents), start)


# Training


def test_the_generator_makes_images_like_those_of_the_data(trained):
    drawn = trained.sample(500)
    left, right = drawn[:, :, 0], drawn[:, :, 1]
    assert right.max() < 0.1
    assert np.ptp(left, axis=1).max() < 0.15  # each left half has one brightness
    # The quantiles of a uniform distribution from 0.2 to 0.8.
    np.testing.assert_allclose(np.quantile(left.mean(axis=1), [0.1, 0.5, 0.9]), [0.26, 0.5, 0.74], atol=0.1)


def test_the_encoder_inverts_the_generator(trained):
    z = np.linspace(-1.5, 1.5, 31, dtype=np.float32)[:, None]
    np.testing.assert_allclose(trained.encoder(trained.generator(z)), z, atol=0.3)
    x = images(9)
    np.testing.assert_allclose(trained.generator(trained.encoder(x)), x, atol=0.1)


def test_training_depends_on_the_seed_alone_and_shows_progress_if_asked(capsys):
    found = []
    for verbose in (False, True):
        made = WassersteinGAN(2, 4).fit(images(3), epochs=2, verbose=verbose, critic_steps=2)
        found.append([*made.generator.get_weights(), *made.encoder.get_weights()])
        assert ("Wasserstein distance" in capsys.readouterr().err) == verbose
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("broken", ["critic", "encoder"])
def test_a_loss_that_is_not_finite_stops_training_and_changes_nothing(trained, broken, monkeypatch):
    found = {"critic": np.float32(1), "encoder": np.float32(1), broken: np.float32(np.nan)}
    steps = (lambda *batches: found["critic"], lambda *batches: found["encoder"])
    monkeypatch.setattr(WassersteinGAN, "_steps", lambda self, *args: steps)
    before = trained.sample(3)
    with pytest.raises(FloatingPointError, match=r"The loss is nan in epoch 1: .*lower `learning_rate`"):
        trained.fit(images(4), epochs=2)
    np.testing.assert_array_equal(trained.sample(3), before)


# What is refused


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(
        RuntimeError, match=r"Keras runs on torch: set .* KERAS_BACKEND=tensorflow .*VariationalAutoencoder"
    ):
        WassersteinGAN().fit(images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"learning_rate": -1}, "`learning_rate` must be at least 0, got -1"),
        ({"critic_steps": 0}, "`critic_steps` must be at least 1, got 0"),
    ],
)
def test_options_of_training_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        WassersteinGAN().fit(images(), **options)
