"""Pixels overwritten with neighbours, one after the other, and all of them at once."""

from math import prod
from typing import Any

from ..typing import Arithmetic
from .draws import NativeDraws, below, product
from .namespace import constant, counted, running_sum, scattered, sent, stop_gradient, straight_through
from .planes import from_planes, to_planes

__all__ = ["DRAWS", "deflected"]

DRAWS = 4  # random words behind one deflection: one each for a row or a column


def deflected(
    x: Any,
    xp: Any,
    draw: NativeDraws,
    count: int,
    window: int,
    axis: int,
    chances: Any,
    denoise: Arithmetic | None,
    gradient: str,
) -> Any:
    """Overwrite pixels of each channel of each frame with others of their neighbourhood, and denoise.

    Parameters
    ----------
    x : array
        Images or videos, floating numbers.
    xp : namespace
        That of `x`.
    draw : NativeDraws
        `DRAWS` words for each deflection.
    count : int
        Deflections of a channel.
    window : int
        How far away a source may lie, in rows and in columns.
    axis : int
        Where the channels are.
    chances : ndarray or list of int, or None
        For each pixel, with which probability it is left alone: as what words are compared with.
    denoise : callable or None
        A function of the batch and its namespace.
    gradient : {"identity", "exact"}
        What is differentiated.
    """
    out = stop_gradient(x) if gradient == "identity" else x
    if count:
        planes = to_planes(out, xp, axis)
        height, width = planes.shape[1:]
        of_sample = prod(x.shape[1:]) // (height * width) * count * DRAWS
        words = xp.reshape(draw.words(of_sample), (-1, count, DRAWS))
        origins = _origins(*_picked(words, xp, height, width, window, chances), xp, height * width)
        moved = xp.take_along_axis(xp.reshape(planes, (-1, height * width)), origins, axis=1)
        out = from_planes(xp.reshape(moved, planes.shape), x, xp, axis)
    if denoise is not None:
        out = denoise(out, xp)
    return straight_through(out, x) if gradient == "identity" else out


def _picked(words: Any, xp: Any, height: int, width: int, window: int, chances: Any) -> tuple[Any, Any]:
    """Which pixels are written and which ones are read, by their numbers; one left alone reads itself."""
    row, column = product(words[..., 0], height)[0], product(words[..., 1], width)[0]
    source = [
        _near(place, words[..., 2 + k], xp, side, window)
        for k, (place, side) in enumerate(((row, height), (column, width)))
    ]
    written, read = row * width + column, source[0] * width + source[1]
    if chances is not None:
        bounds = constant(chances, words, xp) if isinstance(chances, list) else sent(chances, words, xp)
        bounds = xp.reshape(xp.take(bounds, xp.reshape(written, (-1,))), written.shape)
        # Where in its share a word lies says no more of the row.
        alone = below(product(words[..., 0], height)[1], bounds)
        read = xp.where(alone, written, read)
    return written, read


def _near(place: Any, word: Any, xp: Any, side: int, window: int) -> Any:
    """A row or a column of the window around one, as far as it lies inside."""
    first = xp.where(place > window, place - window, xp.zeros_like(place))
    last = xp.where(place < side - window, place + window, xp.full_like(place, side - 1))
    return first + product(word, last - first + 1)[0]


def _origins(written: Any, read: Any, xp: Any, pixels: int) -> Any:
    """Which pixel each one has the value of in the end, shape (P, pixels).

    Parameters
    ----------
    written, read : array of int, shape (P, K)
        Pixels of each of K steps, one after the other.
    """
    by_pixel = xp.argsort(written, axis=1, stable=True)  # writes, of one pixel in order
    written, read = (xp.astype(pixel, by_pixel.dtype) for pixel in (written, read))

    # What a step reads was written last by the last write that is sorted before it, if that is to this pixel.
    planes, count = written.shape
    events = xp.reshape(xp.stack([read, written], axis=2), (planes, 2 * count))
    order = xp.argsort(events, axis=1, stable=True)
    writes = running_sum(order % 2, 1, xp)
    before = xp.take_along_axis(writes, xp.argsort(order, axis=1)[:, ::2], axis=1)
    last = xp.where(before > 0, before - 1, xp.zeros_like(before))
    last = xp.take_along_axis(by_pixel, last, axis=1)
    is_copy = (before > 0) & (xp.take_along_axis(written, last, axis=1) == read)

    # From step to step, twice as far each time, to the one that read what nobody had written.
    steps = xp.zeros_like(last) + xp.astype(counted(count, written, xp), last.dtype)
    steps = xp.where(is_copy, last, steps)
    for _ in range((count - 1).bit_length()):
        steps = xp.take_along_axis(steps, steps, axis=1)
    origin = xp.take_along_axis(read, xp.take_along_axis(steps, by_pixel, axis=1), axis=1)

    # The last write to each pixel counts; the others go to a place behind the pixels.
    pixel = xp.take_along_axis(written, by_pixel, axis=1)
    is_last = xp.concat([pixel[:, 1:] != pixel[:, :-1], pixel[:, :1] >= 0], axis=1)
    place = xp.where(is_last, pixel, xp.full_like(pixel, pixels))
    own = xp.astype(counted(pixels + 1, written, xp), pixel.dtype) + xp.zeros_like(pixel[:, :1])
    return scattered(own, place, origin, xp)[:, :pixels]
