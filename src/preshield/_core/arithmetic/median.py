"""Median of a rectangular window, by a network of minima and maxima, and the pixel that was it."""

from collections.abc import Sequence
from typing import Any

from .borders import padded, shifted
from .namespace import constant, stop_gradient, straight_through

__all__ = ["median"]


def median(
    x: Any,
    xp: Any,
    window: tuple[int, int],
    columns: Sequence[Sequence[int]],
    merge: Sequence[Sequence[int]],
    place: int,
    axes: tuple[int, int],
    limits: Sequence[Any],
    gradient: str | None,
) -> Any:
    """Median of each window, with SciPy's borders and, for even windows, SciPy's centre.

    Parameters
    ----------
    x : array
        Numbers.
    xp : namespace
        That of `x`.
    window : tuple of int
        Height and width of the window.
    columns, merge, place
        `median_network(*window)` of the kernel.
    axes : tuple of int
        Rows and columns; of rows that are not smoothed, any axis.
    limits : sequence of float or nested list
        Minimum and maximum to which the result is clipped, which broadcast against `x`; empty for none.
    gradient : {"identity", "exact"} or None
        What is differentiated: the identity, or the first pixel of the window, in reading order, that is the
        median and within the limits; nothing, of integers.
    """
    windows = _windows(stop_gradient(x), xp, window, axes)
    # The columns of a window are sorted once and shared by all windows that contain them.
    _apply(columns, windows, xp)
    (tall, wide), column = window, axes[1]
    pixels = x.shape[column]
    lines = [shifted(windows[dy], dx, pixels, column) for dx in range(wide) for dy in range(tall)]
    _apply(merge, lines, xp)
    found = lines[place]
    out, inside = found, None
    if limits:
        low, high = (constant(limit, x, xp) for limit in limits)
        out = xp.minimum(xp.maximum(found, low), high)
        inside = (found >= low) & (found <= high)
    if gradient is None:
        return out
    if gradient == "identity":
        return straight_through(out, x)
    windows, chosen = _windows(x, xp, window, axes), xp.zeros_like(x)
    for dy in reversed(range(tall)):
        for dx in reversed(range(wide)):
            pixel = shifted(windows[dy], dx, pixels, column)
            chosen = xp.where(pixel == found, pixel, chosen)
    return straight_through(out, chosen if inside is None else xp.where(inside, chosen, xp.zeros_like(x)))


def _windows(x: Any, xp: Any, window: tuple[int, int], axes: tuple[int, int]) -> list[Any]:
    """For each row of a window, the images at that row, with borders at the sides."""
    lines = x
    for side, axis in zip(window, axes, strict=True):
        lines = padded(lines, side // 2, (side - 1) // 2, axis, xp, repeat_edge=True)
    if window[0] == 1:
        return [lines]
    return [shifted(lines, dy, x.shape[axes[0]], axes[0]) for dy in range(window[0])]


def _apply(network: Sequence[Sequence[int]], lines: list[Any], xp: Any) -> None:
    """Apply the steps of a network to arrays of one shape."""
    for i, j, smaller, larger in network:
        a, b = lines[i], lines[j]
        if smaller:
            lines[i] = xp.minimum(a, b)
        if larger:
            lines[j] = xp.maximum(a, b)
