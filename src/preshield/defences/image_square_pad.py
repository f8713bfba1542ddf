"""Padding of images to squares."""

from typing import Any

import numpy as np

from .._core.checks import check_bool, check_clip_values, check_layout, check_limits
from .._core.detection import OBJECT_DETECTION, check_label_type, image_size, image_sizes, move_targets
from .._core.errors import ArgumentError
from .._core.layout import object_array, saturated
from .._core.typing import Array, ClipValues, Seed, Shape
from ..preprocessor import Preprocessor

__all__ = ["ImageSquarePad"]

LINEAR = ("constant", "edge", "linear_ramp", "mean", "reflect", "symmetric", "wrap")
STATISTICS = ("maximum", "median", "minimum")
OF_TORCH = {"replicate": "edge", "circular": "wrap"}


class ImageSquarePad(Preprocessor):
    """Pad images to squares on both sides, and move the boxes and masks of a detector with them [1]_.

    Parameters
    ----------
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    label_type : {"classification", "object_detection"}, default "classification"
        Labels of a classifier are left alone. Those of a detector are a list with a dict for each image:
        "boxes" `(M, 4)`, as x1, y1, x2, y2 in pixels, are shifted, "masks" `(M, H, W)` are padded with zeros,
        and other entries are copied.
    pad_mode : str, default "constant"
        One of `numpy.pad`: "constant", "edge", "linear_ramp", "maximum", "mean", "median", "minimum",
        "reflect", "symmetric" or "wrap"; "replicate" and "circular" are torch's names of "edge" and "wrap".
        In small or capital letters.
    pad_kwargs : dict, optional
        Further arguments of `numpy.pad` for this mode, such as ``{"constant_values": 0.5}``.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Accepted as in ART; padding is too fast for a progress bar.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images; if the targets of a detector are
        not a list of dicts, or do not fit their images.

    Notes
    -----
    Images `(N, H, W, C)`, or a list or object array of images `(H, W, C)` of different sizes, which come back
    as an object array. The shorter side grows to the longer one, on both ends; of an odd number of pixels the
    right or lower end gets one more. The dtype is kept. The gradient is exact in every mode; with constants
    it is cut to the image.

    References
    ----------
    .. [1] Xie, Wang, Zhang, Ren, Yuille. Mitigating Adversarial Effects Through Randomization. ICLR 2018.
       arXiv:1711.01991

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import ImageSquarePad
    >>> ImageSquarePad().transform(np.ones((1, 4, 1, 1), dtype=np.uint8))[0, 0, :, 0]
    array([0, 1, 0, 0], dtype=uint8)
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
        channels_first: bool = False,
        label_type: str | None = "classification",
        pad_mode: str = "constant",
        pad_kwargs: dict[str, Any] | None = None,
        clip_values: ClipValues | None = None,
        apply_fit: bool = True,
        apply_predict: bool = False,
        verbose: bool = False,
        *,
        layout: str | None = None,
    ) -> None:
        check_bool(channels_first=channels_first, verbose=verbose)
        check_label_type(label_type)
        _check_padding(pad_mode, pad_kwargs)
        check_clip_values(clip_values, optional=True)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_layout(layout, channels_first, self.domains)
        self.channels_first = channels_first
        self.label_type = label_type
        self.pad_mode = pad_mode
        self.pad_kwargs = pad_kwargs
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.layout = layout

    def _begin(self, x: Array, seed: Seed) -> list[tuple[int, int]]:
        """Height and width of each image, which the labels need."""
        return image_sizes(x, self._are_first)

    def _transform(self, x: Array, draw: list[tuple[int, int]]) -> Array:
        if x.dtype == object:
            return object_array([self._clipped(self._padded(image[None]))[0] for image in x])
        return self._clipped(self._padded(x))

    def _gradient(self, x: Array, grad: Array, draw: list[tuple[int, int]]) -> Array:
        if x.dtype == object:
            pairs = zip(x, grad, strict=True)
            return object_array([self._back_of_one_size(image[None], g[None])[0] for image, g in pairs])
        return self._back_of_one_size(x, grad)

    def _padded(self, x: Array) -> Array:
        """Images of one size."""
        size = image_size(x.shape[1:], self._are_first)
        if not all(size):
            raise ArgumentError(f"`x` must have at least one pixel in each image, got shape {x.shape}.")
        if not x.size:
            return np.empty(self._output_shape(x.shape), x.dtype)
        mode, options = _padding(self.pad_mode, self.pad_kwargs)
        none = (0, 0)
        margins = [none, none, *_margins(size)] if self._are_first else [none, *_margins(size), none]
        return _pad(x, margins, mode, self._for_axes(options, (0, 1, 2, 3)))

    def _back_of_one_size(self, x: Array, grad: Array) -> Array:
        """Gradient of images of one size."""
        if self.clip_values is not None:
            out = self._padded(x)
            grad = np.where(out == self._clipped(out), grad, 0)
        mode, options = _padding(self.pad_mode, self.pad_kwargs)
        size = image_size(x.shape[1:], self._are_first)
        for axis, margins in zip((2, 3) if self._are_first else (1, 2), _margins(size), strict=True):
            if any(margins):
                lines = np.moveaxis(grad, axis, -1)
                own = self._for_axes(options, (axis, axis))
                grad = np.moveaxis(_pull_lines(np.moveaxis(x, axis, -1), lines, margins, mode, own), -1, axis)
        return grad

    def _clipped(self, out: Array) -> Array:
        if self.clip_values is None:
            return out
        check_limits(self.clip_values, out.shape)
        if out.dtype.kind == "f":
            return np.asarray(np.clip(out, *self.clip_values))
        return saturated(np.clip(out.astype(np.float64), *self.clip_values), out.dtype)

    def _for_axes(self, options: dict[str, Any], axes: tuple[int, ...]) -> dict[str, Any]:
        """Options of `numpy.pad` for axes of a batch: ART's are for height, width and channels."""
        rows = (0, 2, 0, 1) if self._are_first else (0, 0, 1, 2)
        return {
            name: [value[rows[axis]] for axis in axes] if np.shape(value)[:1] == (3,) else value
            for name, value in options.items()
        }

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
        return move_targets(  # type: ignore[return-value]
            y, draw, lambda boxes, i: _shift(boxes, draw[i]), lambda masks, i: _pad_masks(masks, draw[i])
        )

    def _output_shape(self, shape: Shape) -> Shape:
        side = max(image_size(shape[1:], self._are_first))
        return (*shape[:2], side, side) if self._are_first else (shape[0], side, side, shape[3])


