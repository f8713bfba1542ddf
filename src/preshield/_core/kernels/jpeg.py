"""The round trip of pictures through JPEG, without its entropy coding, which loses nothing.

Bit for bit what libjpeg-turbo computes for Pillow: baseline, the accurate integer transform both ways, smooth
upsampling of colour. The arithmetic is that of its accurate ("islow") transforms; sums that stay below 2**24
are computed in `float32`, where they are exact in any order.

A picture is worked off in strips of 16 rows: levels, colour, transform, quantiser, back. One strip of samples
stays in the cache. Colour of a strip's last row leans on the next strip, so output is one row behind.
Narrow pictures are laid side by side, so that vector instructions find enough blocks in a row.

The floor: at 4:2:0 a pixel of RGB has 1.5 samples. In vectors of eight, each of four passes of a transform
takes about 70 instructions for 64 samples, the quantiser 6 for 8 samples, levels and colour about 40 for 8
pixels on the way in and 50 on the way out: 19 instructions a pixel, 6 to 7 cycles. 12 bytes a pixel are read
and 12 written.
"""

from typing import Any

import numpy as np

from ..arithmetic.jpeg import CONSTANTS
from ..typing import Array
from . import fused, kernel

__all__ = ["LANES", "STRIP", "round_trip"]

STRIP = 16  # rows
BLOCK = 8  # pixels a side
LANES = 64  # blocks that are transformed side by side
ROW = BLOCK * LANES  # a constant distance in memory lets the compiler see that rows do not overlap

C0_298, C0_390, C0_541, C0_765, C0_899, C1_175, C1_501, C1_847, C1_961, C2_053, C2_562, C3_072 = CONSTANTS

f32: Any = np.float32
i32: Any = np.int32  # for every sum and product: Numba would widen them, and vectors hold half as many
index: Any = np.uintp  # an unsigned index need not be compared with 0

F0_298, F0_390, F0_541, F0_765, F0_899, F1_175 = map(f32, CONSTANTS[:6])
F1_501, F1_847, F1_961, F2_053, F2_562, F3_072 = map(f32, CONSTANTS[6:])
HALF, FOUR, LOWEST, HIGHEST, MIDDLE = f32(0.5), f32(4), f32(-128), f32(127), f32(128)
PASS_1, R_11, R_15, R_18 = f32(2.0**-11), 1 << 10, 1 << 14, 1 << 17
# The luminance less 128. Chrominance is rounded from a hair below one half, so that 255 is not exceeded.
Y_R, Y_G, Y_B, Y_0 = (f32(c / 65536) for c in (19595, 38470, 7471, 32768 - 128 * 65536))
CB_R, CB_G, CB_B, C_0 = (f32(c / 65536) for c in (-11059, -21709, 32768, 32767))
CR_R, CR_G, CR_B = (f32(c / 65536) for c in (32768, -27439, -5329))
R_CR, G_CB, G_CR, B_CB = (f32(c / 65536) for c in (91881, -22554, -46802, 116130))
ZERO, TOP, THREE, SEVEN, EIGHT = f32(0), f32(255), f32(3), f32(7), f32(8)
QUARTER, SIXTEENTH = f32(0.25), f32(0.0625)
ROW_OF_EIGHT, PAD = 64, 16  # rows are not a power of two apart, or they would share few places of a cache


@kernel
def read_levels(
    levels: Array, at: int, x: Array, bits: Array, start: int, count: int, scale: float, top: float
) -> Any:
    """Values that lie side by side as levels 0 to 255; returns the largest of their bit patterns."""
    for i in range(count):
        levels[index(at + i)] = f32(min(np.rint(x[index(start + i)] * scale), top))
    most = bits[index(start)]
    for i in range(count):
        most = max(most, bits[index(start + i)])
    return most


