import numpy as np
import pytest

from preshield.neural.keras_logits import KerasLogits
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
        outputs.append(KerasLogits(model).logits(x))
    assert (outputs[0].argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs[0], outputs[2], rtol=1e-2)


def test_size():
    assert small_cnn((32, 32, 3), 10).count_params() == 225_034


def linear():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False)])
    model.set_weights([np.array([[1, 0, 0], [0, 2, 0], [0, 0, 4]], dtype=np.float32)])
    return KerasLogits(model)


def test_margin_and_gradient_by_hand():
    x = np.array([[3, 1, 0.5], [1, 1, 1]], dtype=np.float32)  # logits (3, 2, 2) and (1, 2, 4)
    x[0, 2] = 0.25
    margin, gradient = linear().margin_and_gradient(x, np.array([0, 1]))
    np.testing.assert_allclose(margin, [1, -2])
    np.testing.assert_allclose(gradient, [[1, -2, 0], [0, 2, -4]])


def test_batches_are_joined():
    x = np.random.default_rng(0).random((600, 3), dtype=np.float32)
    y = np.arange(600) % 3
    model = linear()
    logits = model.logits(x)
    np.testing.assert_allclose(logits, x * [1, 2, 4], rtol=1e-6)
    margin, gradient = model.margin_and_gradient(x, y)
    assert margin.shape == (600,)
    assert gradient.shape == (600, 3)
    np.testing.assert_array_equal(margin >= 0, logits.argmax(axis=1) == y)


def test_other_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"TensorFlow backend, got 'jax'; set .* KERAS_BACKEND"):
        linear()
