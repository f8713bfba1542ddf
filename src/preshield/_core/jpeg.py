"""The round trip of a batch through JPEG, and its vector-Jacobian products."""

from typing import NamedTuple

import numpy as np

from .layout import working_dtype
from .threads import block_length, map_blocks, thread_count
from .typing import Array, Shape

__all__ = ["SUBSAMPLINGS", "Settings", "round_trip"]

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
BLOCK_BYTES = 1 << 19  # of values that a thread takes at once
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


def quanta(quality: int) -> Array:
    """Steps of the quantiser for luminance and chrominance, shape (2, 8, 8), rows first."""
    tables = np.array([LUMINANCE.split(), CHROMINANCE.split()], dtype=int).reshape(2, 8, 8)
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((tables * percent + 50) // 100, 1, 255)


def find_pictures(shape: Shape, axis: int) -> Pictures:
    """The pictures of a sample of a contiguous batch with its channels on `axis`."""
    channels = shape[axis]
    if axis == len(shape) - 1:
        *_, height, width, _ = shape
        frames = shape[1] if len(shape) == 5 else 1
        starts = np.arange(frames) * height * width * channels
        return Pictures(starts, (height, width), channels, 0)
    height, width = shape[-2:]
    if channels != RGB:
        planes = int(np.prod(shape[1:-2]))
        return Pictures(np.arange(planes) * height * width, (height, width), 1, 0)
    frames = int(np.prod(shape[1:-2])) // RGB
    before = axis == 1 and len(shape) == 5  # (C, F, H, W)
    apart, hop = (1, frames) if before else (RGB, 1)
    return Pictures(np.arange(frames) * apart * height * width, (height, width), 1, hop * height * width)


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
    if axis == x.ndim - 1 and x.shape[-1] not in (1, RGB):
        out, peak = round_trip(np.moveaxis(x, -1, -3), settings, axis=x.ndim - 3, progress=progress)
        return np.moveaxis(out, -3, -1), peak
    from .kernels import jpeg

    out, dtype = np.empty(x.shape, np.float32), working_dtype(x.dtype)
    if not x.size:
        return out, 0.0
    pictures, most = find_pictures(x.shape, axis), [0]
    numbers = np.arange(block_length(x, BLOCK_BYTES))[:, None] * (x.size // len(x))
    tables = quanta(settings.quality).transpose(0, 2, 1)
    multipliers = np.ascontiguousarray((1 + 2.0**-16) / (8 * tables), np.float32)
    steps = np.ascontiguousarray(tables, np.float32)
    weights = (np.float32(1), np.float32(0)) if settings.largest == BYTE_SCALE else (HIGH, LOW)
    strips = -(-pictures.size[0] // jpeg.STRIP)
    parts = _parts(len(x) * len(pictures.starts), strips)

    def work(numbers_of_parts: slice) -> None:
        first, last = numbers_of_parts.start // parts, -(-numbers_of_parts.stop // parts)
        part = numbers_of_parts.start % parts
        ends = (0, strips) if parts == 1 else (strips * part // parts, strips * (part + 1) // parts)
        values = np.ascontiguousarray(x[first:last], dtype=dtype).reshape(-1).view()
        values.flags.writeable = False
        most.append(
            jpeg.round_trip(
                out[first:last].reshape(-1),
                values,
                values.view(f"u{dtype.itemsize}"),
                (numbers[: last - first] + pictures.starts).reshape(-1),
                pictures.size,
                pictures.step,
                pictures.hop,
                settings.factors,
                dtype.type(BYTE_SCALE / settings.largest),
                dtype.type(BYTE_SCALE),
                weights,
                multipliers,
                steps,
                ends,
            )
        )

    block = len(numbers) if parts == 1 else 1
    map_blocks(work, len(x) * parts, block, progress=progress)
    peak = np.array(max(most), f"u{dtype.itemsize}").view(dtype)[()]
    return out, float(peak) if np.isfinite(peak) and not np.signbit(peak) else None


def _parts(pictures: int, strips: int) -> int:
    """In how many parts to cut each picture, if there are fewer of them than threads could work on."""
    wanted = -(-2 * thread_count() // pictures)
    return max(1, min(wanted, strips // STRIPS_APART)) if wanted > 1 else 1
