"""Vector-Jacobian product of JPEG without rounding.

The inverse transform after the transform is then the identity, and both are left out. Luminance passes, and
chrominance goes through its means and triangles. Two clamps are left: of values above the range on the way
in, and of RGB on the way out. To know where the second one acts takes the way there; then comes the way back.

A picture is worked off row by row. Colour of an odd row leans on the pair of rows below, and a mean has
shares of four rows of gradients: reading, clamping and writing follow each other two rows apart.

The floor is memory: 12 bytes of `x`, of `grad` and of the result for each pixel, and 12 of `x` in the check
before. To move them takes about as long as the arithmetic.
"""

from typing import Any

import numpy as np

from ..typing import Array
from . import fused, kernel
from .jpeg import (
    B_CB,
    CB_B,
    CB_G,
    CB_R,
    CR_B,
    CR_G,
    CR_R,
    G_CB,
    G_CR,
    HALF,
    QUARTER,
    R_CR,
    Y_B,
    Y_G,
    Y_R,
    ZERO,
)
from .prefetch import fetch_range

__all__ = ["straight_through"]

f32: Any = np.float32  # which holds these constants exactly, so that they widen nothing and lose nothing
index: Any = np.uintp  # an unsigned index need not be compared with 0

ONE, MOST = f32(1), f32(0.75)
LAG = 2  # rows, from stage to stage
RING = 8  # rows of luminance that are kept
GAP = 2  # values between both colours of a row, which lie side by side so that one loop does for them


@fused
def to_ycc(
    x: Array,
    start: int,
    step: int,
    hop: int,
    width: int,
    top: float,
    luma: Array,
    y: int,
    chroma: Array,
    cb: int,
    cr: int,
) -> None:
    """A row of pixels as luminance at `luma[y]`, and chrominance at `chroma[cb]` and `[cr]`."""
    if step == 3:
        for i in range(width):
            r, g = min(x[index(start + 3 * i)], top), min(x[index(start + 3 * i + 1)], top)
            b = min(x[index(start + 3 * i + 2)], top)
            luma[index(y + i)] = Y_R * r + Y_G * g + Y_B * b
            chroma[index(cb + i)] = CB_R * r + CB_G * g + CB_B * b
            chroma[index(cr + i)] = CR_R * r + CR_G * g + CR_B * b
    else:
        for i in range(width):
            r, g = min(x[index(start + i)], top), min(x[index(start + hop + i)], top)
            b = min(x[index(start + 2 * hop + i)], top)
            luma[index(y + i)] = Y_R * r + Y_G * g + Y_B * b
            chroma[index(cb + i)] = CB_R * r + CB_G * g + CB_B * b
            chroma[index(cr + i)] = CR_R * r + CR_G * g + CR_B * b


@fused
def halve(out: Array, start: int, count: int, full: Array, upper: int, lower: int) -> None:
    """Means of two by two; of pairs in a row, if it is passed twice."""
    for j in range(count):
        a, b = upper + 2 * j, lower + 2 * j
        above, below = full[index(a)] + full[index(a + 1)], full[index(b)] + full[index(b + 1)]
        out[index(start + j)] = QUARTER * (above + below)


@fused
def double(
    out: Array, samples: Array, near: int, other: int, real: int, weight: float, smooth: bool, mixed: Array
) -> None:
    """Chrominance of a row of pixels: `weight` of the near row, the rest of the other; then along the row."""
    half = real + GAP
    for j in range(half + real):
        value = weight * samples[index(near + j)] + (ONE - weight) * samples[index(other + j)]
        mixed[index(j + 1)] = value
    if smooth:
        for first in (1, half + 1):
            mixed[first - 1], mixed[first + real] = mixed[first], mixed[first + real - 1]
        for j in range(half + real):
            s = MOST * mixed[index(j + 1)]
            out[index(2 * j)] = s + QUARTER * mixed[index(j)]
            out[index(2 * j + 1)] = s + QUARTER * mixed[index(j + 2)]
    else:
        for j in range(half + real):
            value = mixed[index(j + 1)]
            out[index(2 * j)], out[index(2 * j + 1)] = value, value


