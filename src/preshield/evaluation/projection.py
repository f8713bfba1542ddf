"""Points nearest to samples: on hyperplanes within a box, and in balls; for arrays of any framework."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._core.typing import Array
from .perturbations import between, for_each, norms, scaled

__all__ = ["nearest_in_ball", "nearest_on_plane"]


def nearest_on_plane(x: Any, normals: Any, rise: Array, clip_values: tuple[float, float], norm: str) -> Any:
    """Move each sample as little as possible, within the range, to a hyperplane of its own.

    Parameters
    ----------
    x : array, shape (N, ...)
        Samples within `clip_values`.
    normals : array, like x
        Normal of each hyperplane, finite. Where it is zero the sample stays.
    rise : ndarray of float, shape (N,)
        Inner product of the normal with the perturbation, on the hyperplane; of either sign. If the range
        does not allow it, the sample goes to the corner that comes nearest.
    clip_values : tuple of float
        Smallest and largest value of a moved sample.
    norm : str
        Of the perturbation, which is to be small: "l2", "linf" or "l1".

    Returns
    -------
    array, like x

    Notes
    -----
    Each component goes down the normal, or up, as far as the range lets it at most. For L2 and L-inf the
    components that the range does not stop move by a common multiple of the normal, or of its sign. The
    multiple solves a concave piecewise linear equation, and Newton's method finds it from below: each step
    solves for those that are not stopped yet, which only become fewer. For L1 the steepest components move
    to the end of the range, one after the other.
    """
    xp = array_namespace(x)
    sizes = norms(normals, "linf")
    sizes = np.where(sizes > 0, sizes, 1)
    flat = xp.reshape(x, (len(x), -1))
    normals = xp.reshape(normals / for_each(sizes, normals), flat.shape)  # a factor 1 / size could overflow
    directions = xp.sign(scaled(normals, np.where(rise < 0, -1, 1)))
    slopes = xp.abs(normals)
    room = xp.abs(directions) * xp.where(directions > 0, clip_values[1] - flat, flat - clip_values[0])
    most = xp.sum(slopes * room, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        wanted = xp.reshape(for_each(np.abs(rise) / sizes, flat), (-1, 1))
    reached, wanted = wanted < most, xp.minimum(wanted, most)
    if norm == "l1":
        moves = _steepest_first(slopes, room, wanted)
    else:
        moves = _together(slopes, room, wanted, slopes if norm == "l2" else xp.ones_like(slopes))
    # A sum in floating point may leave the range by its last bit.
    moved = xp.clip(flat + directions * xp.where(reached, moves, room), *clip_values)
    return xp.reshape(moved, x.shape)


def _together(slopes: Any, room: Any, wanted: Any, speeds: Any) -> Any:
    """Moves ``min(multiple * speeds, room)`` whose inner product with the slopes is what is wanted."""
    xp = array_namespace(slopes)
    zero = xp.zeros_like(slopes)
    multiple, stopped = xp.zeros_like(wanted), room <= 0
    while True:
        left = wanted - xp.sum(xp.where(stopped, slopes * room, zero), axis=1, keepdims=True)
        slope = xp.sum(xp.where(stopped, zero, slopes * speeds), axis=1, keepdims=True)
        solution = xp.where(slope > 0, left / xp.where(slope > 0, slope, 1 + slope), multiple)
        if not bool(xp.any(solution > multiple)):
            return xp.where(stopped, room, multiple * speeds)
        multiple = xp.maximum(multiple, solution)
        stopped = stopped | (multiple * speeds >= room)


def _steepest_first(slopes: Any, room: Any, wanted: Any) -> Any:
    """Moves of the smallest sum whose inner product with the slopes is what is wanted."""
    xp = array_namespace(slopes)
    order = xp.argsort(slopes, axis=1, descending=True, stable=True)
    ranked, most = xp.take_along_axis(slopes, order, axis=1), xp.take_along_axis(room, order, axis=1)
    gains = ranked * most
    left = wanted - (xp.cumulative_sum(gains, axis=1) - gains)  # to be gained when this one's turn comes
    share = xp.maximum(left, 0 * left) / xp.where(ranked > 0, ranked, 1 + ranked)
    return xp.take_along_axis(xp.minimum(share, most), xp.argsort(order, axis=1), axis=1)


def nearest_in_ball(x: Any, moved: Any, radii: Array, norm: str) -> Any:
    """Move points as little as possible in L2, to within a distance of their samples.

    Parameters
    ----------
    x, moved : array, shape (N, ...)
        Samples, and a point for each.
    radii : ndarray of float, shape (N,)
        Largest distance, at least 0.
    norm : str
        Of the distance: "l2", "linf" or "l1".

    Returns
    -------
    array, like x

    Notes
    -----
    For L1 all components come nearer by a common length, and stop at 0: as many of the largest move as still
    exceed the length that brings them to the ball.
    """
    xp = array_namespace(x)
    limits = for_each(radii, x)
    if norm == "linf":
        return xp.minimum(xp.maximum(moved, x - limits), x + limits)
    lengths = norms(moved - x, norm)
    if norm == "l2":
        return between(x, moved, np.minimum(1, radii / np.where(lengths > 0, lengths, 1)))
    magnitudes = xp.reshape(xp.abs(moved - x), (len(x), -1))
    ranked = xp.sort(magnitudes, axis=1, descending=True)
    counts = xp.cumulative_sum(xp.ones_like(ranked), axis=1)
    excess = (xp.cumulative_sum(ranked, axis=1) - xp.reshape(limits, (-1, 1))) / counts
    shift = xp.max(xp.maximum(excess, 0 * excess), axis=1, keepdims=True)
    left = xp.maximum(magnitudes - shift, 0 * magnitudes)
    return x + xp.sign(moved - x) * xp.reshape(left, x.shape)
