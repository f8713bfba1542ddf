"""JPEG there and back without entropy coding: in integers as libjpeg does it, and without rounding.

The same steps compute both. In `int32` they are those of libjpeg-turbo, bit for bit; in floating numbers
nothing is rounded, and this is what is differentiated.
"""

from collections.abc import Sequence
from math import cos, pi, sqrt
from typing import Any, NamedTuple

import numpy as np

from .borders import padded, repeated, shifted
from .namespace import clipped, constant, stop_gradient, straight_through

__all__ = ["jpeg"]

RGB = 3  # channels; any other number is so many pictures in grey
BLOCK = 8  # pixels a side
LEVELS = 255
MIDDLE, LOWEST, HIGHEST = 128, -128, 127
# From a level to [0, 1] without a division: a product that is exact, and what it lacks.
HIGH = 2.0**-8 + 2.0**-16
LOW = float(np.float32(1 / LEVELS - HIGH))
TOLERANCE = 0.01  # levels outside of the range that count as within, as in `_core/jpeg.py`
BITS = 13  # of the constants of the transform
FIRST, SECOND, LAST = BITS - 2, BITS + 2, BITS + 5  # places that are cut off after a pass


class Waves(NamedTuple):
    """What the butterfly multiplies with: 1, and sums of `sqrt(2) * cos(k * pi / 16)`."""

    one: float
    c6: float
    c2_less_c6: float
    c2_and_c6: float
    c3: float
    c3_less_c5: float
    c3_and_c5: float
    c3_less_c7: float
    c1_and_c3: float
    odd_1: float
    odd_3: float
    odd_5: float
    odd_7: float


def _waves() -> Waves:
    c1, c2, c3, _, c5, c6, c7 = (sqrt(2) * cos(k * pi / 16) for k in range(1, 8))
    sums = (1, c6, c2 - c6, c2 + c6, c3, c3 - c5, c3 + c5, c3 - c7, c1 + c3)
    odd = (c1 + c3 - c5 - c7, c1 + c3 + c5 - c7, c1 + c3 - c5 + c7, c3 + c5 - c1 - c7)
    return Waves(*(value * 2**BITS for value in (*sums, *odd)))


REAL = _waves()
WHOLE = Waves(*map(round, REAL))  # libjpeg's


def jpeg(
    x: Any,
    xp: Any,
    tables: Sequence[Any],
    factors: tuple[int, int],
    largest: float,
    axis: int,
    gradient: str,
) -> Any:
    """Compress images or videos as JPEG and decompress them again.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    tables : sequence of nested lists
        Steps of the quantiser for luminance and chrominance, 8 rows of 8.
    factors : tuple of int
        Rows and columns of pixels that share a value of colour: 1 or 2 each.
    largest : float
        Of the range: 1 or 255.
    axis : int
        Of the channels. Three are RGB; each of any other number is a picture in grey.
    gradient : {"identity", "straight-through", "soft"}
        What is differentiated: the identity, the steps without rounding, or those with the cubic quantiser.
    """
    if axis == x.ndim - 1:
        planes = xp.moveaxis(x, -1, -3)
        out = jpeg(planes, xp, tables, factors, largest, x.ndim - 3, gradient)
        return xp.moveaxis(out, -3, -1)
    scale = LEVELS / largest
    values = stop_gradient(x) * scale
    values = xp.where(values > 0, values, xp.zeros_like(values))  # not NaN, which is no integer
    values = xp.minimum(values, constant(LEVELS, values, xp))
    levels = xp.astype(xp.round(values), xp.int32)
    out = xp.astype(_there_and_back(levels, xp, tables, factors, axis), xp.float32)
    if largest == 1:
        out = out * HIGH + out * LOW
    if gradient == "identity":
        return straight_through(out, x)
    levels = straight_through(values, _open(x, 0, largest, xp) * scale)
    smooth = _there_and_back(levels, xp, tables if gradient == "soft" else None, factors, axis)
    return straight_through(out, smooth / scale)


