"""Fourier spectra of images and feature maps."""

from typing import Any

import numpy as np

from .checks import check_bool, check_values
from .errors import ArgumentError
from .remedies import Taken, how_to_add_axes
from .tensors import to_numpy
from .typing import Array

__all__ = ["log_spectrum"]

_LEAST = 1e-20  # what is shown of an amplitude of zero


def log_spectrum(name: str, x: Any, channels_first: bool) -> Array:
    """Decimal logarithm of the mean amplitude over the largest, frequency zero in the middle.

    Parameters
    ----------
    name : str
        What a message calls `x`.
    x : array_like or tensor, shape (N, H, W, C), or (N, C, H, W) if `channels_first`
        Images or feature maps.
    channels_first : bool
        Where the channels are.

    Returns
    -------
    ndarray of float64, shape (H, W)
    """
    check_bool(channels_first=channels_first)
    x = to_numpy(x)
    check_values(name, x)
    if x.ndim != 4 or not x.size:
        layout = "N, C, H, W" if channels_first else "N, H, W, C"
        hint = how_to_add_axes(x.shape, Taken(("image",), channels_first, None, ("channels_first",)), name)
        raise ArgumentError(
            f"`{name}` must be images of shape ({layout}), at least one, got shape {x.shape}{hint}."
        )
    if channels_first:
        x = np.moveaxis(x, 1, -1)
    total = np.zeros(x.shape[1:3])
    for sample in x:  # one at a time: complex numbers take much memory
        total += np.abs(np.fft.fft2(sample, axes=(0, 1))).sum(axis=-1)
    relative = np.fft.fftshift(total) / (total.max() or 1.0)
    return np.asarray(np.log10(np.maximum(relative, _LEAST)))
