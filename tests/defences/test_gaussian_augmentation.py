"""Gaussian noise: its moments, its draws, its rules."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from preshield import GaussianAugmentation

VALUES = 1 << 18


def noise_of(defence, shape=(VALUES + 1000,), level=0.0):
    return defence.transform(np.full(shape, level)) - np.float32(level)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 7.5])
def test_moments(sigma):
    noise = noise_of(GaussianAugmentation(sigma, augmentation=False, rng=3)).astype(float)
    n = noise.size
    # five standard errors of the sample mean and of the sample variance of a Gaussian
    assert abs(noise.mean()) < 5 * sigma / np.sqrt(n)
    assert abs(noise.var() - sigma**2) < 5 * sigma**2 * np.sqrt(2 / n)
    # Kolmogorov's statistic times sqrt(n) exceeds 2.23 with a probability of 1e-4
    assert stats.kstest(noise, stats.norm(scale=sigma).cdf).statistic < 2.23 / np.sqrt(n)


def test_values_and_streams_are_independent():
    noise = noise_of(GaussianAugmentation(augmentation=False, rng=0), (2 * VALUES,)).astype(float)
    first, second = noise[:VALUES], noise[VALUES:]
    for a, b in ((first, second), (noise[:-1], noise[1:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


def test_copies_are_drawn_uniformly():
    x = np.arange(10.0)[:, None]
    copies = GaussianAugmentation(0, ratio=2000, rng=0).transform(x)[10:, 0]
    counts = np.bincount(copies.astype(int), minlength=10)
    assert counts.sum() == 20000
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("ratio", "copies"), [(1.0, 5), (0.5, 2), (0.1, 0), (2.5, 12), (1, 5)])
def test_samples_stay_and_copies_follow_with_their_labels(ratio, copies):
    x = np.arange(15.0).reshape(5, 3) * 100
    y = np.arange(5) + 7
    out, labels = GaussianAugmentation(1.0, ratio=ratio, rng=1)(x, y)
    assert out.shape == (5 + copies, 3)
    np.testing.assert_array_equal(out[:5], x.astype(np.float32))
    np.testing.assert_array_equal(labels[:5], y)
    np.testing.assert_array_equal(labels[5:] - 7, np.rint(out[5:, 0] / 300))  # noise is far below 300
    assert (np.abs(out[5:] - x[labels[5:] - 7]) > 0).all()


def test_labels_of_any_shape_follow():
    x, y = GaussianAugmentation(0, rng=0)(np.eye(4), np.eye(4))
    np.testing.assert_array_equal(x, y)
    assert GaussianAugmentation(rng=0)(np.eye(4))[1] is None
    y = np.arange(4)
    noise = GaussianAugmentation(augmentation=False)
    for labels in (y, {"boxes": y}, (y[:2], y)):
        assert noise(np.eye(4), labels)[1] is labels


@pytest.mark.parametrize("n", [2, 9])
def test_labels_that_are_not_one_for_each_sample(n):
    with pytest.raises(
        ValueError, match=rf"`y` must have one label for each of the 4 samples, got shape \({n},\)"
    ):
        GaussianAugmentation(rng=0)(np.zeros((4, 2)), np.arange(n))


@pytest.mark.parametrize("ratio", [np.uint8(2), np.int8(2), np.float16(2), Fraction(2)])
def test_ratios_of_any_type(ratio):
    assert GaussianAugmentation(ratio=ratio).transform(np.zeros((200, 1))).shape == (600, 1)


def test_limits_that_do_not_fit_a_sample():
    defence = GaussianAugmentation(clip_values=(np.zeros(3), np.ones(3)))
    with pytest.raises(
        ValueError, match=r"`clip_values` must .* of shape \(4,\), got shapes \(3,\) and \(3,\)"
    ):
        defence.transform(np.zeros((3, 4)))


def test_seeds():
    x = np.zeros((3, 4))
    a, b = (GaussianAugmentation(augmentation=False, rng=5) for _ in range(2))
    first, second = a.transform(x), a.transform(x)
    assert (first != second).all()
    np.testing.assert_array_equal(b.transform(x), first)
    np.testing.assert_array_equal(b.transform(x), second)
    assert (GaussianAugmentation(augmentation=False, rng=6).transform(x) != first).all()
    c = GaussianAugmentation(augmentation=False, rng=np.random.default_rng(5))
    assert (c.transform(x) != c.transform(x)).all()


def test_numpy_seed_governs_without_rng():
    x = np.zeros((3, 4))
    outs = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        outs.append(GaussianAugmentation(rng=None).transform(x))
    np.testing.assert_array_equal(outs[0], outs[1])
    assert (outs[0][3:] != outs[2][3:]).all()


def test_threads_change_nothing(monkeypatch):
    outs = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        outs.append(noise_of(GaussianAugmentation(augmentation=False, rng=0), (3, VALUES)))
    np.testing.assert_array_equal(*outs)


def test_results_are_clipped():
    x = np.linspace(0, 1, 400).reshape(100, 4)
    free = GaussianAugmentation(0.5, rng=0).transform(x)
    assert free.min() < 0
    np.testing.assert_array_equal(
        GaussianAugmentation(0.5, clip_values=(0, 1), rng=0).transform(x), free.clip(0, 1)
    )
    low, high = np.array([0, 0.1, 0.2, 0.3]), np.array([1, 0.9, 0.8, 0.7])
    out = GaussianAugmentation(0.5, clip_values=(low, high), rng=0).transform(x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, free.clip(low, high).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int64, bool, ">f8"])
@pytest.mark.parametrize("augmentation", [True, False])
def test_the_result_is_at_most_single_precision(dtype, augmentation):
    x = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    out = GaussianAugmentation(0, augmentation, rng=0).transform(x)
    assert out.dtype == (np.float16 if dtype is np.float16 else np.float32)
    np.testing.assert_array_equal(out[:2], x.astype(np.float32))


@pytest.mark.parametrize("augmentation", [True, False])
def test_gradient_is_the_adjoint_of_the_forward_pass(augmentation):
    rng = np.random.default_rng(0)
    defence = GaussianAugmentation(0.1, augmentation, ratio=1.5)
    x, v = rng.integers(0, 8, (2, 4, 3)).astype(float)
    with defence.frozen(2):
        difference = GaussianAugmentation.transform(defence, x + 1024 * v) - defence.transform(x)
        grad = rng.integers(-4, 4, difference.shape).astype(float)
        pulled = defence.estimate_gradient(x, grad)
    # the noise is of order 0.1 and cancels up to rounding at 8192
    assert (pulled * 1024 * v).sum() == pytest.approx((grad * difference).sum(), abs=0.1)


def test_gradient_with_an_axis_of_classes():
    defence = GaussianAugmentation(augmentation=False)
    grad = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(defence.estimate_gradient(np.zeros((2, 3)), grad), grad)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("augmentation", [True, False])
def test_any_shape(shape, augmentation):
    x = np.random.default_rng(0).random(shape)[..., ::-1]
    out = GaussianAugmentation(0.0, augmentation).transform(x)
    assert out.shape == ((1 + augmentation) * shape[0], *shape[1:])
    np.testing.assert_array_equal(out[: len(x)], x.astype(np.float32))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"sigma": -1}, ValueError, "`sigma` must be at least 0, got -1"),
        ({"sigma": "1"}, TypeError, "`sigma` must be a number, got '1'"),
        ({"sigma": np.inf}, ValueError, "`sigma` must be finite, got inf"),
        ({"ratio": 0}, ValueError, "`ratio` must be above 0 with augmentation=True, got 0"),
        ({"ratio": None}, TypeError, "`ratio` must be a number, got None"),
        ({"augmentation": "yes"}, TypeError, "`augmentation` must be True or False, got 'yes'"),
        ({"apply_fit": False}, ValueError, "`apply_fit` must be True with augmentation=True, got False"),
        (
            {"apply_fit": False, "apply_predict": True},
            ValueError,
            "Pass augmentation=False to add noise in prediction",
        ),
        (
            {"apply_predict": True},
            ValueError,
            "`apply_predict` must be False with augmentation=True, got True: samples are appended",
        ),
        ({"apply_predict": 0}, TypeError, "`apply_predict` must be True or False, got 0"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"rng": "seed"}, TypeError, "`rng` must be None, an integer seed or a numpy.random.Generator"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        GaussianAugmentation(**parameters)


def test_ratio_does_not_matter_without_augmentation():
    x = np.zeros((2, 3))
    assert GaussianAugmentation(augmentation=False, ratio=0, apply_fit=False).transform(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.array([[np.inf, np.nan]]), ValueError, "`x` must be finite, got 1 NaN and 1 infinite"),
        (np.array([[1j]]), TypeError, "`x` must hold real numbers"),
        (np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        GaussianAugmentation().transform(x)
