"""Gaussian blur."""

from .._core.blurring import blur, blur_anywhere, check_kernel_size, filter_taps
from .._core.checks import check_bool, check_layout, check_number
from .._core.errors import ArgumentError
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["GaussianBlur"]


class GaussianBlur(Preprocessor):
    """Replace each pixel by the mean of its neighbours, weighted by a Gaussian [1]_.

    Parameters
    ----------
    kernel_size : int, default 5
        Side of the square filter, in pixels; odd.
    sigma : float, default 1.0
        Standard deviation, in pixels.
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
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own, with any number of channels and
    of any size, also smaller than the filter. Shape and dtype are kept; integers become `float32`. The
    gradient is exact.

    Borders are mirrored, the edge not repeated: torchvision's ``reflect``, OpenCV's default, SciPy's
    ``mirror``. So the result is that of torchvision's ``gaussian_blur``, and of SciPy's ``gaussian_filter``
    with ``mode="mirror"`` and ``radius=kernel_size // 2``.

    References
    ----------
    .. [1] Gu, Rigazio. Towards Deep Neural Network Architectures Robust to Adversarial Examples. ICLR 2015
       workshop. arXiv:1412.5068

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import GaussianBlur
    >>> stripes = np.tile([0.0, 1.0], (1, 8, 4))[..., None]
    >>> GaussianBlur(5, sigma=1.0).transform(stripes)[0, 0, 3:5, 0].round(2)
    array([0.51, 0.49])
    """

    domains = ("image", "video")
    gradient_kind = "exact"
    paper = "arXiv:1412.5068"
    known_attacks = (
        (
            "Carlini and Wagner 2017 (arXiv:1705.07263): a 3x3 mean in front is one more convolution to an "
            "attack that knows it, and does not stop it"
        ),
    )

    def __init__(
        self,
        kernel_size: int = 5,
        sigma: float = 1.0,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        layout: str | None = None,
    ) -> None:
        check_kernel_size(kernel_size)
        check_number("sigma", sigma)
        if not sigma > 0:
            raise ArgumentError(f"`sigma` must be positive, in pixels, got {sigma!r}.")
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_layout(layout, channels_first, self.domains)
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.layout = layout

    def _transform(self, x: Array, draw: None) -> Array:
        return blur(x, self._taps(), axis=self._channel_axis(x.ndim))

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        return blur(grad, self._taps(), axis=self._channel_axis(x.ndim), transpose=True)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return blur_anywhere(self._taps(), len(shape), axis=self._channel_axis(len(shape)))

    def _taps(self) -> Array:
        return filter_taps("gaussian", int(self.kernel_size), float(self.sigma))