@fused
def to_ycc(
    levels: Array, step: int, width: int, luma: Array, y: int, chroma: Array, cb: int, cr: int
) -> None:
    """A row of levels as luminance at `luma[y]`, and chrominance at `chroma[cb]` and `[cr]`, less 128."""
    if step == 3:
        for i in range(width):
            r, g, b = levels[index(3 * i)], levels[index(3 * i + 1)], levels[index(3 * i + 2)]
            luma[index(y + i)] = np.floor(Y_R * r + Y_G * g + Y_B * b + Y_0)
            chroma[index(cb + i)] = np.floor(CB_R * r + CB_G * g + CB_B * b + C_0)
            chroma[index(cr + i)] = np.floor(CR_R * r + CR_G * g + CR_B * b + C_0)
    else:
        for i in range(width):
            r, g, b = levels[index(i)], levels[index(width + i)], levels[index(2 * width + i)]
            luma[index(y + i)] = np.floor(Y_R * r + Y_G * g + Y_B * b + Y_0)
            chroma[index(cb + i)] = np.floor(CB_R * r + CB_G * g + CB_B * b + C_0)
            chroma[index(cr + i)] = np.floor(CR_R * r + CR_G * g + CR_B * b + C_0)


@kernel
def to_luma(levels: Array, width: int, luma: Array, y: int) -> None:
    """A row of grey levels, less 128."""
    for i in range(width):
        luma[index(y + i)] = levels[index(i)] - MIDDLE


@fused
def forward_rows(samples: Array, start: int, stride: int, blocks: int, work: Array) -> None:
    """First pass of the transform: the rows of each block."""
    for row in range(BLOCK):
        for b in range(blocks):
            i = start + row * stride + BLOCK * b
            x0, x1 = samples[index(i)], samples[index(i + 1)]
            x2, x3 = samples[index(i + 2)], samples[index(i + 3)]
            x4, x5 = samples[index(i + 4)], samples[index(i + 5)]
            x6, x7 = samples[index(i + 6)], samples[index(i + 7)]
            t0, t7, t1, t6 = x0 + x7, x0 - x7, x1 + x6, x1 - x6
            t2, t5, t3, t4 = x2 + x5, x2 - x5, x3 + x4, x3 - x4
            t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
            z1 = (t12 + t13) * F0_541
            z5 = (t4 + t6 + t5 + t7) * F1_175
            a, c = (t4 + t7) * F0_899, (t5 + t6) * F2_562
            d, e = z5 - (t4 + t6) * F1_961, z5 - (t5 + t7) * F0_390
            o = ROW * row + b
            work[index(o)] = i32((t10 + t11) * FOUR)
            work[index(o + 4 * LANES)] = i32((t10 - t11) * FOUR)
            work[index(o + 2 * LANES)] = i32(np.floor((z1 + t13 * F0_765) * PASS_1 + HALF))
            work[index(o + 6 * LANES)] = i32(np.floor((z1 - t12 * F1_847) * PASS_1 + HALF))
            work[index(o + 7 * LANES)] = i32(np.floor((t4 * F0_298 - a + d) * PASS_1 + HALF))
            work[index(o + 5 * LANES)] = i32(np.floor((t5 * F2_053 - c + e) * PASS_1 + HALF))
            work[index(o + 3 * LANES)] = i32(np.floor((t6 * F3_072 - c + d) * PASS_1 + HALF))
            work[index(o + 1 * LANES)] = i32(np.floor((t7 * F1_501 - a + e) * PASS_1 + HALF))


