"""Wavelet denoising."""

from .._core.checks import check_bool, check_clip_values, check_layout, check_limits, check_number
from .._core.denoising import pull_back_wavelets, shrink_wavelets, wavelet_arithmetic
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["WaveletDenoising"]


class WaveletDenoising(Preprocessor):
    """Shrink Haar coefficients by soft thresholds that BayesShrink chooses [1]_ [2]_.

    Parameters
    ----------
    clip_values : tuple
        `(minimum, maximum)` of the data: numbers, or arrays that broadcast against one sample. Values are
        scaled from this range to [0, 1] and clipped to it, before and after.
    sigma : float, default 0.04
        Standard deviation of the noise, in a range of [0, 1]; 0 removes nothing.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or the batch is not one of images or videos.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own: three channels as Y, Cb and Cr,
    others one by one. Shape and dtype are kept; integers become `float32`. The result is that of
    scikit-image's ``denoise_wavelet(frame, sigma, convert2ycbcr=C == 3, channel_axis=-1)``. Frames of a
    single row or column are clipped only.

    The published result of pixel deflection owes most to this denoiser [2]_. `PixelDeflection` runs it after
    its deflections.

    Each band of details has the threshold ``v / sqrt(m - v)``, with `v` the variance of the noise and `m` the
    mean square of the details; if `m` is below `v`, nearly all details vanish. The gradient is exact: it
    goes through the thresholds as well, and is 0 for clipped values.

    References
    ----------
    .. [1] Chang, Yu, Vetterli. Adaptive Wavelet Thresholding for Image Denoising and Compression. IEEE
       Transactions on Image Processing 9(9), 2000. doi:10.1109/83.862633
    .. [2] Prakash, Moran, Garber, DiLillo, Storer. Deflecting Adversarial Attacks with Pixel Deflection.
       CVPR 2018. arXiv:1801.08926

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import WaveletDenoising
    >>> noise = 0.04 * np.random.default_rng(0).standard_normal((1, 32, 32, 1))
    >>> float(WaveletDenoising((0, 1)).transform(0.5 + noise).std().round(3))
    0.01
    """

    domains = ("image", "video")
    gradient_kind = "exact"
    paper = "arXiv:1801.08926"
    known_attacks = (
        (
            "Athalye and Carlini 2018 (arXiv:1804.03286): BPDA, through pixel deflection with this denoiser, "
            "ImageNet accuracy 0% at L-inf 4/255"
        ),
    )

    def __init__(
        self,
        clip_values: ClipValues,
        sigma: float = 0.04,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        layout: str | None = None,
    ) -> None:
        check_clip_values(clip_values)
        check_number("sigma", sigma, 0)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.sigma = sigma
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.layout = layout

    def _transform(self, x: Array, draw: None) -> Array:
        check_limits(self.clip_values, x.shape)
        return shrink_wavelets(x, float(self.sigma), self.clip_values, axis=self._channel_axis(x.ndim))

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        check_limits(self.clip_values, x.shape)
        axis = self._channel_axis(x.ndim)
        return pull_back_wavelets(x, grad, float(self.sigma), self.clip_values, axis=axis)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        check_limits(self.clip_values, shape)
        axis = self._channel_axis(len(shape))
        return wavelet_arithmetic(len(shape), dtype, float(self.sigma), self.clip_values, axis=axis)
