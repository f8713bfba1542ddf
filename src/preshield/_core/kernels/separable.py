"""A symmetric filter along both axes of planes, the borders mirrored."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["filter_planes"]


@kernel
def _mirror(i: int, n: int) -> int:
    """Index inside 0..n-1 for any `i`, by reflection about the edge (d c b | a b c d | c b a)."""
    if n == 1:
        return 0
    i = i % (2 * n - 2)
    return i if i < n else 2 * n - 2 - i


@kernel
def filter_planes(out: Array, x: Array, taps: Array, step: int) -> None:
    """Filter the columns of each plane, then its rows.

    Parameters
    ----------
    out, x : ndarray, shape (P, H, W * step)
        Planes; `step` interleaved channels make a row. `out` is written.
    taps : ndarray, shape (reach + 1,)
        One half of the filter, from its middle outwards; of the dtype of `x`.
    step : int
        Distance between horizontal neighbours.
    """
    planes, height, width = x.shape
    reach = taps.shape[0] - 1
    pixels = width // step
    line = np.empty(width + 2 * reach * step, x.dtype)  # a row with its borders; it stays in the cache
    row = line[reach * step : reach * step + width]
    for p in range(planes):
        for y in range(height):
            source = x[p, y]
            for t in range(width):
                row[t] = taps[0] * source[t]
            for k in range(1, reach + 1):
                above, below, tap = x[p, _mirror(y - k, height)], x[p, _mirror(y + k, height)], taps[k]
                for t in range(width):
                    row[t] += tap * (above[t] + below[t])
            for i in range(1, reach + 1):
                left, right = _mirror(-i, pixels), _mirror(pixels - 1 + i, pixels)
                for channel in range(step):
                    line[(reach - i) * step + channel] = row[left * step + channel]
                    line[(reach + pixels - 1 + i) * step + channel] = row[right * step + channel]
            target = out[p, y]
            for t in range(width):
                target[t] = taps[0] * row[t]
            for k in range(1, reach + 1):
                before, after, tap = line[(reach - k) * step :], line[(reach + k) * step :], taps[k]
                for t in range(width):
                    target[t] += tap * (before[t] + after[t])