def _margins(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels to add above and below, and left and right."""
    height, width = size
    missing = abs(height - width)
    margins = missing // 2, missing - missing // 2
    return (margins, (0, 0)) if height < width else ((0, 0), margins)


def _shift(boxes: Array, size: tuple[int, int]) -> Array:
    (top, _), (left, _) = _margins(size)
    dtype = boxes.dtype if boxes.dtype.kind == "f" else np.result_type(boxes.dtype, np.int32)  # no wrapping
    return np.asarray(boxes + np.array([left, top, left, top], dtype=dtype))


def _pad_masks(masks: Array, size: tuple[int, int]) -> Array:
    return np.pad(masks, [(0, 0)] * (masks.ndim - 2) + list(_margins(size)))


def _padding(mode: str, kwargs: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Mode and options in NumPy's words."""
    mode = OF_TORCH.get(mode.lower(), mode.lower())
    return mode, {"constant_values" if k == "value" else k: v for k, v in (kwargs or {}).items()}


def _check_padding(mode: object, kwargs: object) -> None:
    """Refuse what `numpy.pad` does not know, before it is called."""
    if not isinstance(mode, str) or _padding(mode, None)[0] not in (*LINEAR, *STATISTICS):
        legal = ", ".join(map(repr, sorted((*LINEAR, *STATISTICS, *OF_TORCH))))
        raise ArgumentError(f"`pad_mode` must be one of {legal}, got {mode!r}.")
    try:
        if kwargs is not None:
            _pad(np.zeros((2, 2, 2)), [(1, 1), (0, 0), (0, 0)], *_padding(mode, kwargs))  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"`pad_kwargs` must be None or a dict of arguments that numpy.pad takes with mode={mode!r}, got "
            f"{kwargs!r}: {error}."
        ) from None


def _pad(x: Array, margins: list[tuple[int, int]], mode: Any, options: dict[str, Any]) -> Array:
    return np.pad(x, margins, mode, **options)


def _pull_lines(x: Array, grad: Array, margins: tuple[int, int], mode: str, options: dict[str, Any]) -> Array:
    """Gradient of lines that were padded along the last axis."""
    length, before = x.shape[-1], margins[0]
    if mode not in ("constant", *STATISTICS):  # a matrix, whose columns are padded unit vectors
        options = {name: value for name, value in options.items() if name != "end_values"}
        return np.asarray(grad @ _pad(np.eye(length, dtype=grad.dtype), [margins, (0, 0)], mode, options))
    pulled = grad[..., before : before + length].copy()
    if mode in STATISTICS:
        reach = options.get("stat_length")
        reaches = np.broadcast_to(length if reach is None else np.asarray(reach), (2, 2))[0]
        first, last = (min(length, int(n)) for n in reaches)
        _pull_statistic(pulled[..., :first], x[..., :first], grad[..., :before], mode)
        _pull_statistic(
            pulled[..., length - last :], x[..., length - last :], grad[..., before + length :], mode
        )
    return pulled


def _pull_statistic(out: Array, x: Array, grad: Array, mode: str) -> None:
    """Add the gradient of a margin to the pixels whose maximum, median or minimum it is filled with."""
    last = x.shape[-1] - 1
    picks = {"minimum": (0,), "median": (last // 2, (last + 1) // 2), "maximum": (last,)}[mode]
    order = np.argsort(x, axis=-1, kind="stable")
    total = grad.sum(axis=-1, keepdims=True) / len(picks)
    for pick in picks:
        place = order[..., pick : pick + 1]
        np.put_along_axis(out, place, np.take_along_axis(out, place, -1) + total, -1)
