"""Total variance minimisation of planes, on a random choice of their pixels."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from ..layout import spatial_axes
from .borders import shifted
from .descent import minimise
from .draws import NativeDraws, below
from .namespace import clipped, constant, counted, doubled, stop_gradient, straight_through
from .planes import from_planes, to_planes
from .separable import filter_planes

__all__ = ["smooth"]


def smooth(
    x: Any,
    xp: Any,
    draw: NativeDraws,
    bound: int,
    norm: int,
    scale: float,
    method: str,
    max_iter: int,
    limits: Sequence[Any],
    axis: int,
    blurs: Sequence[Sequence[float]],
) -> Any:
    """Minimise for each channel the distance on chosen pixels plus the total variation, from `x` on.

    Parameters
    ----------
    x : array
        Images or videos, floating numbers.
    xp : namespace
        That of `x`.
    draw : NativeDraws
        Words, one for each value.
    bound : int
        Below which the word of a chosen pixel is.
    norm : int
        Of the rows and columns of differences.
    scale : float
        Weight of the total variation.
    method, max_iter
        As in `minimise`.
    limits : sequence of float or nested list
        Minimum and maximum to which the result is clipped, which broadcast against `x`; empty for none.
    axis : int
        Where the channels are.
    blurs : sequence of list of float
        Symmetric filters: at each distance from the middle, the weights of all of them. What is
        differentiated is, for each sample, the one that comes nearest to the result; the identity if empty.
    """
    planes = to_planes(stop_gradient(x), xp, axis)
    if norm == 1:  # of whose kinks rounding would choose a side
        planes = doubled(planes, xp)
    chosen = xp.reshape(below(draw.words(prod(x.shape[1:])), bound), planes.shape)
    weight = constant(scale, planes, xp)
    evaluate = partial(objective, x=planes, chosen=chosen, xp=xp, norm=norm, scale=weight)
    found = planes + minimise(evaluate, xp.zeros_like(planes), xp, method, max_iter)
    out = from_planes(xp.astype(found, x.dtype, copy=False), x, xp, axis)
    if limits:
        out = clipped(out, limits[0], limits[1], xp)
    return straight_through(out, _nearest(x, out, xp, blurs, axis) if blurs else x)


def _nearest(x: Any, out: Any, xp: Any, blurs: Sequence[Sequence[float]], axis: int) -> Any:
    """The blurred batch, of each sample the one that comes nearest to the result."""
    ones = (1,) * x.ndim
    taps = [xp.reshape(constant(list(weights), x, xp), (-1, *ones)) for weights in blurs]
    rows, columns = spatial_axes(x.ndim, axis)
    blurred = filter_planes(xp.expand_dims(x, axis=0), xp, taps, (rows + 1, columns + 1))
    delta = stop_gradient(blurred) - out
    errors = xp.sum(delta * delta, axis=tuple(range(2, blurred.ndim)), keepdims=True)
    chosen = xp.reshape(counted(len(blurs[0]), x, xp), (-1, *ones)) == xp.argmin(
        errors, axis=0, keepdims=True
    )
    return xp.sum(xp.where(chosen, blurred, xp.zeros_like(blurred)), axis=0)


def objective(delta: Any, x: Any, chosen: Any, xp: Any, norm: int, scale: Any) -> tuple[Any, Any]:
    """What is minimised, and its gradient: where nothing moves the chosen pixels, the least subgradient.

    It is a function of the displacement: the sum of both would have lost all but the first digits of one that
    is small, and the side of a kink with them.

    Parameters
    ----------
    delta, x, chosen : array, shape (P, H, W)
        Displacements, planes, and which pixels are chosen.
    xp, norm, scale
        As in `smooth`.

    Returns
    -------
    value : array, shape (P, 1, 1)
    grad : array, shape (P, H, W)
    """
    (vertical, rows), (horizontal, columns) = (
        _variation(delta, x, xp, along, norm, scale) for along in (1, 2)
    )
    moved = xp.where(chosen, delta, xp.zeros_like(delta))
    distance = xp.sqrt(xp.sum(moved * moved, axis=(1, 2), keepdims=True))
    away = distance > 1e-12  # a norm below that one counts as zero
    pull = moved / xp.where(away, distance, xp.ones_like(distance))
    grad = vertical + horizontal
    # At its kink the distance has any gradient up to length 1, which can take that much from the rest.
    length = xp.sqrt(xp.sum(xp.where(chosen, grad * grad, xp.zeros_like(grad)), axis=(1, 2), keepdims=True))
    kept = 1 - 1 / xp.where(length > 1, length, xp.ones_like(length))
    return distance + rows + columns, xp.where(away, grad + pull, xp.where(chosen, kept * grad, grad))


def _variation(delta: Any, x: Any, xp: Any, along: int, norm: int, scale: Any) -> tuple[Any, Any]:
    """`scale` times the sum of the norms of the differences along an axis: the gradient, and the sum."""
    length, across = x.shape[along] - 1, 3 - along
    of_x, moved = (shifted(a, 1, length, along) - shifted(a, 0, length, along) for a in (x, delta))
    d = of_x + moved
    zero, magnitude = xp.zeros_like(d), xp.abs(d)
    if norm == 1:
        size = xp.sum(magnitude, axis=across, keepdims=True)
    elif norm == 2:
        size = xp.sqrt(xp.sum(d * d, axis=across, keepdims=True))
    else:
        most = xp.max(magnitude, axis=across, keepdims=True)
        part = magnitude / xp.where(most > 0, most, xp.ones_like(most))  # powers of which do not vanish
        size = most * xp.sum(part**norm, axis=across, keepdims=True) ** (1 / norm)
    some = size > 1e-12
    slope = scale * (magnitude / xp.where(some, size, xp.ones_like(size))) ** (norm - 1)
    slope = xp.where(some, xp.where(d > 0, slope, xp.where(d < 0, -slope, zero)), zero)
    edge = xp.zeros_like(shifted(x, 0, 1, along))
    grad = xp.concat([edge, slope], axis=along) - xp.concat([slope, edge], axis=along)
    return grad, scale * xp.sum(size, axis=(1, 2), keepdims=True)
