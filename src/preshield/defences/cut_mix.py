"""CutMix."""

from math import prod
from typing import Any, NamedTuple

from .._core.arithmetic.mixing import cut_and_pasted
from .._core.arithmetic.namespace import taken
from .._core.checks import (
    check_bool,
    check_integer,
    check_layout,
    check_number,
    check_rng,
    ignore_device_type,
)
from .._core.cutting import Boxes, draw_boxes
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.labels import class_rows, class_rows_anywhere
from .._core.layout import frames_shape, kept_dtype, to_frames, working_dtype
from .._core.threads import map_blocks
from .._core.typing import Arithmetic, Array, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["CutMix"]

BLOCK = 16  # images or videos


class Draw(NamedTuple):
    """For each sample: from which other one it gets a rectangle, which one, and its share of the pixels."""

    partners: Any
    boxes: Boxes
    pixels: int


class CutMix(Preprocessor):
    """Paste a rectangle of another image of the batch, and mix the labels by its area [1]_.

    An augmentation for training: a model learns to use all parts of an object.

    Parameters
    ----------
    num_classes : int
        Number of classes.
    alpha : float, default 1.0
        Both parameters of the Beta distribution from which the share of pixels that stay is drawn, once for
        each batch.
    probability : float, default 0.5
        With which each sample gets a rectangle.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts: it cannot, for lack of labels.
    verbose : bool, default False
        Show a progress bar.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images or videos; if labels are missing or
        are neither one-hot nor class indices.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, all frames of a video with the same rectangle. Its
    middle is uniform over the image and the part outside is cut off; labels are mixed by the pixels that are
    left of it. Labels are `(N, num_classes)`, one-hot, multi-hot or soft, or class indices `(N,)`, and become
    rows `(N, num_classes)`. Shape and dtype of the images are kept; labels of other types than floating ones
    become `float32`. The gradient is exact: what was pasted belongs to the image from which it came.

    References
    ----------
    .. [1] Yun, Han, Oh, Chun, Choe, Yoo. CutMix: Regularization Strategy to Train Strong Classifiers with
       Localizable Features. ICCV 2019. arXiv:1905.04899

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import CutMix
    >>> x = np.stack([np.zeros((8, 8, 1)), np.ones((8, 8, 1))])  # black is class 0, white is class 1
    >>> x, y = CutMix(num_classes=2, probability=1.0, rng=0)(x, np.array([0, 1]))
    >>> bool(np.allclose(x.mean(axis=(1, 2, 3)), y[:, 1]))
    True
    """

    domains = ("image", "video")
    stochastic = True
    mixes_samples = True
    gradient_kind = "exact"
    keeps_integers = True
    paper = "arXiv:1905.04899"
    known_attacks = (
        (
            "Yun et al. 2019 (arXiv:1905.04899), its own paper: most of the ImageNet accuracy falls to a "
            "single step of FGSM"
        ),
    )

    def __init__(
        self,
        num_classes: int,
        alpha: float = 1.0,
        probability: float = 0.5,
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = False,
        verbose: bool = False,
        *,
        rng: Rng = None,
        layout: str | None = None,
        device_type: str | None = None,
    ) -> None:
        check_integer("num_classes", num_classes, 1)
        check_number("alpha", alpha)
        if not alpha > 0:
            raise ArgumentError(f"`alpha` must be above 0, got {alpha!r}.")
        check_number("probability", probability, 0, 1)
        check_bool(channels_first=channels_first, verbose=verbose)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        ignore_device_type(device_type)
        self.num_classes = num_classes
        self.alpha = alpha
        self.probability = probability
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Draw:
        xp, axis = rng.xp, self._channel_axis(len(x.shape))
        count, _, *image, _ = frames_shape(tuple(x.shape), axis=axis)
        scale = xp.sqrt(rng.shares(float(self.alpha), 2, x)[0])
        size = [xp.asarray(xp.floor(side * scale), dtype=xp.int32) for side in image]
        partners = rng.order()
        boxes = draw_boxes(rng, (count,), image, size)
        chosen = rng.random(count, "float32") < self.probability
        boxes = Boxes(*(xp.where(chosen, side, xp.zeros_like(side)) for side in boxes))
        return Draw(partners, boxes, max(1, prod(image)))

    def _transform(self, x: Array, draw: Draw) -> Array:
        out = x.copy()
        source, target = self._frames(x), self._frames(out)

        def work(numbers: slice) -> None:
            for i in range(numbers.start, numbers.stop):
                rows, columns = draw.boxes.slices(i)
                target[i, :, rows, columns] = source[draw.partners[i], :, rows, columns]

        map_blocks(work, len(x), BLOCK, progress="CutMix" if self.verbose else None)
        return out

    def _transform_labels(self, y: Array | None, draw: Draw) -> Array | None:
        if y is None:
            return None
        rows = class_rows(y, self.num_classes)
        dtype = working_dtype(rows.dtype)
        shares, values = (draw.boxes.areas() / draw.pixels)[:, None].astype(dtype), rows.astype(dtype)
        mixed: Array = (1 - shares) * values + shares * values[draw.partners]
        return mixed.astype(kept_dtype(rows.dtype), copy=False)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return self._mixed_anywhere

    def _mixed_anywhere(self, x: Any, xp: Any, draw: Draw, y: Any) -> tuple[Any, Any]:
        if y is not None:
            rows, kept = class_rows_anywhere(y, xp, self.num_classes)
            share = (xp.astype(draw.boxes.areas(), rows.dtype) / draw.pixels)[:, None]
            y = (1 - share) * rows + share * taken(rows, draw.partners, xp)
            y = xp.astype(y, kept, copy=False)
        return cut_and_pasted(x, xp, draw.partners, draw.boxes, self._channel_axis(x.ndim)), y

    def _gradient(self, x: Array, grad: Array, draw: Draw) -> Array:
        out = grad.copy()
        source, target = self._frames(grad), self._frames(out)
        for i in range(len(draw.boxes)):
            rows, columns = draw.boxes.slices(i)
            target[i, :, rows, columns] = 0
        for i, partner in enumerate(draw.partners):
            rows, columns = draw.boxes.slices(i)
            target[partner, :, rows, columns] += source[i, :, rows, columns]
        return out

    def _frames(self, x: Array) -> Array:
        """View as `(N, F, H, W, C)`."""
        return to_frames(x, axis=self._channel_axis(x.ndim))
