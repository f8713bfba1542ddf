"""Images and videos as planes, one for each channel of each frame, as draws are numbered."""

from typing import Any

__all__ = ["from_planes", "to_planes"]


def to_planes(x: Any, xp: Any, axis: int) -> Any:
    """Images or videos, their channels on `axis`, in the shape (N * frames * channels, H, W)."""
    ordered = xp.permute_dims(x, _order(x.ndim, axis))
    return xp.reshape(ordered, (-1, *ordered.shape[-2:]))


def from_planes(planes: Any, x: Any, xp: Any, axis: int) -> Any:
    """Undo `to_planes`, in the shape of `x`."""
    order = _order(x.ndim, axis)
    ordered = xp.reshape(planes, tuple(x.shape[side] for side in order))
    return xp.permute_dims(ordered, tuple(order.index(side) for side in range(x.ndim)))


def _order(ndim: int, axis: int) -> tuple[int, ...]:
    """Samples, frames, channels, rows and columns."""
    order = [side for side in range(ndim) if side != axis]
    order.insert(ndim - 3, axis)
    return tuple(order)
