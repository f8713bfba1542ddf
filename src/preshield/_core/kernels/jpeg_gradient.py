"""Vector-Jacobian product of JPEG without rounding.

The inverse transform after the transform is then the identity, and both are left out. Luminance passes,
chrominance goes through its means and triangles, and two clamps are left: of values above the range on the way
in, and of RGB on the way out. To know where the second one acts takes the way there; then comes the way back.

A picture is worked off row by row. Colour of an odd row leans on the pair of rows below, and a mean has shares
of four rows of gradients: reading, clamping and writing each follow two rows behind the one before.
"""

from typing import Any

import numpy as np

from ..typing import Array
from . import fused, kernel

__all__ = ["straight_through"]

f32: Any = np.float32  # which holds these constants exactly, so that they widen nothing and lose nothing
index: Any = np.uintp  # an unsigned index need not be compared with 0

Y_R, Y_G, Y_B = (f32(c / 65536) for c in (19595, 38470, 7471))
CB_R, CB_G, CB_B = (f32(c / 65536) for c in (-11059, -21709, 32768))
CR_R, CR_G, CR_B = (f32(c / 65536) for c in (32768, -27439, -5329))
R_CR, G_CB, G_CR, B_CB = (f32(c / 65536) for c in (91881, -22554, -46802, 116130))
ZERO, ONE, HALF, QUARTER, MOST = f32(0), f32(1), f32(0.5), f32(0.25), f32(0.75)
LAG = 2  # rows, from stage to stage
RING = 8  # rows of luminance that are kept


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
    out: Array,
    start: int,
    samples: Array,
    near: int,
    other: int,
    count: int,
    weight: float,
    smooth: bool,
    mixed: Array,
) -> None:
    """A row of chrominance for pixels: `weight` of the near one, the rest of the other; then along the row."""
    for j in range(count):
        value = weight * samples[index(near + j)] + (ONE - weight) * samples[index(other + j)]
        mixed[index(j + 1)] = value
    if smooth:
        mixed[0], mixed[count + 1] = mixed[1], mixed[count]
        for j in range(count):
            s = MOST * mixed[index(j + 1)]
            out[index(start + 2 * j)] = s + QUARTER * mixed[index(j)]
            out[index(start + 2 * j + 1)] = s + QUARTER * mixed[index(j + 2)]
    else:
        for j in range(count):
            value = mixed[index(j + 1)]
            out[index(start + 2 * j)], out[index(start + 2 * j + 1)] = value, value


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
            of_red = grads[index(start + 3 * i)] if low <= red <= high else ZERO
            of_green = grads[index(start + 3 * i + 1)] if low <= green <= high else ZERO
            of_blue = grads[index(start + 3 * i + 2)] if low <= blue <= high else ZERO
            luma[index(y + i)] = of_red + of_green + of_blue
            rows[index(1 + i)] = G_CB * of_green + B_CB * of_blue
            rows[index(second + i)] = R_CR * of_red + G_CR * of_green
    else:
        for i in range(width):
            light, b, r = luma[index(y + i)], chroma[index(cb + i)], chroma[index(cr + i)]
            red, green, blue = light + R_CR * r, light + G_CB * b + G_CR * r, light + B_CB * b
            of_red = grads[index(start + i)] if low <= red <= high else ZERO
            of_green = grads[index(start + hop + i)] if low <= green <= high else ZERO
            of_blue = grads[index(start + 2 * hop + i)] if low <= blue <= high else ZERO
            luma[index(y + i)] = of_red + of_green + of_blue
            rows[index(1 + i)] = G_CB * of_green + B_CB * of_blue
            rows[index(second + i)] = R_CR * of_red + G_CR * of_green


