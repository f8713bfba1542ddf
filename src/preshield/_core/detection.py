"""Targets of object detectors, which move with their images: boxes and masks."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .checks import check_option, check_values
from .errors import ArgumentError
from .tensors import framework, like, to_numpy
from .typing import Array, Shape

__all__ = ["OBJECT_DETECTION", "check_label_type", "image_size", "image_sizes", "move_targets"]

OBJECT_DETECTION = "object_detection"
LABEL_TYPES = ("classification", OBJECT_DETECTION)

Move = Callable[[Array, int], Array]  # from an array and the number of its image


def check_label_type(label_type: object) -> None:
    """Refuse what is neither None nor one of the kinds of labels."""
    if label_type is not None:
        check_option("label_type", label_type, LABEL_TYPES)


def image_size(shape: Shape, channels_first: bool) -> tuple[int, int]:
    """Height and width of one image."""
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def image_sizes(x: Array, channels_first: bool) -> list[tuple[int, int]]:
    """Height and width of each image of a batch."""
    if x.dtype == object:
        return [image_size(image.shape, channels_first) for image in x]
    return [image_size(x.shape[1:], channels_first)] * len(x)


def move_targets(y: Any, sizes: Sequence[tuple[int, int]], boxes: Move, masks: Move) -> list[dict[str, Any]]:
    """Targets after their images have been resized or padded.

    Parameters
    ----------
    y : sequence of dict
        For each image "boxes" `(M, 4)`, as x1, y1, x2, y2 in pixels, and possibly "masks" `(M, H, W)`, in
        arrays or tensors of any framework. Other entries are copied.
    sizes : sequence of tuple of int
        Height and width of each image before.
    boxes, masks : callable
        What becomes of boxes and masks.

    Returns
    -------
    list of dict
        New dicts with entries of their own, in the framework and on the device of the old ones.
    """
    targets = list(y)
    for i, target in enumerate(targets):
        if not isinstance(target, Mapping) or "boxes" not in target:
            got = f"the keys {sorted(target)}" if isinstance(target, Mapping) else type(target).__name__
            raise ArgumentError(
                "`y` must be a list with a dict for each image, of 'boxes' and 'labels', with "
                f"label_type={OBJECT_DETECTION!r}; got {got} in y[{i}]. Pass label_type='classification' for "
                "labels that do not move with the image."
            )
    moved = []
    for i, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        new = {key: _copy(value) for key, value in target.items() if key not in ("boxes", "masks")}
        new["boxes"] = _moved(f"y[{i}]['boxes']", target["boxes"], size, boxes, i)
        if target.get("masks") is not None:
            new["masks"] = _moved(f"y[{i}]['masks']", target["masks"], size, masks, i)
        moved.append({key: new.get(key) for key in target})
    return moved


def _moved(name: str, value: Any, size: tuple[int, int], move: Move, number: int) -> Any:
    array = to_numpy(value)
    check_values(name, array)
    if name.endswith("['boxes']"):
        if array.ndim != 2 or array.shape[1] != 4:
            raise ArgumentError(f"`{name}` must have shape (M, 4), got {array.shape}.")
    elif array.ndim < 2 or array.shape[-2:] != size:
        raise ArgumentError(f"`{name}` must have shape {('M', *size)}, as its image, got {array.shape}.")
    return like(value, np.array(move(array, number)))


def _copy(value: Any) -> Any:
    return value.clone() if framework(value) == "torch" else copy.deepcopy(value)
