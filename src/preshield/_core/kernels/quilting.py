"""Patches laid over one another, cut where they differ least."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["lay_patches"]


@kernel
def _find_seam(seam: Array, errors: Array, work: Array, width: int) -> None:
    """The column in each row from which on the new patch counts: of the path down with the smallest sum.

    It moves by one column a row at most; of equal paths the one further left is taken, from the bottom up.
    """
    rows = seam.size
    for j in range(width):
        work[0, j] = errors[0, j]
    for i in range(1, rows):
        for j in range(width):
            least = work[i - 1, j]
            if j > 0:
                least = min(least, work[i - 1, j - 1])
            if j + 1 < width:
                least = min(least, work[i - 1, j + 1])
            work[i, j] = errors[i, j] + least
    low, high = 0, width
    for i in range(rows - 1, -1, -1):
        best = low
        for j in range(low + 1, high):
            if work[i, j] < work[i, best]:
                best = j
        seam[i] = best
        low, high = max(best - 1, 0), min(best + 2, width)


@kernel
def lay_patches(out: Array, patches: Array, chosen: Array, tops: Array, lefts: Array) -> None:
    """Write patches into images, row by row.

    Where one meets those that lie there already, above and to the left, it is cut along the path on which the
    sum of squared differences is smallest, one for each of the two sides.

    Parameters
    ----------
    out : ndarray, shape (N, H, W, C)
        Written.
    patches : ndarray, shape (M, size, size, C)
        The database.
    chosen : ndarray of int, shape (N, rows, columns)
        Which patch goes where.
    tops, lefts : ndarray of int, shapes (rows,) and (columns,)
        First row and first column of each.
    """
    size, channels = patches.shape[1], patches.shape[3]
    errors, turned, work = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    left, top = np.empty(size, np.int64), np.empty(size, np.int64)
    for n in range(out.shape[0]):
        for a in range(tops.size):
            for b in range(lefts.size):
                patch, y, x = patches[chosen[n, a, b]], tops[a], lefts[b]
                across = lefts[b - 1] + size - x if b > 0 else 0
                down = tops[a - 1] + size - y if a > 0 else 0
                left[:] = 0
                top[:] = 0
                if across > 0 or down > 0:
                    for i in range(size):
                        for j in range(size):
                            total = 0.0
                            if i < down or j < across:
                                for c in range(channels):
                                    difference = np.float64(out[n, y + i, x + j, c]) - patch[i, j, c]
                                    total += difference * difference
                            errors[i, j], turned[j, i] = total, total
                if across > 0:
                    _find_seam(left, errors, work, across)
                if down > 0:
                    _find_seam(top, turned, work, down)
                for i in range(size):
                    for j in range(size):
                        if j >= left[i] and i >= top[j]:
                            for c in range(channels):
                                out[n, y + i, x + j, c] = patch[i, j, c]
