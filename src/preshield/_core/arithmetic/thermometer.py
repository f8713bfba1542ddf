"""Thermometer code."""

from collections.abc import Sequence
from math import pi
from typing import Any

from .namespace import constant, stop_gradient, straight_through

__all__ = ["thermometer"]


def thermometer(
    x: Any,
    xp: Any,
    low: Any,
    span: Any,
    thresholds: Sequence[float],
    axis: int,
    gradient: str,
    sharpness: float,
) -> Any:
    """Code each entry of `x`: 1 for the first level and for each level that the entry exceeds, else 0.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    low, span : float or nested list
        Least value and range; they broadcast against `x`.
    thresholds : sequence of float
        What the normalised entry must exceed, ascending, the first 0.
    axis : int
        Of the channels, each of which becomes one for each level.
    gradient : {"identity", "surrogate", "soft"}
        What is differentiated: the normalised entry, that entry where it exceeds the level, or smooth steps.
    sharpness : float
        Of the smooth steps, in the range.
    """
    low, span = (constant(value, x, xp) for value in (low, span))
    clipped = xp.minimum(xp.maximum(stop_gradient(x), low), low + span)
    clipped = xp.expand_dims((clipped - low) / span, axis=axis + 1)
    inner = (-1, *(1 for _ in x.shape[axis + 1 :]))
    levels = xp.reshape(constant(list(thresholds), x, xp), inner)
    code = xp.where((clipped > levels) | (levels == 0) & (clipped >= 0), clipped * 0 + 1, clipped * 0)
    position = xp.expand_dims((x - low) / span, axis=axis + 1)
    if gradient == "surrogate":
        position = xp.where(clipped > levels, position, xp.zeros_like(position))
    elif gradient == "soft":
        steps = xp.atan(sharpness * (position - levels)) / pi
        position = xp.where(levels > 0, steps, xp.zeros_like(steps))
    shape = (*x.shape[:axis], x.shape[axis] * len(thresholds), *x.shape[axis + 1 :])
    return xp.reshape(straight_through(code, position), shape)