@fused
def open_gradient(
    grads: Array,
    start: int,
    step: int,
    hop: int,
    width: int,
    luma: Array,
    y: int,
    chroma: Array,
    cb: int,
    cr: int,
    limits: tuple[float, float],
    rows: Array,
    second: int,
) -> None:
    """Gradients of a row of RGB, where no clamp stops them, as those of luminance and chrominance.

    They take the place of luminance at `luma[y]`, and go to `rows[1]` and `rows[second]`.
    """
    low, high = limits
    if step == 3:
        for i in range(width):
            light, b, r = luma[index(y + i)], chroma[index(cb + i)], chroma[index(cr + i)]
            red, green, blue = light + R_CR * r, light + G_CB * b + G_CR * r, light + B_CB * b
            of_red, of_green = grads[index(start + 3 * i)], grads[index(start + 3 * i + 1)]
            of_blue = grads[index(start + 3 * i + 2)]
            of_red = of_red if (low <= red) & (red <= high) else ZERO
            of_green = of_green if (low <= green) & (green <= high) else ZERO
            of_blue = of_blue if (low <= blue) & (blue <= high) else ZERO
            luma[index(y + i)] = of_red + of_green + of_blue
            rows[index(1 + i)] = G_CB * of_green + B_CB * of_blue
            rows[index(second + i)] = R_CR * of_red + G_CR * of_green
    else:
        for i in range(width):
            light, b, r = luma[index(y + i)], chroma[index(cb + i)], chroma[index(cr + i)]
            red, green, blue = light + R_CR * r, light + G_CB * b + G_CR * r, light + B_CB * b
            of_red, of_green = grads[index(start + i)], grads[index(start + hop + i)]
            of_blue = grads[index(start + 2 * hop + i)]
            of_red = of_red if (low <= red) & (red <= high) else ZERO
            of_green = of_green if (low <= green) & (green <= high) else ZERO
            of_blue = of_blue if (low <= blue) & (blue <= high) else ZERO
            luma[index(y + i)] = of_red + of_green + of_blue
            rows[index(1 + i)] = G_CB * of_green + B_CB * of_blue
            rows[index(second + i)] = R_CR * of_red + G_CR * of_green


@fused
def double_back(out: Array, start: int, row: Array, width: int, wide: int, smooth: bool) -> None:
    """Transpose of `double` along a row, which has zeros around both colours."""
    real = (width + wide - 1) // wide
    half = real + GAP
    if wide == 1:
        for j in range(half + real):
            out[index(start + j)] = row[index(1 + j)]
        return
    if not smooth:
        for j in range(half + real):
            out[index(start + j)] = row[index(2 * j + 1)] + row[index(2 * j + 2)]
        return
    for j in range(half + real):
        inner = row[index(2 * j + 1)] + row[index(2 * j + 2)]
        outer = row[index(2 * j)] + row[index(2 * j + 3)]
        out[index(start + j)] = MOST * inner + QUARTER * outer
    for first in (0, half):
        out[start + first] += QUARTER * row[2 * first + 1]
        if width % 2 == 0:
            out[start + first + real - 1] += QUARTER * row[2 * first + width]


@kernel
def shares(y: int, height: int, tall: int, smooth: bool) -> Any:
    """Weights of the rows `y - 1` to `y + 2` in the gradient of a row of means, which begins at `y`."""
    if tall == 1 or (y + 1 == height and not smooth):
        return ZERO, ONE, ZERO, ZERO
    if not smooth:
        return ZERO, ONE, ONE, ZERO
    above = QUARTER if y > 0 else ZERO
    below = QUARTER if y + 2 < height else ZERO
    return above, ONE - above, ZERO if y + 1 == height else ONE - below, below


