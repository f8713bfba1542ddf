"""The round trip through JPEG at several qualities, one for each block, and its vector-Jacobian product."""

from collections.abc import Sequence
from math import prod

import numpy as np

from . import jpeg
from .layout import working_dtype
from .soft_jpeg import soft_gradient
from .typing import Array, Shape

__all__ = ["BLOCK", "grid", "mixed_round_trip", "mixed_soft_gradient"]

BLOCK = 8  # pixels a side
STRIP = 16  # rows, which hold whole blocks of colour at half the resolution
BYTES = 1 << 22  # of the result, about so many at a time


def grid(shape: Shape, axis: int) -> Shape:
    """Samples, frames, rows of blocks and blocks in a row of images or videos."""
    height, width = jpeg.check_sides(shape, axis)
    frames = prod(n for side, n in enumerate(shape[1:], 1) if side != axis) // (height * width)
    return shape[0], frames, -(-height // BLOCK), -(-width // BLOCK)


def mixed_round_trip(
    x: Array, choice: Array, settings: Sequence[jpeg.Settings], *, axis: int
) -> tuple[Array, bool]:
    """Compress images or videos at each quality, decompress them, and choose among the results by blocks.

    Parameters
    ----------
    x : ndarray
        Batch of finite numbers with its channels on `axis`.
    choice : ndarray of int, shape `grid(x.shape, axis)`
        For each block of 8 x 8 pixels, all its channels included, the number of one of the settings.
    settings : sequence of Settings
        They differ in quality alone.
    axis : int
        Axis of the channels.

    Returns
    -------
    out : ndarray of float32
        The batch in the range of the data.
    legal : bool
        Whether no value was negative.
    """
    from .kernels.blocks import take_blocks

    out = np.empty(x.shape, np.float32)
    if not x.size:
        return out, True
    rows, step = (x.ndim - 3, x.shape[-1]) if axis == x.ndim - 1 else (x.ndim - 2, 1)
    height, of_sample = x.shape[rows], out[:1].nbytes
    samples = max(1, BYTES // of_sample)
    band = STRIP * max(1, BYTES * height // (STRIP * of_sample))
    peaks = []

    def planes(values: Array) -> Array:
        return values.reshape(-1, values.shape[rows], int(np.prod(values.shape[rows + 1 :])))

    for first in range(0, len(x), samples):
        some = slice(first, first + samples)
        chosen, owners = choice[some].reshape(-1, *choice.shape[2:]), _owners(x[some].shape, axis)
        for start in range(0, height, band):
            # Colours lean on the strips above and below.
            low, stop = max(0, start - STRIP), min(height, start + band)
            part = (some, *[slice(None)] * (rows - 1))
            given, inner = x[(*part, slice(low, stop + STRIP))], slice(start - low, stop - low)
            place = out[(*part, slice(start, stop))]
            target = planes(np.ascontiguousarray(place))
            for number, one in enumerate(settings):
                made, peak = jpeg.round_trip(given, one, axis=axis)
                read = np.ascontiguousarray(planes(made)[:, inner])
                take_blocks(target, read, chosen, owners, number, start // BLOCK, step)
                peaks.append(peak)
            if not place.flags.c_contiguous:
                place[...] = target.reshape(place.shape)
    return out, None not in peaks


def mixed_soft_gradient(
    x: Array, grad: Array, choice: Array, settings: Sequence[jpeg.Settings], *, axis: int
) -> Array:
    """Vector-Jacobian product at `x` of the same with the cubic quantiser, in the type of `soft_gradient`."""
    total = np.zeros(x.shape, working_dtype(grad.dtype))
    if not x.size:
        return total
    height, width = jpeg.check_sides(x.shape, axis)
    pixels = choice.repeat(BLOCK, axis=2).repeat(BLOCK, axis=3)[:, :, :height, :width]
    pixels = np.expand_dims(pixels if x.ndim == 5 else pixels[:, 0], axis)
    for number, one in enumerate(settings):
        total += soft_gradient(x, np.where(pixels == number, grad, 0), one, axis=axis)
    return total


def _owners(shape: Shape, axis: int) -> Array:
    """The number of the frame that each plane belongs to; channels that are interleaved share a plane."""
    lead = shape[:-3] if axis == len(shape) - 1 else shape[:axis] + shape[axis + 1 : -2]
    numbers = np.arange(prod(lead)).reshape(lead)
    if axis < len(shape) - 1:
        numbers = np.repeat(np.expand_dims(numbers, axis), shape[axis], axis)
    return numbers.reshape(-1)
