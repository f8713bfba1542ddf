"""Images in the range of the caller's data, and in [0, 1] with the channels last, as models know them."""

import numpy as np

from .checks import check_channels
from .layout import per_channel, range_dtype
from .typing import Array, ClipValues

__all__ = ["from_unit_range", "range_of", "to_unit_range"]


def range_of(x: Array, clip_values: ClipValues, *, axis: int) -> tuple[Array, Array]:
    """Minimum and span of `clip_values`, shaped so that they broadcast against `x`."""
    dtype = range_dtype(x.dtype, clip_values)
    low, high = (np.asarray(value, dtype=dtype) for value in clip_values)
    for value in (low, high):
        check_channels("clip_values", value, x.shape, axis)
    low, span = (per_channel(value, x.ndim, axis=axis) for value in (low, np.asarray(high - low)))
    return low, span


def to_unit_range(x: Array, clip_values: ClipValues, *, axis: int) -> Array:
    """Images `(N, H, W, C)` in [0, 1] of a batch between `clip_values`; values outside are saturated."""
    low, span = range_of(x, clip_values, axis=axis)
    images = np.clip((x.astype(low.dtype, copy=False) - low) / span, 0, 1)
    return np.moveaxis(images, axis, -1)


def from_unit_range(images: Array, x: Array, clip_values: ClipValues, *, axis: int) -> Array:
    """Images `(N, H, W, C)` in [0, 1] in the range and the layout of `x`."""
    images = np.ascontiguousarray(np.moveaxis(images, -1, axis))
    low, span = range_of(x, clip_values, axis=axis)
    return np.asarray(low + span * images)
