"""The round trip of a batch through JPEG, and its vector-Jacobian products."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .checks import check_clip_values
from .errors import ArgumentError
from .layout import working_dtype
from .threads import block_length, map_blocks, thread_count, threads_within
from .typing import Array, ClipValues, Dtype, Shape

__all__ = [
    "SUBSAMPLINGS",
    "Settings",
    "check_range",
    "check_sides",
    "quanta",
    "round_trip",
    "straight_through",
]

LARGEST_SIDE = 65500  # pixels, libjpeg's limit

# Rows and columns of pixels that share a value of colour.
SUBSAMPLINGS = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}

# Quanta of the standard, annex K, at quality 50: luminance and chrominance.
LUMINANCE = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55   14 13 16 24  40  57  69  56
    14 17 22 29  51  87  80  62   18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
CHROMINANCE = """
    17 18 24 47  99  99  99  99   18 21 26 66  99  99  99  99   24 26 56 99  99  99  99  99
    47 66 99 99  99  99  99  99   99 99 99 99  99  99  99  99   99 99 99 99  99  99  99  99
    99 99 99 99  99  99  99  99   99 99 99 99  99  99  99  99
"""
RGB = 3  # channels; any other number is so many pictures in grey
BYTE_SCALE = 255
# From a level to [0, 1] without a division: a product that is exact, and what it lacks.
HIGH = np.float32(2.0**-8 + 2.0**-16)
LOW = np.float32(1 / BYTE_SCALE - float(HIGH))
# So many levels outside of the range a value counts as clamped. The rounded constants of the conversion there
# and back take saturated colours, such as red, up to 0.0062 levels out of it.
TOLERANCE = 0.01
BLOCK_BYTES = 1 << 19  # of values that a thread takes at once
PART_BYTES = 1 << 21  # of a large picture that is converted first, about so many at a time
STRIPS_APART = 8  # a part of a picture has so many at least: it computes the colour of two more


class Settings(NamedTuple):
    """What the result depends on, but for the data."""

    quality: int  # 1 to 100
    factors: tuple[int, int]  # of SUBSAMPLINGS
    largest: float  # of the range of the data: 1 or 255


class Pictures(NamedTuple):
    """Where the pictures of one sample lie in its memory."""

    starts: Array  # of each
    size: tuple[int, int]  # height and width
    step: int  # 3 for interleaved RGB, else 1
    hop: int  # from plane to plane of RGB; 0 if interleaved or grey


def check_range(clip_values: ClipValues) -> None:
    """Refuse a range whose values are not levels of a picture, or such levels over 255."""
    check_clip_values(clip_values)
    low, high = (np.asarray(value) for value in clip_values)
    if np.any(low != 0) or high.size != 1 or high.item() not in (1, 255):
        raise ArgumentError(f"`clip_values` must be (0, 1) or (0, 255), got {clip_values!r}.")


def check_sides(shape: Shape, axis: int) -> tuple[int, int]:
    """Height and width of the frames of images or videos; refuse what a JPEG file cannot hold."""
    height, width = [n for side, n in enumerate(shape) if side != axis][-2:]
    if not all(1 <= side <= LARGEST_SIDE for side in (height, width)):
        raise ArgumentError(
            f"`x` must have frames of 1 to {LARGEST_SIDE} pixels a side, got {height} x {width}."
        )
    return height, width


def quanta(quality: int) -> Array:
    """Steps of the quantiser for luminance and chrominance, shape (2, 8, 8), rows first."""
    tables = np.array([LUMINANCE.split(), CHROMINANCE.split()], dtype=int).reshape(2, 8, 8)
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.asarray(np.clip((tables * percent + 50) // 100, 1, 255))


def round_trip(
    x: Array, settings: Settings, *, axis: int, progress: str | None = None
) -> tuple[Array, float | None]:
    """Compress images or videos as JPEG and decompress them again, bit for bit as Pillow does.

    Parameters
    ----------
    x : ndarray
        Batch with its channels on `axis`.
    settings : Settings
        Quality, subsampling and range.
    axis : int
        Axis of the channels. Three are RGB; each of any other number is a picture in grey.
    progress : str, optional
        Caption of a progress bar.

    Returns
    -------
    out : ndarray of float32
        The batch in the range of the data.
    peak : float or None
        The largest value; None if there are negative ones, infinity or NaN, and what came out means nothing.
    """
    if not x.size:
        return np.empty(x.shape, np.float32), 0.0
    if _is_mixed(x.shape, axis):
        planes = np.moveaxis(x, -1, -3)
        out, peak = round_trip(planes, settings, axis=x.ndim - 3, progress=progress)
        return np.moveaxis(out, -3, -1), peak
    from .kernels import jpeg

    out, dtype = np.empty(x.shape, np.float32), working_dtype(x.dtype)
    pictures, found = _find_pictures(x.shape, axis), [0]
    strips = -(-pictures.size[0] // jpeg.STRIP)
    parts, apart = _parts((x,), len(pictures.starts), strips, dtype)
    weights: Any = (np.float32(1), np.float32(0)) if settings.largest == BYTE_SCALE else (HIGH, LOW)
    scale, top = dtype.type(BYTE_SCALE / settings.largest), dtype.type(BYTE_SCALE)

    def code(out: Array, x: Array, ends: tuple[int, int]) -> None:
        pictures, values = _find_pictures(x.shape, axis), _flat(x, dtype)
        bits = jpeg.round_trip(
            out.reshape(-1),
            values,
            values.view(f"u{dtype.itemsize}"),
            _starts(pictures, x),
            pictures.size,
            pictures.step,
            pictures.hop,
            settings.factors,
            scale,
            top,
            weights,
            *_tables(settings.quality),
            ends,
        )
        found.append(int(bits))

    def work(numbers: slice) -> None:
        rows, ends = _share(numbers, parts, strips)
        _run_on_strips(code, out[rows], (x[rows],), ends, axis, apart=apart)

    block, threads = block_length(x, BLOCK_BYTES) if parts == 1 else 1, _threads(x, parts, apart=apart)
    map_blocks(work, len(x) * parts, block, threads=threads, progress=progress)
    most = np.array(max(found), f"u{dtype.itemsize}").view(dtype)[()]
    return out, float(most) if np.isfinite(most) and not np.signbit(most) else None


def straight_through(x: Array, grad: Array, settings: Settings, *, axis: int) -> Array:
    """Vector-Jacobian product at `x` of the round trip without any rounding.

    Parameters
    ----------
    x, grad : ndarray
        Batch, and the gradient with respect to what comes out.
    settings : Settings
        As of the round trip; the quality makes no difference.
    axis : int
        Axis of the channels.

    Returns
    -------
    ndarray
        In the `working_dtype` of `grad`.
    """
    dtype = working_dtype(grad.dtype)
    if not x.size:
        return np.empty(x.shape, dtype)
    if _is_mixed(x.shape, axis):
        planes, of_planes = np.moveaxis(x, -1, -3), np.moveaxis(grad, -1, -3)
        return np.moveaxis(straight_through(planes, of_planes, settings, axis=x.ndim - 3), -3, -1)
    from .kernels import jpeg_gradient
    from .kernels.jpeg import STRIP

    out, pictures, top = np.empty(x.shape, dtype), _find_pictures(x.shape, axis), settings.largest
    strips, beyond = -(-pictures.size[0] // STRIP), TOLERANCE / BYTE_SCALE * settings.largest
    parts, apart = _parts((x, grad), len(pictures.starts), strips, dtype)

    def pull_back(out: Array, x: Array, grad: Array, ends: tuple[int, int]) -> None:
        pictures = _find_pictures(x.shape, axis)
        jpeg_gradient.straight_through(
            out.reshape(-1),
            _flat(grad, dtype),
            _flat(x, dtype),
            _starts(pictures, x),
            pictures.size,
            pictures.step,
            pictures.hop,
            settings.factors,
            dtype.type(top),
            (dtype.type(-beyond), dtype.type(top + beyond)),
            (STRIP * ends[0], min(STRIP * ends[1], pictures.size[0])),
        )

    def work(numbers: slice) -> None:
        rows, ends = _share(numbers, parts, strips)
        _run_on_strips(pull_back, out[rows], (x[rows], grad[rows]), ends, axis, apart=apart)

    block, threads = block_length(x, BLOCK_BYTES) if parts == 1 else 1, _threads(x, parts, apart=apart)
    map_blocks(work, len(x) * parts, block, threads=threads)
    return out


@lru_cache(maxsize=128)
def _tables(quality: int) -> tuple[Array, Array]:
    """What the kernel multiplies coefficients with to quantise them, and to undo it; columns first."""
    steps = quanta(quality).transpose(0, 2, 1)
    multipliers = (1 + 2.0**-16) / (8 * steps)  # a hair more than the reciprocal: half is rounded away from 0
    return multipliers.astype(np.float32, order="C"), steps.astype(np.float32, order="C")


def _is_mixed(shape: Shape, axis: int) -> bool:
    """Whether pictures in grey are interleaved."""
    return axis == len(shape) - 1 and shape[-1] not in (1, RGB)


def _find_pictures(shape: Shape, axis: int) -> Pictures:
    """The pictures of a sample of a contiguous batch."""
    height, width = shape[-3:-1] if axis == len(shape) - 1 else shape[-2:]
    plane, planes = height * width, int(np.prod(shape[1:])) // (height * width)
    if shape[axis] != RGB:
        return Pictures(np.arange(planes) * plane, (height, width), 1, 0)
    frames = np.arange(planes // RGB)
    if axis == len(shape) - 1:
        return Pictures(frames * RGB * plane, (height, width), RGB, 0)
    if axis == len(shape) - 3:
        return Pictures(frames * RGB * plane, (height, width), 1, plane)
    return Pictures(frames * plane, (height, width), 1, len(frames) * plane)  # (N, C, F, H, W)


def _starts(pictures: Pictures, x: Array) -> Array:
    """Where the pictures of a block of samples begin."""
    samples = np.arange(len(x)) * (x.size // len(x))
    return np.asarray(np.add.outer(samples, pictures.starts).reshape(-1))


def _flat(x: Array, dtype: Dtype) -> Array:
    """Values in the order of the axes, to read: a copy only where it takes one."""
    values = np.ascontiguousarray(x, dtype=dtype).reshape(-1).view()
    values.flags.writeable = False  # or a kernel would be compiled for either kind
    return values


def _parts(read: tuple[Array, ...], pictures: int, strips: int, dtype: Dtype) -> tuple[int, bool]:
    """In how many parts to cut each picture, and whether each is converted by itself.

    There are several where there are fewer pictures than threads could work on, and where pictures are large
    and must be converted: a thread then holds few strips of them.
    """
    wanted = -(-2 * thread_count() // (len(read[0]) * pictures))
    apart = any(array.dtype != dtype or not array.flags.c_contiguous for array in read)
    if apart:
        wanted = max(wanted, read[0][0].size * dtype.itemsize // PART_BYTES)
    parts = max(1, min(wanted, strips // STRIPS_APART))
    return parts, apart and parts > 1


def _threads(x: Array, parts: int, *, apart: bool) -> int:
    """How many threads to use; each holds the values of a part, before and after, if it is apart."""
    return threads_within(8 * x[0].size / parts if apart else 0)


def _run_on_strips(
    function: Callable[..., None],
    out: Array,
    read: tuple[Array, ...],
    ends: tuple[int, int],
    axis: int,
    *,
    apart: bool,
) -> None:
    """Call `function` with what to write, what to read, and which strips.

    If `apart`, it gets these strips and their neighbours alone, with which they share colours.
    """
    if not apart:
        function(out, *read, ends)
        return
    from .kernels.jpeg import STRIP

    rows = out.ndim - (3 if axis == out.ndim - 1 else 2)
    low = max(0, ends[0] - 1)
    shifted = ends[0] - low, ends[1] - low

    def lines(first: int, stop: int) -> tuple[slice, ...]:
        return (*[slice(None)] * rows, slice(STRIP * first, STRIP * stop))

    read = tuple(array[lines(low, ends[1] + 1)] for array in read)
    made = np.empty(read[0].shape, out.dtype)
    function(made, *read, shifted)
    out[lines(*ends)] = made[lines(*shifted)]


def _share(numbers: slice, parts: int, strips: int) -> tuple[slice, tuple[int, int]]:
    """Which samples to work on, and from which strip to which; `numbers` count parts of samples."""
    rows, part = slice(numbers.start // parts, -(-numbers.stop // parts)), numbers.start % parts
    return rows, (0, strips) if parts == 1 else (strips * part // parts, strips * (part + 1) // parts)
