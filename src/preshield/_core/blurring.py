"""Low-pass filters of images, and their transpose."""

from functools import partial

import numpy as np

from .arithmetic.separable import filter_planes
from .checks import check_integer, check_option
from .errors import ArgumentError
from .layout import kept_dtype, spatial_axes, working_dtype
from .planes import map_planes
from .typing import Arithmetic, Array

__all__ = ["blur", "blur_anywhere", "check_kernel", "check_kernel_size", "filter_taps"]

_KERNELS = ("box", "gaussian")


def check_kernel_size(kernel_size: int) -> None:
    """Refuse what is not a positive odd integer."""
    kernel_size = check_integer("kernel_size", kernel_size, 1)
    if kernel_size % 2 == 0:
        raise ArgumentError(
            f"`kernel_size` must be odd, so that the filter has a middle, got {kernel_size!r}; take "
            f"{kernel_size - 1} or {kernel_size + 1}."
        )


def check_kernel(kernel: object) -> None:
    """Refuse what is not the name of a filter."""
    check_option("kernel", kernel, _KERNELS)


def filter_taps(kernel: str, size: int, sigma: float | None = None) -> Array:
    """Weights of a filter along one axis; they add up to 1.

    Parameters
    ----------
    kernel : {"box", "gaussian"}
        Equal weights, or samples of a Gaussian.
    size : int
        How many; odd.
    sigma : float, optional
        Standard deviation of the Gaussian, in pixels. By default ``0.15 * size + 0.35``, as in OpenCV and
        torchvision.

    Returns
    -------
    ndarray of float64, shape (size,)
    """
    if kernel == "box":
        return np.full(size, 1 / size)
    sigma = 0.15 * size + 0.35 if sigma is None else sigma
    with np.errstate(over="ignore"):  # of a tiny sigma nothing is left but the middle
        weights = np.exp(-0.5 * (np.arange(-(size // 2), size // 2 + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def blur(x: Array, taps: Array, *, axis: int, transpose: bool = False) -> Array:
    """Filter each channel of each image or frame along its rows and its columns.

    Parameters
    ----------
    x : ndarray
        Images or videos, of any dtype and channel count.
    taps : ndarray, shape (size,)
        The symmetric filter.
    axis : int
        Where the channels are.
    transpose : bool, default False
        Apply the transpose, which pulls a gradient back.

    Returns
    -------
    ndarray
        As `x`, in its floating type; `float32` for the others.
    """
    from .kernels.separable import filter_planes as filter_all

    dtype = working_dtype(x.dtype)
    half = taps[len(taps) // 2 :].astype(dtype)

    def smooth(out: Array, block: Array, step: int) -> None:
        if transpose:
            block = block.copy()
            _scale_edges(block, step, 2.0)
        filter_all(out, block, half, step)
        if transpose:
            _scale_edges(out, step, 0.5)

    out = np.empty(x.shape, kept_dtype(x.dtype))
    reach = len(taps) // 2 + transpose  # which scales the first and the last row of a band
    return map_planes(smooth, out, x, dtypes=(dtype, dtype), axis=axis, reach=reach)


def blur_anywhere(taps: Array, ndim: int, *, axis: int) -> Arithmetic:
    """The same filter for arrays of any namespace, with `ndim` axes."""
    return partial(filter_planes, taps=taps[len(taps) // 2 :].tolist(), axes=spatial_axes(ndim, axis))


def _scale_edges(planes: Array, step: int, factor: float) -> None:
    """Multiply the first and last row, and the first and last column, of each plane.

    This gives the transpose. In a period of a mirrored signal every pixel stands twice, but those at the
    edges once. With `D` 1 at the edges and 2 inside, `D M` is a symmetric matrix if `M` is a symmetric filter
    with mirrored borders, so the transpose of `M` is `D M / D`.
    """
    planes[:, 0] *= factor
    planes[:, -1] *= factor
    planes[:, :, :step] *= factor
    planes[:, :, -step:] *= factor
