"""PixelDefend: the most probable image nearby."""

import copy
from typing import Any

import numpy as np

from .._core.checks import check_bool, check_clip_values, check_integer, check_layout, check_option
from .._core.errors import ArgumentError
from .._core.remedies import Taken, how_to_add_axes
from .._core.tensors import to_numpy
from .._core.typing import Array, ClipValues
from .._core.unit_range import from_unit_range, to_unit_range
from ..neural.pixel_cnn import PixelCNN
from ..neural.pixel_scores import PixelScores
from ..preprocessor import Preprocessor

__all__ = ["PixelDefend"]


class PixelDefend(Preprocessor):
    """Move each pixel to its most probable value nearby, by a generative model of clean images [1]_.

    Parameters
    ----------
    clip_values : tuple, default (0.0, 1.0)
        `(minimum, maximum)` of the data, between which the 256 levels lie: numbers, or arrays with one entry
        for each channel. Values outside are saturated.
    eps : int, default 16
        How far a value may move, in levels, from 0 to 255.
    pixel_cnn : PixelCNN, model or callable, optional
        Model of clean images. A `PixelCNN` that is not trained yet says what `fit` trains; None is the
        default one. Otherwise a Keras model, a torch module or a callable, which maps images in [0, 1], in
        the layout of `x`, to logits or probabilities `(N, H, W, C, 256)` or `(N, H * W * C * 256)`; or a
        classifier of ART's, whose last layer gives them. For feature vectors, `(N, D, 256)` or
        `(N, D * 256)`.
    batch_size : int, default 128
        Images that a model of yours is given at once, at most.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Whether to show progress bars.
    decoding : {"sequential", "one-pass"}, default "sequential"
        Whether each value is conditioned on those decoded before it, channel by channel in raster order, as
        in the paper, or all at once on those of the input, as in ART.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, the model is not trained, the images are not of the size that it
        knows, or its outputs do not have the shape above or are no numbers.

    Notes
    -----
    Images `(N, H, W, C)`, or feature vectors `(N, D)` for a model that scores them, which `PixelCNN` does
    not; `float32` on the grid of 256 levels. Of levels that are equally probable, the lowest is taken. The
    gradient is the identity.

    ``fit(x)`` trains the model, unless there is a trained one, and keeps the log-likelihoods of `x` for
    `p_values`; keywords go to `PixelCNN.fit`. The result is in ``pixel_cnn_``.

    A `PixelCNN` decodes sequentially in one pass; any other model is evaluated as a whole for each pixel and
    channel, H W C times.

    References
    ----------
    .. [1] Song, Kim, Nowozin, Ermon, Kushman. PixelDefend: Leveraging Generative Models to Understand and
       Defend against Adversarial Examples. ICLR 2018. arXiv:1710.10766

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import PixelDefend
    >>> def dark(x):  # the darker, the more probable
    ...     return np.broadcast_to(np.linspace(1, 0, 256), (*x.shape, 256))
    >>> image = np.array([0, 51, 255]).reshape(1, 1, 3, 1) / 255
    >>> np.rint(255 * PixelDefend(eps=16, pixel_cnn=dark).transform(image)).ravel()
    array([  0.,  35., 239.], dtype=float32)
    """

    domains = ("image", "features")
    output_dtype = "float32"
    paper = "arXiv:1710.10766"
    known_attacks = (
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA, CIFAR-10 accuracy 9% at L-inf 0.031",
    )

    pixel_cnn_: Any = None
    _reference: Array | None = None  # sorted log-likelihoods of the images of `fit`

    def __init__(
        self,
        clip_values: ClipValues = (0.0, 1.0),
        eps: int = 16,
        pixel_cnn: Any = None,
        batch_size: int = 128,
        apply_fit: bool = False,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        decoding: str = "sequential",
        channels_first: bool = False,
        layout: str | None = None,
    ) -> None:
        check_clip_values(clip_values)
        check_integer("eps", eps, 0, 255)
        known = pixel_cnn is None or isinstance(pixel_cnn, PixelCNN) or callable(pixel_cnn)
        if not (known or hasattr(pixel_cnn, "get_activations")):
            raise ArgumentError(
                "`pixel_cnn` must be None, a PixelCNN, a Keras model, a torch module, a callable or a "
                f"classifier of ART's, got {pixel_cnn!r} of type {type(pixel_cnn).__name__}."
            )
        check_integer("batch_size", batch_size, 1)
        check_option("decoding", decoding, ("sequential", "one-pass"))
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        check_bool(channels_first=channels_first)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.eps = eps
        self.pixel_cnn = pixel_cnn
        self.batch_size = batch_size
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.decoding = decoding
        self.channels_first = channels_first
        self.layout = layout

    def log_likelihood(self, x: Any) -> Array:
        """Binary logarithm of the probability of each image under the model, per dimension.

        Parameters
        ----------
        x : array_like or tensor
            Images, as the defence takes them.

        Returns
        -------
        ndarray of float64, shape (N,)
            In bits per dimension; at most 0. The figure that papers report is its negative.
        """
        images = self._in_unit_range(self._checked(to_numpy(x)))
        likelihoods: Array = self._scorer(self._model()).log_likelihood(images)
        return likelihoods

    def p_values(self, x: Any) -> Array:
        """Share of the training images that are no more probable than each image: small if it is attacked.

        Parameters
        ----------
        x : array_like or tensor
            Images, as the defence takes them.

        Returns
        -------
        ndarray of float64, shape (N,)
            ``(1 + #{i : p(train_i) <= p(x)}) / (1 + #train)``, uniform for images like those of `fit`.

        Raises
        ------
        ValueError
            If `fit` was not called for the present model.

        Notes
        -----
        `preshield.evaluation.roc.roc` tells how well they separate clean from attacked images. Whoever knows
        of the test can look for adversarial images that are probable too.
        """
        model = self._model()
        if self._reference is None or model is not self.pixel_cnn_:
            raise ArgumentError("p-values need training images to compare with: call fit(x) first.")
        ranks = np.searchsorted(self._reference, self.log_likelihood(x), side="right")
        return (1 + ranks) / (1 + len(self._reference))

    def _transform(self, x: Array, draw: None) -> Array:
        images = self._in_unit_range(x)
        progress = "PixelDefend" if self.verbose else None
        images = self._scorer(self._model()).decode(
            images, int(self.eps), sequential=self.decoding == "sequential", progress=progress
        )
        return from_unit_range(images, x, self.clip_values, axis=self._channel_axis(x.ndim))

    def _fit(self, x: Array, y: Array | None, **options: Any) -> None:
        if not x.size:
            raise ArgumentError(f"`x` must hold at least one image, got shape {x.shape}.")
        images, model = self._in_unit_range(x), self.pixel_cnn
        if self._learns:
            model = copy.deepcopy(model) or PixelCNN()
            model.fit(images, **{"verbose": self.verbose, **options})
        elif options:
            name = next(iter(options))
            raise ArgumentError(
                f"fit() got an unexpected keyword argument {name!r}: `pixel_cnn` is trained already."
            )
        self._reference = np.sort(self._scorer(model).log_likelihood(images))
        self.pixel_cnn_ = model

    @property
    def _learns(self) -> bool:
        return self.pixel_cnn is None or (
            isinstance(self.pixel_cnn, PixelCNN) and not self.pixel_cnn.is_fitted
        )

    def _model(self) -> Any:
        if not self._learns:
            return self.pixel_cnn
        if self.pixel_cnn_ is None:
            raise ArgumentError(
                "This PixelDefend has no trained model yet: call fit(x) with clean training images first, or "
                "pass a trained `pixel_cnn`."
            )
        return self.pixel_cnn_

    def _scorer(self, model: Any) -> PixelCNN | PixelScores:
        if isinstance(model, PixelCNN):
            return model
        first = self._channel_axis(4) == 1
        return PixelScores(model, channels_first=first, batch_size=self.batch_size)

    def _in_unit_range(self, x: Array) -> Array:
        """Images `(N, H, W, C)`, or feature vectors, in [0, 1]."""
        if x.ndim not in (2, 4):
            taken = Taken(("image",), self.channels_first, self.layout, self.params)
            one = "; pass x[None] for one vector" if x.ndim == 1 else how_to_add_axes(x.shape, taken)
            raise ArgumentError(
                f"`x` must be a batch of images ({taken.layouts[0]}) or of feature vectors (N, D), got shape "
                f"{x.shape}{one}."
            )
        return to_unit_range(x, self.clip_values, axis=self._channel_axis(x.ndim))
