"""A symmetric filter along the rows and the columns of images, the borders mirrored."""

from collections.abc import Sequence
from typing import Any

from .borders import padded, shifted

__all__ = ["filter_planes"]


def filter_planes(x: Any, xp: Any, taps: Sequence[Any], axes: tuple[int, int]) -> Any:
    """Filter along both axes.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    taps : sequence of float or array
        One half of the filter, from its middle outwards; arrays broadcast against `x`.
    axes : tuple of int
        Rows and columns.
    """
    reach = len(taps) - 1
    for axis in axes:
        length = x.shape[axis]
        line = padded(x, reach, reach, axis, xp, repeat_edge=False)
        x = taps[0] * shifted(line, reach, length, axis)
        for k in range(1, reach + 1):
            before, after = (shifted(line, reach + sign * k, length, axis) for sign in (-1, 1))
            x = x + taps[k] * (before + after)
    return x
