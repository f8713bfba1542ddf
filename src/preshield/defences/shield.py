"""Stochastic local quantization."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from .._core import jpeg
from .._core.arithmetic.mixed_jpeg import mixed_jpeg
from .._core.checks import (
    check_bool,
    check_integer,
    check_layout,
    check_option,
    check_rng,
    refuse_negative,
)
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.mixed_jpeg import grid, mixed_round_trip, mixed_soft_gradient
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["Shield"]


class Shield(Preprocessor):
    """Compress each image as JPEG at several qualities, and draw for each block which of them counts [1]_.

    The authors call it stochastic local quantization.

    Parameters
    ----------
    clip_values : tuple
        Range of the data: `(0, 1)` or `(0, 255)`. Larger values saturate.
    qualities : sequence of int, default (20, 40, 60, 80)
        JPEG qualities, 1 (worst) to 100, among which each block of 8 x 8 pixels draws one; all are as likely.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained, which the authors call vaccination.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    subsampling : {"4:2:0", "4:2:2", "4:4:4"}, default "4:2:0"
        Resolution of the colours of RGB, as in `JpegCompression`.
    gradient : {"identity", "straight-through", "soft"}, default "identity"
        What stands in for the derivative, as in `JpegCompression`, for the qualities that were drawn in the
        forward pass.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images or videos, or holds negative
        values.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own, with draws of its own. The
    result is `float32`. Each block is, bit for bit, that of Pillow's file at the quality drawn, which all
    channels share. Layouts, channels and values are treated as in `JpegCompression`. All qualities are
    computed, so that a pass takes as many times as long as `JpegCompression` as there are qualities.

    Vaccination is training on compressed images, ``model(shield.transform(x))`` in each step, or a classifier
    of ART with the defence in its list. The authors train one network for each quality of `JpegCompression`
    and let them vote, behind this defence.

    References
    ----------
    .. [1] Das et al. SHIELD: Fast, Practical Defense and Vaccination for Deep Learning using JPEG
       Compression. KDD 2018. arXiv:1802.06816

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import JpegCompression, Shield
    >>> x = np.random.default_rng(0).random((1, 8, 32, 3), dtype=np.float32)
    >>> defended = Shield((0, 1), rng=2).transform(x)
    >>> for quality in (20, 40, 60, 80):
    ...     same = defended == JpegCompression((0, 1), quality).transform(x)
    ...     print(quality, [bool(same[:, :, k : k + 8].all()) for k in range(0, 32, 8)])
    20 [True, False, False, True]
    40 [False, False, False, False]
    60 [False, False, True, False]
    80 [False, True, False, False]
    """

    domains = ("image", "video")
    stochastic = True
    gradients = ("identity", "straight-through", "soft")
    output_dtype = "float32"
    paper = "arXiv:1802.06816"
    known_attacks = (
        (
            "Cornelius et al. 2019 (arXiv:1902.00541): targeted PGD in the white box, success 64.3% against "
            "the ensemble on ImageNet"
        ),
    )

    def __init__(
        self,
        clip_values: ClipValues,
        qualities: Any = (20, 40, 60, 80),
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = True,
        *,
        subsampling: str = "4:2:0",
        gradient: str = "identity",
        rng: Rng = None,
        layout: str | None = None,
    ) -> None:
        jpeg.check_range(clip_values)
        if not isinstance(qualities, tuple | list | np.ndarray) or not len(qualities):
            raise ArgumentError(
                f"`qualities` must be a tuple of integers from 1 to 100, got {qualities!r}; pass for example "
                "(20, 40, 60, 80), or (50,) for one quality."
            )
        for k, quality in enumerate(qualities):
            check_integer(f"qualities[{k}]", quality, 1, 100)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_option("subsampling", subsampling, tuple(jpeg.SUBSAMPLINGS))
        check_option("gradient", gradient, self.gradients)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.qualities = qualities
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.subsampling = subsampling
        self.gradient = gradient
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Any:
        """For each block, the number of a quality."""
        samples, *blocks = grid(tuple(x.shape), self._channel_axis(len(x.shape)))
        return rng.integers(0, len(self.qualities), (samples, *blocks))

    def _transform(self, x: Array, draw: Array) -> Array:
        out, legal = mixed_round_trip(x, draw, self._settings, axis=self._channel_axis(x.ndim))
        if not legal and x.min() < 0:
            refuse_negative("x", x.min(), self.clip_values)
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array]:
        return self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: Array) -> Array:
        axis = self._channel_axis(x.ndim)
        if self.gradient == "identity":
            return grad
        if self.gradient == "straight-through":  # the same at all qualities
            return jpeg.straight_through(x, grad, self._settings[0], axis=axis)
        return mixed_soft_gradient(x, grad, draw, self._settings, axis=axis)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        axis, settings = self._channel_axis(len(shape)), self._settings
        jpeg.check_sides(shape, axis)
        return partial(
            mixed_jpeg,
            tables=[jpeg.quanta(one.quality).tolist() for one in settings],
            factors=settings[0].factors,
            of_one=settings[0].largest == 1,
            axis=axis,
            gradient=self.gradient,
        )

    @property
    def _settings(self) -> list[jpeg.Settings]:
        factors, largest = jpeg.SUBSAMPLINGS[self.subsampling], float(np.max(self.clip_values[1]))
        return [jpeg.Settings(int(quality), factors, largest) for quality in self.qualities]
