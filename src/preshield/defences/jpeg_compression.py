"""JPEG compression."""

from functools import partial

import numpy as np

from .._core import jpeg
from .._core.arithmetic.jpeg import jpeg as jpeg_anywhere
from .._core.checks import (
    check_bool,
    check_integer,
    check_layout,
    check_option,
    refuse_negative,
    resolve_channels_first,
)
from .._core.soft_jpeg import soft_gradient
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["JpegCompression"]


class JpegCompression(Preprocessor):
    """Compress each image as JPEG and decompress it again [1]_ [2]_.

    Parameters
    ----------
    clip_values : tuple
        Range of the data: `(0, 1)` or `(0, 255)`. Larger values saturate.
    quality : int, default 50
        JPEG quality, 1 (worst) to 100; above 95 little is lost and little is defended.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.
    channel_index : int, optional
        Older name: 1 sets `channels_first`.
    subsampling : {"4:2:0", "4:2:2", "4:4:4"}, default "4:2:0"
        Resolution of the colours of RGB: half along both axes, half along rows, or full.
    gradient : {"identity", "straight-through", "soft"}, default "identity"
        What stands in for the derivative, which is 0 almost everywhere. "straight-through": that of the
        pipeline with every rounding taken for the identity. "soft": that of the pipeline with the cubic
        rounding of [3]_ for its coefficients, and no other.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images or videos, or holds negative
        values.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own. Three channels are compressed
    as RGB; any other number channel by channel as greyscale. Values are rounded to 8 bits; the result is
    `float32`, bit for bit that of Pillow, whose encoder and decoder are libjpeg-turbo's. Where values are not
    checked, as on accelerators and in compiled functions, negative ones become 0, and NaN stays NaN.

    "straight-through" and "soft" are vector-Jacobian products of functions without jumps, and stop where
    these clamp: at inputs above the range, at outputs outside of it, and "soft" at samples behind the inverse
    transform as well. "straight-through" passes luminance, spreads chrominance over the pixels that share it,
    does not depend on the quality, and costs about as much as the forward pass; "soft" costs 8 to 20 times as
    much. For each thread "soft" takes 10 to 15 times the memory of a frame, all its channels included. An
    evaluation attacks with all three.

    References
    ----------
    .. [1] Dziugaite, Ghahramani, Roy. A Study of the Effect of JPG Compression on Adversarial Images. 2016.
       arXiv:1608.00853
    .. [2] Das et al. Keeping the Bad Guys Out: Protecting and Vaccinating Deep Learning with JPEG
       Compression. 2017. arXiv:1705.02900
    .. [3] Shin, Song. JPEG-resistant Adversarial Images. NIPS 2017 Workshop on Machine Learning and Computer
       Security.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import JpegCompression
    >>> grey = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    >>> float(JpegCompression((0, 1), quality=75).transform(grey).max())
    0.502
    """

    domains = ("image", "video")
    gradients = ("identity", "straight-through", "soft")
    output_dtype = "float32"
    takes = "unchecked"
    paper = "arXiv:1608.00853"
    known_attacks = (
        "Shin and Song 2017: JPEG-resistant adversarial images, by a differentiable JPEG",
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA, ImageNet accuracy 0%",
    )

    def __init__(
        self,
        clip_values: ClipValues,
        quality: int = 50,
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        layout: str | None = None,
        channel_index: int | None = None,
        subsampling: str = "4:2:0",
        gradient: str = "identity",
    ) -> None:
        jpeg.check_range(clip_values)
        check_integer("quality", quality, 1, 100)
        check_option("subsampling", subsampling, tuple(jpeg.SUBSAMPLINGS))
        check_option("gradient", gradient, self.gradients)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        self.clip_values = clip_values
        self.quality = quality
        self.channels_first = resolve_channels_first(channels_first, channel_index)
        check_layout(layout, self.channels_first, self.domains)
        self.layout = layout
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.subsampling = subsampling
        self.gradient = gradient

    def _transform(self, x: Array, draw: None) -> Array:
        jpeg.check_sides(x.shape, self._channel_axis(x.ndim))
        progress = "JPEG compression" if self.verbose else None
        out, peak = jpeg.round_trip(x, self._settings, axis=self._channel_axis(x.ndim), progress=progress)
        self._check_seen(x, peak)
        if peak is None and x.min() < 0:
            refuse_negative("x", x.min(), self.clip_values)
        return out

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if self.gradient == "identity":
            return grad
        pull_back = jpeg.straight_through if self.gradient == "straight-through" else soft_gradient
        return pull_back(x, grad, self._settings, axis=self._channel_axis(x.ndim))

    @property
    def _settings(self) -> jpeg.Settings:
        largest = float(np.max(self.clip_values[1]))
        return jpeg.Settings(int(self.quality), jpeg.SUBSAMPLINGS[self.subsampling], largest)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        jpeg.check_sides(shape, self._channel_axis(len(shape)))
        settings = self._settings
        return partial(
            jpeg_anywhere,
            tables=jpeg.quanta(settings.quality).tolist(),
            factors=settings.factors,
            of_one=settings.largest == 1,
            axis=self._channel_axis(len(shape)),
            gradient=self.gradient,
        )
