"""The objective of total variance minimisation by hand, and its gradient beside finite differences."""

import numpy as np
import pytest

from preshield._core.kernels.total_variation import total_variation


def evaluate(z, x, mask, norm, scale):
    z = np.asarray(z, dtype=float)
    value, grad = np.full(len(z), np.nan), np.full(z.shape, np.nan)
    total_variation(value, grad, z, np.asarray(x, dtype=float), np.asarray(mask, dtype=bool), norm, scale)
    return value, grad


@pytest.mark.parametrize(
    ("norm", "rows", "columns"),
    [(1, 3 + 6, 1 + 4), (2, np.sqrt(45), np.sqrt(17)), (3, (27 + 216) ** (1 / 3), (1 + 64) ** (1 / 3))],
)
def test_two_by_two(norm, rows, columns):
    # The rows differ by (3, 6), the columns by (1, 4); the distance counts the diagonal alone.
    value, _ = evaluate([[[1, 2], [4, 8]]], np.zeros((1, 2, 2)), [[[1, 0], [0, 1]]], norm, 0.5)
    assert value[0] == pytest.approx(np.sqrt(1 + 64) + 0.5 * (rows + columns), rel=1e-14)


def test_gradient_of_two_by_two():
    _, grad = evaluate([[[1, 2], [4, 8]]], np.zeros((1, 2, 2)), [[[1, 0], [0, 1]]], 2, 0.5)
    rows, columns = np.array([3, 6]) / np.sqrt(45), np.array([1, 4]) / np.sqrt(17)
    total = 0.5 * np.array(
        [[-rows[0] - columns[0], -rows[1] + columns[0]], [rows[0] - columns[1], rows[1] + columns[1]]]
    )
    np.testing.assert_allclose(grad[0], total + np.array([[1, 0], [0, 8]]) / np.sqrt(65), rtol=1e-14)


@pytest.mark.parametrize("norm", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 1, 6), (2, 6, 1)])
def test_gradient_meets_finite_differences(norm, shape):
    rng = np.random.default_rng(norm)
    z, x, mask = rng.normal(size=shape), rng.normal(size=shape), rng.random(shape) < 0.4
    mask[:, 0, 0] = True  # no kink at a distance of 0
    _, grad = evaluate(z, x, mask, norm, 0.7)
    expected = np.empty(shape)
    for plane, row, column in np.ndindex(shape):
        shift = np.zeros(shape)
        shift[plane, row, column] = 1e-6
        ahead, behind = (evaluate(z + s, x, mask, norm, 0.7)[0] for s in (shift, -shift))
        expected[plane, row, column] = (ahead - behind)[plane] / 2e-6
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_a_large_plane_whose_differences_come_in_bands(norm):
    rng, shape = np.random.default_rng(0), (1, 283, 300)
    z, x, mask = rng.random(shape), rng.random(shape), rng.random(shape) < 0.4
    value, grad = evaluate(z, x, mask, norm, 0.7)
    distance = np.sqrt(((z - x)[mask] ** 2).sum())
    expected, total = (z - x) * mask / distance, 0.0
    for axis in (1, 2):  # along columns, then along rows: a norm for each row, or column, of differences
        steps = np.diff(z, axis=axis)
        norms = (np.abs(steps) ** norm).sum(axis=3 - axis, keepdims=True) ** (1 / norm)
        slopes = 0.7 * np.sign(steps) * np.abs(steps) ** (norm - 1) / norms ** (norm - 1)
        total += norms.sum()
        edge = [(0, 0), *((1, 1) if axis == a else (0, 0) for a in (1, 2))]
        expected -= np.diff(np.pad(slopes, edge), axis=axis)
    assert value[0] == pytest.approx(distance + 0.7 * total, rel=1e-12)
    np.testing.assert_allclose(grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.05, 0.5, 5.0])
def test_the_negative_subgradient_descends_at_the_kink(norm, scale):
    rng = np.random.default_rng(1)
    x, mask = rng.random((8, 6, 6)), rng.random((8, 6, 6)) < 0.5
    value, grad = evaluate(x, x, mask, norm, scale)
    assert (np.abs(grad).max(axis=(1, 2)) > 0).all()
    ahead, _ = evaluate(x - 1e-6 * grad, x, mask, norm, scale)
    # the directional derivative at a kink of a convex function is that of the subgradient of least norm
    np.testing.assert_allclose((ahead - value) / 1e-6, -(grad**2).sum(axis=(1, 2)), rtol=1e-3)


def test_pixels_that_the_mask_holds_fast_have_no_gradient():
    x = np.array([[[0.0, 1.0]]])
    _, grad = evaluate(x, x, [[[True, False]]], 1, 0.5)  # the pull of 0.5 is below that of the distance, 1
    np.testing.assert_array_equal(grad, [[[0.0, 0.5]]])
    _, grad = evaluate(x, x, [[[True, False]]], 1, 3.0)  # of 3, 1 is resisted
    np.testing.assert_allclose(grad, [[[-2.0, 3.0]]], rtol=1e-15)


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_a_constant_plane_is_at_rest(norm):
    x = np.full((1, 4, 5), 0.3)
    value, grad = evaluate(x, x, np.ones(x.shape), norm, 0.5)
    assert value[0] == 0
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_differences_of_rounding_have_no_slope(norm):
    z = np.full((1, 3, 4), 0.3)
    z[0, 1, 2] += 1e-13
    _, grad = evaluate(z, z, np.zeros(z.shape), norm, 0.5)
    np.testing.assert_array_equal(grad, 0)
