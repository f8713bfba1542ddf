"""The median kernels beside SciPy, and their derivative beside finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from preshield._core.kernels.median import median_gradient, median_network, median_planes


def median(x, height, width, step=1):
    out = np.empty_like(x)
    median_planes(out, x, height, width, step, *median_network(height, width))
    return out


@pytest.mark.parametrize(
    ("height", "width"), [*zip(range(1, 9), range(1, 9), strict=True), (1, 7), (1, 16), (3, 5), (6, 1)]
)
def test_network_carries_the_median_to_its_place(height, width):
    columns, merge, place = median_network(height, width)
    rng = np.random.default_rng(height)
    for _ in range(20):
        values = rng.integers(0, height * width, size=(width, height))  # with ties
        entries = values.copy()
        for i, j, _, _ in columns:
            entries[:, i], entries[:, j] = (
                np.minimum(entries[:, i], entries[:, j]),
                np.maximum(entries[:, i], entries[:, j]),
            )
        np.testing.assert_array_equal(entries, np.sort(values, axis=1))
        entries = entries.ravel()
        for i, j, _, _ in merge:
            entries[i], entries[j] = sorted((entries[i], entries[j]))
        assert entries[place] == np.sort(values, axis=None)[height * width // 2]


@settings(max_examples=30, deadline=None)
@given(
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    step=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.int64, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_planes_equal_scipy(window, shape, step, dtype, seed):
    planes, height, width = shape
    x = np.random.default_rng(seed).integers(0, 40, (planes, height, width, step)).astype(dtype)
    out = median(x.reshape(planes, height, width * step), *window, step)
    expected = median_filter(x, size=(1, *window, 1), mode="reflect")
    np.testing.assert_array_equal(out.reshape(x.shape), expected)


def test_rows_longer_than_one_strip_equal_scipy():
    x = np.random.default_rng(0).random((1, 6, 1500))
    np.testing.assert_array_equal(median(x, 5, 5), median_filter(x, size=(1, 5, 5), mode="reflect"))


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (4, 4), (1, 5), (3, 2)])
@pytest.mark.parametrize("step", [1, 3])
def test_gradient_meets_finite_differences(window, step):
    rng = np.random.default_rng(window)
    shape = (2, 5, 6 * step)
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)  # no ties: differentiable
    grad = rng.normal(size=shape)
    out = np.full(shape, np.nan)
    median_gradient(out, x, median(x, *window, step), grad, *window, step)
    expected = np.empty(shape)
    for index in np.ndindex(shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += 0.25
        behind[index] -= 0.25
        difference = median(ahead, *window, step) - median(behind, *window, step)
        expected[index] = (difference * grad).sum() / 0.5
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_gradient_of_ties_goes_to_the_first_pixel_of_the_window():
    x = np.zeros((1, 3, 3))
    out = np.empty_like(x)
    grad = np.zeros_like(x)
    grad[0, 1, 1] = 1  # its window is the whole plane
    median_gradient(out, x, median(x, 3, 3), grad, 3, 3, 1)
    np.testing.assert_array_equal(out, [[[1, 0, 0], [0, 0, 0], [0, 0, 0]]])
