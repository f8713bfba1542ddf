"""Total variance minimisation of planes, on a random choice of their pixels."""

from functools import partial
from typing import Any

from .borders import shifted
from .descent import minimise

__all__ = ["smooth"]

TINY = 1e-12  # a norm below this one counts as zero


def smooth(planes: Any, xp: Any, chosen: Any, norm: int, scale: float, method: str, max_iter: int) -> Any:
    """Minimise the distance on the chosen pixels plus the total variation, from each plane on.

    Parameters
    ----------
    planes : array, shape (P, H, W)
        Of which nothing is differentiated.
    xp : namespace
        That of `planes`.
    chosen : array of bool, shape (P, H, W)
    norm : int
        Of the rows and columns of differences.
    scale : float
        Weight of the total variation.
    method, max_iter
        As in `minimise`.
    """
    evaluate = partial(objective, xp=xp, norm=norm, scale=scale)
    return minimise(evaluate, planes, (planes, chosen), xp, method, max_iter)


def objective(z: Any, x: Any, chosen: Any, xp: Any, norm: int, scale: float) -> tuple[Any, Any]:
    """What is minimised, and its gradient: where `z` equals `x` on the chosen pixels, the least subgradient.

    Parameters
    ----------
    z, x, chosen : array, shape (P, H, W)
    xp, norm, scale
        As in `smooth`.

    Returns
    -------
    value : array, shape (P, 1, 1)
    grad : array, shape (P, H, W)
    """
    down, vertical = _variation(z[:, 1:] - z[:, :-1], xp, 2, norm, scale)
    right, horizontal = _variation(z[:, :, 1:] - z[:, :, :-1], xp, 1, norm, scale)
    delta = xp.where(chosen, z - x, xp.zeros_like(z))
    distance = xp.sqrt(xp.sum(delta * delta, axis=(1, 2), keepdims=True))
    away = distance > TINY
    pull = delta / xp.where(away, distance, xp.ones_like(distance))
    zeros = xp.zeros_like(z)
    grad = _spread(down, xp, 1, zeros[:, :1]) + _spread(right, xp, 2, zeros[:, :, :1])
    # At its kink the distance has any gradient up to length 1, which can take that much from the rest.
    length = xp.sqrt(xp.sum(xp.where(chosen, grad * grad, xp.zeros_like(grad)), axis=(1, 2), keepdims=True))
    kept = xp.where(length > 1, 1 - 1 / length, xp.zeros_like(length))
    return distance + vertical + horizontal, xp.where(away, grad + pull, xp.where(chosen, kept * grad, grad))


def _variation(d: Any, xp: Any, axis: int, norm: int, scale: float) -> tuple[Any, Any]:
    """The derivative of the sum of norms along an axis, and that sum, both times `scale`."""
    zero, magnitude = xp.zeros_like(d), xp.abs(d)
    if norm == 1:
        size = xp.sum(magnitude, axis=axis, keepdims=True)
    elif norm == 2:
        size = xp.sqrt(xp.sum(d * d, axis=axis, keepdims=True))
    else:
        most = xp.max(magnitude, axis=axis, keepdims=True)
        part = magnitude / xp.where(most > 0, most, xp.ones_like(most))  # powers of which do not vanish
        size = most * xp.sum(part**norm, axis=axis, keepdims=True) ** (1 / norm)
    slope = scale * (magnitude / xp.where(size > TINY, size, xp.ones_like(size))) ** (norm - 1)
    slope = xp.where(size > TINY, xp.where(d > 0, slope, xp.where(d < 0, -slope, zero)), zero)
    return slope, scale * xp.sum(size, axis=(1, 2), keepdims=True)


def _spread(slope: Any, xp: Any, axis: int, edge: Any) -> Any:
    """The derivative with respect to pixels, by that with respect to the differences along an axis."""
    edged = xp.concat([edge, slope, edge], axis=axis)
    length = edged.shape[axis] - 1
    return shifted(edged, 0, length, axis) - shifted(edged, 1, length, axis)
