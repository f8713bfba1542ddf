"""Images in [0, 1] and their levels of 8 bits."""

import numpy as np

from .._core.typing import Array

__all__ = ["to_images", "to_levels"]


def to_levels(images: Array) -> Array:
    """Round floats in [0, 1] to `uint8`, in an array of its own and in C order, as kernels expect it."""
    return np.rint(images * np.float32(255)).astype(np.uint8, order="C")


def to_images(levels: Array) -> Array:
    """Bring `uint8` to `float32` in [0, 1]."""
    images: Array = levels / np.float32(255)
    return images
