"""Medians of windows over a batch: by the kernel, its derivative, and as arithmetic of any framework."""

from functools import partial

import numpy as np

from .arithmetic.median import median
from .arithmetic.namespace import numbers
from .layout import working_dtype
from .planes import map_planes
from .typing import Arithmetic, Array, ClipValues, Dtype

__all__ = ["median_arithmetic", "medians", "pull_back_medians"]

COMPARED = ("uint8", "int8", "int16", "int32", "int64")  # integers of which every framework has the smaller


def medians(
    x: Array, window: tuple[int, int], axis: int, *, dtype: Dtype, progress: str | None = None
) -> Array:
    """Median of each window of images or videos, with SciPy's borders and, for even sides, SciPy's centre.

    Parameters
    ----------
    x : ndarray
        Batch.
    window : tuple of int
        Its height and width.
    axis : int
        Of the channels.
    dtype : dtype
        Of the result.
    progress : str, optional
        Shows a progress bar with this caption.
    """
    from .kernels.median import median_network, median_planes

    (height, width), exact = window, _exact_dtype(x.dtype)
    network = median_network(height, width)

    def smooth(out: Array, block: Array, step: int) -> None:
        median_planes(out, block, height, width, step, *network)

    dtypes, out = (exact, exact), np.empty(x.shape, dtype)
    return map_planes(smooth, out, x, dtypes=dtypes, axis=axis, reach=height // 2, progress=progress)


def pull_back_medians(x: Array, found: Array, grad: Array, window: tuple[int, int], axis: int) -> Array:
    """Send a gradient to the pixels that were the medians `found`; of equal pixels, to the first."""
    from .kernels.median import median_gradient

    exact, dtype = _exact_dtype(x.dtype), working_dtype(grad.dtype)

    def pull_back(out: Array, block: Array, medians: Array, grads: Array, step: int) -> None:
        median_gradient(out, block, medians, grads, *window, step)

    out, reach = np.empty(x.shape, dtype), 2 * (window[0] // 2)
    dtypes = (dtype, exact, exact, dtype)
    return map_planes(pull_back, out, x, found, grad, dtypes=dtypes, axis=axis, reach=reach)


def median_arithmetic(
    dtype: Dtype,
    window: tuple[int, int],
    axes: tuple[int, int],
    gradient: str,
    limits: ClipValues | None = None,
) -> Arithmetic | None:
    """The same for arrays of any namespace, within limits; None for types that not all of them compare."""
    from .kernels.median import median_network

    floating = dtype.kind == "f"
    if not floating and dtype not in COMPARED:
        return None
    held = numbers(*limits or (), dtype=working_dtype(dtype) if floating else dtype)
    if held is None:
        return None
    columns, merge, place = median_network(*window)
    return partial(
        median,
        window=window,
        columns=columns.tolist(),
        merge=merge.tolist(),
        place=place,
        axes=axes,
        limits=held,
        gradient=gradient if floating else None,
    )


def _exact_dtype(dtype: Dtype) -> Dtype:
    """A type that the kernel knows and that orders the values as `dtype` does."""
    if dtype.kind == "f":
        return working_dtype(dtype)
    if dtype == np.uint64:
        return dtype.newbyteorder("=")
    return np.dtype(np.uint8 if dtype.itemsize == 1 and dtype.kind in "bu" else np.int64)
