"""Square Attack."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from itertools import product
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_index,
    check_integer,
    check_option,
    check_values,
)
from .._core.errors import ArgumentError
from .._core.typing import Array, ClipValues, Shape

__all__ = ["square_attack"]

FIRST_SHARE = {"linf": 0.8, "l2": 0.1}  # of the positions that a window covers at first
# Fractions of the budget after which it halves.
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
TINY = 1e-150  # in place of a norm of 0
TRIES = 8  # proposals that change nothing before one is put to the model all the same


def square_attack(
    x: Array,
    margin: Callable[[Array, Array], Array],
    *,
    norm: str,
    eps: ArrayLike,
    clip_values: ClipValues,
    channels_first: bool = False,
    queries: int = 200,
    enough: float = 0.0,
    seed: int = 0,
    numbers: Array | None = None,
    on_query: Callable[[float], None] = lambda done: None,
) -> Array:
    """Random search for a misclassified sample within a ball, without gradients [1]_.

    A proposal changes one window of the best sample so far, and is kept if the margin does not grow.
    L-infinity: the window moves to a corner of the ball, one sign for each channel; the first proposal is
    vertical stripes. L2: the window receives a bump, and the norm that a second window gives up; the first
    proposal is a grid of bumps. Windows shrink as the budget is spent.

    Parameters
    ----------
    x : ndarray of float, shape (N, ...)
        Samples within `clip_values`: images (H, W, C), clips (F, H, W, C), waveforms (L,) or (L, C), features
        (D,).
    margin : callable
        ``margin(points, rows)``, shape (len(rows),): positive where ``points`` are classified correctly,
        negative where the attack has succeeded; ``points[i]`` is a perturbed ``x[rows[i]]``. Each call is one
        query for each of its rows.
    norm : {"linf", "l2"}
        Norm of the ball.
    eps : float or ndarray, shape (N,)
        Its radius, or one radius for each sample. A sample with radius 0 is returned as it is.
    clip_values : tuple
        Minimum and maximum: numbers, or arrays that broadcast against a sample.
    channels_first : bool, default False
        Whether the channels are the first axis of a sample and not the last.
    queries : int, default 200
        Most queries for each sample, the first of them at `x` itself.
    enough : float, default 0.0
        The search for a sample ends below this margin; -inf spends all queries.
    seed : int, default 0
        What a sample is perturbed by depends on it, on the number and on the margins of that sample alone.
    numbers : ndarray of int, shape (N,), optional
        Numbers of the samples in the data set; those of the rows if omitted.
    on_query : callable
        Called with the fraction of the budget that is spent.

    Returns
    -------
    ndarray, shape (N, ...), dtype of `x`
        The sample with the smallest margin that was found.

    Raises
    ------
    TypeError
        If `x` is not floating, or a parameter has the wrong type.
    ValueError
        If `x` is not finite or outside `clip_values`, a parameter is outside its legal values, or `margin`
        returns NaN or the wrong shape.

    Notes
    -----
    Written for this package because SquareAttack of the Adversarial Robustness Toolbox 1.20.1 takes images
    only, spends three predictions on a query, puts one window on the whole batch, and divides by zero in its
    L2 proposals: samples come back as NaN where the model's ReLU turns NaN into 0, as TensorFlow's does.

    References
    ----------
    .. [1] Andriushchenko, Croce, Flammarion, Hein. Square Attack: a query-efficient black-box adversarial
       attack via random search. ECCV 2020. arXiv:1912.00049

    Examples
    --------
    A model that classifies an image as right while its mean is above 0.4:

    >>> x = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    >>> found = square_attack(
    ...     x,
    ...     lambda points, rows: points.mean(axis=(1, 2, 3)) - 0.4,
    ...     norm="linf",
    ...     eps=0.2,
    ...     clip_values=(0, 1),
    ... )
    >>> bool(found.mean() < 0.4), round(float(np.abs(found - x).max()), 6)
    (True, 0.2)
    """
    radius, low, high = _checked(x, norm, eps, clip_values, channels_first, queries, seed)
    start, move = (_stripes, _square) if norm == "linf" else (_bump_grid, _moved_mass)
    origins = _channels_last(x, channels_first)
    generators = [
        np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(int(number),)))
        for number in (range(len(x)) if numbers is None else numbers)
    ]
    best, smallest, active = np.array(x), np.full(len(x), np.inf), np.flatnonzero(radius)
    for query in range(int(queries)):
        if not len(active):
            break
        propose = start if query == 1 else move
        sides = _sides(origins.shape[1:-1], norm, (query - 2) / queries)
        points = best[active]
        for row, point in zip(active, _channels_last(points, channels_first), strict=True):
            for _ in range(TRIES if query else 0):  # the first query is `x` itself
                delta = np.subtract(point, origins[row], dtype=np.float64)
                delta = propose(delta, radius[row], sides, generators[row])
                proposal = _shifted(origins[row], delta, low, high)
                if (proposal != point).any():
                    point[...] = proposal
                    break
        margins = _asked(margin, points, active)
        # Equal margins are taken too: defences that quantise make plateaus, and the search must cross them.
        better = margins <= smallest[active]
        best[active[better]], smallest[active[better]] = points[better], margins[better]
        active = active[smallest[active] >= enough]
        on_query((query + 1) / queries)
    on_query(1.0)
    return best


def _stripes(delta: Array, eps: float, sides: Shape, rng: np.random.Generator) -> Array:
    """A corner of the ball: one sign for each column and channel."""
    delta[...] = eps * _signs(delta.shape[-2:], rng)
    return delta


def _square(delta: Array, eps: float, sides: Shape, rng: np.random.Generator) -> Array:
    """One window moved to a corner of the ball: one sign for each channel."""
    delta[_window(delta.shape, sides, rng)] = eps * _signs(delta.shape[-1:], rng)
    return delta


def _bump_grid(delta: Array, eps: float, sides: Shape, rng: np.random.Generator) -> Array:
    """Bumps side by side, five or more along each axis."""
    sides = tuple(max(length // 5, 1) for length in delta.shape[:-1])
    starts = [range(n % side // 2, n - side + 1, side) for n, side in zip(delta.shape, sides, strict=False)]
    for corner in product(*starts):
        delta[_slices(corner, sides)] = _signed_bump(sides, delta.shape[-1], rng)
    return _scaled(delta, eps)


def _moved_mass(delta: Array, eps: float, sides: Shape, rng: np.random.Generator) -> Array:
    """A bump added in one window, paid for with the norm of another and with what is left of `eps`."""
    first, second = (_window(delta.shape, sides, rng) for _ in range(2))
    bump = _directions(_signed_bump(sides, delta.shape[-1], rng) + _directions(delta[first]))
    mass = np.full(delta.shape[-1], max(eps**2 - np.sum(delta**2), 0) / delta.shape[-1])  # squared norms
    for window in (first, second):
        mass += np.sum(delta[window] ** 2, axis=tuple(range(len(sides))))
        delta[window] = 0  # so that an overlap counts once
    delta[first] = np.sqrt(mass) * bump
    return _scaled(delta, eps)


def _signed_bump(sides: Shape, channels: int, rng: np.random.Generator) -> Array:
    """A bump along a random axis, with a sign for each channel, shape (*sides, channels)."""
    return _bump(sides, int(rng.integers(len(sides))))[..., None] * _signs((channels,), rng)


@lru_cache(maxsize=8)
def _bump(sides: Shape, axis: int) -> Array:
    """Two pyramids side by side along `axis`, one up, one down, of norm 1 together."""
    half = sides[axis] // 2
    distances = [_from_middle(length) for length in sides]
    distances[axis] = np.concatenate([_from_middle(half), _from_middle(sides[axis] - half)])
    distance: Array = reduce(np.maximum, np.ix_(*distances))
    farthest = int(distance.max())
    bump: Array = np.cumsum(1.0 / np.arange(farthest + 1, 0, -1) ** 2)[farthest - distance]
    for sign, pyramid in zip((1, -1), np.split(bump, [half], axis), strict=True):
        pyramid *= sign / max(float(np.linalg.norm(pyramid)), TINY)
    bump /= np.linalg.norm(bump)
    bump.flags.writeable = False
    return bump


def _from_middle(length: int) -> Array:
    return abs(np.arange(length) - length // 2)


def _sides(shape: Shape, norm: str, spent: float) -> Shape:
    """Sides of a window that is a cube, but for axes that are too short: the others make up for them."""
    volume = prod(shape) * FIRST_SHARE[norm] / 2 ** bisect_left(HALVINGS, spent)
    for shorter, length in enumerate(sorted(shape)):
        side = round(volume ** (1 / (len(shape) - shorter)))
        if side <= length:
            break
        volume /= length
    side = max(side, 1) if norm == "linf" else max(side, 3) | 1  # pyramids have a middle
    return tuple(min(side, length) for length in shape)


def _window(shape: Shape, sides: Shape, rng: np.random.Generator) -> tuple[slice, ...]:
    starts = [int(rng.integers(n - side + 1)) for n, side in zip(shape, sides, strict=False)]
    return _slices(starts, sides)


def _slices(starts: Sequence[int], sides: Shape) -> tuple[slice, ...]:
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _signs(shape: Shape, rng: np.random.Generator) -> Array:
    return 2.0 * rng.integers(0, 2, shape) - 1


def _directions(values: Array) -> Array:
    """Bring each channel to norm 1."""
    squares = np.sum(values**2, axis=tuple(range(values.ndim - 1)))
    directions: Array = values / np.maximum(np.sqrt(squares), TINY)
    return directions


def _scaled(delta: Array, eps: float) -> Array:
    """Bring a perturbation to norm `eps`."""
    return delta * (eps / max(float(np.linalg.norm(delta)), TINY))


def _shifted(origin: Array, delta: Array, low: Array, high: Array) -> Array:
    """Add a perturbation; what rounding and clipping change only makes it smaller."""
    point: Array = (origin + delta).astype(origin.dtype)
    grown = abs(np.subtract(point, origin, dtype=np.float64)) > abs(delta)
    point[grown] = np.nextafter(point[grown], origin[grown])
    return np.clip(point, low, high, out=point)


def _channels_last(batch: Array, channels_first: bool) -> Array:
    """View with the axes (N, spatial ..., channels); samples with one axis have one channel."""
    if batch.ndim == 2:
        return batch[..., None]
    return np.moveaxis(batch, 1, -1) if channels_first else batch


def _asked(margin: Callable[[Array, Array], Array], points: Array, rows: Array) -> Array:
    margins = np.asarray(margin(points, rows), dtype=np.float64)
    if margins.shape != rows.shape:
        raise ArgumentError(
            f"`margin` must return one number for each row, shape {rows.shape}, got shape {margins.shape}."
        )
    if np.isnan(margins).any():
        raise ArgumentError(
            f"`margin` must return numbers, got {np.isnan(margins).sum()} NaN among {margins.size} values; "
            "look for an overflow in the model."
        )
    return margins


def _checked(
    x: Array,
    norm: str,
    eps: ArrayLike,
    clip_values: ClipValues,
    channels_first: bool,
    queries: int,
    seed: int,
) -> tuple[Array, Array, Array]:
    """Refuse bad input; return one radius for each sample, and the clip values for each value of a sample."""
    check_option("norm", norm, ("linf", "l2"))
    check_bool(channels_first=channels_first)
    check_integer("queries", queries, 1)
    check_integer("seed", seed, 0)
    check_clip_values(clip_values)
    if x.ndim < 2 or x.dtype.kind != "f":
        raise ArgumentError(
            f"`x` must be a floating array of shape (N, ...), got shape {x.shape} and dtype {x.dtype}; "
            "convert it with x.astype(numpy.float32)."
        )
    check_values("x", x)
    radius = np.asarray(eps)
    if radius.dtype.kind not in "iuf" or radius.shape not in ((), x.shape[:1]):
        raise ArgumentError(
            f"`eps` must be a number or hold one for each of the {len(x)} samples, got shape {radius.shape} "
            f"and dtype {radius.dtype}."
        )
    if not (np.isfinite(radius).all() and (radius >= 0).all()):
        raise ArgumentError(f"`eps` must be finite and at least 0, got {eps!r}.")
    try:
        low, high = (np.broadcast_to(np.asarray(v, dtype=x.dtype), x.shape[1:]) for v in clip_values)
    except ValueError:
        raise ArgumentError(
            f"`clip_values` must broadcast against a sample of shape {x.shape[1:]}, got shapes "
            f"{np.shape(clip_values[0])} and {np.shape(clip_values[1])}."
        ) from None
    outside = np.count_nonzero((x < low) | (x > high))
    if outside:
        raise ArgumentError(
            f"`x` must lie within `clip_values`, got {outside} of {x.size} values outside; clip them "
            "first with numpy.clip."
        )
    low, high = (_channels_last(value[None], channels_first)[0] for value in (low, high))
    return np.broadcast_to(radius.astype(np.float64), len(x)), low, high
