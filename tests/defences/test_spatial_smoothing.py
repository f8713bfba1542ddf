"""Median smoothing: a picture worked out by hand, SciPy, its gradient, its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from preshield import SpatialSmoothing

PICTURE = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])[None, :, :, None]


def scipy_median(x, window, channels_first):
    size = [1] * x.ndim
    height = x.ndim - (2 if channels_first else 3)
    size[height] = size[height + 1] = window
    return median_filter(x, size=tuple(size), mode="reflect")


@pytest.mark.parametrize(
    ("window_size", "expected"),
    [
        (1, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        # the window of the first pixel is [[1, 1, 2], [1, 1, 2], [4, 4, 5]]: 1 1 1 1 (2) 2 4 4 5
        (3, [[2, 3, 3], [4, 5, 6], [7, 7, 8]]),
        # up and left: the window of the middle is [[1, 2], [4, 5]], and of 2 and 4 the upper one counts
        (2, [[1, 2, 3], [4, 4, 5], [7, 7, 8]]),
    ],
)
def test_known_answers(window_size, expected):
    out = SpatialSmoothing(window_size).transform(PICTURE)
    assert out.dtype == PICTURE.dtype
    np.testing.assert_array_equal(out[0, :, :, 0], expected)


def test_one_outlier_vanishes_and_channels_stay_apart():
    x = np.zeros((1, 5, 6, 2))
    x[0, 2, 2, 0] = 9
    x[..., 1] = 4
    out = SpatialSmoothing().transform(x)
    np.testing.assert_array_equal(out[..., 0], 0)
    np.testing.assert_array_equal(out[..., 1], 4)


@settings(max_examples=30, deadline=None)
@given(
    window_size=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from(
        [
            bool,
            np.int8,
            np.uint8,
            np.int16,
            np.uint16,
            np.int32,
            np.uint32,
            np.int64,
            np.uint64,
            np.float32,
            np.float64,
        ]
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_scipy(window_size, shape, frames, channels_first, dtype, seed):
    n, height, width, channels = shape
    width += width == height  # square images would leave the layout in doubt
    shape = (n, height, width, channels) if frames is None else (n, frames, height, width, channels)
    x = (np.random.default_rng(seed).normal(size=shape) * 30).round(1)
    x = (np.abs(x) if np.dtype(dtype).kind == "u" else x).astype(dtype)
    if channels_first:
        x = np.moveaxis(x, -1, 1)  # a view: not contiguous
    out = SpatialSmoothing(window_size, channels_first).transform(x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, scipy_median(x, window_size, channels_first))


@pytest.mark.parametrize("dtype", [np.float16, ">f4", ">u8", np.longdouble])
def test_types_that_scipy_or_numba_lack(dtype):
    x = np.random.default_rng(0).integers(0, 100, (2, 5, 6, 3))
    out = SpatialSmoothing().transform(x.astype(dtype))
    np.testing.assert_array_equal(out, scipy_median(x, 3, False))
    assert out.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_large_integers_keep_every_bit(dtype):
    most = np.iinfo(dtype).max
    x = np.array([[most, most - 1, most - 2]], dtype=dtype)[None, :, :, None]
    # the rows repeat, so the median of each window of three columns counts: (a, a, b), (a, b, c), (b, c, c)
    np.testing.assert_array_equal(SpatialSmoothing().transform(x), x)


def test_threads_change_nothing(monkeypatch):
    x = np.random.default_rng(0).random((30, 48, 52, 3))
    expected = scipy_median(x, 3, False)
    for threads in ("1", "4"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        np.testing.assert_array_equal(SpatialSmoothing().transform(x), expected)


def test_results_are_clipped():
    out = SpatialSmoothing(1, clip_values=(3, 6)).transform(PICTURE)
    np.testing.assert_array_equal(out[0, :, :, 0], [[3, 3, 3], [4, 5, 6], [6, 6, 6]])
    x = np.repeat(PICTURE, 2, axis=-1)
    out = SpatialSmoothing(1, clip_values=(np.array([0.0, 3.0]), np.array([4.0, 9.0]))).transform(x)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out[0, :, :, 0], PICTURE[0, :, :, 0].clip(0, 4))
    np.testing.assert_array_equal(out[0, :, :, 1], PICTURE[0, :, :, 0].clip(3, 9))


@pytest.mark.parametrize(
    ("dtype", "clip_values", "values", "expected"),
    [
        (np.int8, (-300, -200), [-128, 0, 127], [-128, -128, -128]),
        (np.int8, (128, 255), [-128, 0, 127], [127, 127, 127]),
        (np.uint8, (-1, 300), [0, 7, 255], [0, 7, 255]),
        (np.uint8, (1.5, 200.5), [0, 2, 255], [2, 2, 200]),
        (np.int64, (0.0, 2.0**62), [-1, 2**53 + 1, 2**62 + 1], [0, 2**53 + 1, 2**62]),
        (np.uint64, (0, 2**64 - 2), [0, 2**63 + 1, 2**64 - 1], [0, 2**63 + 1, 2**64 - 2]),
        (np.int32, (np.array([0, 0.5, -9]), 1e30), [-1, 0, -10], [0, 1, -9]),
        (bool, (0, 1), [False, True, True], [False, True, True]),
        (">i2", (0, 10), [-5, 5, 50], [0, 5, 10]),
    ],
)
@pytest.mark.parametrize("gradient", ["identity", "exact"])
def test_integers_are_clipped_to_the_integers_between_the_limits(
    dtype, clip_values, values, expected, gradient
):
    x = np.array(values, dtype).reshape(1, 1, 1, 3)
    defence = SpatialSmoothing(1, clip_values=clip_values, gradient=gradient)
    out = defence.transform(x)
    assert out.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(out.ravel(), np.array(expected, out.dtype))
    assert defence.estimate_gradient(x, np.ones(x.shape)).shape == x.shape


def test_limits_that_do_not_fit_a_sample():
    x, defence = np.zeros((4, 3, 3, 1)), SpatialSmoothing(3, clip_values=(np.zeros((4, 1, 1, 1)), 1))
    with pytest.raises(ValueError, match=r"of shape \(3, 3, 1\), got shapes \(4, 1, 1, 1\) and \(\)"):
        defence.transform(x)


@pytest.mark.parametrize("window_size", [2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 3, 4, 5, 1)])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("clip_values", [None, (10.5, 90.5)])
def test_exact_gradient_meets_finite_differences(window_size, shape, channels_first, clip_values):
    rng = np.random.default_rng(window_size)
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(float)  # no ties
    x, grad = (np.moveaxis(a, -1, 1) if channels_first else a for a in (x, rng.normal(size=shape)))
    defence = SpatialSmoothing(window_size, channels_first, clip_values, gradient="exact")
    expected = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[index] = 0.25
        difference = defence.transform(x + shift) - defence.transform(x - shift)
        expected[index] = (difference * grad).sum() / 0.5
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), expected, atol=1e-12)


def test_exact_gradient_of_integers_and_classes():
    grad = np.zeros((1, 2, 3, 3, 1), dtype=np.float32)
    grad[0, :, 0, 0, 0] = 1, 2  # the median of that window, 2, stands at (0, 1)
    out = SpatialSmoothing(gradient="exact").estimate_gradient(PICTURE, grad)
    assert out.dtype == np.float32
    expected = np.zeros_like(grad)
    expected[0, :, 0, 1, 0] = 1, 2
    np.testing.assert_array_equal(out, expected)


def test_identity_gradient_is_the_default():
    grad = np.random.default_rng(0).normal(size=PICTURE.shape)
    np.testing.assert_array_equal(SpatialSmoothing().estimate_gradient(PICTURE, grad), grad)


@pytest.mark.parametrize("shape", [(0, 8, 9, 3), (2, 0, 9, 3), (2, 8, 9, 0), (2, 0, 8, 9, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("gradient", ["identity", "exact"])
def test_nothing_to_do(shape, gradient):
    x = np.ones(shape)
    defence = SpatialSmoothing(gradient=gradient)
    np.testing.assert_array_equal(defence.transform(x), x)
    assert defence.estimate_gradient(x, x).shape == shape


def test_channel_index():
    x = np.random.default_rng(0).random((1, 3, 8, 9))
    with pytest.warns(FutureWarning, match="use channels_first=True instead of channel_index=1"):
        old = SpatialSmoothing(channel_index=1)
    np.testing.assert_array_equal(old.transform(x), SpatialSmoothing(channels_first=True).transform(x))


def test_verbose_shows_a_bar(capsys):
    SpatialSmoothing().transform(PICTURE)
    assert capsys.readouterr().err == ""
    SpatialSmoothing(verbose=True).transform(PICTURE)
    captured = capsys.readouterr()
    assert "Spatial smoothing: 100%" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"window_size": 0}, ValueError, "`window_size` must be at least 1, got 0"),
        ({"window_size": 3.5}, TypeError, "`window_size` must be an integer, got 3.5"),
        ({"window_size": (3, 3)}, TypeError, r"`window_size` must be an integer, got \(3, 3\)"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"clip_values": (0, 1, 2)}, ValueError, "`clip_values` must be a pair"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"channel_index": 2}, ValueError, "`channel_index` must be 1"),
        ({"gradient": "soft"}, ValueError, "`gradient` must be one of 'identity', 'exact', got 'soft'"),
        ({"verbose": 1}, TypeError, "`verbose` must be True or False, got 1"),
        ({"apply_fit": 0}, TypeError, "`apply_fit` must be True or False, got 0"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        SpatialSmoothing(**parameters)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.zeros((8, 8)),
            ValueError,
            r"4-D image batch \(NHWC\) or a 5-D video batch \(NFHWC\), got shape \(8, 8\)",
        ),
        (np.zeros((2, 3, 8, 8)), ValueError, "pass channels_first=True"),
        (np.full((1, 8, 8, 1), np.inf), ValueError, "`x` must be finite, got 0 NaN and 64 infinite"),
        (np.zeros((1, 8, 8, 1), complex), TypeError, "`x` must hold real numbers, got dtype complex128"),
        (np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        SpatialSmoothing().transform(x)


def test_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match="`grad` must have the shape"):
        SpatialSmoothing(gradient="exact").estimate_gradient(PICTURE, np.zeros((1, 3, 3)))
