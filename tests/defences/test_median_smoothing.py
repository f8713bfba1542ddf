"""Median smoothing of audio: clicks by hand, SciPy, its gradient, its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from preshield import MedianSmoothing, SpatialSmoothing
from tests.cases import audio


@pytest.mark.parametrize(
    ("window_size", "expected"),
    [
        (1, [3, 1, 9, 2, 2]),
        (3, [3, 3, 2, 2, 2]),  # 3 3 1, 3 1 9, 1 9 2, 9 2 2, 2 2 2
        (2, [3, 3, 9, 9, 2]),  # 3 3, 3 1, 1 9, 9 2, 2 2: the upper one of two
        (9, [2, 2, 2, 2, 2]),  # of the first: 2 9 1 3 | 3 1 9 2 2
    ],
)
def test_known_answers(window_size, expected):
    out = MedianSmoothing(window_size).transform(np.array([[3, 1, 9, 2, 2]], np.int16))
    assert out.dtype == np.int16
    np.testing.assert_array_equal(out, [expected])


@settings(max_examples=20, deadline=None)
@given(
    window_size=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint64, np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_scipy(window_size, shape, channels_first, dtype, seed):
    x = np.random.default_rng(seed).integers(0, 40, shape).astype(dtype)
    expected = median_filter(x.astype(float), size=(1, window_size, 1), mode="reflect")
    if channels_first:
        x, expected = np.moveaxis(x, 2, 1), np.moveaxis(expected, 2, 1)
    out = MedianSmoothing(window_size, channels_first=channels_first).transform(x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("window_size", [3, 4])
def test_the_exact_gradient_meets_finite_differences(window_size):
    rng = np.random.default_rng(0)
    x = rng.permutation(24).reshape(1, 12, 2).astype(float)  # no ties
    grad = rng.normal(size=x.shape)
    defence = MedianSmoothing(window_size, gradient="exact")
    expected = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[index] = 0.25
        difference = defence.transform(x + step) - defence.transform(x - step)
        expected[index] = (difference * grad).sum() / 0.5
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), expected, atol=1e-12)
    np.testing.assert_array_equal(MedianSmoothing(window_size).estimate_gradient(x, grad), grad)


def test_the_gradient_of_ties_goes_to_the_earliest():
    pulled = MedianSmoothing(3, gradient="exact").estimate_gradient(np.zeros((1, 4)), np.eye(4)[2:3])
    np.testing.assert_array_equal(pulled, [[0, 1, 0, 0]])


def test_it_is_the_median_of_images_of_one_row():
    x = audio()
    image = SpatialSmoothing(3).transform(x[:, None, :, None])
    np.testing.assert_array_equal(MedianSmoothing(3).transform(x), image[:, 0, :, 0])


def test_recordings_of_different_lengths():
    defence = MedianSmoothing(5, gradient="exact")
    clips = [audio(2)[0], audio()[1, :9], np.zeros(0)]
    out, pulled = defence.transform(clips), defence.estimate_gradient(clips, clips)
    for number, clip in enumerate(clips):
        np.testing.assert_array_equal(out[number], defence.transform(clip[None])[0])
        np.testing.assert_array_equal(pulled[number], defence.estimate_gradient(clip[None], clip[None])[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window_size": 0}, r"`window_size` must be at least 1, got 0"),
        ({"window_size": 2.5}, r"`window_size` must be an integer, got 2\.5"),
        ({"gradient": "soft"}, r"`gradient` must be one of 'identity', 'exact', got 'soft'"),
        ({"channels_first": None}, r"`channels_first` must be True or False, got None"),
    ],
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        MedianSmoothing(**parameters)


def test_channels_in_the_place_of_time_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 99, 2\), of 2 along time .* channels_first=False\."):
        MedianSmoothing(channels_first=True).transform(np.zeros((2, 99, 2)))
