"""Feature squeezing: known answers, its rules, its gradient."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield import FeatureSqueezing


@pytest.mark.parametrize(
    ("clip_values", "bit_depth", "x", "expected"),
    [
        ((0, 1), 1, [0, 0.2, 0.5, 0.7, 1], [0, 0, 0, 1, 1]),
        ((0, 1), 2, [0.1, 0.2, 0.5, 0.6, 0.9], [0, 1 / 3, 2 / 3, 2 / 3, 1]),
        ((0, 3), 2, [0.5, 1.5, 2.5, 0.51, 2.49], [0, 2, 2, 1, 2]),  # ties go to the even level
        ((-1, 1), 1, [-1, -0.1, 0, 0.1, 1], [-1, -1, -1, 1, 1]),
        ((0, 255), 8, [0, 0.4, 0.6, 254.5, 255], [0, 0, 1, 254, 255]),
        ((0, 1), 1, [-0.6, -0.4, 1.4, 1.6], [-1, 0, 1, 2]),  # outside, on the same grid
    ],
)
@pytest.mark.parametrize("contiguous", [True, False])
def test_known_answers(clip_values, bit_depth, x, expected, contiguous):
    x = np.array([x], dtype=float)
    x = x if contiguous else np.repeat(x, 2, axis=1)[:, ::2]
    out = FeatureSqueezing(clip_values, bit_depth).transform(x)
    np.testing.assert_allclose(out, [expected], atol=1e-15)


def test_limits_for_each_channel():
    x = np.array([[[[0.4, 100.0]], [[0.6, 130.0]]]])
    out = FeatureSqueezing((np.zeros(2), np.array([1, 255])), 1).transform(x)
    np.testing.assert_array_equal(out, [[[[0, 0]], [[1, 255]]]])


def test_limits_for_each_feature():
    high = np.array([1.0, 2, 4])
    out = FeatureSqueezing((0, high), 1).transform(np.array([[0.6, 0.6, 3]]))
    np.testing.assert_array_equal(out, [[1, 0, 4]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float16),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (">f4", np.float32),
        (np.uint8, np.float32),
        (np.int64, np.float32),
        (bool, np.float32),
    ],
)
def test_dtypes(dtype, expected):
    x = np.array([[0, 1, 1, 0]]).astype(dtype)
    out = FeatureSqueezing((0, 1), 1).transform(x)
    assert out.dtype == expected
    np.testing.assert_array_equal(out, [[0, 1, 1, 0]])


def test_integers_are_divided_in_double_precision():
    # 1 is half-way between the levels 0 and 2: a tie, which float32 arithmetic misses.
    out = FeatureSqueezing((0, 6), 2).transform(np.array([[1, 3, 5]], dtype=np.uint8))
    np.testing.assert_array_equal(out, [[0, 4, 4]])


def test_sixty_four_bits_leave_single_precision_alone():
    x = np.random.default_rng(0).random((2, 50), dtype=np.float32)
    np.testing.assert_allclose(FeatureSqueezing((0, 1), 64).transform(x), x, rtol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    bit_depth=st.integers(1, 10),
    low=st.floats(-10, 10),
    span=st.floats(0.1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_nearest_level_is_taken_and_taken_again(bit_depth, low, span, seed):
    x = low + span * np.random.default_rng(seed).random((2, 30))
    defence = FeatureSqueezing((low, low + span), bit_depth)
    out = defence.transform(x)
    levels = np.linspace(low, low + span, 2**bit_depth)
    nearest = np.abs(x[..., None] - levels).min(axis=-1)
    np.testing.assert_allclose(np.abs(x - out), nearest, atol=1e-12 * (abs(low) + span))
    np.testing.assert_allclose(defence.transform(out), out, rtol=0, atol=1e-12 * (abs(low) + span))


def soft_round(x, sharpness):
    """Equation 13 of arXiv:2006.09952, with the arctangent for the hyperbolic tangent."""
    below = np.floor(x)
    rest = x - below - 0.5
    return below + np.arctan(sharpness * rest) / (2 * np.arctan(sharpness / 2)) + 0.5


@pytest.mark.parametrize(
    "clip_values", [(0, 1), (0, 255), (-2, 3), (np.array([0.0, -1, 2]), np.array([1.0, 1, 9]))]
)
@pytest.mark.parametrize("bit_depth", [1, 3, 8])
def test_soft_gradient_is_the_slope_of_the_soft_staircase(clip_values, bit_depth):
    rng = np.random.default_rng(bit_depth)
    low, high = map(np.asarray, clip_values)
    unit = (high - low) / (2**bit_depth - 1)
    x, grad = low + (high - low) * rng.random((4, 5, 3)), rng.normal(size=(4, 5, 3))

    def staircase(x):
        return low + unit * soft_round((x - low) / unit, 255 / (2**bit_depth - 1))

    h = 1e-5 * unit
    expected = grad * (staircase(x + h) - staircase(x - h)) / (2 * h)
    out = FeatureSqueezing(clip_values, bit_depth, gradient="soft").estimate_gradient(x, grad)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_soft_gradient_of_many_bits_is_the_identity():
    x, grad = np.random.default_rng(0).normal(size=(2, 3, 4))
    defence = FeatureSqueezing((0, 1), 64, gradient="soft")
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), grad, rtol=1e-12)


def test_identity_gradient_is_the_default():
    grad = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_array_equal(FeatureSqueezing((0, 1)).estimate_gradient(np.zeros((2, 3)), grad), grad)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"bit_depth": 0}, ValueError, "`bit_depth` must be between 1 and 64, got 0"),
        ({"bit_depth": 65}, ValueError, "`bit_depth` must be between 1 and 64, got 65"),
        ({"bit_depth": 2.5}, TypeError, "`bit_depth` must be an integer, got 2.5"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"clip_values": (0, 1, 2)}, ValueError, "`clip_values` must be a pair"),
        ({"clip_values": None}, ValueError, "`clip_values` must be a pair"),
        ({"gradient": "exact"}, ValueError, "`gradient` must be one of 'identity', 'soft', got 'exact'"),
        ({"apply_fit": 1}, TypeError, "`apply_fit` must be True or False, got 1"),
        ({"apply_predict": None}, TypeError, "`apply_predict` must be True or False, got None"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        FeatureSqueezing(**{"clip_values": (0, 1), **parameters})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.array([[0.0, np.nan]]), ValueError, "`x` must be finite, got 1 NaN"),
        (np.array([["a"]]), TypeError, "`x` must hold real numbers"),
        (np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
        (0.5, ValueError, "`x` must have a batch axis"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        FeatureSqueezing((0, 1)).transform(x)


def test_limits_that_do_not_fit_the_batch():
    defence = FeatureSqueezing((np.zeros(3), np.ones(3)))
    for shape in ((2, 4), (3,), (2, 3, 1)):
        with pytest.raises(
            ValueError, match=r"broadcast against one sample of `x`.* shapes \(3,\) and \(3,\)"
        ):
            defence.transform(np.zeros(shape))
    one_for_each_sample = FeatureSqueezing((np.zeros((4, 1, 1, 1)), 1))
    with pytest.raises(ValueError, match=r"of shape \(2, 2, 3\), got shapes \(4, 1, 1, 1\) and \(\)"):
        one_for_each_sample.transform(np.zeros((4, 2, 2, 3)))


@pytest.mark.parametrize("shape", [(0, 4), (3,), (2, 5, 5, 3), (2, 3, 5, 5), (2, 4, 5, 5, 3), (2, 1000)])
def test_any_shape(shape):
    x = np.random.default_rng(0).random(shape)
    np.testing.assert_allclose(FeatureSqueezing((0, 1), 3).transform(x), np.rint(7 * x) / 7, atol=1e-15)


@pytest.mark.parametrize("bits", [2, 8])
def test_levels_of_sound_are_those_of_integer_samples(bits):
    step = 2.0 ** (1 - bits)
    defence = FeatureSqueezing((-1, 1 - step), bits)
    x = np.random.default_rng(bits).uniform(-1, 1, (2, 400, 2))
    np.testing.assert_allclose(defence.transform(x), np.rint(x / step) * step, atol=1e-15)
    assert defence.transform(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
