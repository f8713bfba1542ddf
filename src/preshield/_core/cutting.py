"""Rectangles in images, some of whose parts may lie outside."""

from typing import NamedTuple

import numpy as np

from .draws import Draws
from .typing import Array, Shape

__all__ = ["Boxes", "draw_boxes"]


class Boxes(NamedTuple):
    """The part inside the image of one rectangle for each image; ends are excluded."""

    top: Array
    bottom: Array
    left: Array
    right: Array

    def __len__(self) -> int:
        """The number of rectangles."""
        return len(self.top)

    def slices(self, i: int) -> tuple[slice, slice]:
        """Rows and columns of one rectangle."""
        return slice(self.top[i], self.bottom[i]), slice(self.left[i], self.right[i])

    def areas(self) -> Array:
        """Pixels in each."""
        return np.asarray((self.bottom - self.top) * (self.right - self.left))


def draw_boxes(rng: Draws, grid: Shape, image: tuple[int, int], size: tuple[int, int]) -> Boxes:
    """Rectangles of `size` whose middles are uniform over the pixels of an image.

    Parameters
    ----------
    rng : Draws
        Drawn from.
    grid : tuple of int
        Samples, and rectangles of each.
    image, size : tuple of int
        Height and width of the image, and of a rectangle before what lies outside is cut off.
    """
    sides = []
    for length, side in zip(image, size, strict=True):
        start = rng.integers(0, max(1, length), grid).reshape(-1) - side // 2
        sides += [np.clip(start, 0, length), np.clip(start + side, 0, length)]
    return Boxes(*sides)
