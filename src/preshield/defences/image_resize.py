"""Resizing of images."""

from collections.abc import Callable

import numpy as np

from .._core.checks import check_bool, check_clip_values, check_integer, check_layout, check_limits
from .._core.detection import OBJECT_DETECTION, check_label_type, image_size, image_sizes, move_targets
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype, part_of, saturated
from .._core.resizing import check_interpolation, resize
from .._core.typing import Array, ClipValues, Dtype, Seed, Shape
from ..preprocessor import Preprocessor

__all__ = ["ImageResize"]


class ImageResize(Preprocessor):
    """Resize images, and the boxes and masks of a detector with them [1]_.

    Parameters
    ----------
    height, width : int
        Size of the result, in pixels.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    label_type : {"classification", "object_detection"}, default "classification"
        Labels of a classifier are left alone. Those of a detector are a list with a dict for each image:
        "boxes" `(M, 4)`, as x1, y1, x2, y2 in pixels, are scaled, "masks" `(M, H, W)` are resized, and other
        entries are copied.
    interpolation : str or int, default 1
        "nearest", "bilinear", "bicubic", "area", "lanczos4" or "nearest-exact"; or OpenCV's flag of it, such
        as `cv2.INTER_LINEAR`, which is 1.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images; if the targets of a detector are
        not a list of dicts, or do not fit their images.

    Notes
    -----
    Images `(N, H, W, C)`, or a list or object array of images `(H, W, C)` of different sizes, which become
    one batch. The dtype is kept; integers are rounded and saturate. The gradient is exact, but for rounding.

    The middles of pixels are aligned and nothing is blurred first, which is OpenCV's definition, and torch's
    with ``align_corners=False``; beyond the border the outermost pixel is repeated. "area" weights pixels by
    the area that they share with the new one. Masks are resized by "nearest-exact".

    References
    ----------
    .. [1] Xie, Wang, Zhang, Ren, Yuille. Mitigating Adversarial Effects Through Randomization. ICLR 2018.
       arXiv:1711.01991

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import ImageResize
    >>> image = np.array([[0.0, 4.0], [8.0, 12.0]])[None, :, :, None]
    >>> ImageResize(1, 2).transform(image)[0, :, :, 0]
    array([[4., 8.]])
    >>> target = {"boxes": np.array([[0.0, 0.0, 1.0, 2.0]]), "labels": np.array([3])}
    >>> ImageResize(4, 8, label_type="object_detection")(image, [target])[1][0]["boxes"]
    array([[0., 0., 4., 4.]])
    """

    domains = ("image",)
    gradient_kind = "exact"
    changes_shape = True
    keeps_integers = True
    ragged = True
    paper = "arXiv:1711.01991"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): expectation over transformation, ImageNet "
            "accuracy 0% where size and place are drawn at random; here nothing is"
        ),
    )

    def __init__(
        self,
        height: int,
        width: int,
        channels_first: bool = False,
        label_type: str | None = "classification",
        interpolation: str | int = 1,
        clip_values: ClipValues | None = None,
        apply_fit: bool = True,
        apply_predict: bool = False,
        verbose: bool = False,
        *,
        layout: str | None = None,
    ) -> None:
        check_integer("height", height, 1)
        check_integer("width", width, 1)
        check_bool(channels_first=channels_first, verbose=verbose)
        check_label_type(label_type)
        check_interpolation(interpolation)
        check_clip_values(clip_values, optional=True)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_layout(layout, channels_first, self.domains)
        self.height = height
        self.width = width
        self.channels_first = channels_first
        self.label_type = label_type
        self.interpolation = interpolation
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.layout = layout

    def _begin(self, x: Array, seed: Seed) -> list[tuple[int, int]]:
        """Height and width of each image, which the labels need."""
        return image_sizes(x, self._are_first)

    def _transform(self, x: Array, draw: list[tuple[int, int]]) -> Array:
        if x.dtype != object:
            return self._resized(x)
        images = [self._resized(image[None]) for image in x]
        return np.concatenate(images) if images else x

    def _gradient(self, x: Array, grad: Array, draw: list[tuple[int, int]]) -> Array:
        if x.dtype != object:
            return self._back_of_one_size(x, grad)
        out = np.empty(len(x), dtype=object)
        for i, (image, g) in enumerate(zip(x, grad, strict=True)):
            out[i] = self._back_of_one_size(image[None], g[None])[0]
        return out

    def _resized(self, x: Array) -> Array:
        """Images of one size."""
        dtype = x.dtype.newbyteorder("=")
        if self.clip_values is None and dtype.kind == "f" and dtype.itemsize >= 4:
            return self._interpolated(x)

        def finish(made: Array, where: tuple[slice, ...]) -> Array:
            made = self._clipped(made, where)
            return made if dtype.kind == "f" else saturated(made, dtype)

        return self._interpolated(x, finish, dtype)

    def _back_of_one_size(self, x: Array, grad: Array) -> Array:
        """Gradient of images of one size."""
        if self.clip_values is not None:

            def is_inside(made: Array, where: tuple[slice, ...]) -> Array:
                return np.asarray(made == self._clipped(made, where))

            grad = np.where(self._interpolated(x, is_inside, np.dtype(bool)), grad, 0)
        size = image_size(x.shape[1:], self._are_first)
        method = check_interpolation(self.interpolation)
        return resize(grad, size, method, self._are_first, transpose=True)

    def _interpolated(
        self,
        x: Array,
        finish: Callable[[Array, tuple[slice, ...]], Array] | None = None,
        dtype: Dtype | None = None,
    ) -> Array:
        if not all(image_size(x.shape[1:], self._are_first)):
            raise ArgumentError(f"`x` must have at least one pixel in each image, got shape {x.shape}.")
        if self.clip_values is not None:
            check_limits(self.clip_values, self._output_shape(x.shape))
        size = int(self.height), int(self.width)
        method = check_interpolation(self.interpolation)
        progress = "Image resize" if self.verbose else None
        return resize(x, size, method, self._are_first, finish=finish, out_dtype=dtype, progress=progress)

    def _clipped(self, made: Array, where: tuple[slice, ...]) -> Array:
        """A part of the result, in the range."""
        if self.clip_values is None:
            return made
        low, high = (
            part_of(np.asarray(value), made.ndim, where) if np.ndim(value) else value
            for value in self.clip_values
        )
        return np.asarray(np.clip(made, low, high))

    @property
    def _are_first(self) -> bool:
        """Whether the channels come first."""
        return self._channel_axis(4) == 1

    @property
    def _changes_labels(self) -> bool:
        return self.label_type == OBJECT_DETECTION

    def _transform_labels(self, y: Array | None, draw: list[tuple[int, int]]) -> Array | None:
        if y is None or not self._changes_labels:
            return y
        new = int(self.height), int(self.width)

        def boxes(array: Array, number: int) -> Array:
            vertical, horizontal = (length / old for length, old in zip(new, draw[number], strict=True))
            scaled = array * np.array([horizontal, vertical, horizontal, vertical])
            return np.asarray(scaled, dtype=kept_dtype(array.dtype))

        def masks(array: Array, number: int) -> Array:
            rows = np.reshape(array, (-1, 1, *draw[number]))
            resized = resize(rows, new, "nearest-exact", channels_first=True)
            return resized.astype(array.dtype).reshape(*array.shape[:-2], *new)

        return move_targets(y, draw, boxes, masks)  # type: ignore[return-value]

    def _output_shape(self, shape: Shape) -> Shape:
        size = int(self.height), int(self.width)
        return (*shape[:2], *size) if self._are_first else (shape[0], *size, shape[3])
