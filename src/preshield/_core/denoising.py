"""Denoisers behind one call: wavelets, with their derivative, and those of scikit-image."""

from collections.abc import Callable
from functools import partial

import numpy as np

from .arithmetic.namespace import numbers
from .arithmetic.wavelets import shrink as shrink_natively
from .layout import spatial_axes, to_frames, working_dtype
from .threads import BLOCK_BYTES, map_blocks, threads_within
from .typing import Arithmetic, Array, ClipValues, Dtype

__all__ = ["DENOISERS", "denoise", "pull_back_wavelets", "shrink_wavelets", "wavelet_arithmetic"]

PART_BYTES = 1 << 25  # of a copy of some samples
BORDER = 8  # pixels mirrored around a plane, for a filter that takes opposite edges for neighbours


def denoise(frame: Array, method: str, sigma: float) -> Array:
    """Remove noise from one image.

    Parameters
    ----------
    frame : ndarray of float32 or float64, shape (H, W, C)
        Values in [0, 1]. Three channels are red, green and blue.
    method : str
        One of `DENOISERS`.
    sigma : float
        Standard deviation of the noise, in the same units.

    Returns
    -------
    ndarray
        Of the same shape and dtype; values may overshoot. `frame` itself if the noise lies below the
        resolution of the dtype.

    Notes
    -----
    "wavelet" is `shrink_wavelets`, and the others are scikit-image's. "tv" is Chambolle's
    total variation with the weight `sigma`. "bilateral" is the mean over 5 x 5 pixels with Gaussian weights
    of their differences in value, as wide as the noise. "nlm" is the fast non-local means with scikit-image's
    advice for known noise, ``h = 0.8 * sigma``. "wiener" is the Wiener-Hunt filter for a sharp image, its
    balance ``sigma**2`` over the mean square of the Laplacian. "bilateral" and "nlm" compare colours where
    there are three channels; otherwise channels are denoised one by one.
    """
    if sigma <= float(np.finfo(frame.dtype).eps):
        return frame
    return DENOISERS[method](frame, sigma)


def shrink_wavelets(
    x: Array,
    sigma: float,
    clip_values: ClipValues | None = None,
    *,
    axis: int,
    out: Array | None = None,
    progress: str | None = None,
) -> Array:
    """Shrink the Haar coefficients of each frame softly by BayesShrink, of three channels in YCbCr.

    Parameters
    ----------
    x : ndarray
        Images or videos, of any dtype and channel count. Of a single row or column nothing is removed.
    sigma : float
        Standard deviation of the noise, in units of the range.
    clip_values : tuple, optional
        Minimum and maximum of the range, numbers or arrays; values are clipped to it before and after. By
        default the range is one of 1, and nothing is clipped.
    axis : int
        Where the channels are.
    out : ndarray, optional
        Receives the result; contiguous, in the working dtype of `x`, and may be `x`.
    progress : str, optional
        Shows a progress bar with this caption.

    Returns
    -------
    ndarray of float32 or float64
        As `x`.
    """
    from .kernels.wavelet import shrink

    dtype = working_dtype(x.dtype)
    out = np.empty(x.shape, dtype) if out is None else out
    if x.dtype != dtype or not x.flags.c_contiguous:
        out[...] = x
        x = out
    low, high = _limits(x, clip_values)
    if low.ndim or high.ndim:
        span = high - low
        np.subtract(x, low, out=out)
        np.divide(out, span, out=out)
        shrink_wavelets(out, sigma, (0, 1), axis=axis, out=out, progress=progress)
        np.multiply(out, span, out=out)
        np.add(out, low, out=out)
        return np.clip(out, low, high, out=out)
    if not _has_details(x, sigma, axis):
        bounds = (-np.inf, np.inf) if clip_values is None else (low, high)
        return np.clip(x, *bounds, out=out)
    _for_groups(shrink, out, (x,), sigma, clip_values, axis, progress)
    return out


