"""PixelCNN: what it depends on, that its fast pass is the network, its training, its files."""

import contextlib
import itertools
import os
import pickle

import numba
import numpy as np
import pytest

from preshield import PixelCNN
from preshield._core.kernels.pixel_cnn import _tanh
from preshield.neural import pixel_cnn
from preshield.neural.pixel_levels import to_images

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Keras runs on another backend"
)

files = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras


@contextlib.contextmanager
def keras_setting(value):
    kind = "image_data_format" if value == "channels_first" else "dtype_policy"
    before = getattr(keras.config, kind)()
    getattr(keras.config, f"set_{kind}")(value)
    yield
    getattr(keras.config, f"set_{kind}")(before)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def random_weights(cnn, shape):
    """A model that was never trained, with weights large enough for its logits to differ."""
    rng = np.random.default_rng(1)
    cnn.input_shape, cnn._weights = shape, pixel_cnn._weights_of(cnn._network(shape))
    for arrays in cnn._weights.values():
        arrays[:] = [0.5 * rng.standard_normal(array.shape).astype(np.float32) for array in arrays]
    return cnn


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    return np.rint(datasets.load_digits().images / 16 * 255).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def of_digits(digits):
    return PixelCNN(8, 2).fit(digits[:600], epochs=5)


@pytest.fixture(scope="module")
def coloured():
    return random_weights(PixelCNN(8, 3, 3), (4, 5, 3))


@pytest.fixture(scope="module")
def network(coloured):
    return coloured.model


def logits(model, levels):
    return model.predict_on_batch(levels / np.float32(255))


def log_probabilities(scores):
    scores = scores.astype(float) - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


# What an output depends on


def test_a_logit_depends_on_all_that_comes_before_it_and_on_nothing_else(network):
    # A reach of 1 and three blocks of 3 x 3 cover these images, the places of the blind spot included.
    size = 4 * 5 * 3
    depends = np.zeros((size, size), dtype=bool)  # of the change, of the logit
    for image in noise(6, size):  # a unit may be dead for one image
        changed = np.repeat(image[None], size + 1, axis=0)
        changed[np.arange(size), np.arange(size)] ^= 128
        found = logits(network, changed.reshape(-1, 4, 5, 3)).reshape(size + 1, size, 256)
        depends |= (found[:-1] != found[-1]).any(axis=-1)
    np.testing.assert_array_equal(depends, np.triu(np.ones((size, size), dtype=bool), k=1))


# The pass that keeps what it has computed


@pytest.mark.parametrize("kind", ["digits", "colours", "no blocks"])
def test_log_likelihood_is_that_of_the_network(kind, of_digits, coloured, digits):
    cnn, x = {
        "digits": lambda: (of_digits, digits[600:620]),
        "colours": lambda: (coloured, noise(11, 4, 5, 3)),
        "no blocks": lambda: (random_weights(PixelCNN(3, 0, 7), (2, 3, 2)), noise(3, 2, 3, 2)),
    }[kind]()
    logs = log_probabilities(logits(cnn.model, x))
    expected = np.take_along_axis(logs, x[..., None].astype(int), -1)[..., 0].mean(axis=(1, 2, 3)) / np.log(2)
    found = cnn.log_likelihood(x)
    assert (found < 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def naive(model, x, eps, sequential):
    """The most probable level within reach: the whole network again for each pixel and channel."""
    decoded = x.copy()
    everything = logits(model, x)
    for i, j, c in itertools.product(*map(range, x.shape[1:])):
        scores = (logits(model, decoded) if sequential else everything)[:, i, j, c]
        for n, level in enumerate(x[:, i, j, c].astype(int)):
            low, high = max(level - eps, 0), min(level + eps, 255)
            decoded[n, i, j, c] = low + scores[n, low : high + 1].argmax()
    return decoded / np.float32(255)


def naive_samples(model, draws):
    """Where the draws fall in the cumulative distribution: the whole network again for each value."""
    drawn = np.zeros(draws.shape, dtype=np.uint8)
    for i, j, c in itertools.product(*map(range, draws.shape[1:])):
        chances = np.exp(log_probabilities(logits(model, drawn)[:, i, j, c]))
        drawn[:, i, j, c] = (chances.cumsum(axis=1) <= draws[:, i, j, c, None]).sum(axis=1)
    return drawn / np.float32(255)


@pytest.mark.parametrize("eps", [0, 16, 255])
@pytest.mark.parametrize("sequential", [True, False])
def test_decoding_equals_the_naive_loop(coloured, network, eps, sequential):
    x = noise(10, 4, 5, 3, seed=eps)
    found = coloured.decode(x, eps, sequential=sequential)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, naive(network, x, eps, sequential))
    assert ((found != x / np.float32(255)).mean() > 0.8) == (eps > 0)


def test_decoding_digits_equals_the_naive_loop(of_digits, digits):
    rng = np.random.default_rng(0)
    x = np.clip(digits[600:616] + rng.integers(-50, 51, (16, 8, 8, 1)), 0, 255).astype(np.uint8)
    found = of_digits.decode(x, 50)
    np.testing.assert_array_equal(found, naive(of_digits.model, x, 50, True))
    assert np.abs(found * 255 - digits[600:616]).mean() < np.abs(x.astype(float) - digits[600:616]).mean()


