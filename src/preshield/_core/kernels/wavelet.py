"""Soft thresholds of Haar coefficients by BayesShrink, and their derivative.

A group is what is denoised together: a frame of three colours, or one channel of any other frame. A line
holds a row of a group as it lies in memory: the colours of a pixel side by side, or one channel after the
other. The rows of channels come in pairs: those of the upper line, then those of the lower one. Only where a
line meets memory is an array sliced: to count the references to a slice takes as long as the arithmetic of a
row.

A large group goes through in strips of rows: the finest levels are worked out strip by strip, once to find
the thresholds and once more to apply them, and memory holds them for one strip alone, beside the coarser
levels of the whole group. The result does not depend on the strips.
"""

from typing import Any

import numpy as np

from ..arithmetic.wavelets import COLOURS, GAINS, RGB, YCBCR
from ..typing import Array
from . import kernel, reduction

__all__ = ["COLOURS", "ROOM", "pull_back", "shrink"]

ROOM = 1 << 22  # bytes that the bands of a group may take before it goes through in strips
_YCBCR, _RGB, _GAINS = np.array(YCBCR), np.array(RGB), np.array(GAINS)


# Memory and lines


@kernel
def _start(number: int, shape: Array, strides: Array, size: int) -> Any:
    """Where a group starts; `shape` and `strides` are of samples, frames, rows, columns and channels."""
    of_frame = shape[4] // size
    frame, channel = number // of_frame, number % of_frame * size
    return (frame // shape[1]) * strides[0] + (frame % shape[1]) * strides[1] + channel * strides[4]


@kernel
def _get(line: Array, x: Array, start: int, strides: Array, size: int, scale: Any, bounds: Any) -> None:
    """Read a row: subtract the first number of `scale`, divide by the second, clip all but NaN."""
    (low, span), (least, most) = scale, bounds
    factor = line.dtype.type(1) / span
    step = strides[3]
    runs = 1 if step == size else size
    length = line.size // runs
    for run in range(runs):
        first, at = start + run * strides[4], run * length
        if step in (1, size):
            values = x[first : first + length]
            for i in range(length):
                value = (values[i] - low) * factor
                value = least if value < least else value
                line[at + i] = most if value > most else value
        else:
            for i in range(length):
                value = (x[first + i * step] - low) * factor
                value = least if value < least else value
                line[at + i] = most if value > most else value


@kernel
def _put(x: Array, start: int, strides: Array, size: int, line: Array, scale: Any, bounds: Any) -> None:
    """Write a row: multiply by the second number of `scale`, add the first, clip all but NaN."""
    (low, span), (least, most) = scale, bounds
    step = strides[3]
    runs = 1 if step == size else size
    length = line.size // runs
    for run in range(runs):
        first, at = start + run * strides[4], run * length
        if step in (1, size):
            values = x[first : first + length]
            for i in range(length):
                value = line[at + i] * span + low
                value = least if value < least else value
                values[i] = most if value > most else value
        else:
            for i in range(length):
                value = line[at + i] * span + low
                value = least if value < least else value
                x[first + i * step] = most if value > most else value


@kernel
def _hold(line: Array, seen: Array, scale: Any, bounds: Any) -> None:
    """Set to zero where the values seen, scaled as by `_put`, lie out of bounds."""
    (low, span), (least, most), zero = scale, bounds, line.dtype.type(0)
    for i in range(line.size):
        value = seen[i] * span + low
        line[i] = line[i] if (least <= value) & (value <= most) else zero


# Lines and rows of channels


@kernel
def _spread(rows: Array, half: int, line: Array, woven: bool, matrix: Any) -> None:
    """The channels of a line as rows, mixed by `matrix` if they are colours."""
    width, first = rows.shape[1], half * (len(rows) // 2)
    (a, b, c), (d, e, f), (g, h, k) = matrix
    if len(rows) // 2 != COLOURS:
        for i in range(width):
            rows[first, i] = line[i]
    elif woven:
        for i in range(width):
            p, q, r = line[3 * i], line[3 * i + 1], line[3 * i + 2]
            rows[first, i] = a * p + b * q + c * r
            rows[first + 1, i] = d * p + e * q + f * r
            rows[first + 2, i] = g * p + h * q + k * r
    else:
        red, green, blue = line[:width], line[width : 2 * width], line[2 * width :]
        for i in range(width):
            p, q, r = red[i], green[i], blue[i]
            rows[first, i] = a * p + b * q + c * r
            rows[first + 1, i] = d * p + e * q + f * r
            rows[first + 2, i] = g * p + h * q + k * r


@kernel
def _gather(line: Array, rows: Array, half: int, woven: bool, matrix: Any) -> None:
    """Rows of channels as a line, mixed by `matrix` if they are colours."""
    width, first = rows.shape[1], half * (len(rows) // 2)
    (a, b, c), (d, e, f), (g, h, k) = matrix
    if len(rows) // 2 != COLOURS:
        for i in range(width):
            line[i] = rows[first, i]
    elif woven:
        for i in range(width):
            p, q, r = rows[first, i], rows[first + 1, i], rows[first + 2, i]
            line[3 * i] = a * p + b * q + c * r
            line[3 * i + 1] = d * p + e * q + f * r
            line[3 * i + 2] = g * p + h * q + k * r
    else:
        red, green, blue = line[:width], line[width : 2 * width], line[2 * width :]
        for i in range(width):
            p, q, r = rows[first, i], rows[first + 1, i], rows[first + 2, i]
            red[i] = a * p + b * q + c * r
            green[i] = d * p + e * q + f * r
            blue[i] = g * p + h * q + k * r


@kernel
def _extend(extremes: Array, channel: int, rows: Array, row: int) -> None:
    """Take a row into the least and the largest values of the columns of its channel."""
    for i in range(rows.shape[1]):
        value, least, most = rows[row, i], extremes[channel, 0, i], extremes[channel, 1, i]
        extremes[channel, 0, i] = value if value < least else least
        extremes[channel, 1, i] = value if value > most else most


# The transform


@kernel
def _sizes(height: int, width: int) -> Array:
    """Height and width of a plane, and of its means at each level."""
    levels, side = 0, min(height, width)
    while side >= 2:
        levels, side = levels + 1, side // 2
    sizes = np.empty((max(levels - 3, 1) + 1, 2), np.int64)
    sizes[0, 0], sizes[0, 1] = height, width
    for level in range(1, len(sizes)):
        for axis in range(2):
            sizes[level, axis] = (sizes[level - 1, axis] + 1) // 2
    return sizes


@kernel
def _room(size: int, sizes: Array) -> int:
    """How many numbers the bands of all planes hold, at all levels."""
    room = 0
    for level in range(1, len(sizes)):
        room += 4 * size * sizes[level, 0] * sizes[level, 1]
    return room


@kernel
def _set_rows(sizes: Array, fine: int, rows: int) -> None:
    """Set the height of a strip, and of its means at the levels that are worked out strip by strip."""
    for level in range(fine + 1):
        sizes[level, 0] = rows
        rows = (rows + 1) // 2


@kernel
def _cut_into_strips(sizes: Array, size: int, most: int) -> int:
    """How many levels to work out strip by strip so that bands hold so many numbers, or as few as can be.

    From `sizes` of a whole plane become those of a strip at these levels, which is one row at the next.
    """
    fine, height, room = 0, sizes[0, 0], _room(size, sizes)
    while room > most and fine + 1 < len(sizes):
        smaller, rows = sizes.copy(), min(height, 4 << fine)
        _set_rows(smaller, fine + 1, rows)
        if _room(size, smaller) >= room:
            break
        _set_rows(sizes, fine + 1, rows)  # `sizes[:] = smaller` would take 3 seconds to compile
        fine, room = fine + 1, _room(size, sizes)
    return fine


@kernel
def _split(
    bands: Array, plane: int, k: int, rows: Array, top: int, bottom: int, width: int, fill: Any
) -> None:
    """Means and details of two rows; what an odd side lacks is the last pixel times `fill`, 1 or 0."""
    half = rows.dtype.type(0.5)
    if bottom < 0:
        for i in range(width // 2):
            p, q = half * rows[top, 2 * i], half * rows[top, 2 * i + 1]
            bands[plane, 0, k, i] = (1 + fill) * (p + q)
            bands[plane, 1, k, i] = (1 + fill) * (p - q)
            bands[plane, 2, k, i] = (1 - fill) * (p + q)
            bands[plane, 3, k, i] = (1 - fill) * (p - q)
    else:
        for i in range(width // 2):
            p, q = half * rows[top, 2 * i], half * rows[top, 2 * i + 1]
            r, s = half * rows[bottom, 2 * i], half * rows[bottom, 2 * i + 1]
            bands[plane, 0, k, i] = (p + q) + (r + s)
            bands[plane, 1, k, i] = (p - q) + (r - s)
            bands[plane, 2, k, i] = (p + q) - (r + s)
            bands[plane, 3, k, i] = (p - q) - (r - s)
    if width % 2:
        p = half * rows[top, width - 1]
        r = fill * p if bottom < 0 else half * rows[bottom, width - 1]
        bands[plane, 0, k, width // 2] = (1 + fill) * (p + r)
        bands[plane, 1, k, width // 2] = (1 - fill) * (p + r)
        bands[plane, 2, k, width // 2] = (1 + fill) * (p - r)
        bands[plane, 3, k, width // 2] = (1 - fill) * (p - r)


@kernel
def _cut(value: Any, threshold: Any) -> Any:
    """What a soft threshold leaves."""
    cut = value if value < threshold else threshold
    return value - (cut if cut > -threshold else -threshold)


@kernel
def _join(
    rows: Array,
    top: int,
    bottom: int,
    width: int,
    pair: Array,
    bands: Array,
    plane: int,
    k: int,
    thresholds: Array,
    level: int,
    fold: Any,
) -> None:
    """Two rows of means and shrunk details; what exceeds an odd side is folded back if `fold` is 2."""
    half = rows.dtype.type(0.5)
    horizontal, vertical = thresholds[plane, level, 0], thresholds[plane, level, 1]
    diagonal = thresholds[plane, level, 2]
    for i in range(width // 2):
        mean, detail = bands[plane, 0, k, i], _cut(bands[plane, 1, k, i], horizontal)
        pair[0, 2 * i], pair[0, 2 * i + 1] = mean + detail, mean - detail
    for i in range(width // 2):
        mean, detail = _cut(bands[plane, 2, k, i], vertical), _cut(bands[plane, 3, k, i], diagonal)
        pair[1, 2 * i], pair[1, 2 * i + 1] = mean + detail, mean - detail
    if width % 2:
        pair[0, width - 1] = fold * bands[plane, 0, k, width // 2]
        pair[1, width - 1] = fold * _cut(bands[plane, 2, k, width // 2], vertical)
    if bottom < 0:
        for i in range(width):
            rows[top, i] = fold * half * pair[0, i]
    else:
        for i in range(width):
            rows[top, i] = half * (pair[0, i] + pair[1, i])
            rows[bottom, i] = half * (pair[0, i] - pair[1, i])


@reduction
def _energy(bands: Array, plane: int, k: int) -> tuple[float, float, float]:
    """Sums of the squares of details."""
    a = b = c = 0.0
    for i in range(bands.shape[3]):
        horizontal, vertical = np.float64(bands[plane, 1, k, i]), np.float64(bands[plane, 2, k, i])
        diagonal = np.float64(bands[plane, 3, k, i])
        a, b, c = a + horizontal * horizontal, b + vertical * vertical, c + diagonal * diagonal
    return a, b, c


# All levels, planes and rows


@kernel
def _bands(store: Array, size: int, sizes: Array, level: int) -> Array:
    """The bands of all planes at a level, from 1: shape (planes, 4, rows, columns)."""
    start = 0
    for coarser in range(level + 1, len(sizes)):  # which do not move with the height of a strip
        start += 4 * size * sizes[coarser, 0] * sizes[coarser, 1]
    height, width = sizes[level]
    return store[start : start + 4 * size * height * width].reshape(size, 4, height, width)


@kernel
def _split_level(store: Array, size: int, sizes: Array, level: int, first: int, fill: Any) -> None:
    """Split the means of one level; row `first` of the next one is the first of theirs."""
    bands, finer = _bands(store, size, sizes, level), _bands(store, size, sizes, level - 1)
    for plane in range(size):
        rows = finer[plane, 0]
        for k in range((len(rows) + 1) // 2):
            bottom = 2 * k + 1 if 2 * k + 1 < len(rows) else -1
            _split(bands, plane, first + k, rows, 2 * k, bottom, rows.shape[1], fill)


@kernel
def _add_energies(energy: Array, store: Array, size: int, sizes: Array, level: int, rows: Any) -> None:
    """Add the squares of all details in some rows of a level, from the first to the one before the second."""
    bands = _bands(store, size, sizes, level)
    for plane in range(size):
        for k in range(rows[0], rows[1]):
            horizontal, vertical, diagonal = _energy(bands, plane, k)
            energy[plane, level - 1, 0] += horizontal
            energy[plane, level - 1, 1] += vertical
            energy[plane, level - 1, 2] += diagonal


@kernel
def _join_level(
    store: Array, size: int, sizes: Array, level: int, first: int, pair: Array, thresholds: Array, fold: Any
) -> None:
    """Undo `_split_level`, with shrunk details."""
    bands, finer = _bands(store, size, sizes, level), _bands(store, size, sizes, level - 1)
    for plane in range(size):
        rows = finer[plane, 0]
        for k in range((len(rows) + 1) // 2):
            bottom, width = 2 * k + 1 if 2 * k + 1 < len(rows) else -1, rows.shape[1]
            _join(rows, 2 * k, bottom, width, pair, bands, plane, first + k, thresholds, level - 1, fold)


@kernel
def _split_strip(
    store: Array,
    sizes: Array,
    fine: int,
    rows: Array,
    extremes: Array,
    line: Array,
    x: Array,
    start: int,
    strides: Array,
    scale: Any,
    bounds: Any,
    matrix: Any,
) -> None:
    """Read a strip, and split it as often as it is done strip by strip; take its values into extremes."""
    size, height, width, one = len(extremes), sizes[0, 0], sizes[0, 1], x.dtype.type(1)
    first: Any = np.int64(0)  # not a literal, for which Numba would compile a function once more
    woven, bands = strides[3] == size, _bands(store, size, sizes, first + 1)
    for k in range((height + 1) // 2):
        for half in range(min(2, height - 2 * k)):
            _get(line, x, start + (2 * k + half) * strides[2], strides, size, scale, bounds)
            _spread(rows, half, line, woven, matrix)
            if size == COLOURS:
                for plane in range(size):
                    _extend(extremes, plane, rows, half * size + plane)
        for plane in range(size):
            bottom = size + plane if 2 * k + 1 < height else -1
            _split(bands, plane, k, rows, plane, bottom, width, one)
    for level in range(2, fine + 1):
        _split_level(store, size, sizes, level, first, one)


@kernel
def _split_group(
    store: Array,
    energy: Array,
    sizes: Array,
    fine: int,
    rows: Array,
    extremes: Array,
    line: Array,
    x: Array,
    start: int,
    height: int,
    strides: Array,
    scale: Any,
    bounds: Any,
    matrix: Any,
) -> None:
    """Split all strips of a group at all levels.

    `energy` receives the sums of squares of all details, `extremes` the least and the largest value of each
    column. Of the levels that are worked out strip by strip, memory then holds the last strip.
    """
    size, one, strip = len(extremes), x.dtype.type(1), sizes[0, 0]
    begin: Any = np.int64(0)  # not a literal
    energy[:] = 0
    extremes[:, 0], extremes[:, 1] = np.inf, -np.inf
    for first in range(0, height, strip):
        _set_rows(sizes, fine, min(strip, height - first))
        at = start + first * strides[2]
        _split_strip(store, sizes, fine, rows, extremes, line, x, at, strides, scale, bounds, matrix)
        for level in range(1, fine + 1):
            _add_energies(energy, store, size, sizes, level, (begin, sizes[level, 0]))
        if 0 < fine < len(sizes) - 1:
            _split_level(store, size, sizes, fine + 1, first >> (fine + 1), one)
    for level in range(fine + 1, len(sizes)):
        if level > fine + 1:
            _split_level(store, size, sizes, level, begin, one)
        _add_energies(energy, store, size, sizes, level, (begin, sizes[level, 0]))
    _set_rows(sizes, fine, strip)


@kernel
def _set_thresholds(
    thresholds: Array,
    slopes: Array,
    energy: Array,
    extremes: Array,
    sizes: Array,
    sigma: float,
) -> None:
    """BayesShrink: the variance of the noise over the deviation of what is not noise.

    Where noise is all that there is, the resolution of the dtype takes the place of the rest, of three
    colours in units of their range. `slopes` receives the derivative with respect to the mean square of the
    details, 0 in that case. A colour without a range has the largest number for its thresholds.
    """
    most = np.float64(np.finfo(thresholds.dtype).max)
    for plane in range(len(energy)):
        noise, least = sigma**2, np.float64(np.finfo(thresholds.dtype).eps)
        if len(energy) == COLOURS:
            noise *= _GAINS[plane]
            least *= _range(extremes, plane) ** 2
        for level in range(energy.shape[1]):
            count = sizes[level + 1, 0] * sizes[level + 1, 1]
            for band in range(3):
                rest = energy[plane, level, band] / count - noise
                threshold = noise / np.sqrt(max(rest, least))
                thresholds[plane, level, band] = most if threshold > most else threshold
                slopes[plane, level, band] = -0.5 * noise * rest**-1.5 if rest > least else 0.0


@kernel
def _range(extremes: Array, plane: int) -> float:
    """Largest less least value of a plane."""
    least, most = _ends(extremes, plane)
    return np.float64(most) - np.float64(least)


@kernel
def _ends(extremes: Array, plane: int) -> Any:
    """The least and the largest value of a plane."""
    least, most = extremes[plane, 0, 0], extremes[plane, 1, 0]
    for i in range(1, extremes.shape[2]):
        least, most = min(least, extremes[plane, 0, i]), max(most, extremes[plane, 1, i])
    return least, most


@kernel
def _matrix(of: Array, like: Array) -> Any:
    """A matrix as scalars in the dtype of `like`, which no row can overlap in memory."""
    t = like.dtype.type
    first, second, third = of[0], of[1], of[2]
    return (
        (t(first[0]), t(first[1]), t(first[2])),
        (t(second[0]), t(second[1]), t(second[2])),
        (t(third[0]), t(third[1]), t(third[2])),
    )


@kernel
def shrink(
    out: Array, x: Array, groups: Any, shape: Array, strides: Array, sigma: float, limits: Any, clipped: bool
) -> None:
    """Denoise groups.

    Parameters
    ----------
    out, x : ndarray of float32 or float64, one-dimensional
        Batches of the same dtype and layout, as they lie in memory. `out` is written, and may be `x`.
    groups : tuple of int
        Numbers of the first group, and of the one after the last.
    shape, strides : ndarray of int
        Of samples, frames, rows, columns and channels; at least two rows and two columns.
    sigma : float
        Standard deviation of the noise, in units of the range.
    limits : tuple of float
        Minimum and maximum of the range.
    clipped : bool
        Whether values are clipped to the range, before and after.
    """
    t, size = x.dtype.type, COLOURS if shape[4] == COLOURS else 1
    height, width, one, endless = shape[2], shape[3], t(1), (t(-np.inf), t(np.inf))
    low, high = t(limits[0]), t(limits[1])
    scale, unit = (low, high - low), (t(0), one) if clipped else endless
    sizes, woven = _sizes(height, width), strides[3] == size
    fine = _cut_into_strips(sizes, size, ROOM // x.itemsize)
    strip, coarse = sizes[0, 0], fine + 1
    finest: Any = np.int64(0)  # not a literal, for which Numba would compile a function once more
    store = np.empty(_room(size, sizes), x.dtype)
    rows, pair = np.empty((2 * size, width), x.dtype), np.empty((2, width), x.dtype)
    extremes, line = np.empty((size, 2, width), x.dtype), np.empty(size * width, x.dtype)
    energy, slopes = np.empty((2, size, len(sizes) - 1, 3))
    thresholds, counts = np.empty(energy.shape, x.dtype), _sizes(height, width)
    to_ycbcr, to_rgb = _matrix(_YCBCR, x), _matrix(_RGB, x)
    for number in range(groups[0], groups[1]):
        start = _start(number, shape, strides, size)
        _split_group(
            store,
            energy,
            sizes,
            fine,
            rows,
            extremes,
            line,
            x,
            start,
            height,
            strides,
            scale,
            unit,
            to_ycbcr,
        )
        _set_thresholds(thresholds, slopes, energy, extremes, counts, sigma)
        for level in range(len(sizes) - 1, coarse, -1):
            _join_level(store, size, sizes, level, finest, pair, thresholds, one)
        for first in range(0, height, strip):
            lines, at = min(strip, height - first), start + first * strides[2]
            if strip < height:
                _set_rows(sizes, fine, lines)
                _split_strip(store, sizes, fine, rows, extremes, line, x, at, strides, scale, unit, to_ycbcr)
            for level in range(min(coarse, len(sizes) - 1), 1, -1):
                begin = first >> coarse if level == coarse else finest
                _join_level(store, size, sizes, level, begin, pair, thresholds, one)
            bands = _bands(store, size, sizes, finest + 1)
            for k in range((lines + 1) // 2):
                for plane in range(size):
                    bottom = size + plane if 2 * k + 1 < lines else -1
                    _join(rows, plane, bottom, width, pair, bands, plane, k, thresholds, finest, one)
                for half in range(min(2, lines - 2 * k)):
                    _gather(line, rows, half, woven, to_rgb)
                    row = at + (2 * k + half) * strides[2]
                    _put(out, row, strides, size, line, scale, (low, high) if clipped else endless)


# The derivative


@reduction
def _push(bands: Array, grads: Array, plane: int, band: int, k: int, threshold: Any) -> float:
    """How much less a row of the result becomes if the threshold grows."""
    total, zero = 0.0, bands.dtype.type(0)
    for i in range(bands.shape[3]):
        detail, grad = bands[plane, band, k, i], grads[plane, band, k, i]
        rising = grad if detail > threshold else zero
        falling = grad if detail < -threshold else zero
        total += np.float64(rising - falling)
    return total


@kernel
def _pull_band(bands: Array, grads: Array, plane: int, band: int, threshold: Any, weight: Any) -> None:
    """From the gradient by shrunk details to that by the details, which move the threshold, too."""
    zero = bands.dtype.type(0)
    for k in range(bands.shape[2]):
        for i in range(bands.shape[3]):
            detail, grad = bands[plane, band, k, i], grads[plane, band, k, i]
            kept = grad if (detail > threshold) | (detail < -threshold) else zero
            grads[plane, band, k, i] = kept - weight * detail


@kernel
def _split_grads(room: Any, rule: Any, grad: Array, thresholds: Array, first: int, start: int) -> None:
    """Read the gradient by a strip, which begins with row `first` of its group, and pull it back to bands.

    If `clipped`, the strip is put together from `store`, to see which values are out of bounds. `room` and
    `rule` are the same for all strips.
    """
    store, grads, sizes, fine, rows, grad_rows, line, seen, pair = room
    strides, scale, bounds, clipped, to_rgb, matrix = rule
    size, lines, width, coarse = len(rows) // 2, sizes[0, 0], sizes[0, 1], fine + 1
    finest: Any = np.int64(0)  # not a literal
    t, woven = rows.dtype.type, strides[3] == size
    as_it_is, endless = (t(0), t(1)), (t(-np.inf), t(np.inf))
    bands, of_rows = _bands(store, size, sizes, finest + 1), _bands(grads, size, sizes, finest + 1)
    if clipped:
        for level in range(min(coarse, len(sizes) - 1), 1, -1):
            begin = first >> coarse if level == coarse else finest
            _join_level(store, size, sizes, level, begin, pair, thresholds, t(1))
    for k in range((lines + 1) // 2):
        if clipped:
            for plane in range(size):
                bottom = size + plane if 2 * k + 1 < lines else -1
                _join(rows, plane, bottom, width, pair, bands, plane, k, thresholds, finest, t(1))
        for half in range(min(2, lines - 2 * k)):
            row = start + (2 * k + half) * strides[2]
            _get(line, grad, row, strides, size, as_it_is, endless)
            if clipped:
                _gather(seen, rows, half, woven, to_rgb)
                _hold(line, seen, scale, bounds)
            _spread(grad_rows, half, line, woven, matrix)
        for plane in range(size):
            bottom = size + plane if 2 * k + 1 < lines else -1
            _split(of_rows, plane, k, grad_rows, plane, bottom, width, t(0))
    for level in range(2, coarse):
        _split_level(grads, size, sizes, level, finest, t(0))


@kernel
def _add_pushes(
    pushes: Array, store: Array, grads: Array, size: int, sizes: Array, level: int, thresholds: Array
) -> None:
    """Add up how much less the result becomes if the thresholds of a level grow."""
    bands, of_level = _bands(store, size, sizes, level), _bands(grads, size, sizes, level)
    for plane in range(size):
        for band in range(3):
            threshold = thresholds[plane, level - 1, band]
            for k in range(bands.shape[2]):
                pushes[plane, level - 1, band] += _push(bands, of_level, plane, band + 1, k, threshold)


@kernel
def _pull_level(
    store: Array, grads: Array, size: int, sizes: Array, level: int, thresholds: Array, weights: Array
) -> None:
    """Pull the gradient back through the thresholds of a level."""
    bands, of_level = _bands(store, size, sizes, level), _bands(grads, size, sizes, level)
    for plane in range(size):
        for band in range(3):
            threshold, weight = thresholds[plane, level - 1, band], weights[plane, level - 1, band]
            _pull_band(bands, of_level, plane, band + 1, threshold, weight)


@kernel
def _set_weights(
    weights: Array, by_range: Array, pushes: Array, thresholds: Array, slopes: Array, counts: Array
) -> None:
    """What each detail owes to its threshold, and what thresholds owe to the ranges of colours."""
    by_range[:] = 0
    for plane in range(len(pushes)):
        for level in range(pushes.shape[1]):
            count = counts[level + 1, 0] * counts[level + 1, 1]
            for band in range(3):
                push, slope = pushes[plane, level, band], slopes[plane, level, band]
                weights[plane, level, band] = 2 * push * slope / count
                if slope == 0:
                    by_range[plane] += push * thresholds[plane, level, band]


@kernel
def _find_extremes(
    places: Array,
    extremes: Array,
    rows: Array,
    line: Array,
    x: Array,
    start: int,
    shape: Array,
    strides: Array,
    scale: Any,
    bounds: Any,
    matrix: Any,
) -> None:
    """Row and column of the first least and of the first largest value of each colour."""
    places[:] = -1
    size: int = len(places)
    first: Any = np.int64(0)  # not a literal
    for row in range(shape[2]):
        _get(line, x, start + row * strides[2], strides, size, scale, bounds)
        _spread(rows, first, line, strides[3] == size, matrix)
        for plane in range(size):
            least, most = _ends(extremes, plane)
            for end in range(2):
                sought = most if end else least
                for i in range(rows.shape[1]):
                    if places[plane, end, 0] < 0 and rows[plane, i] == sought:
                        places[plane, end, 0], places[plane, end, 1] = row, i


@kernel
def pull_back(
    out: Array,
    x: Array,
    grad: Array,
    groups: Any,
    shape: Array,
    strides: Array,
    sigma: float,
    limits: Any,
    clipped: bool,
) -> None:
    """Vector-Jacobian product of `shrink` at `x`.

    `grad`, the gradient with respect to its result, and `out`, that with respect to `x`, have the layout of
    `x`; the other parameters are those of `shrink`. A value that is clipped has no gradient, unless it left
    the range by rounding. The extremes of a colour have one where its range is part of a threshold; of equal
    values, the first.
    """
    t, size = x.dtype.type, COLOURS if shape[4] == COLOURS else 1
    height, width, one, endless = shape[2], shape[3], t(1), (t(-np.inf), t(np.inf))
    low, high = t(limits[0]), t(limits[1])
    scale, unit = (low, high - low), (t(0), one) if clipped else endless
    as_it_is, rounding = (t(0), one), t(16 * np.finfo(x.dtype).eps) * (high - low)
    sizes, woven = _sizes(height, width), strides[3] == size
    fine = _cut_into_strips(sizes, size, ROOM // x.itemsize)
    strip, coarse = sizes[0, 0], fine + 1
    finest: Any = np.int64(0)  # not a literal, for which Numba would compile a function once more
    stores = np.empty((2, _room(size, sizes)), x.dtype)
    store, grads = stores[0], stores[1]
    rows, pair = np.empty((2 * size, width), x.dtype), np.empty((2, width), x.dtype)
    grad_rows, seen = np.empty((2 * size, width), x.dtype), np.empty(size * width, x.dtype)
    extremes, line = np.empty((size, 2, width), x.dtype), np.empty(size * width, x.dtype)
    energy, slopes = np.empty((2, size, len(sizes) - 1, 3))
    thresholds, nothing = np.empty(energy.shape, x.dtype), np.zeros(energy.shape, x.dtype)
    pushes, weights, counts = np.empty(energy.shape), np.empty(energy.shape, x.dtype), _sizes(height, width)
    by_range, places = np.empty(size), np.empty((size, 2, 2), np.int64)
    to_ycbcr, to_rgb = _matrix(_YCBCR, x), _matrix(_RGB, x)
    from_ycbcr, from_rgb = _matrix(_YCBCR.T.copy(), x), _matrix(_RGB.T.copy(), x)
    room = store, grads, sizes, fine, rows, grad_rows, line, seen, pair
    rule = strides, scale, (low - rounding, high + rounding), clipped, to_rgb, from_rgb
    for number in range(groups[0], groups[1]):
        start = _start(number, shape, strides, size)
        _split_group(
            store,
            energy,
            sizes,
            fine,
            rows,
            extremes,
            line,
            x,
            start,
            height,
            strides,
            scale,
            unit,
            to_ycbcr,
        )
        _set_thresholds(thresholds, slopes, energy, extremes, counts, sigma)
        if clipped:
            for level in range(len(sizes) - 1, coarse, -1):
                _join_level(store, size, sizes, level, finest, pair, thresholds, one)
        pushes[:] = 0
        for first in range(0, height, strip):
            lines, at = min(strip, height - first), start + first * strides[2]
            _set_rows(sizes, fine, lines)
            if strip < height:
                _split_strip(store, sizes, fine, rows, extremes, line, x, at, strides, scale, unit, to_ycbcr)
            _split_grads(room, rule, grad, thresholds, first, at)
            for level in range(1, coarse):
                _add_pushes(pushes, store, grads, size, sizes, level, thresholds)
            if 0 < fine < len(sizes) - 1:
                _split_level(grads, size, sizes, coarse, first >> coarse, t(0))
        for level in range(coarse, len(sizes)):
            if level > coarse:
                _split_level(grads, size, sizes, level, finest, t(0))
            _add_pushes(pushes, store, grads, size, sizes, level, thresholds)
        _set_weights(weights, by_range, pushes, thresholds, slopes, counts)
        by_extremes = size == COLOURS and np.any(by_range != 0)
        if by_extremes:
            _find_extremes(places, extremes, rows, line, x, start, shape, strides, scale, unit, to_ycbcr)
            for plane in range(size):
                if by_range[plane] != 0:  # a colour without a range owes nothing to it
                    by_range[plane] /= _range(extremes, plane)
        for level in range(len(sizes) - 1, fine, -1):
            _pull_level(store, grads, size, sizes, level, thresholds, weights)
            if level > coarse:
                _join_level(grads, size, sizes, level, finest, pair, nothing, t(2))
        for first in range(0, height, strip):
            lines, at = min(strip, height - first), start + first * strides[2]
            if strip < height:
                _set_rows(sizes, fine, lines)
                _split_strip(store, sizes, fine, rows, extremes, line, x, at, strides, scale, unit, to_ycbcr)
                _split_grads(room, rule, grad, thresholds, first, at)
            for level in range(1, coarse):
                _pull_level(store, grads, size, sizes, level, thresholds, weights)
            for level in range(min(coarse, len(sizes) - 1), 1, -1):
                begin = first >> coarse if level == coarse else finest
                _join_level(grads, size, sizes, level, begin, pair, nothing, t(2))
            bands = _bands(grads, size, sizes, finest + 1)
            for k in range((lines + 1) // 2):
                for plane in range(size):
                    bottom = size + plane if 2 * k + 1 < lines else -1
                    _join(grad_rows, plane, bottom, width, pair, bands, plane, k, nothing, finest, t(2))
                    if by_extremes:
                        for end in range(2):
                            half, column = places[plane, end, 0] - first - 2 * k, places[plane, end, 1]
                            if half in (0, 1):
                                grad_rows[half * size + plane, column] += by_range[plane] * (2 * end - 1)
                for half in range(min(2, lines - 2 * k)):
                    row = at + (2 * k + half) * strides[2]
                    _gather(line, grad_rows, half, woven, from_ycbcr)
                    if clipped:
                        _get(seen, x, row, strides, size, as_it_is, endless)
                        _hold(line, seen, as_it_is, (low, high))
                    _put(out, row, strides, size, line, as_it_is, endless)
