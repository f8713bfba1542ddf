"""Soft thresholds of Haar coefficients by BayesShrink."""

from typing import Any

import numpy as np

from .borders import interleaved, padded, shifted
from .namespace import constant, gathered, straight_through

__all__ = ["COLOURS", "GAINS", "RGB", "YCBCR", "shrink"]

COLOURS = 3  # channels that are denoised together, as Y, Cb and Cr

# What red, green and blue contribute to Y, Cb and Cr (ITU-R BT.601, in steps of 8 bits), and the way back.
YCBCR = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
RGB = np.linalg.inv(YCBCR).tolist()
GAINS = np.square(YCBCR).sum(axis=1).tolist()  # of the variance of noise

ROUNDINGS = 16  # units in the last place of the range by which a result may leave it without being cut off


def shrink(
    x: Any,
    xp: Any,
    low: Any,
    high: Any,
    sigma: float,
    axis: int,
    axes: tuple[int, int],
    resolution: float,
) -> Any:
    """Shrink the coefficients of each frame, of three channels in YCbCr; clip before and after.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    low, high : float or nested list
        Minimum and maximum of the range; they broadcast against `x`.
    sigma : float
        Standard deviation of the noise, in units of the range.
    axis : int
        Where the channels are.
    axes : tuple of int
        Rows and columns, which follow each other.
    resolution : float
        Of the type of `x`: the distance from 1 to the next larger number.
    """
    low, high = (constant(limit, x, xp) for limit in (low, high))
    x = xp.where(x < low, low, xp.where(x > high, high, x))
    if sigma <= resolution or min(x.shape[side] for side in axes) < 2:
        return x
    span = high - low
    unit = (x - low) / span
    if x.shape[axis] == COLOURS:
        planes = _mixed(unit, xp, YCBCR, axis)
        gains = xp.reshape(constant(GAINS, x, xp), (-1, *(1 for _ in x.shape[axis + 1 :])))
        least = resolution * _range(planes, xp, axes) ** 2
        smooth = _mixed(_smooth(planes, xp, gains * sigma**2, least, resolution, axes), xp, RGB, axis)
    else:
        least = constant(resolution, x, xp)
        smooth = _smooth(unit, xp, constant(sigma**2, x, xp), least, resolution, axes)
    out = smooth * span + low
    by_rounding = ROUNDINGS * resolution * span
    inside = (out >= low - by_rounding) & (out <= high + by_rounding)
    clipped = xp.where(out < low, low, xp.where(out > high, high, out))
    return straight_through(clipped, xp.where(inside, out, xp.zeros_like(out)))


def _mixed(x: Any, xp: Any, matrix: list[list[float]], axis: int) -> Any:
    """Colours mixed by a matrix; sums, as products of matrices may be computed in half precision."""
    parts = [shifted(x, c, 1, axis) for c in range(COLOURS)]
    mixed = [sum(factor * part for factor, part in zip(row, parts, strict=True)) for row in matrix]
    return xp.concat(mixed, axis=axis)


def _range(planes: Any, xp: Any, axes: tuple[int, int]) -> Any:
    """Largest less least value of each plane; of equal ones, the first has the derivative."""
    rows, columns = axes
    before, after = planes.shape[:rows], planes.shape[columns + 1 :]
    flat = xp.reshape(planes, (*before, planes.shape[rows] * planes.shape[columns], *after))
    ends = [gathered(flat, find(flat, axis=rows, keepdims=True), rows, xp) for find in (xp.argmax, xp.argmin)]
    return xp.expand_dims(ends[0] - ends[1], axis=rows)


def _smooth(planes: Any, xp: Any, noise: Any, least: Any, resolution: float, axes: tuple[int, int]) -> Any:
    """Split planes into means and details, shrink these, and put them together again.

    `noise` is the variance of the noise, and `least` what is taken for the variance of the rest where noise
    is all that there is.
    """
    # So much less than the noise shrinks all details as well, and has finite derivatives.
    tiny = resolution * noise
    least = xp.where(least > tiny, least, tiny)
    sides = [planes.shape[side] for side in axes]
    levels, means = [], planes
    for _ in range(max(min(sides).bit_length() - 4, 1)):
        size = [means.shape[side] for side in axes]
        (means, vertical), (horizontal, diagonal) = (
            _split(half, xp, axes[0]) for half in _split(0.5 * means, xp, axes[1])
        )
        shrunk = [_shrunk(band, xp, noise, least, axes) for band in (vertical, horizontal, diagonal)]
        levels.append((size, shrunk))
    for size, (vertical, horizontal, diagonal) in reversed(levels):
        left = _joined(means, vertical, xp, axes[0], size[0])
        right = _joined(horizontal, diagonal, xp, axes[0], size[0])
        means = 0.5 * _joined(left, right, xp, axes[1], size[1])
    return means


def _shrunk(details: Any, xp: Any, noise: Any, least: Any, axes: tuple[int, int]) -> Any:
    """Details behind a soft threshold: the variance of the noise over the deviation of the rest."""
    # The noise is subtracted first, and sums are short: so little is lost of a small difference.
    rest = details * details - noise
    for side in reversed(axes):
        rest = xp.mean(rest, axis=side, keepdims=True)
    threshold = noise / xp.sqrt(xp.where(rest > least, rest, least))
    beyond = xp.where(details > threshold, details - threshold, xp.zeros_like(details))
    return xp.where(details < -threshold, details + threshold, beyond)


def _split(x: Any, xp: Any, axis: int) -> tuple[Any, Any]:
    """Sums and differences of pairs along an axis; what an odd side lacks is the last entry."""
    x = padded(x, 0, x.shape[axis] % 2, axis, xp, repeat_edge=True)
    first, second = (x[(slice(None),) * axis + (slice(start, None, 2), ...)] for start in (0, 1))
    return first + second, first - second


def _joined(means: Any, details: Any, xp: Any, axis: int, length: int) -> Any:
    """Pairs along an axis, up to this length, of their means and of half their differences."""
    return interleaved(means + details, means - details, axis, length, xp)
