"""Resizing of images along both axes, and its transpose."""

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from .checks import is_integer
from .errors import ArgumentError
from .planes import map_planes
from .threads import map_parts
from .typing import Array, Dtype

__all__ = ["Taps", "check_interpolation", "clamp_taps", "resize", "transpose_taps"]

METHODS = ("nearest", "bilinear", "bicubic", "area", "lanczos4", "nearest-exact")
FLAGS = {
    0: "nearest",
    1: "bilinear",
    2: "bicubic",
    3: "area",
    4: "lanczos4",
    5: "bilinear",
    6: "nearest-exact",
}
A = -0.75  # the free parameter of the cubic, as in OpenCV and torch
LOBES = 4  # of the Lanczos window


class Taps(NamedTuple):
    """For each new pixel along an axis, the first of its old neighbours, and the weights of these."""

    first: Array
    weights: Array


def check_interpolation(interpolation: object) -> str:
    """The method that a name or a flag of OpenCV stands for."""
    method = interpolation
    if is_integer(interpolation):
        method = FLAGS.get(int(interpolation))
    if not isinstance(method, str) or method not in METHODS:
        raise ArgumentError(
            f"`interpolation` must be one of {', '.join(map(repr, METHODS))}, or a flag of OpenCV's from 0 "
            f"(INTER_NEAREST) to 6 (INTER_NEAREST_EXACT), got {interpolation!r}."
        )
    return method


def resize(
    x: Array,
    size: tuple[int, int],
    method: str,
    channels_first: bool,
    *,
    transpose: bool = False,
    finish: Callable[[Array, tuple[slice, ...]], Array] | None = None,
    out_dtype: Dtype | None = None,
    progress: str | None = None,
) -> Array:
    """Resize each channel of each image.

    Parameters
    ----------
    x : ndarray
        Images of any dtype; with `transpose`, a gradient of resized ones.
    size : tuple of int
        Height and width of the result.
    method : str
        One of `METHODS`.
    channels_first : bool
        Where the channels are.
    transpose : bool, default False
        Apply the transpose, which pulls a gradient back to images of `size`.
    finish : callable, optional
        What becomes of each part of the result: it takes the part, and slices that say where that lies.
    out_dtype : dtype, optional
        Of the result, if there is `finish`.
    progress : str, optional
        Shows a progress bar with this caption.

    Returns
    -------
    ndarray
        Of a floating type that holds every value of `x`, `float32` or `float64`, or of `out_dtype`.
    """
    from .kernels.resize import resize_planes

    single = x.dtype.itemsize <= (4 if x.dtype.kind == "f" else 2)
    dtype = np.dtype(np.float32 if single else np.float64)
    first, last = (2, 3) if channels_first else (1, 2)
    rows, columns = (
        _taps(x.shape[axis], length, method, transpose)
        for axis, length in zip((first, last), size, strict=True)
    )
    row_weights, column_weights = (taps.weights.astype(dtype) for taps in (rows, columns))

    def interpolate(out: Array, block: Array, step: int) -> None:
        resize_planes(out, block, rows.first, row_weights, columns.first, column_weights, step)

    shape = (*x.shape[:first], *size, *x.shape[last + 1 :])
    axis = 1 if channels_first else 3
    if finish is None:
        out = np.empty(shape, dtype)
        return map_planes(interpolate, out, x, dtypes=(dtype, dtype), axis=axis, progress=progress)
    out, step = np.empty(shape, out_dtype or dtype), 1 if channels_first else shape[3]
    taps = row_weights.shape[1]

    def work(where: tuple[slice, ...]) -> None:
        """Rows of some images, of which only the old rows that they come from are converted."""
        new = where[first] if len(where) > first else slice(0, size[0])
        starts = rows.first[new]
        low, high = int(starts.min()), int(starts.max()) + taps
        old = np.ascontiguousarray(
            x[(*where[:first], *[slice(None)] * (first - len(where)), slice(low, high))], dtype
        )
        made = np.empty(out[where].shape, dtype)
        resize_planes(
            made.reshape(-1, len(starts), size[1] * step),
            old.reshape(-1, high - low, x.shape[last] * step),
            starts - low,
            row_weights[new],
            columns.first,
            column_weights,
            step,
        )
        out[where] = finish(made, where)

    if out.size:
        largest = max(prod(shape[1:]), prod(x.shape[1:])) * dtype.itemsize
        map_parts(work, out, first, sample_bytes=largest, progress=progress)
    return out