def test_results_depend_neither_on_the_batch_nor_on_the_threads(of_digits, digits, monkeypatch):
    x = digits[:21]
    decoded, likelihood, drawn = of_digits.decode(x, 40), of_digits.log_likelihood(x), of_digits.sample(21)
    monkeypatch.setitem(os.environ, "PRESHIELD_NUM_THREADS", "1")
    np.testing.assert_array_equal(of_digits.decode(x[13:14], 40), decoded[13:14])
    np.testing.assert_array_equal(of_digits.log_likelihood(x[:5]), likelihood[:5])
    np.testing.assert_array_equal(of_digits.sample(3), drawn[:3])


def test_images_as_bytes_or_floats_in_any_layout(of_digits, digits):
    x = digits[:3]
    expected = of_digits.log_likelihood(x)
    for same in (x / 255, (x / 255).astype(np.float16), x[::-1][::-1], np.asfortranarray(x), x.tolist()):
        array = np.asarray(same, dtype=np.uint8) if isinstance(same, list) else same
        np.testing.assert_array_equal(of_digits.log_likelihood(array), expected)
    assert of_digits.log_likelihood(x[:0]).shape == (0,)
    assert of_digits.decode(x[:0], 3).shape == of_digits.sample(0).shape == (0, 8, 8, 1)


def test_samples_equal_the_naive_loop(coloured, network):
    draws = np.random.default_rng(7).random((6, 4, 5, 3))
    found = coloured.sample(6, seed=7)
    np.testing.assert_array_equal(found, naive_samples(network, draws))
    assert len(np.unique(found)) > 50
    assert (coloured.sample(6, seed=8) != found).mean() > 0.5


def test_the_hyperbolic_tangent_is_within_its_bound():
    """Beside double precision: every 1009th finite number of single precision, of either sign."""

    @numba.njit
    def each(x):
        out = np.empty_like(x)
        for i in range(len(x)):
            out[i] = _tanh(x[i])
        return out

    positive = np.arange(0, np.float32(np.inf).view(np.uint32), 1009, dtype=np.uint32).view(np.float32)
    near_one = np.linspace(0.01, 12, 1 << 18, dtype=np.float32)
    x = np.concatenate([positive, near_one, np.float32([np.inf])])
    found, expected = each(x), np.tanh(x.astype(np.float64))
    assert np.abs(found - expected).max() < 2e-7
    np.testing.assert_array_equal(each(-x), -found)
    # Small numbers keep their digits, but for about twelve roundings; below 1e-37 an eighth is subnormal.
    small = (x < 0.1) & (x > 1e-37)
    np.testing.assert_allclose(found[small], expected[small], rtol=12 * 2.0**-24)
    assert each(np.zeros(1, np.float32)) == 0


# Training


def test_training_learns_digits(of_digits, digits):
    bits = -of_digits.log_likelihood(digits[600:])
    assert bits.mean() < 3.4  # 8 for noise; 17 levels that are equally likely would need 4.1
    inverted = -of_digits.log_likelihood(255 - digits[600:])
    assert bits.mean() < inverted.mean() - 1


def test_training_depends_on_the_seed_alone_and_shows_progress_if_asked(digits, capsys):
    x = digits[:40]
    found = []
    for seed, verbose in ((0, False), (0, True), (1, False)):
        cnn = PixelCNN(3, 0, seed=seed).fit(x, epochs=2, verbose=verbose)
        found.append(cnn.log_likelihood(x))
        assert ("bits per dimension" in capsys.readouterr().err) == verbose
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 1e-2


def test_fewer_images_than_a_batch_make_one_step(digits):
    cnn = PixelCNN(3, 0, 3).fit(digits[:3], epochs=30, batch_size=32, learning_rate=0.05, validation=0.4)
    assert cnn.log_likelihood(digits[:3]).mean() > -7


def with_losses(monkeypatch, losses):
    """Let the epochs seem to end with these losses; collect the weights after each."""
    real, seen = pixel_cnn._epoch, []

    def epoch(step, model, batches):
        real(step, model, batches)
        if step == model.test_on_batch:
            seen.append(pixel_cnn._weights_of(model))
            return losses[len(seen) - 1]
        return 1.0

    monkeypatch.setattr(pixel_cnn, "_epoch", epoch)
    return seen


def test_training_stops_early_and_keeps_the_best_weights(monkeypatch, digits):
    seen = with_losses(monkeypatch, [3, 2, 2.5, 2, 1.9, 2, 2, 2, 1])
    cnn = PixelCNN(2, 1, 3).fit(digits[:40], epochs=9, patience=3)
    assert len(seen) == 8
    for name, arrays in seen[4].items():
        for kept, best, later in zip(cnn._weights[name], arrays, seen[5][name], strict=True):
            np.testing.assert_array_equal(kept, best)
            assert (kept != later).any()


