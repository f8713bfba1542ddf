"""One way to run a kernel over a batch: axes, types and threads."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from .threads import block_length, map_blocks, thread_count
from .typing import Array, Dtype

__all__ = ["map_planes"]

BAND_BYTES = 1 << 20  # of each array, in a band of a large plane


def map_planes(
    kernel: Callable[..., None],
    out: Array,
    *sources: Array,
    dtypes: Sequence[Dtype],
    axis: int | None = None,
    reach: int | None = None,
    progress: str | None = None,
) -> Array:
    """Fill `out` with what a kernel computes from `sources`, block by block, on several threads.

    Parameters
    ----------
    kernel : callable
        Takes a block to write, one of each source to read, all C-contiguous, and, if `axis` is given, the
        distance between horizontal neighbours: the number of interleaved channels.
    out : ndarray
        Written, and returned; C-contiguous, of any dtype.
    *sources : ndarray
        Of any dtype and memory order, with as many samples as `out`.
    dtypes : sequence of dtype
        In which the kernel computes: of its result, then of each source.
    axis : int, optional
        Where the channels of images or videos are. Blocks are then planes `(P, H, W * step)`; else samples.
    reach : int, optional
        How many rows above and below a row of the result depends on. Large planes are then worked on in
        bands: the kernel takes a band for a plane, and what its borders spoil is worked out by the next one.
    progress : str, optional
        Shows a progress bar with this caption.
    """
    arrays, step = [out, *sources], []
    if axis is not None:
        arrays = [_planes(a, axis) for a in arrays]
        step = [out.shape[-1] if axis == out.ndim - 1 else 1]
    target, *given = arrays
    inputs, same = list(zip(given, dtypes[1:], strict=True)), out.dtype == dtypes[0]

    def work(rows: slice) -> None:
        block = target[rows] if same else np.empty(target[rows].shape, dtypes[0])
        kernel(block, *[np.ascontiguousarray(a[rows], dtype) for a, dtype in inputs], *step)
        if not same:
            target[rows] = block

    if reach is not None and out.size:
        height, widest = target.shape[1], max(dtype.itemsize for dtype in dtypes) * target.shape[2]
        band = max(1, BAND_BYTES // widest, 4 * reach)
        bands = -(-height // band)
        direct = same and all(a.dtype == dtype and a.flags.c_contiguous for a, dtype in inputs)
        if bands > 1 and not (direct and len(target) >= thread_count()):

            def work_on_bands(numbers: slice) -> None:
                for number in range(numbers.start, numbers.stop):
                    plane, piece = divmod(number, bands)
                    start, stop = (height * place // bands for place in (piece, piece + 1))
                    low, high = max(0, start - reach), min(height, stop + reach)
                    block = np.empty((1, high - low, target.shape[2]), dtypes[0])
                    rows = [a[plane : plane + 1, low:high] for a in given]
                    read = (np.ascontiguousarray(a, d) for a, d in zip(rows, dtypes[1:], strict=True))
                    kernel(block, *read, *step)
                    target[plane, start:stop] = block[0, start - low : stop - low]

            map_blocks(work_on_bands, len(target) * bands, 1, progress=progress)
            return out
    if out.size:
        map_blocks(work, len(target), min(map(block_length, arrays)), progress=progress)
    return out


def _planes(x: Array, axis: int) -> Array:
    """A batch as planes of rows, in which channels on the last axis are interleaved."""
    *outer, height, width, channels = x.shape if axis == x.ndim - 1 else (*x.shape, 1)
    return x.reshape(prod(outer), height, width * channels)
