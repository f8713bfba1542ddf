"""BlurNet: low-pass filters of the input or of feature maps."""

from typing import Any

from .._core.blurring import blur, blur_anywhere, check_kernel, check_kernel_size, filter_taps
from .._core.checks import check_bool, check_layout
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..neural.feature_blur import insert_blur, penalty
from ..preprocessor import Preprocessor

__all__ = ["BlurNet"]


class BlurNet(Preprocessor):
    """Blur the input with a box or a Gaussian; `insert` blurs the feature maps of a model [1]_.

    Parameters
    ----------
    kernel_size : int, default 5
        Side of the square filter, in pixels; odd. The paper has 3, 5 and 7.
    kernel : {"box", "gaussian"}, default "box"
        Equal weights, or a Gaussian with a standard deviation of ``0.15 * kernel_size + 0.35`` pixels, the
        default of OpenCV and torchvision.
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
    of any size, also smaller than the filter. Shape and dtype are kept; integers become `float32`. Borders
    are mirrored, the edge not repeated, as in `GaussianBlur`. The gradient is exact.

    References
    ----------
    .. [1] Raju, Lipasti. BlurNet: Defense by Filtering the Feature Maps. DSN-W 2020. arXiv:1908.02256

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import BlurNet
    >>> image = np.array([[0, 0, 0], [0, 9, 0], [0, 0, 0]])
    >>> BlurNet(3).transform(image[None, :, :, None])[0, 1, 1]
    array([1.], dtype=float32)
    """

    domains = ("image", "video")
    gradient_kind = "exact"
    paper = "arXiv:1908.02256"
    known_attacks = (
        (
            "Raju and Lipasti 2020 (arXiv:1908.02256), its own paper: an adaptive sticker attack succeeds on "
            "20% where total variation is penalised; no attack by others is known to us"
        ),
        (
            "Carlini and Wagner 2017 (arXiv:1705.07263): a 3x3 mean in front is one more convolution to an "
            "attack that knows it, and does not stop it"
        ),
    )

    def __init__(
        self,
        kernel_size: int = 5,
        kernel: str = "box",
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        layout: str | None = None,
    ) -> None:
        check_kernel_size(kernel_size)
        check_kernel(kernel)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_layout(layout, channels_first, self.domains)
        self.kernel_size = kernel_size
        self.kernel = kernel
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.layout = layout

    @staticmethod
    def insert(
        model: Any,
        layer: str | None = None,
        kernel_size: int = 5,
        kernel: str = "box",
        trainable: bool = False,
        linf: float = 0.0,
        tv: float = 0.0,
    ) -> Any:
        """Return a model that shares the weights of `model` and filters the feature maps of a convolution.

        Parameters
        ----------
        model : keras.Model or torch.nn.Module
            A functional or Sequential Keras model, or any torch module that is not scripted. It stays as it
            is; to train the new model is to train its weights.
        layer : str, optional
            Name of a two-dimensional convolution, by default of the first. A layer of a Keras model within a
            model is ``"inner/conv"``; modules have torch's dotted names.
        kernel_size : int, default 5
            Side of the filter, odd; 1 filters nothing, for `tv` alone.
        kernel : {"box", "gaussian"}, default "box"
            The filter, the same for every channel; where training starts if `trainable`.
        trainable : bool, default False
            Whether the filters are learned, one for each channel.
        linf : float, default 0.0
            Weight of the mean over channels of the largest magnitude in each filter; needs `trainable`.
        tv : float, default 0.0
            Weight of the total variation of the feature maps before the filter: the sum of absolute
            differences of neighbours, averaged over samples and channels.

        Returns
        -------
        keras.Model or torch.nn.Module
            The filter stands directly after the convolution, so after an activation that is part of it, and
            before one that follows. Borders are padded with zeros and the size is kept. A Keras model is
            compiled as `model` was, with a fresh optimizer, if Keras can repeat that.

        Raises
        ------
        TypeError
            If `model` is neither a Keras model nor a torch module, or a parameter has the wrong type.
        ValueError
            If a parameter breaks its rule, there is no convolution or none of that name, or the Keras model
            is one of code instead of layers.

        Notes
        -----
        Keras: ``model.fit`` adds the penalties; in a loop of your own they are in ``model.losses``. Load the
        model with `preshield.neural.model_files.load_model`, or call
        `preshield.neural.feature_blur.keras_layer` before `keras.saving.load_model`.

        torch: add ``BlurNet.penalty(model)`` to the loss after each forward pass. The convolution becomes
        ``Sequential(convolution, filter)``, so ``"conv.weight"`` is ``"conv.0.weight"`` in its `state_dict`.

        Examples
        --------
        >>> import pytest
        >>> torch = pytest.importorskip("torch")
        >>> plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> blurred = BlurNet.insert(plain, kernel_size=3)
        >>> [type(module).__name__ for module in blurred[0]]
        ['Conv2d', 'TorchFeatureBlur']
        >>> blurred[0][0].weight is plain[0].weight
        True
        """
        return insert_blur(model, layer, kernel_size, kernel, trainable, linf, tv)

    penalty = staticmethod(penalty)

    def _transform(self, x: Array, draw: None) -> Array:
        return blur(x, self._taps(), axis=self._channel_axis(x.ndim))

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        return blur(grad, self._taps(), axis=self._channel_axis(x.ndim), transpose=True)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return blur_anywhere(self._taps(), len(shape), axis=self._channel_axis(len(shape)))

    def _taps(self) -> Array:
        return filter_taps(self.kernel, int(self.kernel_size))