@fused
def double_back(out: Array, start: int, row: Array, at: int, width: int, wide: int, smooth: bool) -> None:
    """Transpose of `double` along a row, which has zeros around it."""
    count = (width + wide - 1) // wide
    if wide == 1:
        for j in range(count):
            out[index(start + j)] = row[index(at + j)]
        return
    if not smooth:
        for j in range(count):
            out[index(start + j)] = row[index(at + 2 * j)] + row[index(at + 2 * j + 1)]
        return
    for j in range(count):
        inner = row[index(at + 2 * j)] + row[index(at + 2 * j + 1)]
        outer = row[index(at + 2 * j - 1)] + row[index(at + 2 * j + 2)]
        out[index(start + j)] = MOST * inner + QUARTER * outer
    out[index(start)] += QUARTER * row[index(at)]
    if width % 2 == 0:
        out[index(start + count - 1)] += QUARTER * row[index(at + width - 1)]


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
def halve_back(out: Array, start: int, row: Array, at: int, width: int, wide: int, share: float) -> None:
    """Transpose of `halve` along a row: what a pixel has of a mean."""
    if wide == 1:
        for i in range(width):
            out[index(start + i)] = share * row[index(at + i)]
        return
    half = HALF * share
    for j in range(width // 2):
        value = half * row[index(at + j)]
        out[index(start + 2 * j)], out[index(start + 2 * j + 1)] = value, value
    if width % 2:  # the last column is a pair by itself
        out[index(start + width - 1)] = share * row[index(at + width // 2)]


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
) -> None:
    """Gradients of luminance and of chrominance as those of RGB, where `x` is not above the range."""
    if step == 3:
        for i in range(width):
            light, b, r = luma[index(y + i)], rows[index(i)], rows[index(width + i)]
            red, green = Y_R * light + CB_R * b + CR_R * r, Y_G * light + CB_G * b + CR_G * r
            blue = Y_B * light + CB_B * b + CR_B * r
            out[index(start + 3 * i)] = red if x[index(start + 3 * i)] <= top else ZERO
            out[index(start + 3 * i + 1)] = green if x[index(start + 3 * i + 1)] <= top else ZERO
            out[index(start + 3 * i + 2)] = blue if x[index(start + 3 * i + 2)] <= top else ZERO
    else:
        for i in range(width):
            light, b, r = luma[index(y + i)], rows[index(i)], rows[index(width + i)]
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
    length = width + 4  # one zero before a row, three behind it
    luma = np.zeros(RING * width, x.dtype)
    full = np.zeros(4 * length, x.dtype)  # two rows of both colours before they are halved
    chroma = np.zeros(4 * 2 * real, x.dtype)  # four rows of both colours
    mixed = np.zeros(real + 2, x.dtype)
    colours = np.zeros(4 * real, x.dtype)
    rows = np.zeros(2 * length, x.dtype)  # gradients of both colours
    halves = np.zeros(4 * 2 * real, x.dtype)  # of four rows, less wide
    means = np.zeros(2 * real, x.dtype)
    back = np.zeros(2 * width, x.dtype)
    for p in range(starts.size):
        begin = starts[p]
        if step == 1 and hop == 0:
            grey_gradient(out, grads, x, begin + first * width, begin + end * width, top)
            continue
        for ahead in range(max(0, first - 2 * LAG), end + 2 * LAG):
            if ahead < height:
                at, y, c = begin + ahead * width * step, ahead % RING * width, ahead % tall * 2 * length
                k = ahead // tall % 4 * 2 * real
                if wide == 1:
                    to_ycc(x, at, step, hop, width, top, luma, y, chroma, k, k + real)
                else:
                    to_ycc(x, at, step, hop, width, top, luma, y, full, c, c + length)
                    full[c + width] = full[c + width - 1]
                    full[c + length + width] = full[c + length + width - 1]
                    if ahead % tall == tall - 1 or ahead == height - 1:  # an odd last row is a pair by itself
                        halve(chroma, k, real, full, 0, c)
                        halve(chroma, k + real, real, full, length, c + length)

            y = ahead - LAG
            if 0 <= y < height:
                near = y // tall
                other = near + 2 * (y % 2) - 1 if tall == 2 else near
                other = min(max(other, 0), real_high - 1) % 4 * 2 * real
                near = near % 4 * 2 * real
                at, lit = begin + y * width * step, y % RING * width
                if wide == 1:
                    cb, cr, second = near, near + real, 1 + length
                    open_gradient(
                        grads, at, step, hop, width, luma, lit, chroma, cb, cr, limits, rows, second
                    )
                else:
                    for c in range(2):
                        a, b = near + c * real, other + c * real
                        double(colours, c * 2 * real, chroma, a, b, real, weight, smooth, mixed)
                    cb, cr, second = 0, 2 * real, 1 + length
                    open_gradient(
                        grads, at, step, hop, width, luma, lit, colours, cb, cr, limits, rows, second
                    )
                h = y % 4 * 2 * real
                double_back(halves, h, rows, 1, width, wide, smooth)
                double_back(halves, h + real, rows, 1 + length, width, wide, smooth)

            y = ahead - 2 * LAG
            if first <= y < end:
                if y % tall == 0:
                    mix_rows(means, halves, y, shares(y, height, tall, smooth), 2 * real)
                    share = HALF if tall == 2 and y + 1 < height else ONE
                    halve_back(back, 0, means, 0, width, wide, share)
                    halve_back(back, width, means, real, width, wide, share)
                at, lit = begin + y * width * step, y % RING * width
                write_gradient(out, x, at, step, hop, width, top, luma, lit, back)