def _there_and_back(
    levels: Any, xp: Any, tables: Sequence[Any] | None, factors: tuple[int, int], axis: int
) -> Any:
    """Levels `(..., H, W)` of pictures, with colours on `axis`; without `tables` nothing is coded."""
    size = levels.shape[-2:]
    luma, chroma = (None, None) if tables is None else tables
    if levels.shape[axis] != RGB:
        return _coded(levels - MIDDLE, xp, luma, size) + MIDDLE
    r, g, b = (levels[(slice(None),) * axis + (k, ...)] for k in range(RGB))
    y = _cut(19595 * r + 38470 * g + 7471 * b, 16, xp)
    # From a hair below one half, so that 255 is not exceeded.
    cb = _cut(-11059 * r - 21709 * g + 32768 * b, 16, xp, 2**15 - 1)
    cr = _cut(32768 * r - 27439 * g - 5329 * b, 16, xp, 2**15 - 1)
    y = _coded(y - MIDDLE, xp, luma, size) + MIDDLE
    small = tuple(-(-length // factor) for length, factor in zip(size, factors, strict=True))
    colours = _coded(_halved(xp.stack([cb, cr]), xp, factors), xp, chroma, small)
    colours = _doubled(colours, xp, factors, size)
    cb, cr = colours[0, ...], colours[1, ...]
    red, blue = y + _cut(91881 * cr, 16, xp), y + _cut(116130 * cb, 16, xp)
    green = y + _cut(-22554 * cb - 46802 * cr, 16, xp)
    return _limited(xp.stack([red, green, blue], axis=axis), 0, LEVELS, xp)


def _cut(x: Any, bits: int, xp: Any, add: Any = None) -> Any:
    """A quotient by a power of two; of integers, after adding `add`, by default one half, rounded down."""
    if x.dtype != xp.int32:
        return x * 2.0**-bits
    return xp.bitwise_right_shift(x + (2**bits // 2 if add is None else add), bits)


def _open(x: Any, low: float, high: float, xp: Any) -> Any:
    """The values, of which those outside of a range are not differentiated."""
    return xp.where((x >= low) & (x <= high), x, stop_gradient(x))


def _limited(x: Any, low: int, high: int, xp: Any) -> Any:
    """Clip; gradients pass also a little outside of the range, where rounding leads."""
    if x.dtype == xp.int32:
        return clipped(x, low, high, xp)
    inner = _open(x, low - TOLERANCE, high + TOLERANCE, xp)
    return straight_through(clipped(stop_gradient(x), low, high, xp), inner)


# Colour at half the resolution


def _halved(x: Any, xp: Any, factors: tuple[int, int]) -> Any:
    """Means of pixels that share a value, in whole blocks along rows; an odd last row is a pair by itself."""
    tall, wide = factors
    if factors == (1, 1):
        return x
    x = repeated(repeated(x, -x.shape[-2] % tall, -2, xp), -x.shape[-1] % (wide * BLOCK), -1, xp)
    *lead, height, width = x.shape
    x = xp.reshape(x, (*lead, height // tall, tall, width // 2, 2))
    sums = x[..., 0, :, 0] + x[..., 0, :, 1]
    if tall == 2:
        sums = sums + (x[..., 1, :, 0] + x[..., 1, :, 1])
    # What is added before rounding alternates between columns.
    pairs, bits = xp.reshape(sums, (*sums.shape[:-1], width // 4, 2)), tall  # of a mean of 2 or 4
    return xp.reshape(_cut(pairs, bits, xp, constant([tall - 1, tall], x, xp)), sums.shape)


def _doubled(x: Any, xp: Any, factors: tuple[int, int], size: Sequence[int]) -> Any:
    """A value for each pixel, by triangles along both axes, or along rows only; both are rounded as one."""
    (tall, wide), rows, columns = factors, x.ndim - 2, x.ndim - 1
    if x.shape[columns] <= 2:  # narrow pictures are enlarged by repetition
        x = _interleaved(x, x, rows, size[0], xp) if tall == 2 else x
        return _interleaved(x, x, columns, size[1], xp) if wide == 2 else x
    if wide == 1:
        return x
    if tall == 2:
        before, after = _neighbours(x, rows, xp)
        x = _interleaved(3 * x + before, 3 * x + after, rows, size[0], xp)
    before, after = _neighbours(x, columns, xp)
    left, right = (8, 7) if tall == 2 else (1, 2)
    even, odd = _cut(3 * x + before, 2 * tall, xp, left), _cut(3 * x + after, 2 * tall, xp, right)
    return _interleaved(even, odd, columns, size[1], xp)


def _neighbours(x: Any, axis: int, xp: Any) -> tuple[Any, Any]:
    """The value before each and the one after it; at the ends, the value itself."""
    line = padded(x, 1, 1, axis, xp, repeat_edge=True)
    return shifted(line, 0, x.shape[axis], axis), shifted(line, 2, x.shape[axis], axis)


def _interleaved(even: Any, odd: Any, axis: int, length: int, xp: Any) -> Any:
    """Values in turn along an axis, so many of them."""
    both = xp.stack([even, odd], axis=axis + 1)
    lines = xp.reshape(both, (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :]))
    return shifted(lines, 0, length, axis)


# Blocks


def _coded(x: Any, xp: Any, table: Any, size: Sequence[int]) -> Any:
    """Samples less 128 through the transform, the quantiser and the inverse; `size` of them are kept."""
    rows, columns = x.ndim - 2, x.ndim - 1
    if table is not None:
        x = repeated(x, -x.shape[rows] % BLOCK, rows, xp)
        x = repeated(x, -x.shape[columns] % BLOCK, columns, xp)
        *lead, height, width = x.shape
        n = len(lead)
        blocks = xp.reshape(x, (*lead, height // BLOCK, BLOCK, width // BLOCK, BLOCK))
        blocks = xp.permute_dims(blocks, (n + 3, n + 1, *range(n), n, n + 2))
        blocks = _passed(_forward, blocks, FIRST, xp, to=1)
        blocks = _passed(_forward, blocks, SECOND, xp, to=0)
        blocks = _passed(_inverse, _quantised(blocks, xp, table), FIRST, xp, to=1)
        blocks = _passed(_inverse, blocks, LAST, xp, to=1)
        blocks = xp.permute_dims(blocks, (*range(2, n + 3), 0, n + 3, 1))
        x = _limited(xp.reshape(blocks, x.shape), LOWEST, HIGHEST, xp)
    return shifted(shifted(x, 0, size[0], rows), 0, size[1], columns)


def _quantised(c: Any, xp: Any, table: Any) -> Any:
    """Coefficients, 8 times as large, as multiples of the steps."""
    steps = constant(table, c if c.dtype != xp.int32 else xp.astype(c, xp.float32), xp)
    steps = xp.reshape(steps, (BLOCK, BLOCK, *(1 for _ in c.shape[2:])))
    if c.dtype == xp.int32:  # half away from 0: a hair more than the quotient
        return xp.astype(
            xp.round(xp.astype(c, xp.float32) * ((1 + 2.0**-16) / (8 * steps))) * steps, xp.int32
        )
    c = c / (8 * steps)
    rounded = xp.round(stop_gradient(c))
    off = c - rounded
    return (rounded + off * off * off) * steps


def _passed(butterfly: Any, blocks: Any, bits: int, xp: Any, to: int) -> Any:
    """Transform along the first axis, which becomes axis `to` of the result."""
    waves = WHOLE if blocks.dtype == xp.int32 else REAL
    lines = butterfly([blocks[k, ...] for k in range(BLOCK)], waves)
    return xp.stack([_cut(line, bits, xp) for line in lines], axis=to)


def _forward(x: Sequence[Any], w: Waves) -> list[Any]:
    """Eight values as cosines, `sqrt(8) * 2**BITS` times as large (Loeffler, Ligtenberg, Moschytz 1989)."""
    s0, s1, s2, s3 = (x[k] + x[7 - k] for k in range(4))
    d0, d1, d2, d3 = (x[k] - x[7 - k] for k in range(4))
    outer, inner = s0 + s3, s1 + s2
    y2, y6 = _even(s0 - s3, s1 - s2, w)
    y1, y3, y5, y7 = _odd(d0, d1, d2, d3, w)
    return [(outer + inner) * w.one, y1, y2, y3, (outer - inner) * w.one, y5, y6, y7]


def _inverse(y: Sequence[Any], w: Waves) -> list[Any]:
    """The transpose of `_forward`."""
    s, d = (y[0] + y[4]) * w.one, (y[0] - y[4]) * w.one
    e0, e1 = _even(y[2], y[6], w)
    even = (s + e0, d + e1, d - e1, s - e0)
    odd = _odd(y[1], y[3], y[5], y[7], w)
    return [e + o for e, o in zip(even, odd, strict=True)] + [
        e - o for e, o in zip(reversed(even), reversed(odd), strict=True)
    ]


def _even(a: Any, b: Any, w: Waves) -> tuple[Any, Any]:
    """A rotation and a reflection, its own transpose."""
    common = (a + b) * w.c6
    return common + a * w.c2_less_c6, common - b * w.c2_and_c6


def _odd(a: Any, b: Any, c: Any, d: Any, w: Waves) -> tuple[Any, Any, Any, Any]:
    """The odd cosines of differences, a symmetric matrix."""
    common = (a + b + c + d) * w.c3
    ac, bd = common - (a + c) * w.c3_less_c5, common - (b + d) * w.c3_and_c5
    ad, bc = (a + d) * w.c3_less_c7, (b + c) * w.c1_and_c3
    return a * w.odd_1 - ad + ac, b * w.odd_3 - bc + bd, c * w.odd_5 - bc + ac, d * w.odd_7 - ad + bd