@fused
def columns(work: Array, blocks: int, multipliers: Array, quanta: Array) -> None:
    """Second pass of the transform, the quantiser, and the first pass of the inverse, in place."""
    for column in range(BLOCK):
        m0, m1, m2, m3, m4, m5, m6, m7 = multipliers[column]
        q0, q1, q2, q3, q4, q5, q6, q7 = quanta[column]
        for b in range(blocks):
            o = LANES * column + b
            x0, x1 = work[index(o)], work[index(o + ROW)]
            x2, x3 = work[index(o + 2 * ROW)], work[index(o + 3 * ROW)]
            x4, x5 = work[index(o + 4 * ROW)], work[index(o + 5 * ROW)]
            x6, x7 = work[index(o + 6 * ROW)], work[index(o + 7 * ROW)]
            t0, t7, t1, t6 = i32(x0 + x7), i32(x0 - x7), i32(x1 + x6), i32(x1 - x6)
            t2, t5, t3, t4 = i32(x2 + x5), i32(x2 - x5), i32(x3 + x4), i32(x3 - x4)
            t10, t13, t11, t12 = i32(t0 + t3), i32(t0 - t3), i32(t1 + t2), i32(t1 - t2)
            z1 = i32(i32(t12 + t13) * C0_541)
            z3, z4 = i32(t4 + t6), i32(t5 + t7)
            z5 = i32(i32(z3 + z4) * C1_175)
            a, c = i32(i32(t4 + t7) * C0_899), i32(i32(t5 + t6) * C2_562)
            d, e = i32(z5 - i32(z3 * C1_961)), i32(z5 - i32(z4 * C0_390))
            # Quantised: half away from 0, for which the multipliers are a hair larger than the reciprocals.
            x0 = i32(np.rint(f32(i32(t10 + t11 + 2) >> 2) * m0) * q0)
            x4 = i32(np.rint(f32(i32(t10 - t11 + 2) >> 2) * m4) * q4)
            x2 = i32(np.rint(f32(i32(z1 + t13 * C0_765 + R_15) >> 15) * m2) * q2)
            x6 = i32(np.rint(f32(i32(z1 - t12 * C1_847 + R_15) >> 15) * m6) * q6)
            x7 = i32(np.rint(f32(i32(t4 * C0_298 - a + d + R_15) >> 15) * m7) * q7)
            x5 = i32(np.rint(f32(i32(t5 * C2_053 - c + e + R_15) >> 15) * m5) * q5)
            x3 = i32(np.rint(f32(i32(t6 * C3_072 - c + d + R_15) >> 15) * m3) * q3)
            x1 = i32(np.rint(f32(i32(t7 * C1_501 - a + e + R_15) >> 15) * m1) * q1)

            z1 = i32(i32(x2 + x6) * C0_541)
            t2, t3 = i32(z1 - x6 * C1_847), i32(z1 + x2 * C0_765)
            t0, t1 = i32(i32(i32(x0 + x4) << 13) + R_11), i32(i32(i32(x0 - x4) << 13) + R_11)
            t10, t13, t11, t12 = i32(t0 + t3), i32(t0 - t3), i32(t1 + t2), i32(t1 - t2)
            z3, z4 = i32(x7 + x3), i32(x5 + x1)
            z5 = i32(i32(z3 + z4) * C1_175)
            a, c = i32(i32(x7 + x1) * C0_899), i32(i32(x5 + x3) * C2_562)
            d, e = i32(z5 - i32(z3 * C1_961)), i32(z5 - i32(z4 * C0_390))
            t4, t5 = i32(i32(x7 * C0_298) - a + d), i32(i32(x5 * C2_053) - c + e)
            t6, t7 = i32(i32(x3 * C3_072) - c + d), i32(i32(x1 * C1_501) - a + e)
            work[index(o)] = i32(t10 + t7) >> 11
            work[index(o + 7 * ROW)] = i32(t10 - t7) >> 11
            work[index(o + ROW)] = i32(t11 + t6) >> 11
            work[index(o + 6 * ROW)] = i32(t11 - t6) >> 11
            work[index(o + 2 * ROW)] = i32(t12 + t5) >> 11
            work[index(o + 5 * ROW)] = i32(t12 - t5) >> 11
            work[index(o + 3 * ROW)] = i32(t13 + t4) >> 11
            work[index(o + 4 * ROW)] = i32(t13 - t4) >> 11


@fused
def inverse_rows(samples: Array, start: int, stride: int, blocks: int, work: Array) -> None:
    """Second pass of the inverse: the rows of each block, less 128 and before the clamp."""
    for row in range(BLOCK):
        for b in range(blocks):
            o = ROW * row + b
            x0, x1 = work[index(o)], work[index(o + LANES)]
            x2, x3 = work[index(o + 2 * LANES)], work[index(o + 3 * LANES)]
            x4, x5 = work[index(o + 4 * LANES)], work[index(o + 5 * LANES)]
            x6, x7 = work[index(o + 6 * LANES)], work[index(o + 7 * LANES)]
            z1 = i32(i32(x2 + x6) * C0_541)
            t2, t3 = i32(z1 - x6 * C1_847), i32(z1 + x2 * C0_765)
            t0, t1 = i32(i32(i32(x0 + x4) << 13) + R_18), i32(i32(i32(x0 - x4) << 13) + R_18)
            t10, t13, t11, t12 = i32(t0 + t3), i32(t0 - t3), i32(t1 + t2), i32(t1 - t2)
            z3, z4 = i32(x7 + x3), i32(x5 + x1)
            z5 = i32(i32(z3 + z4) * C1_175)
            a, c = i32(i32(x7 + x1) * C0_899), i32(i32(x5 + x3) * C2_562)
            d, e = i32(z5 - i32(z3 * C1_961)), i32(z5 - i32(z4 * C0_390))
            t4, t5 = i32(i32(x7 * C0_298) - a + d), i32(i32(x5 * C2_053) - c + e)
            t6, t7 = i32(i32(x3 * C3_072) - c + d), i32(i32(x1 * C1_501) - a + e)
            i = start + row * stride + BLOCK * b
            samples[index(i)] = f32(i32(t10 + t7) >> 18)
            samples[index(i + 1)] = f32(i32(t11 + t6) >> 18)
            samples[index(i + 2)] = f32(i32(t12 + t5) >> 18)
            samples[index(i + 3)] = f32(i32(t13 + t4) >> 18)
            samples[index(i + 4)] = f32(i32(t13 - t4) >> 18)
            samples[index(i + 5)] = f32(i32(t12 - t5) >> 18)
            samples[index(i + 6)] = f32(i32(t11 - t6) >> 18)
            samples[index(i + 7)] = f32(i32(t10 - t7) >> 18)


