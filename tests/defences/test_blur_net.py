"""BlurNet in front of a model: SciPy, the transpose, its rules. `insert` is tested with the models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter

from preshield import BlurNet, GaussianBlur


def test_known_answers():
    x = np.zeros((1, 3, 4, 1), dtype=np.uint8)
    x[0, 0, 1] = 9
    # rows 0 and 1 see row 0 once, row 2 does not; column 0 sees column 1 twice, by its mirror image
    expected = [[2, 1, 1, 0], [2, 1, 1, 0], [0, 0, 0, 0]]
    out = BlurNet(3).transform(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, :, :, 0], expected, atol=1e-6)


@given(
    reach=st.integers(0, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_box_equals_scipy(reach, shape, frames, channels_first, dtype, seed):
    n, height, width, channels = shape
    width += width == height
    shape = (n, height, width, channels) if frames is None else (n, frames, height, width, channels)
    x = (np.random.default_rng(seed).random(shape) * 2).astype(dtype)
    x = np.moveaxis(x, -1, 1) if channels_first else x
    sizes = [1] * x.ndim
    first = x.ndim - (2 if channels_first else 3)
    sizes[first] = sizes[first + 1] = 2 * reach + 1
    expected = uniform_filter(x.astype(float), sizes, mode="mirror")
    out = BlurNet(2 * reach + 1, channels_first=channels_first).transform(x)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12 if dtype == np.float64 else 1e-6)


@pytest.mark.parametrize(("kernel_size", "sigma"), [(3, 0.8), (5, 1.1), (7, 1.4), (9, 1.7)])
def test_the_sigma_of_a_gaussian_is_that_of_opencv(kernel_size, sigma):
    assert sigma == pytest.approx(0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8)  # as its documentation puts it
    x = np.random.default_rng(0).random((2, 12, 11, 3))
    out = BlurNet(kernel_size, "gaussian").transform(x)
    expected = gaussian_filter(x, (0, sigma, sigma, 0), mode="mirror", radius=kernel_size // 2)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(out, GaussianBlur(kernel_size, sigma).transform(x), atol=1e-12)


def test_a_filter_of_one_pixel_changes_nothing():
    x = np.random.default_rng(0).random((2, 5, 6, 3))
    for kernel in ("box", "gaussian"):
        np.testing.assert_array_equal(BlurNet(1, kernel).transform(x), x)


@pytest.mark.parametrize("kernel", ["box", "gaussian"])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_the_gradient_is_the_transpose(kernel, kernel_size):
    defence = BlurNet(kernel_size, kernel)
    pixels = np.eye(20).reshape(20, 5, 4, 1)
    forward = defence.transform(pixels).reshape(20, 20)
    backward = defence.estimate_gradient(pixels, pixels).reshape(20, 20)
    np.testing.assert_allclose(backward, forward.T, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"kernel_size": 2}, ValueError, "`kernel_size` must be odd.*got 2; take 1 or 3"),
        ({"kernel_size": -1}, ValueError, "`kernel_size` must be at least 1, got -1"),
        ({"kernel_size": "5"}, TypeError, "`kernel_size` must be an integer, got '5'"),
        ({"kernel": "median"}, ValueError, "`kernel` must be one of 'box', 'gaussian', got 'median'"),
        ({"kernel": None}, ValueError, "`kernel` must be one of 'box', 'gaussian', got None"),
        ({"channels_first": None}, TypeError, "`channels_first` must be True or False, got None"),
        ({"apply_predict": 1}, TypeError, "`apply_predict` must be True or False, got 1"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        BlurNet(**parameters)
