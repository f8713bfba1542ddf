"""Median of a rectangular window, and the pixel that was it.

The columns of a window are sorted once and shared by all windows that contain them. The median of the
sorted columns is then read off a *selection network*: a fixed list of compare-exchange steps that carries
the wanted rank to a known place. The steps do not depend on the data, so one step is applied to a whole
strip of neighbouring pixels at once, and the compiler turns it into vector minimum and maximum
instructions.
"""

from functools import lru_cache
from typing import TypeAlias

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["median_gradient", "median_network", "median_planes"]

Step: TypeAlias = tuple[int, int, int, int]

CACHE = 32768  # bytes; the strips of one network stay within the first-level cache


@lru_cache(maxsize=32)
def median_network(height: int, width: int) -> tuple[Array, Array, int]:
    """Steps that sort the columns of a window, and steps that find the median of sorted columns.

    Batcher's odd-even merge sort (AFIPS 1968) on columns padded with infinity to a power of two. Where
    infinity is compared the outcome is known, so no step is spent; nor is one spent on results that
    nobody reads.

    Parameters
    ----------
    height, width : int
        Sides of the window.

    Returns
    -------
    columns, merge : ndarray of int32, shape (steps, 4)
        Rows `(i, j, minimum, maximum)`: entry `i` receives the smaller value, entry `j` the larger one; a
        flag of 0 says that nobody reads that result. Entries are rows of the window in `columns`, and
        `column * height + row` in `merge`.
    median : int
        The entry that holds the median in the end, which for even windows is the upper one.
    """
    padded_height, padded_width = (1 << (side - 1).bit_length() for side in (height, width))
    places: list[int | None] = [
        column * height + row if column < width and row < height else None
        for column in range(padded_width)
        for row in range(padded_height)
    ]
    steps = []
    p = 1
    while p < len(places):
        k = p
        while k >= 1:
            for j in range(k % p, len(places) - k, 2 * k):
                for i in range(j, min(j + k, len(places) - k)):
                    low, high = places[i], places[i + k]
                    if i // (2 * p) != (i + k) // (2 * p) or high is None:
                        continue
                    if low is None:
                        places[i], places[i + k] = high, None
                    else:
                        steps.append((p < padded_height, low, high))
            k //= 2
        p *= 2
    median = [place for place in places if place is not None][height * width // 2]

    read = {median}
    columns: list[Step] = []
    merge: list[Step] = []
    for sorts_columns, i, j in reversed(steps):
        if sorts_columns:
            if j < height:  # all columns are sorted alike
                columns.append((i, j, 1, 1))
        elif i in read or j in read:
            merge.append((i, j, int(i in read), int(j in read)))
            read |= {i, j}
    return _steps(columns), _steps(merge), median


def _steps(backwards: list[Step]) -> Array:
    return np.array(backwards[::-1], dtype=np.int32).reshape(-1, 4)


@kernel
def _reflect(i: int, n: int) -> int:
    """Index inside 0..n-1 for any `i`, by reflection that repeats the edge (b a | a b c d | d c)."""
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@kernel
def _apply(network: Array, lines: Array, start: int, stop: int) -> None:
    """Apply the steps of a network to the rows of `lines`, entries `start` to `stop`."""
    for s in range(network.shape[0]):
        low = lines[network[s, 0]][start:stop]
        high = lines[network[s, 1]][start:stop]
        if network[s, 2] and network[s, 3]:
            for t in range(stop - start):
                a, b = low[t], high[t]
                low[t] = a if a < b else b
                high[t] = b if a < b else a
        elif network[s, 2]:
            for t in range(stop - start):
                a, b = low[t], high[t]
                low[t] = a if a < b else b
        else:
            for t in range(stop - start):
                a, b = low[t], high[t]
                high[t] = b if a < b else a


@kernel
def _median_of_three_columns(out: Array, lines: Array, step: int) -> None:
    """Median of 3x3: of the largest minimum, the middle median and the smallest maximum."""
    low_left, low, low_right = lines[0], lines[0][step:], lines[0][2 * step :]
    left, middle, right = lines[1], lines[1][step:], lines[1][2 * step :]
    high_left, high, high_right = lines[2], lines[2][step:], lines[2][2 * step :]
    for t in range(out.shape[0]):
        a, b, c = low_left[t], low[t], low_right[t]
        a = b if a < b else a
        a = c if a < c else a
        d, e, f = high_left[t], high[t], high_right[t]
        d = e if e < d else d
        d = f if f < d else d
        g, h, i = left[t], middle[t], right[t]
        smaller, larger = (g if g < h else h), (h if g < h else g)
        larger = i if i < larger else larger
        g = larger if smaller < larger else smaller
        smaller, larger = (a if a < d else d), (d if a < d else a)
        larger = g if g < larger else larger
        out[t] = larger if smaller < larger else smaller


@kernel
def median_planes(
    out: Array, x: Array, height: int, width: int, step: int, columns: Array, merge: Array, median: int
) -> None:
    """Median of each window of each plane, with SciPy's borders and, for even windows, SciPy's centre.

    Parameters
    ----------
    out, x : ndarray, shape (P, H, W * step)
        Planes; `step` interleaved channels make a row. `out` is written.
    height, width : int
        Sides of the window.
    step : int
        Distance between horizontal neighbours.
    columns, merge, median
        `median_network(height, width)`.
    """
    planes, rows, length = x.shape
    above, before = height // 2, width // 2
    pixels = length // step
    lines = np.empty((height, length + (width - 1) * step), x.dtype)
    strip_length = min(length, max(64, CACHE // (height * width * x.itemsize)))
    strip = np.empty((height * width, strip_length), x.dtype)
    for p in range(planes):
        for row in range(rows):
            for dy in range(height):
                source = x[p, _reflect(row + dy - above, rows)]
                target = lines[dy][before * step :]
                for t in range(length):
                    target[t] = source[t]
            _apply(columns, lines, before * step, before * step + length)
            for i in range(width - 1):
                outside = i if i < before else i + pixels
                inside = before + _reflect(outside - before, pixels)
                for dy in range(height):
                    for channel in range(step):
                        lines[dy, outside * step + channel] = lines[dy, inside * step + channel]
            if height == 3 and width == 3:
                _median_of_three_columns(out[p, row], lines, step)
                continue
            for start in range(0, length, strip_length):
                count = min(strip_length, length - start)
                for dx in range(width):
                    for dy in range(height):
                        source = lines[dy][start + dx * step :]
                        for t in range(count):
                            strip[dx * height + dy, t] = source[t]
                _apply(merge, strip, 0, count)
                target = out[p, row][start:]
                for t in range(count):
                    target[t] = strip[median, t]


@kernel
def median_gradient(
    out: Array, x: Array, median: Array, grad: Array, height: int, width: int, step: int
) -> None:
    """Send each entry of `grad` to the pixel that was the median; of equal pixels, to the first.

    Parameters
    ----------
    out, x, median, grad : ndarray, shape (P, H, W * step)
        Planes; `median` is what `median_planes` made of `x`. `out` is written.
    height, width, step : int
        As for `median_planes`.
    """
    planes, rows, length = x.shape
    columns = length // step
    above, before = height // 2, width // 2
    for p in range(planes):
        out[p] = 0
        for row in range(rows):
            for column in range(columns):
                for channel in range(step):
                    at = column * step + channel
                    value = median[p, row, at]
                    found = False
                    for dy in range(height):
                        y = _reflect(row + dy - above, rows)
                        for dx in range(width):
                            source = _reflect(column + dx - before, columns) * step + channel
                            if x[p, y, source] == value:
                                out[p, y, source] += grad[p, row, at]
                                found = True
                                break
                        if found:
                            break
