"""Random crops, rescaled to the size of the image."""

from functools import partial
from typing import Any

from .._core.arithmetic.box_resize import resized_boxes
from .._core.box_resizing import INTERPOLATIONS, is_native, resize_boxes, return_boxes, whole
from .._core.checks import check_bool, check_layout, check_option, check_rng, check_size
from .._core.cutting import Boxes
from .._core.detection import image_size
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.typing import Arithmetic, Array, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["CropRescale"]

CROP, IMAGE = 90, 224  # pixels a side, in the paper


class CropRescale(Preprocessor):
    """Cut a crop at a random place of each image, and rescale it to the size of the image [1]_.

    Parameters
    ----------
    crop_size : int or tuple of int, optional
        Side of the crop, in pixels, or its height and width. None stands for 90/224 of the sides of the
        image, rounded, as in the paper.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    interpolation : {"bilinear", "nearest"}, default "bilinear"
        "bilinear" aligns the middles of pixels, does not look outside of the crop, and rounds integers.
    apply_fit : bool, default True
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
        If a parameter breaks its rule; if the batch is not one of images, or a crop is larger than they are.

    Notes
    -----
    Images `(N, H, W, C)`, each with a draw of its own, uniform over the places that lie inside. Shape and
    dtype are kept, and labels are left alone. The gradient is exact for the draw of the forward pass, but for
    the rounding of integers.

    A pass cuts one crop. The authors average the scores over 30 of them, which is a matter of the classifier:
    a model that averages ``model(crop.transform(x))`` over passes is evaluated like any other, and an
    evaluation addresses the draws within it. ``MajorityVote(model, [CropRescale() for _ in range(30)])``
    counts labels instead. They also train the network on crops, which `apply_fit` does.

    References
    ----------
    .. [1] Guo, Rana, Cisse, van der Maaten. Countering Adversarial Images using Input Transformations.
       ICLR 2018. arXiv:1711.00117

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import CropRescale
    >>> ramp = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> CropRescale(2, interpolation="nearest", rng=8).transform(ramp)[0, :, :, 0]
    array([[ 5.,  5.,  6.,  6.],
           [ 5.,  5.,  6.,  6.],
           [ 9.,  9., 10., 10.],
           [ 9.,  9., 10., 10.]])
    """

    domains = ("image",)
    stochastic = True
    gradient_kind = "exact"
    keeps_integers = True
    paper = "arXiv:1711.00117"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): expectation over transformation, ImageNet "
            "accuracy 0% at a normalised L2 norm of 0.05, with 30 crops"
        ),
    )

    def __init__(
        self,
        crop_size: int | tuple[int, int] | None = None,
        channels_first: bool = False,
        interpolation: str = "bilinear",
        apply_fit: bool = True,
        apply_predict: bool = True,
        *,
        rng: Rng = None,
        layout: str | None = None,
    ) -> None:
        check_size("crop_size", crop_size, optional=True)
        check_option("interpolation", interpolation, INTERPOLATIONS)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        self.crop_size = crop_size
        self.channels_first = channels_first
        self.interpolation = interpolation
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Boxes:
        shape, sides = tuple(x.shape), []
        for side, length in zip(self._size(shape), self._crop(shape), strict=True):
            start = rng.integers(0, side - length + 1, (x.shape[0],))
            sides += [start, start + length]
        return Boxes(*sides)

    def _transform(self, x: Array, draw: Boxes) -> Array:
        size = self._size(x.shape)
        return resize_boxes(x, draw, whole(len(x), size), size, self.interpolation, axis=self._axis)

    def _gradient(self, x: Array, grad: Array, draw: Boxes) -> Array:
        size = self._size(x.shape)
        return return_boxes(grad, draw, whole(len(x), size), size, self.interpolation, axis=self._axis)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        self._crop(shape)
        size = self._size(shape)
        if not is_native(self.interpolation, dtype, size):
            return None
        return partial(_cropped, size=size, axis=self._axis, linear=self.interpolation == "bilinear")

    def _crop(self, shape: Shape) -> tuple[int, int]:
        """Height and width of a crop."""
        size = self._size(shape)
        height, width = (max(1, (2 * side * CROP + IMAGE) // (2 * IMAGE)) for side in size)
        crop = check_size("crop_size", self.crop_size, optional=True) or (height, width)
        if not all(length <= side for length, side in zip(crop, size, strict=True)):
            raise ArgumentError(
                f"`crop_size` must be at most the size of an image, {size}, got {crop} for `x` of shape "
                f"{shape}. Pass a smaller one, or None for {CROP}/{IMAGE} of each side."
            )
        return crop

    def _size(self, shape: Shape) -> tuple[int, int]:
        size = image_size(shape[1:], self._axis == 1)
        if not all(size):
            raise ArgumentError(f"`x` must have at least one pixel in each image, got shape {shape}.")
        return size

    @property
    def _axis(self) -> int:
        return self._channel_axis(4)


def _cropped(x: Any, xp: Any, draw: Boxes, **options: Any) -> Any:
    return resized_boxes(x, xp, source=draw, **options)
