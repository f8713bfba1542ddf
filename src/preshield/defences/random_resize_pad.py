"""Resizing to a random size, and padding at a random place."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core.arithmetic.box_resize import resized_boxes
from .._core.box_resizing import (
    INTERPOLATIONS,
    is_native,
    resize_boxes,
    resized_shape,
    return_boxes,
    whole,
)
from .._core.checks import check_bool, check_layout, check_option, check_rng, check_size
from .._core.cutting import Boxes
from .._core.detection import OBJECT_DETECTION, check_label_type, image_size, move_targets
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype
from .._core.typing import Arithmetic, Array, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["RandomResizePad"]

GROWTH = 331, 299  # pixels of a side after and before, in the paper


class _Placement(NamedTuple):
    """Height and width of the images, and the boxes that they become."""

    size: tuple[int, int]
    boxes: Boxes


class RandomResizePad(Preprocessor):
    """Resize each image to a random size, and pad it with zeros at a random place [1]_.

    Parameters
    ----------
    min_size : int or tuple of int, optional
        Least side of a resized image, in pixels, or least height and width. None stands for the sides of the
        image itself.
    max_size : int or tuple of int, optional
        Side of the result, or its height and width: images are resized to less, and zeros fill the rest.
        None stands for 331/299 of `min_size`, rounded, as in the paper, but one pixel more at least.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    label_type : {"classification", "object_detection"}, default "classification"
        Labels of a classifier are left alone. Those of a detector are a list with a dict for each image:
        "boxes" `(M, 4)`, as x1, y1, x2, y2 in pixels, are scaled and shifted, "masks" `(M, H, W)` are resized
        and padded, and other entries are copied.
    interpolation : {"nearest", "bilinear"}, default "nearest"
        "nearest" is that of the authors. "bilinear" aligns the middles of pixels, and rounds integers.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images, or `max_size` is not larger than
        `min_size` along both sides; if the targets of a detector are not a list of dicts, or do not fit
        their images.

    Notes
    -----
    Images `(N, H, W, C)` become `(N, max_size, max_size, C)`, each with a draw of its own. Sizes are uniform
    over those from `min_size` to below `max_size`, and places over all that the size leaves: with 299 and
    331, as in the paper, 12,528 patterns. Where the sides of the result differ, both sides of an image follow
    from one draw, so that its shape is kept as far as pixels allow. Images of 32 x 32 become 35 x 35 by
    default. A model that takes one size only is served by ``RandomResizePad(28, 32)``.

    The dtype is kept. Zero is middle grey in data of [-1, 1], as those of the authors. The gradient is exact
    for the draw of the forward pass, but for the rounding of integers.

    References
    ----------
    .. [1] Xie, Wang, Zhang, Ren, Yuille. Mitigating Adversarial Effects Through Randomization. ICLR 2018.
       arXiv:1711.01991

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import RandomResizePad
    >>> white = np.ones((1, 4, 4, 1), dtype=np.uint8)
    >>> RandomResizePad(2, 5, rng=6).transform(white)[0, :, :, 0]
    array([[0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0]], dtype=uint8)
    """

    domains = ("image",)
    stochastic = True
    gradient_kind = "exact"
    changes_shape = True
    keeps_integers = True
    paper = "arXiv:1711.01991"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): expectation over transformation, ImageNet "
            "accuracy 0% at L-inf 8/255"
        ),
    )

    def __init__(
        self,
        min_size: int | tuple[int, int] | None = None,
        max_size: int | tuple[int, int] | None = None,
        channels_first: bool = False,
        label_type: str | None = "classification",
        interpolation: str = "nearest",
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        rng: Rng = None,
        layout: str | None = None,
    ) -> None:
        least, most = (
            check_size(name, value, optional=True)
            for name, value in (("min_size", min_size), ("max_size", max_size))
        )
        if least and most:
            _check_order(least, most)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_label_type(label_type)
        check_option("interpolation", interpolation, INTERPOLATIONS)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        self.min_size = min_size
        self.max_size = max_size
        self.channels_first = channels_first
        self.label_type = label_type
        self.interpolation = interpolation
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> _Placement:
        xp: Any = rng.xp
        (low, wide_low), (high, wide_high), samples = *self._bounds(tuple(x.shape)), x.shape[0]
        spans = high - low, wide_high - wide_low
        step, sides = rng.integers(0, max(spans), (samples,)), []
        for least, span, side in zip((low, wide_low), spans, (high, wide_high), strict=True):
            length = least + step * span // max(spans)
            start = rng.integers(xp.zeros_like(length), side + 1 - length, (samples,))
            sides += [start, start + length]
        return _Placement(self._size(tuple(x.shape)), Boxes(*sides))

    def _transform(self, x: Array, draw: _Placement) -> Array:
        size = self._bounds(x.shape)[1]
        return resize_boxes(
            x, whole(len(x), draw.size), draw.boxes, size, self.interpolation, axis=self._axis
        )

    def _gradient(self, x: Array, grad: Array, draw: _Placement) -> Array:
        source = whole(len(x), draw.size)
        return return_boxes(grad, source, draw.boxes, draw.size, self.interpolation, axis=self._axis)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        _, size = self._bounds(shape)
        if self._changes_labels or not is_native(self.interpolation, dtype, size, self._size(shape)):
            return None  # labels of detectors are no arrays
        return partial(_resized, size=size, axis=self._axis, linear=self.interpolation == "bilinear")

    def _bounds(self, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least height and width of a resized image, and those of the result."""
        size = self._size(shape)
        if not all(size):
            raise ArgumentError(f"`x` must have at least one pixel in each image, got shape {shape}.")
        least = check_size("min_size", self.min_size, optional=True) or size
        after, before = GROWTH
        grown = [max(side + 1, (side * after + before // 2) // before) for side in least]
        most = check_size("max_size", self.max_size, optional=True) or (grown[0], grown[1])
        _check_order(least, most)
        return least, most

    def _size(self, shape: Shape) -> tuple[int, int]:
        return image_size(shape[1:], self._axis == 1)

    @property
    def _axis(self) -> int:
        return self._channel_axis(4)

    @property
    def _changes_labels(self) -> bool:
        return self.label_type == OBJECT_DETECTION

    def _transform_labels(self, y: Array | None, draw: _Placement) -> Array | None:
        if y is None or not self._changes_labels:
            return y
        tops, bottoms, lefts, rights = draw.boxes
        size = self._bounds((1, *draw.size, 1) if self._axis == 3 else (1, 1, *draw.size))[1]

        def boxes(array: Array, i: int) -> Array:
            down, across = (bottoms[i] - tops[i]) / draw.size[0], (rights[i] - lefts[i]) / draw.size[1]
            moved = array * np.array([across, down] * 2) + np.array([lefts[i], tops[i]] * 2)
            return np.asarray(moved, dtype=kept_dtype(array.dtype))

        def masks(array: Array, i: int) -> Array:
            rows = np.reshape(array, (1, -1, *draw.size))
            target = Boxes(*(ends[i : i + 1] for ends in draw.boxes))
            moved = resize_boxes(rows, whole(1, draw.size), target, size, "nearest", axis=1)
            return moved.reshape(*array.shape[:-2], *size)

        return move_targets(y, [draw.size] * len(tops), boxes, masks)  # type: ignore[return-value]

    def _output_shape(self, shape: Shape) -> Shape:
        return resized_shape(shape, self._bounds(shape)[1], self._axis)


def _resized(x: Any, xp: Any, draw: _Placement, **options: Any) -> Any:
    return resized_boxes(x, xp, draw.boxes, **options)


def _check_order(least: tuple[int, int], most: tuple[int, int]) -> None:
    if not all(low < high for low, high in zip(least, most, strict=True)):
        raise ArgumentError(
            f"`max_size` must be larger than `min_size`, or than the image without one, along both sides; "
            f"got {most} and {least}. Pass for example max_size={tuple(side + 1 for side in least)}."
        )
