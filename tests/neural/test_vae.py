"""The variational autoencoder: its loss, and that training inverts the generator."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from preshield import VariationalAutoencoder
from preshield.neural import vae

keras = pytest.importorskip("keras")


def images(n=2):
    """Images of 3 x 5 pixels with two channels; every other one is dark where its neighbour is bright."""
    x = np.zeros((n, 3, 5, 2), np.float32)
    x[::2, :2], x[1::2, 2:] = 0.8, 0.6
    return x


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.fixture(scope="module")
def trained():
    model = VariationalAutoencoder(2, 16)
    return model.fit(images(16), epochs=300, learning_rate=0.01, validation=0, patience=300)


# The loss


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, log_variance = np.array([0.3, -1.2]), np.array([0.7, -2.0])
    found = numpy(vae.divergence(None, np.concatenate([mean, log_variance])[None]))
    z = np.linspace(-12, 12, 20001)
    expected = 0.0
    for m, v in zip(mean, log_variance, strict=True):
        q = stats.norm(m, np.exp(v / 2))
        expected += np.trapezoid(q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), z)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    assert numpy(vae.divergence(None, np.zeros((1, 6)))) == 0


def test_the_distortion_is_the_likelihood_for_the_most_likely_variance():
    rng = np.random.default_rng(0)
    images, made = rng.random((2, 4, 3, 3, 2))

    def negative_log_likelihood(images, made):
        """Of one image on average, with the variance that makes the batch most likely."""
        deviation = np.sqrt(np.mean((images - made) ** 2))
        return -stats.norm(made, deviation).logpdf(images).sum() / len(images)

    pairs = [(images, made), (images, (images + made) / 2)]
    constant = [negative_log_likelihood(*pair) - numpy(vae.distortion(*pair)) for pair in pairs]
    np.testing.assert_allclose(constant, 18 / 2 * (np.log(2 * np.pi) + 1), rtol=1e-3)
    assert np.isfinite(numpy(vae.distortion(images, images)))


# Training


def test_the_generator_makes_the_images_and_the_encoder_inverts_it(trained):
    latents = numpy(trained.encoder(images()))
    assert np.abs(latents[0] - latents[1]).max() > 1
    made = numpy(trained.generator(latents))
    np.testing.assert_allclose(made, images(), atol=0.02)
    np.testing.assert_allclose(numpy(trained.encoder(made)), latents, atol=0.1)


def test_training_depends_on_the_seed_alone_and_shows_progress_if_asked(capsys):
    found = []
    for verbose in (False, True):
        made = VariationalAutoencoder(2, 4).fit(images(6), epochs=2, validation=0.2, verbose=verbose)
        found.append([*made.generator.get_weights(), *made.encoder.get_weights()])
        assert ("ELBO" in capsys.readouterr().err) == verbose
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", ["train_on_batch", "test_on_batch"])
def test_a_loss_that_is_not_finite_stops_training_and_changes_nothing(trained, where, monkeypatch):
    steps = dict.fromkeys(("train_on_batch", "test_on_batch"), lambda *batch, return_dict: {"loss": 1.0})
    steps[where] = lambda *batch, return_dict: {"loss": np.nan}
    trainer = SimpleNamespace(reset_metrics=lambda: None, **steps)
    monkeypatch.setattr(VariationalAutoencoder, "_trainer", lambda self, *args: trainer)
    before = trained.sample(3)
    with pytest.raises(FloatingPointError, match=r"The loss is nan in epoch 1: .*lower `learning_rate`"):
        trained.fit(images(4), validation=0.5, epochs=9)
    np.testing.assert_array_equal(trained.sample(3), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
        ({"learning_rate": -1}, "`learning_rate` must be at least 0, got -1"),
        ({"validation": 1}, "`validation` must be between 0 and 0.9, got 1"),
    ],
)
def test_options_of_training_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        VariationalAutoencoder().fit(images(), **options)


def test_latents_are_drawn_with_the_standard_deviation_of_the_posterior():
    vae = VariationalAutoencoder(latent_dim=3, units=8)
    encoder, generator = vae._new_networks((4, 4, 1))
    trainer = vae._trainer(encoder, generator, 1e-3, 1)
    rng = np.random.default_rng(0)
    x, noise = rng.random((5, 4, 4, 1), np.float32), rng.standard_normal((5, 3), np.float32)
    found = trainer.predict_on_batch([x, noise])
    mean, log_variance = np.split(found["latents"], 2, axis=1)
    drawn = mean + np.sqrt(np.exp(log_variance)) * noise
    assert np.abs(log_variance).max() > 0.1  # so that neither its sign nor its scale can be lost
    np.testing.assert_allclose(found["images"], generator.predict_on_batch(drawn), atol=1e-6)
