"""Resizing of planes by a few neighbouring pixels for each new one."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["resize_planes"]


@kernel
def resize_planes(
    out: Array,
    x: Array,
    first_row: Array,
    row_weights: Array,
    first_column: Array,
    column_weights: Array,
    step: int,
) -> None:
    """Each new row is a weighted sum of old rows, and each new column one of old columns.

    Parameters
    ----------
    out : ndarray, shape (P, h, w * step)
        Written; `step` interleaved channels make a row.
    x : ndarray, shape (P, H, W * step)
        Planes.
    first_row, row_weights : ndarray, shapes (h,) and (h, taps)
        The old rows of a new one, from its first on, and their weights.
    first_column, column_weights : ndarray, shapes (w,) and (w, taps)
        The same for columns.
    step : int
        Distance between horizontal neighbours.
    """
    line = np.empty(x.shape[2], x.dtype)  # a new row with the old columns; it stays in the cache
    for p in range(x.shape[0]):
        for i in range(first_row.shape[0]):
            source = x[p, first_row[i]]
            for t in range(line.shape[0]):
                line[t] = row_weights[i, 0] * source[t]
            for k in range(1, row_weights.shape[1]):
                source, weight = x[p, first_row[i] + k], row_weights[i, k]
                for t in range(line.shape[0]):
                    line[t] += weight * source[t]
            for j in range(first_column.shape[0]):
                start = first_column[j] * step
                for channel in range(step):
                    total = column_weights[j, 0] * line[start + channel]
                    for k in range(1, column_weights.shape[1]):
                        total += column_weights[j, k] * line[start + k * step + channel]
                    out[p, i, j * step + channel] = total
