"""Gaussian blur: pictures worked out by hand, SciPy, the transpose, its rules."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate1d, gaussian_filter

from preshield import GaussianBlur

QUARTERS = 1 / math.sqrt(2 * math.log(2))  # the sigma of the weights 1/4, 1/2, 1/4


def scipy_blur(x, kernel_size, sigma, channels_first):
    """SciPy's filter in double precision."""
    sigmas = [0.0] * x.ndim
    height = x.ndim - (2 if channels_first else 3)
    sigmas[height] = sigmas[height + 1] = sigma
    return gaussian_filter(x.astype(float), sigmas, mode="mirror", radius=kernel_size // 2)


def matrix(function, height, width):
    """What a linear function does to each pixel of an image, as rows."""
    pixels = np.eye(height * width).reshape(-1, height, width, 1)
    return function(pixels).reshape(height * width, -1)


def test_known_answers():
    x = np.zeros((1, 3, 4, 2))
    x[0, 0, 0, 0] = x[0, 1, 2, 1] = 16
    out = GaussianBlur(3, QUARTERS).transform(x)
    # the corner has twice the weight that it has for its neighbours, for its mirror image is not itself
    np.testing.assert_allclose(out[0, :, :, 0], [[4, 2, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0]], atol=1e-12)
    # row 1 stands on both sides of rows 0 and 2, column 2 on both sides of column 3
    np.testing.assert_allclose(out[0, :, :, 1], [[0, 2, 4, 4], [0, 2, 4, 4], [0, 2, 4, 4]], atol=1e-12)


def test_a_row_by_hand():
    x = np.array([1.0, 5.0, 9.0, 1.0])[None, None, :, None]
    # (5 1 5), (1 5 9), (5 9 1), (9 1 9) with the weights 1/4, 1/2, 1/4
    np.testing.assert_allclose(GaussianBlur(3, QUARTERS).transform(x).ravel(), [3, 5, 6, 5])


@given(
    reach=st.integers(0, 6),
    sigma=st.floats(0.1, 20),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from([bool, np.uint8, np.int64, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_scipy(reach, sigma, shape, frames, channels_first, dtype, seed):
    n, height, width, channels = shape
    width += width == height  # square images would leave the layout in doubt
    shape = (n, height, width, channels) if frames is None else (n, frames, height, width, channels)
    x = (np.random.default_rng(seed).random(shape) * 2).astype(dtype)
    if channels_first:
        x = np.moveaxis(x, -1, 1)  # a view: not contiguous
    out = GaussianBlur(2 * reach + 1, sigma, channels_first).transform(x)
    assert out.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32)
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(
        out, scipy_blur(x, 2 * reach + 1, sigma, channels_first), rtol=0, atol=tolerance
    )


def test_weights_are_samples_of_a_gaussian():
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    x = np.random.default_rng(0).random((2, 9, 8, 3), dtype=np.float32)
    expected = x
    for axis in (1, 2):
        expected = correlate1d(expected, weights / weights.sum(), axis, mode="mirror")
    np.testing.assert_allclose(GaussianBlur(5, 1.5).transform(x), expected, atol=1e-6)


def test_equals_a_convolution_of_torch_with_reflected_borders():
    torch = pytest.importorskip("torch")
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 2.0**2))
    square = torch.tensor(np.outer(weights, weights) / weights.sum() ** 2)
    x = np.random.default_rng(0).random((4, 1, 9, 8))
    padded = torch.nn.functional.pad(torch.tensor(x), (3, 3, 3, 3), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, square[None, None])
    np.testing.assert_allclose(GaussianBlur(7, 2.0, True).transform(x), expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [1e-300, 1e-3])
def test_a_tiny_sigma_changes_nothing(sigma):
    x = np.random.default_rng(0).random((1, 4, 5, 3))
    np.testing.assert_array_equal(GaussianBlur(5, sigma).transform(x), x)


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.longdouble])
def test_types_that_numba_lacks(dtype):
    x = np.random.default_rng(0).random((2, 5, 6, 3)).astype(dtype)
    out = GaussianBlur().transform(x)
    assert out.dtype == np.dtype(dtype).newbyteorder("=")
    tolerance = 1e-3 if dtype == np.float16 else 1e-6
    np.testing.assert_allclose(out, scipy_blur(x, 5, 1.0, False), atol=tolerance)


