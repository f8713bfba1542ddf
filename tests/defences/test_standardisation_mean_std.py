"""Standardisation: which axis a mean belongs to."""

import numpy as np
import pytest

from preshield import StandardisationMeanStd

MEAN, STD = np.array([0.4, 0.5, 0.3]), np.array([0.2, 0.25, 0.5])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 4, 5, 3), 3),
        ((2, 3, 4, 5), 1),
        ((2, 6, 4, 5, 3), 4),
        ((2, 3, 6, 4, 5), 1),
        ((7, 3), 1),
        ((2, 3, 9), 1),
        ((3, 4, 5), 0),  # one image
        ((3, 3, 4, 3), 3),  # the last axis comes first
        ((3,), 0),  # one vector of features
    ],
)
def test_which_axis_has_the_channels(shape, axis):
    x = np.random.default_rng(0).random(shape)
    expected = np.moveaxis((np.moveaxis(x, axis, -1) - MEAN) / STD, -1, axis)
    standardise = StandardisationMeanStd(MEAN, STD)
    np.testing.assert_allclose(standardise.transform(x), expected, rtol=1e-6, atol=1e-6)
    grad = np.random.default_rng(1).random(shape)
    pulled = standardise.estimate_gradient(x, grad)
    np.testing.assert_allclose(pulled, np.moveaxis(np.moveaxis(grad, axis, -1) / STD, -1, axis), rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (3, 4, 5)])
def test_arrays_that_broadcast(shape):
    x = np.random.default_rng(0).random((2, 3, 4, 5))
    mean = np.random.default_rng(1).random(shape)
    out = StandardisationMeanStd(mean, 2).transform(x)
    np.testing.assert_allclose(out, (x - mean) / 2, rtol=1e-6, atol=1e-7)


def test_one_object_takes_batches_of_any_layout():
    standardise = StandardisationMeanStd(MEAN, STD)
    x = np.random.default_rng(0).random((2, 4, 5, 3), dtype=np.float32)
    first = standardise.transform(np.moveaxis(x, -1, 1))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), standardise.transform(x))


def test_a_number_for_the_one_and_channels_for_the_other():
    out = StandardisationMeanStd(0.5, [1, 2, 4]).transform(np.ones((1, 2, 2, 3), np.uint8))
    np.testing.assert_array_equal(out[0, 0, 0], [0.5, 0.25, 0.125])
    assert out.dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 28, 28, 1), (3, 4), (5,), (4, 5, 6)])
def test_what_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"`mean` must be a number, .* got shape \(3,\)"):
        StandardisationMeanStd(MEAN, STD).transform(np.zeros(shape))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"std": 0}, "`std` must be above 0, got 0"),
        ({"std": [1, -1]}, r"`std` must be above 0, got \[1, -1\]"),
        ({"mean": np.inf}, "`mean` must be finite"),
        ({"mean": "a"}, "`mean` must hold real numbers"),
        ({"mean": []}, r"`mean` must be a number or an array of numbers, got \[\]"),
        ({"mean": None}, "`mean` must hold real numbers, got dtype object"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        StandardisationMeanStd(**kwargs)