@lru_cache(maxsize=64)
def _taps(old: int, new: int, method: str, transpose: bool) -> Taps:
    """How `new` pixels along one axis come from `old` ones, or gradients of the latter from the former's."""
    if transpose:
        return transpose_taps(clamp_taps(*TAPS[method](new, old), new), new)
    return clamp_taps(*TAPS[method](old, new), old)


def _middles(old: int, new: int) -> Array:
    """Where the middles of new pixels lie among old ones, whose middles are whole numbers."""
    return (np.arange(new) + 0.5) * (old / new) - 0.5


def _nearest(old: int, new: int) -> tuple[Array, Array]:
    """The old pixel that holds the upper left corner."""
    return np.arange(new) * old // new, np.ones((new, 1))


def _nearest_exact(old: int, new: int) -> tuple[Array, Array]:
    """The old pixel that holds the middle."""
    return (2 * np.arange(new) + 1) * old // (2 * new), np.ones((new, 1))


def _bilinear(old: int, new: int) -> tuple[Array, Array]:
    middle = _middles(old, new)
    first = np.floor(middle)
    return first, np.stack([1 - (middle - first), middle - first], axis=1)


def _bicubic(old: int, new: int) -> tuple[Array, Array]:
    middle = _middles(old, new)
    first = np.floor(middle) - 1
    distance = np.abs(middle[:, None] - first[:, None] - np.arange(4))
    near = ((A + 2) * distance - (A + 3)) * distance**2 + 1
    far = A * (((distance - 5) * distance + 8) * distance - 4)
    return first, np.where(distance <= 1, near, far)


def _lanczos4(old: int, new: int) -> tuple[Array, Array]:
    middle = _middles(old, new)
    first = np.floor(middle) - LOBES + 1
    distance = middle[:, None] - first[:, None] - np.arange(2 * LOBES)
    weights = np.sinc(distance) * np.sinc(distance / LOBES)
    return first, weights / weights.sum(axis=1, keepdims=True)


def _area(old: int, new: int) -> tuple[Array, Array]:
    """By the part of the new pixel that each old one covers."""
    starts = np.arange(new) * old // new
    taps = np.arange(-(-old // new) + 1)
    begin, end = np.arange(new)[:, None] * old, (np.arange(new)[:, None] + 1) * old  # in parts of 1 / new
    left = (starts[:, None] + taps) * new
    covered = np.minimum(end, left + new) - np.maximum(begin, left)
    return starts, np.maximum(covered, 0) / old


TAPS = {
    "nearest": _nearest,
    "nearest-exact": _nearest_exact,
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos4": _lanczos4,
    "area": _area,
}


def clamp_taps(first: Array, weights: Array, old: int) -> Taps:
    """The same taps inside the image: the outermost pixel stands for those beyond it."""
    count = weights.shape[1]
    width = min(count, old)
    pixels = np.clip(first[:, None].astype(np.int64) + np.arange(count), 0, old - 1)
    start = np.minimum(pixels[:, 0], old - width)
    folded = np.zeros((len(first), width))
    np.add.at(folded, (np.arange(len(first))[:, None], pixels - start[:, None]), weights)
    return Taps(start, folded)


def transpose_taps(taps: Taps, old: int) -> Taps:
    """For each old pixel, the new ones that it is part of."""
    new, count = taps.weights.shape
    ends = np.searchsorted(taps.first, np.arange(old), side="right")
    starts = np.searchsorted(taps.first + count, np.arange(old), side="right")
    width = max(1, int((ends - starts).max()))
    starts = np.minimum(starts, new - width)
    weights = np.zeros((old, width))
    pixels = taps.first[:, None] + np.arange(count)
    np.add.at(weights, (pixels, np.arange(new)[:, None] - starts[pixels]), taps.weights)
    return Taps(starts, weights)
