"""Thermometer encoding: codes of written-out values, the surrogate gradient, its rules."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from preshield import ThermometerEncoding


@pytest.mark.parametrize(
    ("clip_values", "num_space", "value", "code"),
    [
        ((0, 1), 4, 0.6, [1, 1, 1, 0]),
        ((0, 1), 4, 0.5, [1, 1, 0, 0]),  # a level must be exceeded
        ((0, 1), 4, 0.0, [1, 0, 0, 0]),
        ((0, 1), 4, 1.0, [1, 1, 1, 1]),
        ((0, 1), 4, 1.5, [1, 1, 1, 1]),  # clipped
        ((0, 1), 4, -1, [1, 0, 0, 0]),
        ((0, 1), 1, 0.3, [1]),
        ((0, 255), 5, 102, [1, 1, 0, 0, 0]),  # 102 / 255 = 2 / 5
        ((0, 255), 5, 103, [1, 1, 1, 0, 0]),
        ((-1, 1), 2, 0.1, [1, 1]),
        ((-1, 1), 2, 0.0, [1, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_answers(clip_values, num_space, value, code, dtype):
    out = ThermometerEncoding(clip_values, num_space).transform(np.array([[value]], dtype=dtype))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, [code])


def test_levels_of_a_channel_stand_side_by_side():
    out = ThermometerEncoding((0, 1), 2).transform(np.array([[0.9, 0.1]]))
    np.testing.assert_array_equal(out, [[1, 1, 1, 0]])
    x = np.array([0.9, 0.1]).reshape(1, 2, 1, 1)
    out = ThermometerEncoding((0, 1), 2, channels_first=True).transform(x)
    np.testing.assert_array_equal(out, np.array([1, 1, 1, 0]).reshape(1, 4, 1, 1))


def test_limits_for_each_channel():
    limits = (np.zeros(2), np.array([1, 255]))
    x = np.array([[0.6, 0.6], [0.1, 128]])
    out = ThermometerEncoding(limits, 2).transform(x)
    np.testing.assert_array_equal(out, [[1, 1, 1, 0], [1, 0, 1, 1]])
    out = ThermometerEncoding(limits, 2, channels_first=True).transform(x.reshape(2, 2, 1, 1))
    np.testing.assert_array_equal(out[..., 0, 0], [[1, 1, 1, 0], [1, 0, 1, 1]])
    out = ThermometerEncoding((0, np.array([1, 255])), 2).transform(x)
    np.testing.assert_array_equal(out, [[1, 1, 1, 0], [1, 0, 1, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, ">f4", np.longdouble])
def test_any_dtype(dtype):
    x = np.array([[0, 1, 1]]).astype(dtype)
    out = ThermometerEncoding((0, 2), 4).transform(x)
    assert out.dtype == (np.float16 if dtype is np.float16 else np.float32)
    np.testing.assert_array_equal(out, [[1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]])


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=2, max_size=5).map(tuple),
    channels_first=st.booleans(),
    num_space=st.integers(1, 12),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_code_counts_levels(shape, channels_first, num_space, transposed, seed):
    few, square = (-1, (-3, -2)) if channels_first else (1, (-2, -1))
    assume(
        len(shape) < 4 or shape[few] not in (1, 3) or shape[square[0]] != shape[square[1]]
    )  # layout in doubt
    x = np.random.default_rng(seed).uniform(-0.2, 1.2, shape)
    if transposed:
        x = np.asfortranarray(x)
    out = ThermometerEncoding((0, 1), num_space, channels_first).transform(x)
    axis = 1 if channels_first else x.ndim - 1
    levels = np.arange(1, num_space).reshape(-1, *[1] * (x.ndim - 1 - axis)) / num_space
    code = np.expand_dims(x, axis + 1) > levels
    expected = np.concatenate(
        (np.ones_like(code, shape=(*shape[: axis + 1], 1, *shape[axis + 1 :])), code), axis + 1
    )
    np.testing.assert_array_equal(out, expected.reshape(out.shape))
    assert out.shape[axis] == num_space * shape[axis]


@pytest.mark.parametrize(
    ("clip_values", "value", "expected"),
    [
        ((0, 1), 0.6, 1 + 2 + 3),
        ((0, 1), 0.5, 1 + 2),
        ((0, 255), 102, (1 + 2) / 255),  # 0.4 exceeds 0 and 0.25
        ((-100, 300), 0, 1 / 400),
        ((0, 1), 0.0, 0),
    ],
)
def test_gradient_of_written_out_values(clip_values, value, expected):
    defence = ThermometerEncoding(clip_values, 4)
    out = defence.estimate_gradient(np.array([[float(value)]]), np.array([[1.0, 2, 3, 4]]))
    np.testing.assert_allclose(out, [[expected]], rtol=1e-15)


@pytest.mark.parametrize(
    "clip_values", [(0, 1), (0, 255), (-3, 5), (np.array([0.0, -1, 2]), np.array([1.0, 255, 9]))]
)
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("ndim", [2, 4, 5])
def test_surrogate_gradient_meets_finite_differences(clip_values, channels_first, ndim):
    rng = np.random.default_rng(ndim)
    num_space = 6
    shape = (2, *rng.integers(1, 5, ndim - 2), 3)
    low, high = map(np.asarray, clip_values)
    position = (rng.integers(0, num_space, shape) + rng.uniform(0.1, 0.9, shape)) / num_space  # off the kinks
    grad = rng.normal(size=(*shape, num_space))

    def surrogate(position):
        return np.clip(position[..., None] - np.arange(num_space) / num_space, 0, 1)

    h = 1e-3
    slope = ((surrogate(position + h) - surrogate(position - h)) / (2 * h) * grad).sum(axis=-1)
    expected = slope / (high - low)
    x, grad = low + position * (high - low), grad.reshape(*shape[:-1], -1)
    if channels_first:
        x, grad, expected = (np.moveaxis(a, -1, 1) for a in (x, grad, expected))
    defence = ThermometerEncoding(clip_values, num_space, channels_first)
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "clip_values", [(0, 1), (0, 255), (-3, 5), (np.array([0.0, -1, 2]), np.array([1.0, 255, 9]))]
)
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("num_space", [1, 2, 7])
def test_soft_gradient_meets_finite_differences(clip_values, channels_first, num_space):
    rng = np.random.default_rng(num_space)
    low, high = map(np.asarray, clip_values)
    x = low + rng.uniform(-0.3, 1.3, (3, 4, 5, 3)) * (high - low)  # also outside of the range
    grad = rng.normal(size=(*x.shape, num_space))

    def smooth_steps(x):
        position = (x - low) / (high - low)
        steps = [0 * position + 1]
        steps += [np.arctan(255 * (position - k / num_space)) / np.pi + 0.5 for k in range(1, num_space)]
        return np.stack(steps, axis=-1)

    h = 1e-6 * (high - low)
    change = (smooth_steps(x + h) - smooth_steps(x - h)) * grad
    expected = change.sum(axis=-1) / (2 * h)
    grad = grad.reshape(*x.shape[:-1], -1)
    if channels_first:
        x, grad, expected = (np.moveaxis(a, -1, 1) for a in (x, grad, expected))
    defence = ThermometerEncoding(clip_values, num_space, channels_first, gradient="soft")
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), expected, rtol=1e-6, atol=1e-7)


def test_soft_gradient_far_outside_of_the_range():
    defence = ThermometerEncoding((0, 1), 4, gradient="soft")
    grad = np.ones((2, 4), np.float32)
    with pytest.warns(UserWarning, match="`clip_values` should be the range of the data"):
        out = defence.estimate_gradient(np.array([[-1e30], [1e30]], np.float32), grad)
    np.testing.assert_array_equal(out, 0)


def test_identity_gradient_counts_every_level():
    defence = ThermometerEncoding((0, 255), 4, gradient="identity")
    out = defence.estimate_gradient(np.array([[0.0]]), np.array([[1.0, 2, 3, 4]]))
    np.testing.assert_allclose(out, [[10 / 255]])


def test_gradient_with_an_axis_of_classes():
    rng = np.random.default_rng(0)
    x, grad = rng.random((2, 3, 4, 2)), rng.normal(size=(2, 5, 3, 4, 20))
    defence = ThermometerEncoding((0, 1))
    out = defence.estimate_gradient(x, grad)
    assert out.shape == (2, 5, 3, 4, 2)
    for k in range(5):
        np.testing.assert_array_equal(out[:, k], defence.estimate_gradient(x, grad[:, k]))


def test_channel_index():
    x = np.random.default_rng(0).random((1, 3, 8, 9))
    with pytest.warns(FutureWarning, match="use channels_first=True instead of channel_index=1"):
        old = ThermometerEncoding((0, 1), channel_index=1)
    np.testing.assert_array_equal(
        old.transform(x), ThermometerEncoding((0, 1), channels_first=True).transform(x)
    )
    with pytest.warns(FutureWarning, match="use channels_first=False instead of channel_index=4"):
        assert ThermometerEncoding((0, 1), channel_index=4).channels_first is False


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"num_space": 0}, ValueError, "`num_space` must be at least 1, got 0"),
        ({"num_space": 4.5}, TypeError, "`num_space` must be an integer, got 4.5"),
        ({"clip_values": (1, 1)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"clip_values": (0,)}, ValueError, "`clip_values` must be a pair"),
        (
            {"gradient": "exact"},
            ValueError,
            "`gradient` must be one of 'identity', 'surrogate', 'soft', got 'exact'",
        ),
        ({"channels_first": "no"}, TypeError, "`channels_first` must be True or False, got 'no'"),
        ({"channel_index": 0}, ValueError, "`channel_index` must be 1"),
        ({"apply_fit": 1}, TypeError, "`apply_fit` must be True or False, got 1"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        ThermometerEncoding(**{"clip_values": (0, 1), **parameters})


@pytest.mark.parametrize(
    ("clip_values", "x", "error", "message"),
    [
        ((0, 1), np.zeros(3), ValueError, r"`x` must have an axis of channels, got shape \(3,\)"),
        ((0, 1), np.array([[np.nan]]), ValueError, "`x` must be finite, got 1 NaN"),
        ((0, 1), np.array([["a"]]), TypeError, "`x` must hold real numbers"),
        ((0, 1), np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
        ((0, 1), np.zeros((2, 3, 8, 8)), ValueError, "pass channels_first=True"),
        (
            (0, np.ones(2)),
            np.zeros((4, 3)),
            ValueError,
            "`clip_values` .* one entry for each of the 3 channels",
        ),
    ],
)
def test_bad_arrays(clip_values, x, error, message):
    with pytest.raises(error, match=message):
        ThermometerEncoding(clip_values).transform(x)


def test_a_batch_without_channels():
    x = np.zeros((3, 0))
    assert ThermometerEncoding((0, 1)).transform(x).shape == (3, 0)
    assert ThermometerEncoding((0, 1)).estimate_gradient(x, x).shape == (3, 0)
