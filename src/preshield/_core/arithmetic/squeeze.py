"""Rounding to evenly spaced levels."""

from math import atan
from typing import Any

from .namespace import constant, stop_gradient, straight_through

__all__ = ["squeeze"]


def squeeze(x: Any, xp: Any, low: Any, span: Any, bits: int, sharpness: float | None) -> Any:
    """Round each entry of `x` to the nearest of `2**bits` levels, ties to the even one.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    low, span : float or nested list
        Lowest level, and the distance of the highest; they broadcast against `x`.
    bits : int
        Of each level.
    sharpness : float or None
        Of the smooth staircase that is differentiated, in steps; None differentiates the identity.
    """
    low, span = (constant(value, x, xp) for value in (low, span))
    levels = 2.0**bits - 1
    position = (stop_gradient(x) - low) / span
    out = _level(position, xp, bits) / levels * span + low
    if sharpness is None:
        return straight_through(out, x)
    position = (x - low) / span * levels
    between = position - stop_gradient(xp.floor(position)) - 0.5  # 0 half-way between two levels
    stairs = xp.atan(sharpness * between) / (2 * atan(sharpness / 2))
    return straight_through(out, stairs * (span / levels))


def _level(position: Any, xp: Any, bits: int) -> Any:
    """The number of the nearest level; of single precision, that of the exact product.

    `position * 2**bits` is exact, and so is what the difference to `position` loses, which tells on which
    side of a tie the product lies.
    """
    if position.dtype == xp.float64:
        return xp.round(position * (2.0**bits - 1))
    scaled = position * 2.0**bits
    product = scaled - position
    lost = (scaled - product) - position
    level = xp.round(product)
    up = (product - level == 0.5) & (lost > 0)
    down = (product - level == -0.5) & (lost < 0)
    return level + xp.astype(up, level.dtype) - xp.astype(down, level.dtype)