@fused
def mix_rows(out: Array, rows: Array, y: int, weights: tuple[float, float, float, float], count: int) -> None:
    """A weighted sum of the rows around `y` in a ring of four."""
    p, q, r, s = weights
    a, b, c, d = (y - 1) % 4 * count, y % 4 * count, (y + 1) % 4 * count, (y + 2) % 4 * count
    for j in range(count):
        value = p * rows[index(a + j)] + q * rows[index(b + j)]
        out[index(j)] = value + (r * rows[index(c + j)] + s * rows[index(d + j)])


@kernel
def halve_back(out: Array, row: Array, width: int, wide: int, share: float) -> None:
    """Transpose of `halve` along a row: what a pixel has of a mean."""
    real = (width + wide - 1) // wide
    half = real + GAP
    if wide == 1:
        for i in range(half + real):
            out[index(i)] = share * row[index(i)]
        return
    for j in range(half + real):
        value = HALF * share * row[index(j)]
        out[index(2 * j)], out[index(2 * j + 1)] = value, value
    if width % 2:  # the last column is a pair by itself
        for first in (0, half):
            out[2 * first + width - 1] = share * row[first + real - 1]


@fused
def write_gradient(
    out: Array,
    x: Array,
    start: int,
    step: int,
    hop: int,
    width: int,
    top: float,
    luma: Array,
    y: int,
    rows: Array,
    second: int,
) -> None:
    """Gradients of luminance and of chrominance as those of RGB, where `x` is not above the range."""
    if step == 3:
        for i in range(width):
            light, b, r = luma[index(y + i)], rows[index(i)], rows[index(second + i)]
            red, green = Y_R * light + CB_R * b + CR_R * r, Y_G * light + CB_G * b + CR_G * r
            blue = Y_B * light + CB_B * b + CR_B * r
            out[index(start + 3 * i)] = red if x[index(start + 3 * i)] <= top else ZERO
            out[index(start + 3 * i + 1)] = green if x[index(start + 3 * i + 1)] <= top else ZERO
            out[index(start + 3 * i + 2)] = blue if x[index(start + 3 * i + 2)] <= top else ZERO
    else:
        for i in range(width):
            light, b, r = luma[index(y + i)], rows[index(i)], rows[index(second + i)]
            red, green = Y_R * light + CB_R * b + CR_R * r, Y_G * light + CB_G * b + CR_G * r
            blue = Y_B * light + CB_B * b + CR_B * r
            out[index(start + i)] = red if x[index(start + i)] <= top else ZERO
            out[index(start + hop + i)] = green if x[index(start + hop + i)] <= top else ZERO
            out[index(start + 2 * hop + i)] = blue if x[index(start + 2 * hop + i)] <= top else ZERO


@kernel
def grey_gradient(out: Array, grads: Array, x: Array, start: int, stop: int, top: float) -> None:
    """Gradients of grey, where `x` is not above the range."""
    for i in range(start, stop):
        out[index(i)] = grads[index(i)] if x[index(i)] <= top else ZERO


@kernel
def ask(
    values: Array, begin: int, row: int, second: bool, size: tuple[int, int], step: int, hop: int
) -> None:
    """Have half a row fetched; more at once would wait for lines that are under way."""
    height, width = size
    if 0 <= row < height:
        middle = width * step // 2
        first, last = (middle, width * step) if second else (0, middle)
        for c in range(1 if step == 3 else 3):
            at = begin + c * hop + row * width * step
            fetch_range(values, at + first, at + last)