def test_threads_change_nothing(monkeypatch):
    x = np.random.default_rng(0).random((30, 48, 52, 3), dtype=np.float32)
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        results.append((GaussianBlur().transform(x), GaussianBlur().estimate_gradient(x, x)))
    np.testing.assert_array_equal(*[out for out, _ in results])
    np.testing.assert_array_equal(*[grad for _, grad in results])


# The gradient


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3), (3, 2), (5, 6)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 11])
def test_the_gradient_is_the_transpose(size, kernel_size):
    defence = GaussianBlur(kernel_size, 1.3)
    forward = matrix(defence.transform, *size)
    backward = matrix(lambda grad: defence.estimate_gradient(np.zeros_like(grad), grad), *size)
    np.testing.assert_allclose(backward, forward.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels_first", [False, True])
def test_gradient_of_videos_meets_finite_differences(channels_first):
    rng = np.random.default_rng(0)
    x, grad = rng.random((2, 1, 2, 4, 5, 3)) if not channels_first else rng.random((2, 1, 3, 2, 4, 5))
    defence = GaussianBlur(5, 1.2, channels_first)
    expected = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[index] = 0.5
        expected[index] = ((defence.transform(x + shift) - defence.transform(x - shift)) * grad).sum()
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), expected, atol=1e-12)


def test_gradient_of_classes_keeps_its_type():
    grad = np.random.default_rng(0).random((1, 2, 5, 6, 1), dtype=np.float32)
    pulled = GaussianBlur().estimate_gradient(np.zeros((1, 5, 6, 1)), grad)
    assert pulled.dtype == np.float32
    for k in range(2):
        one = GaussianBlur().estimate_gradient(np.zeros((1, 5, 6, 1)), grad[:, k])
        np.testing.assert_array_equal(pulled[:, k], one)


@pytest.mark.parametrize("shape", [(0, 8, 9, 3), (2, 0, 9, 3), (2, 8, 0, 3), (2, 8, 9, 0), (2, 0, 8, 9, 3)])
def test_nothing_to_do(shape):
    x = np.ones(shape)
    assert GaussianBlur().transform(x).shape == shape
    assert GaussianBlur().estimate_gradient(x, x).shape == shape


# What is refused


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "`kernel_size` must be odd.*got 4; take 3 or 5"),
        ({"kernel_size": 0}, ValueError, "`kernel_size` must be at least 1, got 0"),
        ({"kernel_size": 3.5}, TypeError, "`kernel_size` must be an integer, got 3.5"),
        ({"kernel_size": (3, 3)}, TypeError, r"`kernel_size` must be an integer, got \(3, 3\)"),
        ({"sigma": 0}, ValueError, "`sigma` must be positive, in pixels, got 0"),
        ({"sigma": -1.0}, ValueError, "`sigma` must be positive, in pixels, got -1.0"),
        ({"sigma": float("nan")}, ValueError, "`sigma` must be finite, got nan"),
        ({"sigma": "1"}, TypeError, "`sigma` must be a number, got '1'"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"apply_fit": 0}, TypeError, "`apply_fit` must be True or False, got 0"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        GaussianBlur(**parameters)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 8)), r"4-D image batch \(NHWC\) or a 5-D video batch \(NFHWC\), got shape \(8, 8\)"),
        (np.zeros((2, 3, 8, 8)), "pass channels_first=True"),
        (np.full((1, 8, 8, 1), np.nan), "`x` must be finite, got 64 NaN"),
    ],
)
def test_bad_arrays(x, message):
    with pytest.raises(ValueError, match=message):
        GaussianBlur().transform(x)
