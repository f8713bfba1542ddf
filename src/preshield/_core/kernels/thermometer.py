"""Thermometer code."""

from ..typing import Array
from . import kernel

__all__ = ["thermometer"]


@kernel
def thermometer(out: Array, x: Array, low: Array, span: Array, thresholds: Array) -> None:
    """Code each entry of `x`: 1 for the first level and for each level that the entry exceeds, else 0.

    Parameters
    ----------
    out : ndarray, shape (n, levels, inner)
        Written.
    x : ndarray, shape (n, inner)
        Row `i` belongs to channel `i % channels`.
    low, span : ndarray, shape (channels,)
        Least value and range of each channel.
    thresholds : ndarray, shape (levels,)
        What the normalised entry must exceed, ascending; the first level is 1 for every entry.
    """
    channels = low.shape[0]
    levels = thresholds.shape[0]
    for i in range(x.shape[0]):
        c = i % channels
        minimum, maximum, width = low[c], low[c] + span[c], span[c]
        for j in range(x.shape[1]):
            value = (min(max(x[i, j], minimum), maximum) - minimum) / width
            out[i, 0, j] = 1
            for k in range(1, levels):
                out[i, k, j] = 1 if value > thresholds[k] else 0
