"""Layouts and dtypes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield._core.layout import (
    channel_axis,
    from_frames,
    kept_dtype,
    other_layouts,
    per_channel,
    range_dtype,
    saturated,
    to_frames,
    working_dtype,
)


@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(0, 4), min_size=4, max_size=5).map(tuple), channels_first=st.booleans())
def test_frames_are_a_view_and_lead_back(shape, channels_first):
    x = np.arange(np.prod(shape)).reshape(shape)
    axis = channel_axis(len(shape), channels_first)
    frames = to_frames(x, axis=axis)
    assert frames.ndim == 5
    assert frames.shape[0] == shape[0]
    assert frames.shape[1] == (1 if len(shape) == 4 else shape[2 if channels_first else 1])
    assert frames.shape[-1] == shape[axis]
    back = from_frames(frames, len(shape), axis=axis)
    np.testing.assert_array_equal(back, x)
    assert x.size == 0 or np.shares_memory(back, x)


def test_frames_of_videos_with_channels_first():
    x = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)  # NCFHW
    assert to_frames(x, axis=1)[1, 3, 4, 5, 2] == x[1, 2, 3, 4, 5]
    assert to_frames(x, axis=2)[1, 2, 4, 5, 3] == x[1, 2, 3, 4, 5]  # NFCHW


@pytest.mark.parametrize(
    ("ndim", "axis", "shape"),
    [(4, 1, (1, 3, 1, 1)), (4, 3, (1, 1, 1, 3)), (5, 2, (1, 1, 3, 1, 1)), (2, 1, (1, 3))],
)
def test_per_channel(ndim, axis, shape):
    assert per_channel(np.arange(3.0), ndim, axis=axis).shape == shape
    assert per_channel(np.array([2.0]), ndim, axis=axis).shape == ()
    assert per_channel(np.zeros(0), ndim, axis=axis).size == 0


@pytest.mark.parametrize(
    ("dtype", "kept", "working"),
    [
        ("uint8", "float32", "float32"),
        ("bool", "float32", "float32"),
        ("float16", "float16", "float32"),
        ("float32", "float32", "float32"),
        (">f4", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("longdouble", "longdouble", "float64"),
    ],
)
def test_dtypes(dtype, kept, working):
    assert kept_dtype(np.dtype(dtype)) == np.dtype(kept)
    assert kept_dtype(np.dtype(dtype)).isnative
    assert working_dtype(np.dtype(dtype)) == np.dtype(working)


@pytest.mark.parametrize(
    "clip_values",
    [
        (0, 255),
        (0.0, 1.0),
        (np.float64(0), np.float64(1)),
        (np.float32(0), np.float32(1)),
        (np.zeros(3), np.ones(3)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64"])
def test_range_dtype_is_that_of_numpy_arithmetic(dtype, clip_values):
    low, high = clip_values
    x = np.ones((2, 3), dtype=dtype)
    assert range_dtype(x.dtype, clip_values) == ((x - low) / (high - low)).dtype


def test_range_dtype_of_half_precision_is_at_least_single():
    assert range_dtype(np.dtype("float16"), (0, 1)) == np.float32


@pytest.mark.parametrize(
    ("shape", "expected", "found"),
    [
        ((2, 3, 16, 17), "NHWC", "NCHW"),  # two sides of 16 or more
        ((2, 3, 15, 17), "NHWC", None),
        ((2, 3, 17, 15), "NHWC", None),
        ((2, 3, 5, 5), "NHWC", "NCHW"),  # equal sides of more than 4
        ((2, 4, 4, 4), "NHWC", None),
        ((2, 1, 5, 6), "NHWC", None),
        ((2, 2, 32, 32), "NHWC", None),  # nothing has two channels
        ((2, 16, 17, 3), "NHWC", None),  # as it should be
        ((2, 16, 17, 4), "NCHW", "NHWC"),
        ((2, 5, 3, 16, 17), "NFHWC", "NFCHW"),
        ((2, 3, 16, 16, 17), "NFCHW", "NCFHW"),
        ((2, 3, 15, 16, 17), "NFCHW", None),
        ((2, 3, 16, 16, 16), "NFHWC", "NCFHW"),  # three frames of 16 channels would be absurd,
        ((2, 3, 15, 15, 15), "NFHWC", None),  # of 15 they may be,
        ((2, 3, 40, 16, 16), "NFHWC", "NCFHW"),  # but not as many channels as columns
        ((2, 3, 40, 17, 16), "NFHWC", None),
        ((2, 3, 16, 40, 16), "NFHWC", "NCFHW"),
    ],
)
def test_where_the_channels_plainly_are(shape, expected, found):
    assert other_layouts(shape, expected) == ((found,) if found else ())


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        ([-3, -0.4, 0.5, 0.6, 1.5, 254.6, 255.4, 1e9], "uint8", [0, 0, 0, 1, 2, 255, 255, 255]),
        ([-129, -127.6, 126.5, 128], "int8", [-128, -128, 126, 127]),
        ([-1, 0, 0.5, 0.6, 7], "bool", [False, False, False, True, True]),
        ([-1e30, 1e30], "int64", [-(2**63), 2**63 - 2**10]),  # the largest that double precision has
        ([-1e30, 1e30], "int32", [-(2**31), 2**31 - 1]),
        ([-1e30, 1e30], ">u2", [0, 2**16 - 1]),
    ],
)
def test_numbers_saturate_at_the_limits_of_a_type(x, dtype, expected):
    found = saturated(np.array(x, dtype=np.float64), np.dtype(dtype))
    assert found.tolist() == expected
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.dtype.isnative


def test_the_largest_integers_in_single_precision():
    x = np.float32([-1e30, 1e30])
    assert saturated(x, np.dtype(np.int32)).tolist() == [-(2**31), 2**31 - 2**7]
    assert saturated(x, np.dtype(np.int64)).tolist() == [-(2**63), 2**63 - 2**39]
