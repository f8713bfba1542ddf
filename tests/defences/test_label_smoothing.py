"""Label smoothing: tables of labels, its rules."""

import numpy as np
import pytest

from preshield import LabelSmoothing


def smooth(y, *args, **kwargs):
    return LabelSmoothing(*args, **kwargs)(None, y)[1]


@pytest.mark.parametrize(
    ("max_value", "y", "expected"),
    [
        (0.9, [[1, 0], [0, 1]], [[0.9, 0.1], [0.1, 0.9]]),
        (0.8, [[0, 1, 0], [0, 0, 1]], [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]),
        (1, [[0, 1, 0]], [[0, 1, 0]]),
        (0.25, [[0, 1, 0, 0]], [[0.25, 0.25, 0.25, 0.25]]),
        (0.7, [[1, 0, 1, 0]], [[0.7, 0.1, 0.7, 0.1]]),  # several labels
        (0.7, [[0.4, 0.6, 0, 0]], [[0.4, 0.6, 0.1, 0.1]]),  # probabilities in between stay
    ],
)
def test_tables(max_value, y, expected):
    np.testing.assert_allclose(smooth(np.array(y, dtype=float), max_value), expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integer_one_hot_labels_become_single_precision(dtype):
    out = smooth(np.array([[1, 0, 0], [0, 0, 1]]).astype(dtype), 0.8)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
def test_floating_types_are_kept(dtype):
    out = smooth(np.array([[1, 0], [0, 1]]).astype(dtype), 0.75)
    assert out.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(out, [[0.75, 0.25], [0.25, 0.75]])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_class_indices(dtype):
    out = smooth(np.array([2, 0]).astype(dtype), 0.8, num_classes=3)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], rtol=1e-7)


def test_one_hot_labels_with_num_classes():
    np.testing.assert_allclose(smooth(np.eye(3), 0.8, num_classes=3), smooth(np.eye(3), 0.8), rtol=0)


def test_rows_stay_probabilities():
    y = np.eye(50)[np.random.default_rng(0).integers(0, 50, 5000)]  # several blocks
    np.testing.assert_allclose(smooth(y, 0.6).sum(axis=1), 1, rtol=1e-12)


def test_data_and_their_gradient_pass():
    x = np.array([["anything"]], dtype=object)
    assert LabelSmoothing()(x, np.eye(2)[:1])[0] is x
    grad = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_array_equal(LabelSmoothing().estimate_gradient(np.zeros((2, 3)), grad), grad)


def test_labels_that_are_not_one_for_each_sample():
    with pytest.raises(
        ValueError, match=r"`y` must have one label for each of the 64 samples, got shape \(1, 2\)"
    ):
        LabelSmoothing()(np.zeros((64, 3)), np.eye(2)[:1])


def test_layouts():
    y = np.eye(4)[[1, 3, 0]]
    expected = smooth(y, 0.7)
    np.testing.assert_array_equal(smooth(np.asfortranarray(y), 0.7), expected)
    np.testing.assert_array_equal(smooth(np.repeat(y, 2, axis=0)[::2], 0.7), expected)
    assert smooth(np.empty((0, 4))).shape == (0, 4)
    assert smooth(np.empty(0, dtype=int), num_classes=4).shape == (0, 4)
    np.testing.assert_allclose(smooth([[1, 0], [0, 1]]), [[0.9, 0.1], [0.1, 0.9]], rtol=1e-7)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"max_value": 0}, ValueError, "`max_value` must be above 0, got 0"),
        ({"max_value": -0.1}, ValueError, "`max_value` must be between 0 and 1, got -0.1"),
        ({"max_value": 1.1}, ValueError, "`max_value` must be between 0 and 1, got 1.1"),
        ({"max_value": np.nan}, ValueError, "`max_value` must be finite"),
        ({"max_value": "high"}, TypeError, "`max_value` must be a number, got 'high'"),
        ({"num_classes": 1}, ValueError, "`num_classes` must be at least 2, got 1"),
        ({"num_classes": 3.5}, TypeError, "`num_classes` must be an integer, got 3.5"),
        ({"apply_fit": "no"}, TypeError, "`apply_fit` must be True or False"),
        ({"apply_predict": 1}, TypeError, "`apply_predict` must be True or False"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        LabelSmoothing(**parameters)


@pytest.mark.parametrize(
    ("parameters", "y", "error", "message"),
    [
        ({}, None, ValueError, "`y` must be given"),
        ({}, np.array([["a", "b"]]), TypeError, "`y` must hold real numbers, got dtype <U1"),
        (
            {},
            np.array([0, 1]),
            ValueError,
            r"`y` must have shape \(N, classes\), got \(2,\); .*need `num_classes`",
        ),
        ({}, np.zeros((2, 2, 2)), ValueError, r"`y` must have shape \(N, classes\), got \(2, 2, 2\)"),
        ({}, np.ones((2, 1)), ValueError, r"`y` must have at least two classes, got shape \(2, 1\)"),
        ({}, np.array([[1, np.nan]]), ValueError, "`y` must be finite, got 1 NaN"),
        (
            {"max_value": 0.2},
            np.eye(3),
            ValueError,
            r"`max_value` must be at least 1 / classes = 0\.333, got 0\.2",
        ),
        ({"num_classes": 4}, np.eye(3), ValueError, r"`y` must have shape \(N, 4\), got \(3, 3\)\."),
        (
            {"num_classes": 3},
            np.array([0, 3]),
            ValueError,
            "`y` must hold class indices from 0 to 2, got values from 0 to 3",
        ),
        (
            {"num_classes": 3},
            np.array([-1, 0]),
            ValueError,
            "`y` must hold class indices from 0 to 2, got values from -1 to 0",
        ),
        (
            {"num_classes": 3},
            np.array([0.5, 1]),
            ValueError,
            "`y` must hold class indices from 0 to 2, got values from 0.5 to 1.0",
        ),
    ],
)
def test_bad_labels(parameters, y, error, message):
    with pytest.raises(error, match=message):
        smooth(y, **parameters)
