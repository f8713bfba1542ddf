"""Arithmetic on batches of perturbations."""

import numpy as np
import pytest

from preshield.evaluation.perturbations import between, directions, norms, scaled, unit, within

X = np.array([[[3, 0], [0, 4]], [[0, 0], [0, 0]]], dtype=np.float32)


def test_by_hand():
    np.testing.assert_array_equal(norms(X), [5, 0])
    np.testing.assert_allclose(unit(X)[0], [[0.6, 0], [0, 0.8]])
    np.testing.assert_array_equal(unit(X)[1], 0)  # and no warning of a division
    np.testing.assert_array_equal(scaled(X, [2, 7])[0], [[6, 0], [0, 8]])
    middle = between(X, np.ones_like(X), np.array([0.5, 1]))
    np.testing.assert_array_equal(middle, [[[2, 0.5], [0.5, 2.5]], [[1, 1], [1, 1]]])
    assert middle.dtype == np.float32


def test_what_single_precision_takes_for_nothing_has_a_direction():
    tiny = np.array([[3e-30, 4e-30]], dtype=np.float32)  # its square is 0 in single precision
    np.testing.assert_allclose(norms(tiny), 5e-30, rtol=1e-6)
    np.testing.assert_allclose(unit(tiny), [[0.6, 0.8]], rtol=1e-6)


def test_a_perturbation_is_brought_back_to_the_bound_and_no_further():
    x = np.float32([[[1, 1]], [[1, 1]], [[1, 1]]])
    moved = x + np.float32([[[3, 4]], [[0.3, -0.4]], [[0, 0]]])  # of norm 5, 0.5 and 0
    np.testing.assert_allclose(
        within(x, moved, "l2", 1.0) - x, [[[0.6, 0.8]], [[0.3, -0.4]], [[0, 0]]], atol=1e-6
    )
    np.testing.assert_allclose(
        within(x, moved, "linf", 0.35) - x, [[[0.35, 0.35]], [[0.3, -0.35]], [[0, 0]]], atol=1e-6
    )


@pytest.mark.parametrize("useless", [[0.0, 0.0], [np.nan, 1.0], [1.0, np.inf], [-np.inf, np.nan]])
def test_a_direction_is_the_gradient_or_a_random_one(useless):
    gradient = np.float32([[[3], [4]], [[useless[0]], [useless[1]]], [[0], [-2]]])
    kept = gradient.copy()
    found = directions(gradient, np.random.default_rng(0))
    np.testing.assert_array_equal(gradient, kept)
    np.testing.assert_allclose(found[[0, 2], :, 0], [[0.6, 0.8], [0, -1]])
    np.testing.assert_allclose(norms(found), 1)
    drawn = np.random.default_rng(0).standard_normal(2)
    np.testing.assert_allclose(found[1, :, 0], drawn / np.linalg.norm(drawn), rtol=1e-6)
