"""JPEG there and back without entropy coding: in integers as libjpeg does it, and without rounding.

The same steps compute both. In `int32` they are those of libjpeg-turbo, bit for bit; in floating numbers
nothing is rounded, and this is what is differentiated.
"""

from collections.abc import Sequence
from math import cos, pi, sqrt
from typing import Any

from .borders import extended, interleaved, padded, shifted
from .namespace import clipped, constant, moved, product, stop_gradient, straight_through

__all__ = ["CONSTANTS", "jpeg"]

RGB = 3  # channels; any other number is so many pictures in grey
BLOCK = 8  # pixels a side
LEVELS = 255
MIDDLE, LOWEST, HIGHEST = 128, -128, 127
BITS = 13  # of libjpeg's constants
CONSTANTS = 2446, 3196, 4433, 6270, 7373, 9633, 12299, 15137, 16069, 16819, 20995, 25172
C0_298, C0_390, C0_541, C0_765, C0_899, C1_175, C1_501, C1_847, C1_961, C2_053, C2_562, C3_072 = CONSTANTS


def jpeg(
    x: Any,
    xp: Any,
    tables: Sequence[Any],
    factors: tuple[int, int],
    of_one: bool,
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
    of_one : bool
        Whether the range is [0, 1], not [0, 255].
    axis : int
        Of the channels. Three are RGB; each of any other number is a picture in grey.
    gradient : {"identity", "straight-through", "soft"}
        What is differentiated: the identity, the steps without rounding, or those with the cubic quantiser.
    """
    if axis == x.ndim - 1:
        planes = moved(x, -1, -3, xp)
        out = jpeg(planes, xp, tables, factors, of_one, x.ndim - 3, gradient)
        return moved(out, -3, -1, xp)
    scale = LEVELS if of_one else 1
    values = stop_gradient(x) * scale
    values = xp.where(values > 0, values, xp.zeros_like(values))  # not NaN, which is no integer
    values = xp.minimum(values, constant(LEVELS, values, xp))
    levels = xp.astype(xp.round(values), xp.int32)
    out = xp.astype(_there_and_back(levels, xp, tables, factors, axis), xp.float32)
    if of_one:  # without a division: a product that is exact, and what it lacks
        high = 2.0**-8 + 2.0**-16
        out = out * high + out * (1 / LEVELS - high)
    if gradient == "identity":
        return straight_through(out, x)
    levels = straight_through(values, _open(x, 0, LEVELS / scale, xp) * scale)
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
    inner = _open(x, low - 0.01, high + 0.01, xp)  # as in `_core/jpeg.py`
    return straight_through(clipped(stop_gradient(x), low, high, xp), inner)


# Colour at half the resolution


def _halved(x: Any, xp: Any, factors: tuple[int, int]) -> Any:
    """Means of pixels that share a value, in whole blocks along rows; an odd last row is a pair by itself."""
    tall, wide = factors
    if factors == (1, 1):
        return x
    x = extended(extended(x, -x.shape[-2] % tall, -2, xp), -x.shape[-1] % (wide * BLOCK), -1, xp)
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
        x = interleaved(x, x, rows, size[0], xp) if tall == 2 else x
        return interleaved(x, x, columns, size[1], xp) if wide == 2 else x
    if wide == 1:
        return x
    if tall == 2:
        before, after = _neighbours(x, rows, xp)
        x = interleaved(3 * x + before, 3 * x + after, rows, size[0], xp)
    before, after = _neighbours(x, columns, xp)
    left, right = (8, 7) if tall == 2 else (1, 2)
    even, odd = _cut(3 * x + before, 2 * tall, xp, left), _cut(3 * x + after, 2 * tall, xp, right)
    return interleaved(even, odd, columns, size[1], xp)


def _neighbours(x: Any, axis: int, xp: Any) -> tuple[Any, Any]:
    """The value before each and the one after it; at the ends, the value itself."""
    line = padded(x, 1, 1, axis, xp, repeat_edge=True)
    return shifted(line, 0, x.shape[axis], axis), shifted(line, 2, x.shape[axis], axis)


# Blocks


def _coded(x: Any, xp: Any, table: Any, size: Sequence[int]) -> Any:
    """Samples less 128 through the transform, the quantiser and the inverse; `size` of them are kept."""
    rows, columns = x.ndim - 2, x.ndim - 1
    if table is not None:
        x = extended(x, -x.shape[rows] % BLOCK, rows, xp)
        x = extended(x, -x.shape[columns] % BLOCK, columns, xp)
        *lead, height, width = x.shape
        n = len(lead)
        blocks = xp.reshape(x, (*lead, height // BLOCK, BLOCK, width // BLOCK, BLOCK))
        blocks = xp.permute_dims(blocks, (n + 1, n + 3, *range(n), n, n + 2))
        blocks = (_whole if x.dtype == xp.int32 else _smooth)(blocks, xp, table)
        blocks = xp.permute_dims(blocks, (*range(2, n + 3), 0, n + 3, 1))
        x = _limited(xp.reshape(blocks, x.shape), LOWEST, HIGHEST, xp)
    return shifted(shifted(x, 0, size[0], rows), 0, size[1], columns)


def _smooth(blocks: Any, xp: Any, table: Any) -> Any:
    """Blocks `(8, 8, ...)` with the cubic quantiser of Shin and Song (2017)."""
    shape, steps = blocks.shape, constant(table, blocks, xp)
    # Here, since torch's compiler may take numbers of a module for symbols, one at a time.
    angles = [[pi / 16 * k * (2 * n + 1) for n in range(BLOCK)] for k in range(BLOCK)]
    waves = constant(
        [[cos(a) * sqrt(2 if k else 1) / sqrt(BLOCK) for a in row] for k, row in enumerate(angles)],
        blocks,
        xp,
    )
    c = xp.permute_dims(xp.reshape(blocks, (BLOCK, BLOCK, -1)), (2, 0, 1))
    back = xp.permute_dims(waves, (1, 0))
    c = product(product(waves, c, xp), back, xp) / steps
    rounded = xp.round(stop_gradient(c))
    off = c - rounded
    c = (rounded + off * off * off) * steps
    c = product(product(back, c, xp), waves, xp)
    return xp.reshape(xp.permute_dims(c, (1, 2, 0)), shape)


def _whole(blocks: Any, xp: Any, table: Any) -> Any:
    """Blocks `(8, 8, ...)` in integers: rows first on the way there, columns first on the way back.

    What a pass multiplies with is 2**13 times too large. The first leaves 2 places more than there were, the
    second takes them away, and coefficients are 8 times those of the orthonormal transform.
    """
    blocks = _passed(_forward, blocks, BITS - 2, xp, axis=1)
    c = xp.astype(_passed(_forward, blocks, BITS + 2, xp, axis=0), xp.float32)
    steps = xp.reshape(constant(table, c, xp), (BLOCK, BLOCK, *(1 for _ in c.shape[2:])))
    # Half away from 0, for which the quotients are a hair larger.
    c = xp.round(c * ((1 + 2.0**-16) / (8 * steps))) * steps
    blocks = _passed(_inverse, xp.astype(c, xp.int32), BITS - 2, xp, axis=0)
    return _passed(_inverse, blocks, BITS + 5, xp, axis=1)


def _passed(butterfly: Any, blocks: Any, bits: int, xp: Any, axis: int) -> Any:
    """Transform along the first or second axis."""
    lines = [blocks[(slice(None),) * axis + (k, ...)] for k in range(BLOCK)]
    return xp.stack([_cut(line, bits, xp) for line in butterfly(*lines)], axis=axis)


def _forward(x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any, x6: Any, x7: Any) -> list[Any]:
    """Eight values as cosines (Loeffler, Ligtenberg, Moschytz 1989)."""
    s0, s1, s2, s3 = x0 + x7, x1 + x6, x2 + x5, x3 + x4
    even, inner = s0 + s3, s1 + s2
    y2, y6 = _even(s0 - s3, s1 - s2)
    y1, y3, y5, y7 = _odd(x0 - x7, x1 - x6, x2 - x5, x3 - x4)
    return [(even + inner) * 2**BITS, y1, y2, y3, (even - inner) * 2**BITS, y5, y6, y7]


def _inverse(y0: Any, y1: Any, y2: Any, y3: Any, y4: Any, y5: Any, y6: Any, y7: Any) -> list[Any]:
    """The transpose of `_forward`."""
    s, d = (y0 + y4) * 2**BITS, (y0 - y4) * 2**BITS
    a, b = _even(y2, y6)
    c0, c1, c2, c3 = s + a, d + b, d - b, s - a
    d0, d1, d2, d3 = _odd(y1, y3, y5, y7)
    return [c0 + d0, c1 + d1, c2 + d2, c3 + d3, c3 - d3, c2 - d2, c1 - d1, c0 - d0]


def _even(a: Any, b: Any) -> tuple[Any, Any]:
    """The symmetric part of cosines 2 and 6, its own transpose."""
    common = (a + b) * C0_541
    return common + a * C0_765, common - b * C1_847


def _odd(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any, Any, Any]:
    """The antisymmetric part of cosines 1, 3, 5 and 7, its own transpose."""
    common = (a + b + c + d) * C1_175
    ac, bd = common - (a + c) * C0_390, common - (b + d) * C1_961
    ad, bc = (a + d) * C0_899, (b + c) * C2_562
    return a * C1_501 - ad + ac, b * C3_072 - bc + bd, c * C2_053 - bc + ac, d * C0_298 - ad + bd
