"""Rectangles in images, some of whose parts may lie outside."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .draws import Draws
from .typing import Shape

__all__ = ["Boxes", "draw_boxes"]


class Boxes(NamedTuple):
    """The part inside the image of one rectangle for each image; ends are excluded."""

    top: Any
    bottom: Any
    left: Any
    right: Any

    def __len__(self) -> int:
        """The number of rectangles."""
        return len(self.top)

    def slices(self, i: int) -> tuple[slice, slice]:
        """Rows and columns of one rectangle."""
        return slice(self.top[i], self.bottom[i]), slice(self.left[i], self.right[i])

    def areas(self) -> Any:
        """Pixels in each."""
        return (self.bottom - self.top) * (self.right - self.left)


def draw_boxes(rng: Draws, grid: Shape, image: Sequence[int], size: Sequence[Any]) -> Boxes:
    """Rectangles of `size` whose middles are uniform over the pixels of an image.

    Parameters
    ----------
    rng : Draws
        Drawn from.
    grid : tuple of int
        Samples, and rectangles of each.
    image, size : sequence of int
        Height and width of the image, and of a rectangle before what lies outside is cut off.
    """
    xp: Any = rng.xp
    sides = []
    for length, side in zip(image, size, strict=True):
        start = xp.reshape(rng.integers(0, max(1, length), grid), (-1,)) - side // 2
        sides += [xp.clip(start, 0, length), xp.clip(start + side, 0, length)]
    return Boxes(*sides)
