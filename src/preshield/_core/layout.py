"""Any accepted layout and the ones that the defences compute in."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from .errors import ArgumentError
from .typing import Array, ClipValues, Dtype, Shape

__all__ = [
    "LAYOUTS",
    "as_array",
    "as_numbers",
    "channel_axis",
    "expected_layouts",
    "frames_shape",
    "from_frames",
    "kept_dtype",
    "object_array",
    "other_layouts",
    "per_channel",
    "range_dtype",
    "saturated",
    "spatial_axes",
    "to_frames",
    "working_dtype",
]

LAYOUTS = {"image": ("NHWC", "NCHW"), "video": ("NFHWC", "NCFHW", "NFCHW")}
FEW_CHANNELS = (1, 3, 4)
LOADED = 1 << 28  # bytes of an array on disk or of Dask's that are read into memory without being asked to
LARGE = 16  # from here on a side is one of a picture, and not a number of channels


def as_array(x: object) -> Array:
    """`x` as an array; a list of arrays that differ in shape becomes an object array of them."""
    if not isinstance(x, np.ndarray) and hasattr(type(x), "chunks"):
        _check_loaded(x)
    try:
        return np.asarray(x)
    except ValueError:
        if not isinstance(x, list | tuple):
            raise
        return object_array([np.asarray(sample) for sample in x])


def _check_loaded(x: Any) -> None:
    """Refuse to read a large array of zarr, h5py, xarray or Dask into memory without a word."""
    if not x.nbytes <= LOADED:  # nor one of unknown size
        kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"
        raise ArgumentError(
            f"`x` must be in memory from {LOADED >> 20} MiB up, got a {kind} of {x.nbytes / 2**20:.0f} MiB; "
            "defend it in blocks with `transform(x, out=...)` or as dask.array.from_array(x), or pass "
            "numpy.asarray(x) if all of it fits in memory."
        )


def as_numbers(array: Array) -> Array:
    """An object array of numbers, as a data frame yields it, as an array of numbers; any other as it is."""
    if array.dtype != object:
        return array
    try:
        numbers = np.array(array.tolist())
    except (TypeError, ValueError):  # samples of different shapes
        return array
    if numbers.dtype == object and all(hasattr(value, "__float__") for value in numbers.flat):
        numbers = numbers.astype(float)  # fractions and decimals; a missing value has no such method
    return numbers if numbers.dtype.kind in "buifc" else array


def object_array(samples: Sequence[Array]) -> Array:
    """Samples that may differ in shape, as a batch."""
    array = np.empty(len(samples), dtype=object)
    for i, sample in enumerate(samples):
        array[i] = sample
    return array


def channel_axis(ndim: int, channels_first: bool | None, layout: str | None = None) -> int:
    """Axis of the channels."""
    if layout is not None:
        return layout.index("C")
    return 1 if channels_first else ndim - 1


def spatial_axes(ndim: int, axis: int) -> tuple[int, int]:
    """Axes of the rows and of the columns, by that of the channels."""
    return (ndim - 3, ndim - 2) if axis == ndim - 1 else (ndim - 2, ndim - 1)


@cache
def expected_layouts(
    domains: tuple[str, ...], channels_first: bool | None, layout: str | None
) -> dict[int, str | None]:
    """Layout of images and videos by the number of axes; None if the channels make no difference."""
    if layout is not None:
        return {len(layout): layout}
    legal = [layouts[bool(channels_first)] for domain, layouts in LAYOUTS.items() if domain in domains]
    return {len(layout): None if channels_first is None else layout for layout in legal}


@lru_cache(256)
def other_layouts(shape: Shape, expected: str) -> tuple[str, ...]:
    """Layouts that a batch plainly has in place of the expected one.

    The channels are plainly elsewhere if there are 1, 3 or 4 of them there, and the frames of that layout
    have two sides of 16 pixels or more, or two equal ones of more than 4. Videos may well have as few frames,
    so if the frames are counted on that axis, the number of channels as expected must be absurd too.
    """
    axes, found = dict(zip(expected, shape, strict=True)), []
    for layout in LAYOUTS["video" if "F" in expected else "image"]:
        channels = shape[layout.index("C")]
        sides = shape[layout.index("H")], shape[layout.index("W")]
        if layout == expected or channels not in FEW_CHANNELS:
            continue
        if not (min(sides) >= LARGE or sides[0] == sides[1] > max(FEW_CHANNELS)):
            continue
        if expected[layout.index("C")] == "F":
            same_frames = sides == (axes["H"], axes["W"])
            if axes["C"] < (LARGE if same_frames else min(axes["H"], axes["W"])):
                continue
        found.append(layout)
    return tuple(found)


def per_channel(value: Array, ndim: int, *, axis: int) -> Array:
    """One value, or one for each channel, shaped so that it broadcasts against a batch."""
    shape = [1] * ndim
    shape[axis] = value.size
    return value.reshape(()) if value.size == 1 else value.reshape(shape)


def frames_shape(shape: Shape, *, axis: int) -> Shape:
    """Shape of what `to_frames` returns."""
    rest = [length for i, length in enumerate(shape) if i != axis]
    return (rest[0], *(rest[1:] if len(shape) == 5 else (1, *rest[1:])), shape[axis])


def to_frames(x: Array, *, axis: int) -> Array:
    """View of images or videos, their channels on `axis`, as `(N, F, H, W, C)`, images with one frame."""
    if axis < x.ndim - 1:
        x = np.moveaxis(x, axis, -1)
    return x[:, None] if x.ndim == 4 else x


def from_frames(frames: Array, ndim: int, *, axis: int) -> Array:
    """Undo `to_frames`, as a view."""
    x = frames[:, 0] if ndim == 4 else frames
    return np.moveaxis(x, -1, axis) if axis < ndim - 1 else x


def kept_dtype(dtype: Dtype) -> Dtype:
    """Floating types as they are, in native byte order; `float32` for the others."""
    return dtype.newbyteorder("=") if dtype.kind == "f" else np.dtype(np.float32)


def working_dtype(dtype: Dtype) -> Dtype:
    """The type in which to compute: `float64` from 64 bits up if floating, else `float32`."""
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32)


def range_dtype(dtype: Dtype, clip_values: ClipValues) -> Dtype:
    """The type in which NumPy divides data by the span of `clip_values`, but at least `float32`."""
    bounds = (value if isinstance(value, int | float) else np.asarray(value) for value in clip_values)
    return working_dtype(np.result_type(dtype, 0.0, *bounds))


def part_of(value: Array, ndim: int, where: tuple[slice, ...]) -> Array:
    """What of an array that broadcasts against a batch with `ndim` axes meets these slices of it."""
    value = value.reshape((1,) * (ndim - value.ndim) + value.shape)
    places = zip(where, value.shape[: len(where)], strict=True)
    return value[tuple(place if length > 1 else slice(None) for place, length in places)]


def saturated(x: Array, dtype: Dtype) -> Array:
    """Finite numbers rounded to integers of a type, or to booleans; what does not fit becomes the nearest."""
    if dtype.kind == "b":
        return np.asarray(np.rint(x) > 0)
    limits = np.iinfo(dtype)
    most = x.dtype.type(limits.max)
    if int(most) > limits.max:  # rounded up
        most = np.nextafter(most, x.dtype.type(0))
    return np.clip(np.rint(x), limits.min, most).astype(dtype.newbyteorder("="))
