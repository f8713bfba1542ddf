"""Pixels overwritten with neighbours, one after the other, and the way back."""

from ..typing import Array
from . import kernel

__all__ = ["DRAWS", "deflect", "return_gradient"]

DRAWS = 5  # uniform numbers behind one deflection: row and column, those of the source, and a chance


@kernel
def _pick(draw: Array, height: int, width: int, window: int) -> tuple[int, int, int, int]:
    """Row and column of a pixel, and of one from the window around it, as far as that lies inside."""
    row, column = int(draw[0] * height), int(draw[1] * width)
    top, left = max(row - window, 0), max(column - window, 0)
    bottom, right = min(row + window, height - 1), min(column + window, width - 1)
    source_row = top + int(draw[2] * (bottom - top + 1))
    source_column = left + int(draw[3] * (right - left + 1))
    return row, column, source_row, source_column


@kernel
def _place(values: Array, maps: Array, number: int) -> tuple[Array, Array]:
    """The plane with this number, and its map; without maps, an empty one."""
    frames, channels = values.shape[1:3]
    sample, frame = number // (frames * channels), number // channels % frames
    plane = values[sample, frame, number % channels]
    return plane, maps[sample % maps.shape[0], frame % maps.shape[1]]


@kernel
def deflect(values: Array, maps: Array, draws: Array, first: int, window: int) -> None:
    """Overwrite pixels with others of their neighbourhood, in this order.

    Parameters
    ----------
    values : ndarray, shape (N, F, C, H, W)
        Samples, frames and channels: planes, numbered in this order. Some are written.
    maps : ndarray, shape (N or 1, F or 1, H, W)
        Probability with which a pixel is left alone; without rows and columns, none is.
    draws : ndarray, shape (P, K, DRAWS)
        Uniform on [0, 1), for each of K deflections of each of P planes.
    first : int
        Number of the first of these planes.
    window : int
        How far away a source may lie, in rows and in columns.
    """
    height, width = values.shape[3:]
    for p in range(draws.shape[0]):
        plane, chances = _place(values, maps, first + p)
        for k in range(draws.shape[1]):
            row, column, source_row, source_column = _pick(draws[p, k], height, width, window)
            if not (chances.size and draws[p, k, 4] < chances[row, column]):
                plane[row, column] = plane[source_row, source_column]


@kernel
def return_gradient(values: Array, maps: Array, draws: Array, first: int, window: int) -> None:
    """Turn the gradient with respect to deflected planes into that with respect to the planes before.

    What a pixel received goes to its source, in reverse order. The parameters are those of `deflect`.
    """
    height, width = values.shape[3:]
    for p in range(draws.shape[0]):
        plane, chances = _place(values, maps, first + p)
        for k in range(draws.shape[1] - 1, -1, -1):
            row, column, source_row, source_column = _pick(draws[p, k], height, width, window)
            if not (chances.size and draws[p, k, 4] < chances[row, column]):
                passed = plane[row, column]
                plane[row, column] = 0
                plane[source_row, source_column] += passed
