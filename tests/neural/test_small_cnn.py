import numpy as np
import pytest

from preshield.neural.small_cnn import small_cnn, train

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Keras runs on another backend"
)


def task(samples=64):
    """Bright images are class 1."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, samples)
    x = rng.random((samples, 32, 32, 3)) * 0.5 + 0.5 * y[:, None, None, None]
    return x.astype(np.float32), y


def test_small_cnn_learns_and_depends_on_the_seed_alone():
    x, y = task()
    outputs = []
    for seed in (0, 0, 1):
        model, done = small_cnn((32, 32, 3), 2, seed=seed), []
        train(model, x, y, epochs=3, batch_size=16, seed=seed, on_epoch=done.append)
        assert done == pytest.approx([1 / 3, 2 / 3, 1])
        outputs.append(np.asarray(model(x, training=False)))
    assert (outputs[0].argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs[0], outputs[2], rtol=1e-2)


def test_size():
    assert small_cnn((32, 32, 3), 10).count_params() == 225_034
