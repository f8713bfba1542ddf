"""A box of each image resized into a box of another one, which is zero elsewhere."""

from typing import Any

from .namespace import counted, gathered

__all__ = ["resized_boxes"]


def resized_boxes(
    x: Any,
    xp: Any,
    target: Any = None,
    source: Any = None,
    *,
    size: tuple[int, int],
    axis: int,
    linear: bool,
) -> Any:
    """Resize by the nearest pixel, or between two along each axis.

    Parameters
    ----------
    x : array
        Images.
    xp : namespace
        That of `x`.
    target, source : sequence of array of int, shape (N,), or None
        Top, bottom, left and right of boxes of the result and of the images; ends are excluded. None, for
        one of them, stands for all of an image.
    size : tuple of int
        Height and width of the result.
    axis : int
        Of the channels.
    linear : bool
        Whether to interpolate.
    """
    first, exact = 2 if axis == 1 else 1, x.dtype
    rounds = linear and not xp.isdtype(exact, "real floating")
    if rounds:  # integers of 16 bits at most
        x = xp.astype(x, xp.float32)
    for k, length in enumerate(size):
        into, of = (None if boxes is None else boxes[2 * k : 2 * k + 2] for boxes in (target, source))
        x = _along(x, xp, first + k, length, into, of, linear=linear)
    return xp.astype(xp.round(x), exact) if rounds else x


def _along(x: Any, xp: Any, side: int, length: int, target: Any, source: Any, *, linear: bool) -> Any:
    """The same along one axis."""
    old = x.shape[side]
    zeros = xp.zeros_like((source if target is None else target)[0])
    start, stop = (zeros, zeros + length) if target is None else target
    begin, end = (zeros, zeros + old) if source is None else source
    new, old = (stop - start)[:, None], (end - begin)[:, None]
    place = counted(length, start, xp)[None, :] - start[:, None]
    inside = (place >= 0) & (place < new)
    place = xp.minimum(xp.maximum(place, xp.zeros_like(place)), new - 1)
    shape = [1] * x.ndim
    shape[0], shape[side] = place.shape

    def picked(pixel: Any) -> Any:
        pixel = xp.minimum(xp.maximum(pixel, xp.zeros_like(pixel)), old - 1) + begin[:, None]
        full = (*x.shape[:side], length, *x.shape[side + 1 :])
        return gathered(x, xp.broadcast_to(xp.reshape(pixel, tuple(shape)), full), side, xp)

    if linear:
        middle, whole = (2 * place + 1) * old - new, 2 * new
        low = middle // whole
        share = xp.astype(middle - low * whole, x.dtype) / xp.astype(whole, x.dtype)
        share = xp.reshape(share, tuple(shape))
        out = picked(low) * (1 - share) + picked(low + 1) * share
    else:
        out = picked(place * old // new)
    return xp.where(xp.reshape(inside, tuple(shape)), out, xp.zeros_like(out))
