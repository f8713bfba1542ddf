"""Median smoothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_limits,
    check_option,
    ignore_device_type,
    resolve_channels_first,
)
from .._core.layout import spatial_axes
from .._core.medians import median_arithmetic, medians, pull_back_medians
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["SpatialSmoothing"]


class SpatialSmoothing(Preprocessor):
    """Replace each pixel by the median of its window [1]_.

    Parameters
    ----------
    window_size : int, default 3
        Side of the square window, in pixels. Even windows reach one pixel further up and left, and take
        the upper one of the two middle values, as in SciPy.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    gradient : {"identity", "exact"}, default "identity"
        Take the filter for the identity, or send the gradient to the pixel that was the median (of equal
        pixels, to the first in reading order).
    verbose : bool, default False
        Show a progress bar.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.
    channel_index : int, optional
        Older name: 1 sets `channels_first`.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or the batch is not one of images or videos.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own; shape and dtype are kept.
    Borders are reflected, the edge repeated.

    References
    ----------
    .. [1] Xu, Evans, Qi. Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks.
       NDSS 2018. arXiv:1704.01155

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import SpatialSmoothing
    >>> image = np.array([[0, 0, 0], [0, 9, 0], [0, 0, 0]])
    >>> int(SpatialSmoothing(3).transform(image[None, :, :, None]).max())
    0
    """

    domains = ("image", "video")
    keeps_integers = True
    gradients = ("identity", "exact")
    paper = "arXiv:1704.01155"
    known_attacks = (
        (
            "He et al. 2017 (arXiv:1706.04701): adaptive attack on bit depth and median together succeeds "
            "with low distortion"
        ),
        "Sharma and Chen 2018 (arXiv:1803.09868): stronger oblivious attacks pass the detector",
    )

    def __init__(
        self,
        window_size: int = 3,
        channels_first: bool = False,
        clip_values: ClipValues | None = None,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        gradient: str = "identity",
        verbose: bool = False,
        layout: str | None = None,
        channel_index: int | None = None,
        device_type: str | None = None,
    ) -> None:
        check_integer("window_size", window_size, 1)
        check_clip_values(clip_values, optional=True)
        check_option("gradient", gradient, self.gradients)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        ignore_device_type(device_type)
        self.window_size = window_size
        self.channels_first = resolve_channels_first(channels_first, channel_index)
        check_layout(layout, self.channels_first, self.domains)
        self.layout = layout
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.gradient = gradient
        self.verbose = verbose

    def _transform(self, x: Array, draw: None) -> Array:
        limits = self._limits(x.shape, x.dtype)
        out = self._median(x)
        if limits is not None:
            out = np.clip(out, *limits, out=out, casting="unsafe")
        return out

    def _limits(self, shape: Shape, dtype: Dtype) -> ClipValues | None:
        """`clip_values`, for integers as integers of their dtype, which compare without rounding."""
        if self.clip_values is None:
            return None
        check_limits(self.clip_values, shape)
        if dtype.kind == "f":
            return self.clip_values
        low, high = self.clip_values
        return _as_integers(low, math.ceil, dtype), _as_integers(high, math.floor, dtype)

    @property
    def _window(self) -> tuple[int, int]:
        return int(self.window_size), int(self.window_size)

    def _median(self, x: Array) -> Array:
        dtype, progress = self._output_dtype(x.dtype), "Spatial smoothing" if self.verbose else None
        return medians(x, self._window, self._channel_axis(x.ndim), dtype=dtype, progress=progress)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if self.gradient == "identity":
            return grad
        limits = self._limits(x.shape, x.dtype)
        found = self._median(x)
        if limits is not None:
            low, high = limits
            grad = np.where((found >= low) & (found <= high), grad, 0)
        return pull_back_medians(x, found, grad, self._window, self._channel_axis(x.ndim))

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        axes = spatial_axes(len(shape), self._channel_axis(len(shape)))
        return median_arithmetic(dtype, self._window, axes, self.gradient, self._limits(shape, dtype))


def _as_integers(limit: Any, rounded: Callable[[float], int], dtype: Dtype) -> Array:
    """A limit rounded and saturated; element by element, as Python's integers have no largest."""
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fit = np.frompyfunc(lambda value: min(max(rounded(value), least), most), 1, 1)
    return np.asarray(fit(np.asarray(limit, dtype=object)), dtype=dtype.newbyteorder("="))
