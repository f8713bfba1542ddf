"""Pixels overwritten with neighbours, one after the other, and the way back."""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["deflect", "return_gradient"]

_WORD, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@kernel
def _share(word: Any, entries: int) -> Any:
    """Which of so many equal shares of the range a random number of 32 bits falls in."""
    return np.int64((np.uint64(word) * np.uint64(entries)) >> _WORD)


@kernel
def _pick(draw: Array, height: int, width: int, window: int) -> tuple[int, int, int, int]:
    """Row and column of a pixel, and of one from the window around it, as far as that lies inside."""
    row, column = _share(draw[0], height), _share(draw[1], width)
    top, left = max(row - window, 0), max(column - window, 0)
    bottom, right = min(row + window, height - 1), min(column + window, width - 1)
    source_row = top + _share(draw[2], bottom - top + 1)
    source_column = left + _share(draw[3], right - left + 1)
    return row, column, source_row, source_column


@kernel
def _chance(draw: Array, height: int) -> Any:
    """Where in its share the number lies that the row came from: uniform on [0, 1), whatever the row."""
    return np.float64((np.uint64(draw[0]) * np.uint64(height)) & _LOW) / 2**32


@kernel
def _place(values: Array, maps: Array, number: int) -> tuple[Array, Array]:
    """The plane with this number, and its map; without maps, an empty one."""
    frames, channels = values.shape[1:3]
    sample, frame = number // (frames * channels), number // channels % frames
    plane = values[sample, frame, number % channels]
    return plane, maps[sample % maps.shape[0], frame % maps.shape[1]]


@kernel
def _find(picks: Array, plane: Array, chances: Array, draws: Array, window: int) -> None:
    """Rows and columns of pixels of a plane and of their sources; a pixel left alone is its own source."""
    height, width = plane.shape
    for k in range(len(draws)):
        row, column, source_row, source_column = _pick(draws[k], height, width, window)
        if chances.size and _chance(draws[k], height) < chances[row, column]:
            source_row, source_column = row, column
        picks[k, 0], picks[k, 1], picks[k, 2], picks[k, 3] = row, column, source_row, source_column


@kernel
def deflect(values: Array, maps: Array, draws: Array, first: int, window: int) -> None:
    """Overwrite pixels with others of their neighbourhood, in this order.

    Parameters
    ----------
    values : ndarray, shape (N, F, C, H, W)
        Samples, frames and channels: planes, numbered in this order. Some are written.
    maps : ndarray, shape (N or 1, F or 1, H, W)
        Probability with which a pixel is left alone; without rows and columns, none is.
    draws : ndarray of uint32, shape (P, K, 4)
        Uniform over all words, for each of K deflections of each of P planes.
    first : int
        Number of the first of these planes.
    window : int
        How far away a source may lie, in rows and in columns.
    """
    picks = np.empty((draws.shape[1], 4), np.int32)
    for p in range(draws.shape[0]):
        plane, chances = _place(values, maps, first + p)
        _find(picks, plane, chances, draws[p], window)
        for k in range(len(picks)):
            plane[picks[k, 0], picks[k, 1]] = plane[picks[k, 2], picks[k, 3]]


@kernel
def return_gradient(values: Array, maps: Array, draws: Array, first: int, window: int) -> None:
    """Turn the gradient with respect to deflected planes into that with respect to the planes before.

    What a pixel received goes to its source, in reverse order. The parameters are those of `deflect`.
    """
    picks = np.empty((draws.shape[1], 4), np.int32)
    for p in range(draws.shape[0]):
        plane, chances = _place(values, maps, first + p)
        _find(picks, plane, chances, draws[p], window)
        for k in range(len(picks) - 1, -1, -1):
            passed = plane[picks[k, 0], picks[k, 1]]
            plane[picks[k, 0], picks[k, 1]] = 0
            plane[picks[k, 2], picks[k, 3]] += passed
