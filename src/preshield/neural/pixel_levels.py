"""Images in [0, 1] and their levels of 8 bits."""

from typing import Any

import numpy as np

from .._core.checks import check_batch
from .._core.errors import ArgumentError
from .._core.typing import Array

__all__ = ["check_images", "to_images", "to_levels"]


def check_images(x: Any, layout: str = "NHWC") -> Array:
    """Refuse what is not a batch in this layout of `uint8` or of floats in [0, 1]; return it as an array."""
    images = check_batch(x, ("image",), None, layout=layout)
    if images.dtype != np.uint8 and (
        images.dtype.kind not in "bf" or images.min(initial=0) < 0 or images.max(initial=0) > 1
    ):
        values = f" from {images.min()} to {images.max()}" if images.size else ""
        raise ArgumentError(
            f"`x` must hold images as uint8 or as floats in [0, 1], got {images.dtype}{values}."
        )
    return images


def to_levels(images: Array) -> Array:
    """Round floats in [0, 1] to `uint8`, in an array of their own and in C order, as kernels expect it."""
    if images.dtype == np.uint8:
        return np.array(images, order="C")
    return np.rint(images * np.float32(255)).astype(np.uint8, order="C")


def to_images(levels: Array) -> Array:
    """Bring `uint8` to `float32` in [0, 1], in an array of their own; floats stay where they are."""
    if levels.dtype != np.uint8:
        return levels.astype(np.float32, order="C")
    images: Array = levels / np.float32(255)
    return images
