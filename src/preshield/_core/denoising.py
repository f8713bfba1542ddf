"""Denoisers of scikit-image, one call for all of them."""

from collections.abc import Callable

import numpy as np

from .typing import Array

__all__ = ["DENOISERS", "denoise"]

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
    "wavelet" shrinks Haar coefficients softly by BayesShrink, of three channels in YCbCr. "tv" is Chambolle's
    total variation with the weight `sigma`. "bilateral" is the mean over 5 x 5 pixels with Gaussian weights
    of their differences in value, as wide as the noise. "nlm" is the fast non-local means with scikit-image's
    advice for known noise, ``h = 0.8 * sigma``. "wiener" is the Wiener-Hunt filter for a sharp image, its
    balance ``sigma**2`` over the mean square of the Laplacian. "bilateral" and "nlm" compare colours where
    there are three channels; otherwise channels are denoised one by one.
    """
    if sigma <= np.finfo(frame.dtype).eps:
        return frame
    return DENOISERS[method](frame, sigma)


def _wavelet(frame: Array, sigma: float) -> Array:
    from skimage.restoration import denoise_wavelet

    if min(frame.shape[:2]) < 2:  # a transform needs two pixels
        return frame
    smooth: Array = denoise_wavelet(frame, sigma, convert2ycbcr=frame.shape[-1] == 3, channel_axis=-1)
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