def pull_back_wavelets(
    x: Array, grad: Array, sigma: float, clip_values: ClipValues | None = None, *, axis: int
) -> Array:
    """Vector-Jacobian product of `shrink_wavelets` at `x`.

    The thresholds are differentiated too. What is clipped has no gradient.

    Parameters
    ----------
    x, grad : ndarray
        The batch, and the gradient with respect to the result, of the same shape.
    sigma, clip_values, axis
        As in `shrink_wavelets`.

    Returns
    -------
    ndarray of float32 or float64
        Gradient with respect to `x`, in its working dtype.
    """
    from .kernels.wavelet import pull_back

    dtype = working_dtype(x.dtype)
    out = grad.astype(dtype, "C")  # the kernel has read a strip of it before it writes there
    low, high = _limits(out, clip_values)
    by_entry, span = bool(low.ndim or high.ndim), high - low
    if by_entry:
        out *= span
    bounds = (0, 1) if by_entry else clip_values
    copied = by_entry or x.dtype != dtype or not x.flags.c_contiguous
    step = max(1, PART_BYTES * len(x) // max(1, out.nbytes)) if copied else max(1, len(x))
    for start in range(0, len(x), step):
        part, target = np.ascontiguousarray(x[start : start + step], dtype), out[start : start + step]
        if by_entry:
            part = part - low
            part /= span
        if _has_details(part, sigma, axis):
            _for_groups(pull_back, target, (part, target), sigma, bounds, axis)
        elif bounds is not None:
            least, most = _limits(part, bounds)
            target[(part < least) | (part > most)] = 0
    if by_entry:
        out /= span
    return out


def wavelet_arithmetic(
    ndim: int, dtype: Dtype, sigma: float, clip_values: ClipValues, *, axis: int
) -> Arithmetic | None:
    """The two functions above for arrays of any namespace; None if the range has too many numbers.

    Parameters
    ----------
    ndim : int
        Axes of a batch.
    dtype : dtype
        Of the batch.
    sigma, clip_values, axis
        As in `shrink_wavelets`.
    """
    dtype = working_dtype(dtype)
    limits = numbers(*clip_values, dtype=dtype)
    if limits is None:
        return None
    return partial(
        shrink_natively,
        low=limits[0],
        high=limits[1],
        sigma=sigma,
        axis=axis,
        axes=spatial_axes(ndim, axis),
        resolution=float(np.finfo(dtype).eps),
    )


def _limits(x: Array, clip_values: ClipValues | None) -> tuple[Array, Array]:
    """Minimum and maximum of the range in the dtype of a batch."""
    low, high = (0.0, 1.0) if clip_values is None else clip_values
    return np.asarray(low, x.dtype), np.asarray(high, x.dtype)


def _has_details(x: Array, sigma: float, axis: int) -> bool:
    """Whether there is anything to shrink: pixels in both directions, and noise above the resolution."""
    resolution = float(np.finfo(x.dtype).eps)  # NumPy would convert `sigma` to the dtype
    return x.size > 0 and min(to_frames(x, axis=axis).shape[2:4]) >= 2 and sigma > resolution


def _for_groups(
    kernel: Callable[..., None],
    out: Array,
    read: tuple[Array, ...],
    sigma: float,
    clip_values: ClipValues | None,
    axis: int,
    progress: str | None = None,
) -> None:
    """Run a kernel of wavelets over the frames of three channels, or over all channels of others."""
    from .kernels.wavelet import COLOURS, ROOM

    frames = to_frames(out, axis=axis)
    shape, strides = np.array(frames.shape), np.array(frames.strides) // frames.itemsize
    count = int(shape[0] * shape[1]) * (1 if shape[4] == COLOURS else int(shape[4]))
    target, sources = out.reshape(-1), tuple(array.reshape(-1) for array in read)
    for source in sources:  # as of one type, for which the kernel is compiled once
        source.flags.writeable = False
    low, high = (0, 1) if clip_values is None else clip_values
    limits, clipped = (float(low), float(high)), clip_values is not None

    def work(groups: slice) -> None:
        numbers = groups.start, groups.stop
        kernel(target, *sources, numbers, shape, strides, float(sigma), limits, clipped)

    held = len(read) * min(ROOM, 4 / 3 * out.nbytes / count)  # the bands of a group, and of its gradient
    block, threads = max(1, BLOCK_BYTES * count // out.nbytes), threads_within(held)
    map_blocks(work, count, block, threads=threads, progress=progress)


def _wavelet(frame: Array, sigma: float) -> Array:
    smooth: Array = shrink_wavelets(frame[None], sigma, axis=3)[0]
    return smooth


def _total_variation(frame: Array, sigma: float) -> Array:
    from skimage.restoration import denoise_tv_chambolle

    smooth: Array = denoise_tv_chambolle(frame, sigma, channel_axis=-1)
    return smooth


def _bilateral(frame: Array, sigma: float) -> Array:
    from skimage.restoration import denoise_bilateral

    def smooth(image: Array, channel_axis: int | None) -> Array:
        # Noise adds up over the channels of a distance, which scikit-image divides by their number.
        width = sigma if channel_axis is None else sigma / np.sqrt(image.shape[-1])
        # Flat in space: scikit-image reads its table of other weights a column too short, off the centre.
        out: Array = denoise_bilateral(
            image, 5, sigma_color=width, sigma_spatial=np.inf, mode="edge", channel_axis=channel_axis
        )
        return out.reshape(image.shape)  # sides of one pixel get lost

    return _by_colour(smooth, frame)


def _non_local_means(frame: Array, sigma: float) -> Array:
    from skimage.restoration import denoise_nl_means

    def smooth(image: Array, channel_axis: int | None) -> Array:
        out: Array = denoise_nl_means(image, h=0.8 * sigma, sigma=sigma, channel_axis=channel_axis)
        return out.reshape(image.shape)

    return _by_colour(smooth, frame)


def _wiener(frame: Array, sigma: float) -> Array:
    from skimage import filters, restoration

    out = np.empty_like(frame)
    point = np.ones((1, 1), frame.dtype)
    for c in range(frame.shape[-1]):
        plane = np.pad(frame[..., c], BORDER, mode="symmetric")
        power = max(np.mean(filters.laplace(plane) ** 2), np.finfo(frame.dtype).eps)
        smooth = restoration.wiener(plane, point, sigma**2 / power, clip=False)
        out[..., c] = smooth[BORDER:-BORDER, BORDER:-BORDER]
    return out


def _by_colour(smooth: Callable[[Array, int | None], Array], frame: Array) -> Array:
    """Filter three channels as one colour image, others one by one."""
    if frame.shape[-1] == 3:
        return smooth(frame, -1)
    return np.stack([smooth(frame[..., c], None) for c in range(frame.shape[-1])], axis=-1)


DENOISERS = {
    "wavelet": _wavelet,
    "tv": _total_variation,
    "bilateral": _bilateral,
    "nlm": _non_local_means,
    "wiener": _wiener,
}
