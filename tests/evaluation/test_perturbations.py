"""Arithmetic on batches of perturbations."""

import numpy as np

from preshield.evaluation.perturbations import between, norms, scaled, unit

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
