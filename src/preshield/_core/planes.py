"""One way to run a kernel over a batch: axes, types and threads."""

from collections.abc import Callable, Sequence

import numpy as np

from .layout import planes
from .threads import block_length, map_blocks
from .typing import Array, Dtype

__all__ = ["map_planes"]


def map_planes(
    kernel: Callable[..., None],
    out: Array,
    *sources: Array,
    dtypes: Sequence[Dtype],
    axis: int | None = None,
    progress: str | None = None,
) -> Array:
    """Fill `out` with what a kernel computes from `sources`, block by block, on several threads.

    Parameters
    ----------
    kernel : callable
        Takes a block to write, one of each source, C-contiguous and not to be written to, and, if `axis` is
        given, the distance between horizontal neighbours, which is 1 or the number of interleaved channels.
    out : ndarray
        Written; C-contiguous, of any dtype.
    *sources : ndarray
        Of any dtype and memory order, with as many entries along the first axis as `out`.
    dtypes : sequence of dtype
        In which the kernel computes: of its result, then of each source.
    axis : int, optional
        Where the channels of images or videos are. The kernel then gets planes `(P, H, W * step)`; otherwise
        entries along the first axis.
    progress : str, optional
        Shows a progress bar with this caption.

    Returns
    -------
    ndarray
        `out`.
    """
    arrays, steps = [out, *sources], ()
    if axis is not None:
        shapes, steps = zip(*(planes(a.shape, axis=axis) for a in arrays), strict=True)
        arrays = [a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)]

    target, *given = arrays
    inputs, same = list(zip(given, dtypes[1:], strict=True)), out.dtype == dtypes[0]

    def work(rows: slice) -> None:
        block = target[rows] if same else np.empty(target[rows].shape, dtypes[0])
        kernel(block, *[np.ascontiguousarray(a[rows], dtype) for a, dtype in inputs], *steps[:1])
        if not same:
            target[rows] = block

    if out.size:
        map_blocks(work, len(target), min(map(block_length, arrays)), progress=progress)
    return out