@kernel
def straight_through(
    out: Array,
    grads: Array,
    x: Array,
    starts: Array,
    size: tuple[int, int],
    step: int,
    hop: int,
    factors: tuple[int, int],
    top: float,
    limits: tuple[float, float],
    part: tuple[int, int],
) -> None:
    """Vector-Jacobian product of the round trip of pictures without any rounding, its clamps included.

    Parameters
    ----------
    out, grads, x : ndarray of float32 or float64, shape (n,)
        Gradients with respect to the values before and after, and the values, of one dtype. `out` is written.
    starts, size, step, hop, factors
        As for `round_trip` of `kernels/jpeg.py`.
    top : float, of the same dtype
        The largest value of the range.
    limits : tuple of float, of the same dtype
        Between which RGB on the way out is not clamped.
    part : tuple of int
        First row to write, which is even, and the one after the last.
    """
    (height, width), (tall, wide), (first, end) = size, factors, part
    real, real_high = (width + wide - 1) // wide, (height + tall - 1) // tall  # values of chrominance
    smooth = wide == 2 and real > 2
    weight = MOST if smooth and tall == 2 else ONE
    half, length = real + GAP, wide * (real + GAP)  # from one colour to the other
    luma = np.zeros(RING * width, x.dtype)
    full = np.zeros(2 * 2 * length, x.dtype)  # two rows before they are halved
    chroma = np.zeros(4 * 2 * half, x.dtype)
    mixed = np.zeros(2 * half + 1, x.dtype)
    colours = np.zeros(2 * length, x.dtype)
    rows = np.zeros(2 * length + 1, x.dtype)  # gradients, a zero before each row and behind it
    halves = np.zeros(4 * 2 * half, x.dtype)  # of four rows, less wide
    means = np.zeros(2 * half, x.dtype)
    back = np.zeros(2 * length, x.dtype)
    for p in range(starts.size):
        begin = starts[p]
        if step == 1 and hop == 0:
            grey_gradient(out, grads, x, begin + first * width, begin + end * width, top)
            continue
        for ahead in range(max(0, first - 2 * LAG), end + 2 * LAG):
            if ahead < height:
                at, y, c = begin + ahead * width * step, ahead % RING * width, ahead % tall * 2 * length
                ask(grads, begin, ahead - LAG + 1, False, size, step, hop)
                k = ahead // tall % 4 * 2 * half
                if wide == 1:
                    to_ycc(x, at, step, hop, width, top, luma, y, chroma, k, k + half)
                else:
                    to_ycc(x, at, step, hop, width, top, luma, y, full, c, c + length)
                    full[c + width] = full[c + width - 1]
                    full[c + length + width] = full[c + length + width - 1]
                    if ahead % tall == tall - 1 or ahead == height - 1:  # an odd last row is a pair by itself
                        halve(chroma, k, half + real, full, 0, c)

            ask(grads, begin, ahead - LAG + 1, True, size, step, hop)
            y = ahead - LAG
            if 0 <= y < height:
                ask(x, begin, ahead + 1, False, size, step, hop)
                near = y // tall
                other = near + 2 * (y % 2) - 1 if tall == 2 else near
                other = min(max(other, 0), real_high - 1) % 4 * 2 * half
                near = near % 4 * 2 * half
                at, lit, second = begin + y * width * step, y % RING * width, 1 + length
                if wide == 1:
                    cb, cr = near, near + half
                    open_gradient(
                        grads, at, step, hop, width, luma, lit, chroma, cb, cr, limits, rows, second
                    )
                else:
                    double(colours, chroma, near, other, real, weight, smooth, mixed)
                    ask(x, begin, ahead + 1, True, size, step, hop)
                    cb, cr = 0, length
                    open_gradient(
                        grads, at, step, hop, width, luma, lit, colours, cb, cr, limits, rows, second
                    )
                ask(out, begin, ahead - 2 * LAG + 1, False, size, step, hop)
                double_back(halves, y % 4 * 2 * half, rows, width, wide, smooth)

            ask(out, begin, ahead - 2 * LAG + 1, True, size, step, hop)
            y = ahead - 2 * LAG
            if first <= y < end:
                if y % tall == 0:
                    mix_rows(means, halves, y, shares(y, height, tall, smooth), 2 * half)
                    share = HALF if tall == 2 and y + 1 < height else ONE
                    halve_back(back, means, width, wide, share)
                at, lit = begin + y * width * step, y % RING * width
                write_gradient(out, x, at, step, hop, width, top, luma, lit, back, length)
