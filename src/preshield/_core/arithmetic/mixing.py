"""Weighted means of samples, and rectangles in images."""

from collections.abc import Sequence
from typing import Any

from .namespace import counted

__all__ = ["cut_and_pasted", "cut_out", "mixed"]


def cut_out(x: Any, xp: Any, boxes: Sequence[Any], axis: int) -> Any:
    """Set rectangles to zero, with the parameters of `cut_and_pasted`, one for each image or frame."""
    return xp.where(_inside(boxes, x.shape, axis, xp), xp.zeros_like(x), x)


def cut_and_pasted(x: Any, xp: Any, partners: Any, boxes: Sequence[Any], axis: int) -> Any:
    """Replace a rectangle of each image or video by that of another one.

    Parameters
    ----------
    x : array
        Images or videos.
    xp : namespace
        That of `x`.
    partners : array of int, shape (N,)
        From which sample each one gets it.
    boxes : sequence of array of int, shape (N,)
        Top, bottom, left and right; ends are excluded.
    axis : int
        Of the channels.
    """
    return xp.where(_inside(boxes, x.shape, axis, xp), xp.take(x, partners, axis=0), x)


def mixed(x: Any, xp: Any, shares: Any, orders: Any) -> Any:
    """Sum of the batch and of itself in other orders, each times its share.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    shares : array, shape (K + 1,)
        Weights, the first of the batch as it is.
    orders : array of int, shape (K, N)
        From which sample each of a mixture comes.
    """
    shares = xp.astype(shares, x.dtype, copy=False)
    total = shares[0] * x
    for k in range(orders.shape[0]):
        total = total + shares[k + 1] * xp.take(x, orders[k, :], axis=0)
    return total


def _inside(boxes: Sequence[Any], shape: Sequence[int], axis: int, xp: Any) -> Any:
    """Which pixels lie in rectangles, as an array that broadcasts against images or videos."""
    height, width = [n for i, n in enumerate(shape) if i != axis][-2:]
    marks = []
    for length, start, stop in ((height, *boxes[:2]), (width, *boxes[2:])):
        places = counted(length, start, xp)[None, :]
        marks.append((places >= start[:, None]) & (places < stop[:, None]))
    found = marks[0][:, :, None] & marks[1][:, None, :]
    frames = (shape[0], *(-1 for _ in shape[4:]), height, width)
    return xp.expand_dims(xp.reshape(found, frames), axis=axis)