def test_a_loss_that_is_not_finite_stops_training_and_names_the_epoch(digits):
    cnn = PixelCNN(2, 0, 3)
    with pytest.raises(FloatingPointError, match=r"The loss is nan in epoch \d.*lower `learning_rate`"):
        cnn.fit(digits[:40], learning_rate=1e38)
    assert not cnn.is_fitted


# Files and copies


@files
def test_a_file_holds_the_model(tmp_path, coloured):
    x = noise(3, 4, 5, 3)
    coloured.save(tmp_path / "model.keras")
    loaded = PixelCNN.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.decode(x, 100), coloured.decode(x, 100))
    assert repr(loaded) == "PixelCNN(filters=8, blocks=3, kernel_size=3, seed=0)"
    twin = pickle.loads(pickle.dumps(coloured))
    np.testing.assert_array_equal(twin.log_likelihood(x), coloured.log_likelihood(x))


@files
def test_other_files_are_refused(tmp_path, coloured):
    with pytest.raises(ValueError, match=r"`path` must end in '.keras', got 'model.h5'"):
        coloured.save("model.h5")
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        PixelCNN.load(tmp_path / "missing.keras")
    path = tmp_path / "model.keras"
    coloured.save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cannot load .*: it is truncated"):
        PixelCNN.load(path)
    for name in ("dense", "above_0"):
        layers = [keras.Input((4, 5, 3)), keras.layers.Conv2D(8, (1, 3), name=name)]
        keras.Sequential(layers).save(path)
        with pytest.raises(ValueError, match=r"cannot load .*: (it does|its layers are) not .* PixelCNN"):
            PixelCNN.load(path)


def test_any_number_of_channels():
    assert random_weights(PixelCNN(2, 0, 3), (3, 8, 8)).log_likelihood(noise(2, 3, 8, 8)).shape == (2,)


# Settings of Keras


@files
@pytest.mark.parametrize("setting", ["mixed_float16", "float64", "channels_first"])
def test_settings_of_keras_make_no_difference(tmp_path, coloured, digits, setting):
    images = noise(3, 4, 5, 3)
    coloured.save(tmp_path / "model.keras")
    with keras_setting(setting):
        loaded = PixelCNN.load(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.decode(images, 100), coloured.decode(images, 100))
        found = loaded.model.predict_on_batch(to_images(images))
        small = PixelCNN(2, 1, 3).fit(digits[:8], epochs=1)
    np.testing.assert_allclose(found, coloured.model.predict_on_batch(to_images(images)), atol=1e-5)
    assert found.dtype == np.float32
    assert {array.dtype for arrays in small._weights.values() for array in arrays} == {np.dtype(np.float32)}


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"filters": 0}, ValueError, "`filters` must be at least 1, got 0"),
        ({"blocks": -1}, ValueError, "`blocks` must be at least 0, got -1"),
        ({"kernel_size": 4}, ValueError, "`kernel_size` must be odd, got 4"),
        ({"kernel_size": 1}, ValueError, "`kernel_size` must be at least 3, got 1"),
        ({"seed": 0.5}, TypeError, "`seed` must be an integer, got 0.5"),
    ],
)
def test_parameters_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        PixelCNN(**options)


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
        PixelCNN().fit(noise(2, 4, 4, 1), **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 4, 4, 1), np.uint8), r"`x` must hold at least one image to train on, got shape \(0, 4"),
        (np.zeros((2, 4, 4)), "`x` must be a 4-D image batch"),
        (
            np.full((2, 4, 4, 1), 1.5),
            "must hold images as uint8 or as floats in .0, 1., got float64 from 1.5",
        ),
        (
            np.full((2, 4, 4, 1), -0.5),
            "must hold images as uint8 or as floats in .0, 1., got float64 from -0.5",
        ),
        (np.zeros((2, 4, 4, 1), np.int64), "must hold images as uint8 or as floats in .0, 1., got int64"),
        (np.full((2, 4, 4, 1), np.nan), "`x` must be finite, got 32 NaN"),
    ],
)
def test_images_are_checked(x, message):
    with pytest.raises(ValueError, match=message):
        PixelCNN().fit(x)


def test_models_that_are_not_trained_and_images_of_other_sizes(coloured):
    calls = (lambda cnn, x: cnn.decode(x, 1), lambda cnn, x: cnn.log_likelihood(x))
    for call in calls:
        with pytest.raises(ValueError, match=r"not trained yet: call fit\(x\) first"):
            call(PixelCNN(), noise(1, 4, 5, 3))
        with pytest.raises(ValueError, match=r"shape \(4, 5, 3\) that the .* on, got \(5, 4, 3\)"):
            call(coloured, noise(1, 5, 4, 3))
    with pytest.raises(ValueError, match=r"not trained yet: call fit\(x\) first"):
        PixelCNN().sample(1)
    with pytest.raises(ValueError, match=r"not trained yet: call fit\(x\) first"):
        PixelCNN().save("model.keras")
    with pytest.raises(ValueError, match="`eps` must be between 0 and 255, got 256"):
        coloured.decode(noise(1, 4, 5, 3), 256)
    with pytest.raises(ValueError, match="`n` must be at least 0, got -1"):
        coloured.sample(-1)