@kernel
def code_rows(
    samples: Array, start: int, stride: int, blocks: int, work: Array, multipliers: Array, quanta: Array
) -> None:
    """One row of blocks there and back, in place; what lies behind the last is written to as well."""
    for first in range(0, blocks, LANES):
        some = (min(LANES, blocks - first) + 7) // 8 * 8  # whole vectors
        forward_rows(samples, start + BLOCK * first, stride, some, work)
        columns(work, some, multipliers, quanta)
        inverse_rows(samples, start + BLOCK * first, stride, some, work)


@kernel
def repeat_last(row: Array, start: int, count: int, padded: int) -> None:
    """Continue a row with its last value."""
    last = row[index(start + count - 1)]
    for i in range(count, padded):
        row[index(start + i)] = last


@kernel
def copy_row(samples: Array, source: int, target: int, count: int) -> None:
    """One row again."""
    for i in range(count):
        samples[index(target + i)] = samples[index(source + i)]


@fused
def halve(
    out: Array, start: int, count: int, full: Array, upper: int, lower: int, even: float, odd: float
) -> None:
    """Means of two by two; what is added before rounding alternates between columns."""
    for i in range(count // 2):
        a, b = upper + 4 * i, lower + 4 * i
        left = (full[index(a)] + full[index(a + 1)]) + (full[index(b)] + full[index(b + 1)])
        right = (full[index(a + 2)] + full[index(a + 3)]) + (full[index(b + 2)] + full[index(b + 3)])
        out[index(start + 2 * i)] = np.floor(left * QUARTER + even)
        out[index(start + 2 * i + 1)] = np.floor(right * QUARTER + odd)


@fused
def double(
    out: Array, start: int, samples: Array, near: int, other: int, count: int, mixed: Array, tall: bool
) -> None:
    """Twice as many columns of a row of chrominance, by triangles along both axes, or along rows only."""
    if tall:
        for j in range(count):
            a = min(max(samples[index(near + j)], LOWEST), HIGHEST)
            b = min(max(samples[index(other + j)], LOWEST), HIGHEST)
            mixed[index(j + 1)] = a * (THREE * SIXTEENTH) + b * SIXTEENTH
    else:
        for j in range(count):
            mixed[index(j + 1)] = min(max(samples[index(near + j)], LOWEST), HIGHEST) * QUARTER
    mixed[0], mixed[count + 1] = mixed[1], mixed[count]
    even, odd = (EIGHT * SIXTEENTH, SEVEN * SIXTEENTH) if tall else (QUARTER, HALF)
    for j in range(count):
        s = THREE * mixed[index(j + 1)]
        out[index(start + 2 * j)] = np.floor(s + mixed[index(j)] + even)
        out[index(start + 2 * j + 1)] = np.floor(s + mixed[index(j + 2)] + odd)


@kernel
def repeat(out: Array, start: int, samples: Array, near: int, count: int, times: int) -> None:
    """A row of chrominance, each column once or twice."""
    if times == 1:
        for j in range(count):
            out[index(start + j)] = min(max(samples[index(near + j)], LOWEST), HIGHEST)
    else:
        for j in range(count):
            value = min(max(samples[index(near + j)], LOWEST), HIGHEST)
            out[index(start + 2 * j)], out[index(start + 2 * j + 1)] = value, value


@fused
def write_rgb(
    out: Array,
    start: int,
    step: int,
    hop: int,
    width: int,
    luma: Array,
    y: int,
    chroma: Array,
    cr: int,
    high: float,
    low: float,
) -> None:
    """A row of RGB, from luminance at `luma[y]` and chrominance at `chroma[0]` and `[cr]`."""
    if step == 3:
        for i in range(width):
            light = min(max(luma[index(y + i)], LOWEST), HIGHEST) + MIDDLE
            b, r = chroma[index(i)], chroma[index(cr + i)]
            red = min(max(light + np.floor(R_CR * r + HALF), ZERO), TOP)
            green = min(max(light + np.floor(G_CB * b + G_CR * r + HALF), ZERO), TOP)
            blue = min(max(light + np.floor(B_CB * b + HALF), ZERO), TOP)
            out[index(start + 3 * i)] = red * high + red * low
            out[index(start + 3 * i + 1)] = green * high + green * low
            out[index(start + 3 * i + 2)] = blue * high + blue * low
    else:
        for i in range(width):
            light = min(max(luma[index(y + i)], LOWEST), HIGHEST) + MIDDLE
            b, r = chroma[index(i)], chroma[index(cr + i)]
            red = min(max(light + np.floor(R_CR * r + HALF), ZERO), TOP)
            green = min(max(light + np.floor(G_CB * b + G_CR * r + HALF), ZERO), TOP)
            blue = min(max(light + np.floor(B_CB * b + HALF), ZERO), TOP)
            out[index(start + i)] = red * high + red * low
            out[index(start + hop + i)] = green * high + green * low
            out[index(start + 2 * hop + i)] = blue * high + blue * low


@fused
def write_grey(out: Array, start: int, width: int, luma: Array, y: int, high: float, low: float) -> None:
    """A row of luminance."""
    for i in range(width):
        grey = min(max(luma[index(y + i)], LOWEST), HIGHEST) + MIDDLE
        out[index(start + i)] = grey * high + grey * low


@kernel
def round_trip(
    out: Array,
    x: Array,
    bits: Array,
    starts: Array,
    size: tuple[int, int],
    step: int,
    hop: int,
    factors: tuple[int, int],
    scale: float,
    top: float,
    weights: tuple[float, float],
    multipliers: Array,
    quanta: Array,
    strips: tuple[int, int],
) -> Any:
    """Compress pictures and decompress them again.

    Parameters
    ----------
    out : ndarray of float32, shape (n,)
        Written.
    x : ndarray of float32 or float64, shape (n,)
        Values of pictures, not negative.
    bits : ndarray of unsigned integers, shape (n,)
        The same memory: the bit patterns of `x`.
    starts : ndarray of int64, shape (P,)
        Where each picture begins.
    size : tuple of int
        `(height, width)` of a picture.
    step : int
        3 for pixels of interleaved RGB, 1 for planes.
    hop : int
        Distance of planes of red, green and blue; 0 if there is one plane, of grey.
    factors : tuple of int
        Rows and columns of pixels that share a value of colour: 1 or 2 each.
    scale, top : float, of the dtype of `x`
        From values to levels, and the highest level, 255.
    weights : tuple of float32
        From a level to an output: the product with their exact sum, each product apart.
    multipliers, quanta : ndarray of float32, shape (2, 8, 8)
        Of luminance and chrominance, for columns and rows of coefficients: `(1 + 2**-16) / (8 * quantum)`,
        and the quanta.
    strips : tuple of int
        First strip of 16 rows to write, and the one after the last.

    Returns
    -------
    int
        The largest bit pattern: that of the largest value, unless there are negative ones, infinity or NaN.
    """
    (height, width), (tall, wide), (high, low) = size, factors, weights
    colour = step == 3 or hop > 0
    across = (width + BLOCK - 1) // BLOCK  # blocks
    real, real_high = (width + wide - 1) // wide, (height + tall - 1) // tall  # values of chrominance
    across_c = (real + BLOCK - 1) // BLOCK
    side = min(max(1, LANES // across), starts.size)  # pictures side by side
    rows_c = STRIP // tall
    stride = (side * across + 7) // 8 * ROW_OF_EIGHT + PAD
    stride_c = (2 * side * across_c + 7) // 8 * ROW_OF_EIGHT + PAD
    luma = np.zeros(2 * STRIP * stride, f32)
    chroma = np.zeros(2 * rows_c * stride_c, f32)
    full = np.zeros(4 * across_c * 2 * BLOCK, f32)  # two rows of both colours before they are halved
    length = 2 * across_c * BLOCK
    work = np.zeros(BLOCK * ROW, i32)
    levels = np.zeros(3 * width, f32)
    colours = np.zeros(4 * real, f32)
    mixed = np.zeros(real + 2, f32)
    even, odd = (QUARTER, HALF) if tall == 2 else (ZERO, HALF)
    count = (height + STRIP - 1) // STRIP
    most = bits[0]

    for group in range(0, starts.size, side):
        together = min(side, starts.size - group)
        for strip in range(max(strips[0] - 1, 0), min(strips[1] + 1, count)):
            base, base_c = strip % 2 * STRIP * stride, strip % 2 * rows_c * stride_c
            rows = min(STRIP, height - STRIP * strip)
            present, present_c = (rows + 7) // 8, ((rows + tall - 1) // tall + 7) // 8
            for p in range(together):
                at, at_b, at_r = BLOCK * across * p, BLOCK * across_c * p, BLOCK * across_c * (together + p)
                for row in range(rows):
                    begin = starts[group + p] + (STRIP * strip + row) * width * step
                    y = base + row * stride + at
                    if not colour or step == 3:
                        most = max(most, read_levels(levels, 0, x, bits, begin, width * step, scale, top))
                    else:
                        for c in range(3):
                            plane = begin + c * hop
                            seen = read_levels(levels, c * width, x, bits, plane, width, scale, top)
                            most = max(most, seen)
                    if not colour:
                        to_luma(levels, width, luma, y)
                    elif wide == 1:
                        c = base_c + row * stride_c
                        to_ycc(levels, step, width, luma, y, chroma, c + at_b, c + at_r)
                        repeat_last(chroma, c + at_b, width, BLOCK * across_c)
                        repeat_last(chroma, c + at_r, width, BLOCK * across_c)
                    else:
                        c = row % tall * 2 * length
                        to_ycc(levels, step, width, luma, y, full, c, c + length)
                        repeat_last(full, c, width, length)
                        repeat_last(full, c + length, width, length)
                        if row % tall == tall - 1 or row == rows - 1:  # an odd last row is a pair by itself
                            n, r = BLOCK * across_c, base_c + row // tall * stride_c
                            halve(chroma, r + at_b, n, full, 0, c, even, odd)
                            halve(chroma, r + at_r, n, full, length, c + length, even, odd)
                    repeat_last(luma, y, width, BLOCK * across)
            for row in range(rows, BLOCK * present):
                copy_row(luma, base + (rows - 1) * stride, base + row * stride, stride)
            if strips[0] <= strip < strips[1]:
                for half in range(present):
                    s = base + half * BLOCK * stride
                    code_rows(luma, s, stride, together * across, work, multipliers[0], quanta[0])
            if colour:
                last = (rows + tall - 1) // tall - 1
                for row in range(last + 1, BLOCK * present_c):
                    copy_row(chroma, base_c + last * stride_c, base_c + row * stride_c, stride_c)
                for half in range(present_c):
                    s = base_c + half * BLOCK * stride_c
                    code_rows(chroma, s, stride_c, 2 * together * across_c, work, multipliers[1], quanta[1])

            end = height if strip == count - 1 else STRIP * strip + STRIP - 1
            for y in range(max(STRIP * strip - 1, STRIP * strips[0]), min(end, STRIP * strips[1])):
                near = y // tall
                other = near + (2 * (y % 2) - 1) if tall == 2 else near
                other = min(max(other, 0), real_high - 1)
                near = near % (2 * rows_c) * stride_c
                other = other % (2 * rows_c) * stride_c
                for p in range(together):
                    begin = starts[group + p] + y * width * step
                    lit = y % (2 * STRIP) * stride + BLOCK * across * p
                    if not colour:
                        write_grey(out, begin, width, luma, lit, high, low)
                        continue
                    for c in range(2):
                        at_c = BLOCK * across_c * (c * together + p)
                        a, b = near + at_c, other + at_c
                        if wide == 2 and real > 2:
                            double(colours, c * 2 * real, chroma, a, b, real, mixed, tall == 2)
                        else:
                            repeat(colours, c * 2 * real, chroma, a, real, wide)
                    write_rgb(out, begin, step, hop, width, luma, lit, colours, 2 * real, high, low)
    return most
