"""Batched minimisation in lock-step: each evaluation is one of all problems, which are on lines of their own.

It makes the steps of the machines in `kernels/descent.py`; what a problem would not do is masked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .namespace import repeated

__all__ = ["EVALUATIONS", "HISTORY", "STRONG_TRIALS", "TRIALS", "minimise"]

EVALUATIONS = {"L-BFGS-B": 3, "CG": 20}  # for each iteration; CG begins each line with a step of 1 or less
FIRST = 8  # more, for the first line, whose first step is as long as 1 in the unit of the data
HISTORY = 5  # pairs of steps and changes that L-BFGS remembers
TRIALS = 20  # evaluations in one line search
STRONG_TRIALS = 4  # how many of them ask CG for a slope near 0: conjugacy needs a step near the minimum

# Fractions stand in the functions that use them: torch takes those of a module for variables, with which it
# does not compile a loop for any number of samples.

Evaluate = Callable[[Any], tuple[Any, Any]]
End = tuple[Any, Any, Any]  # of a bracket: step, value and slope


class _State(NamedTuple):
    """All that is known of each problem; numbers have the axes of a point, each of length 1."""

    going: Any
    point: Any
    value: Any
    grad: Any
    direction: Any
    slope: Any  # along the direction, at the point
    step: Any  # that is being tried
    trials: Any  # so far, on this line
    best: Any  # step of the least value on this line; 0 where nothing decreased
    best_value: Any
    best_grad: Any
    low: End
    high: End
    iterations: Any
    memory: Any  # of the method


class _Pairs(NamedTuple):
    """What limited-memory BFGS remembers."""

    counts: Any  # whether there is a pair that counts
    scale: Any  # of the inverse Hessian, by the last pair
    steps: tuple[Any, ...]  # the oldest first
    changes: tuple[Any, ...]  # of the gradient
    inverses: tuple[Any, ...]  # 1 / (step . change), or 0 for a pair that counts for nothing


def minimise(evaluate: Evaluate, start: Any, xp: Any, method: str, max_iter: int) -> Any:
    """Minimise planes, each on its own.

    Parameters
    ----------
    evaluate : callable
        `points (P, H, W) -> (values (P, 1, 1), gradients (P, H, W))`.
    start : array, shape (P, H, W)
        Of which nothing is differentiated.
    xp : namespace
        That of the arrays.
    method : {"L-BFGS-B", "CG"}
        Limited-memory BFGS, or conjugate gradients.
    max_iter : int
        Largest number of steps.

    Returns
    -------
    array, shape (P, H, W)
        The best points that were found.
    """
    value, grad = evaluate(start)
    none, zeros = xp.zeros_like(value), xp.zeros_like(start)
    square = _dot(grad, grad, xp)
    state = _State(
        going=~_is_within(grad, xp),
        point=start,
        value=value,
        grad=grad,
        direction=-grad,
        slope=-square,
        step=1 / xp.sqrt(xp.where(square > 0, square, none + 1)),
        trials=none,
        best=none,
        best_value=value,
        best_grad=grad,
        low=(none, value, -square),
        high=(none + float("inf"), none, none),
        iterations=none,
        memory=_Pairs(none > 0, none + 1, (zeros,) * HISTORY, (zeros,) * HISTORY, (none,) * HISTORY)
        if method == "L-BFGS-B"
        else (square,),
    )

    def advance(state: _State) -> _State:
        return _advanced(state, evaluate, xp, method, max_iter)

    state = repeated(advance, state, EVALUATIONS[method] * max_iter + FIRST)
    return state.point + state.best * state.direction


def _advanced(s: _State, evaluate: Evaluate, xp: Any, method: str, max_iter: int) -> _State:
    """Take one evaluation of each problem into account, and choose the next."""
    value, grad = evaluate(s.point + s.step * s.direction)
    s, ended = _tried(s, value, grad, xp, method)
    accepted = ended & (s.best > 0)
    step, change, decrease = s.best * s.direction, s.best_grad - s.grad, s.best_value - s.value
    s = s._replace(
        point=xp.where(accepted, s.point + step, s.point),
        value=xp.where(accepted, s.best_value, s.value),
        grad=xp.where(accepted, s.best_grad, s.grad),
        iterations=xp.where(accepted, s.iterations + 1, s.iterations),
    )
    memory: Any
    if method == "L-BFGS-B":
        # After a line without descent, search along the gradient, at the scale of the last pair; once.
        line = ended & (accepted | s.memory.counts)
        memory = _remembering(s.memory, step, change, accepted, line & ~accepted, xp)
        direction, first = _direction(memory, s.grad, xp), xp.ones_like(s.step)
    else:
        line = accepted
        direction, first, square = _conjugate(s, change, decrease, xp)
        memory = (xp.where(line, square, s.memory[0]),)
    slope = _dot(s.grad, direction, xp)
    s = s._replace(
        memory=memory,
        direction=xp.where(line, direction, s.direction),
        slope=xp.where(line, slope, s.slope),
        step=xp.where(line, first, s.step),
        trials=xp.where(line, xp.zeros_like(s.trials), s.trials),
        best=xp.where(line, xp.zeros_like(s.best), s.best),
        best_value=xp.where(line, s.value, s.best_value),
    )
    low = (xp.zeros_like(s.step), s.value, s.slope)
    high = (xp.full_like(s.step, float("inf")), s.value, s.slope)
    finished = (s.iterations >= max_iter) | _is_within(s.grad, xp)
    return s._replace(
        going=s.going & ~ended | line & (s.slope < 0) & ~finished,
        low=_chosen(line, low, s.low, xp),
        high=_chosen(line, high, s.high, xp),
    )


# The line search: bracketing and cubic interpolation


def _tried(s: _State, value: Any, grad: Any, xp: Any, method: str) -> tuple[_State, Any]:
    """Take a trial into account; `step` becomes the next; and say where it was the last one."""
    slope = _dot(grad, s.direction, xp)
    decreased = value <= s.value + 1e-4 * s.step * s.slope  # a part of what the slope predicts
    better = s.going & decreased & (value < s.best_value)
    flat = (0.1 if method == "CG" else 0.3) * s.slope  # what a step may leave of the slope
    found = better & (slope >= flat)
    if method == "CG":
        found = found & ((slope <= -flat) | (s.trials >= STRONG_TRIALS))
    end = s.step, value, slope
    above = ~decreased | (value > s.low[1]) | (slope >= 0)
    low, high = _chosen(above, s.low, end, xp), _chosen(above, end, s.high, xp)
    trials = s.trials + 1
    s = s._replace(
        step=_between(low, high, xp),
        trials=trials,
        best=xp.where(better, s.step, s.best),
        best_value=xp.where(better, value, s.best_value),
        best_grad=xp.where(better, grad, s.best_grad),
        low=low,
        high=high,
    )
    return s, found | s.going & (trials >= TRIALS)


def _between(low: End, high: End, xp: Any) -> Any:
    """Where the cubic through both ends is least, but away from them; doubled while `high` is infinite."""
    (a, value_a, slope_a), (b, value_b, slope_b) = low, high
    chord = slope_a + slope_b - 3 * (value_b - value_a) / (b - a)
    inner = chord * chord - slope_a * slope_b
    root = xp.sqrt(xp.where(inner > 0, inner, xp.zeros_like(inner)))
    part = 1 - (slope_b + root - chord) / (slope_b - slope_a + 2 * root)
    part = xp.where(xp.isfinite(part), part, xp.full_like(part, 0.5))
    part = xp.where(part < 0.1, xp.full_like(part, 0.1), part)
    part = xp.where(part > 0.9, xp.full_like(part, 0.9), part)
    return xp.where(xp.isfinite(b), a + part * (b - a), 2 * a)


# Directions


def _remembering(m: _Pairs, step: Any, change: Any, accepted: Any, restarted: Any, xp: Any) -> _Pairs:
    """A new pair in the place of the oldest one; none counts after a restart."""
    product, square = _dot(step, change, xp), _dot(change, change, xp)
    none, usable = xp.zeros_like(product), product > 1e-16 * square
    inverse = xp.where(usable, 1 / xp.where(usable, product, none + 1), none)
    scale = xp.where(usable, product / xp.where(usable, square, none + 1), none + 1)
    inverses = _chosen(accepted, (*m.inverses[1:], inverse), m.inverses, xp)
    return _Pairs(
        counts=(m.counts | accepted) & ~restarted,
        scale=xp.where(accepted, scale, m.scale),
        steps=_chosen(accepted, (*m.steps[1:], step), m.steps, xp),
        changes=_chosen(accepted, (*m.changes[1:], change), m.changes, xp),
        inverses=tuple(xp.where(restarted, none, inverse) for inverse in inverses),
    )


def _direction(m: _Pairs, grad: Any, xp: Any) -> Any:
    """Limited-memory BFGS (Nocedal 1980): the two-loop recursion."""
    direction, weights = -grad, []
    pairs = list(zip(m.steps, m.changes, m.inverses, strict=True))
    for step, change, inverse in reversed(pairs):
        weights.append(inverse * _dot(step, direction, xp))
        direction = direction - weights[-1] * change
    direction = m.scale * direction
    for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        direction = direction + (weight - inverse * _dot(change, direction, xp)) * step
    return direction


def _conjugate(s: _State, change: Any, decrease: Any, xp: Any) -> tuple[Any, Any, Any]:
    """Polak and Ribiere's direction, the first step along it, and the square of the gradient."""
    square, none, (last,) = _dot(s.grad, s.grad, xp), xp.zeros_like(s.value), s.memory
    coefficient = _dot(s.grad, change, xp) / xp.where(last > 0, last, none + 1)
    direction = xp.where(coefficient > 0, coefficient, none) * s.direction - s.grad
    slope = _dot(s.grad, direction, xp)
    direction = xp.where(slope < 0, direction, -s.grad)
    slope = xp.where(slope < 0, slope, -square)
    step = 2.02 * decrease / xp.where(slope < 0, slope, none - 1)
    return direction, xp.where((step > 0) & (step < 1), step, none + 1), square


# Vectors


def _dot(a: Any, b: Any, xp: Any) -> Any:
    return xp.sum(a * b, axis=(-2, -1), keepdims=True)


def _is_within(grad: Any, xp: Any) -> Any:
    """Whether no entry of a gradient is larger than 1e-5."""
    return xp.max(xp.abs(grad), axis=(-2, -1), keepdims=True) <= 1e-5


def _chosen(where: Any, these: Any, those: Any, xp: Any) -> Any:
    return tuple(xp.where(where, this, that) for this, that in zip(these, those, strict=True))
