"""Descent as a machine that asks for one evaluation after another.

A machine is a record of `STATE` and a few vectors. `_advance` gives it the value and the gradient at the
point that it asked for; it writes the next point to evaluate, and who evaluates it, and how, is not its
concern. Every machine advances on its own, so a batch of them never waits for the longest line search.
"""

from typing import Any

import numpy as np

from ..arithmetic.descent import HISTORY, STRONG_TRIALS, TRIALS
from ..typing import Array
from . import kernel, reduction

__all__ = ["STATE", "X", "advance", "vectors_needed"]

LBFGS, CG, NEWTON = range(3)  # places in `preshield._core.optimise.METHODS`

DECREASE = 1e-4  # Armijo: the fraction of the predicted decrease that a step must reach
CURVATURE = (0.3, 0.1, 0.9)  # the fraction of the slope that a step may leave, for each method
MARGIN = 0.1  # the next trial stays this fraction of the bracket away from its ends
INNER = 20  # conjugate-gradient steps inside a Newton step
DIFFERENCE = 1e-6  # length of the step over which a Newton step differences gradients
TINY = 1e-300

STARTING, SEARCHING, PROBING = range(3)  # what an evaluation is for: the start, a line, a Newton step

STATE = np.dtype(
    (
        np.record,  # whose fields are attributes without Numba, too
        [
            ("phase", np.int64),
            ("iterations", np.int64),
            ("evaluations", np.int64),
            ("value", np.float64),  # at `X`
            ("decrease", np.float64),  # change of the value in the last step
            ("slope", np.float64),  # along the direction, at `X`
            ("step", np.float64),  # that is being tried
            ("trials", np.int64),  # so far, on this line or in this Newton step
            ("best", np.float64),  # step of the least value on this line; 0 where nothing decreased
            ("best_value", np.float64),
            ("low", np.float64, 3),  # ends of the bracket: step, value and slope
            ("high", np.float64, 3),
            ("oldest", np.int64),  # the first pair that counts
            ("inverses", np.float64, HISTORY),  # 1 / (step . change); 0 for a pair that counts for nothing
            ("weights", np.float64, HISTORY),
            ("square", np.float64),  # of the last gradient, or of the residual in a Newton step
            ("target", np.float64),  # at which that residual is small enough
        ],
    )
)
"""All that a machine knows beside its vectors; zeros at the start."""

X, GRAD, DIRECTION, BEST_GRAD, PAIRS = range(5)  # the vectors; the rows from `PAIRS` on are pairs


@kernel
def vectors_needed(method: int) -> int:
    """How many vectors a machine remembers."""
    return PAIRS + 2 * (HISTORY if method == LBFGS else 1)


@kernel
def advance(
    states: Array,
    vectors: Array,
    points: Array,
    rows: Array,
    values: Array,
    grads: Array,
    method: int,
    max_iter: int,
    tolerance: float,
    precision: float,
) -> Array:
    """Take one evaluation of each of some machines into account, and ask for the next.

    Parameters
    ----------
    states : ndarray of STATE, shape (B,)
        Zeros at the start. Written.
    vectors : ndarray of float64, shape (B, vectors_needed(method), n)
        The machines' memory; `vectors[:, X]` are the best points so far. Written.
    points : ndarray of float64, shape (B, n)
        Where to evaluate: at first the start. Written.
    rows : ndarray of int, shape (T,)
        Machines to advance.
    values, grads : ndarray of float64, shape (T,) and (T, n)
        Objective and gradient at `points[rows]`.
    method : int
        Place in `preshield._core.optimise.METHODS`.
    max_iter : int
        Largest number of steps.
    tolerance : float
        A machine stops where the largest entry of its gradient is at most this.
    precision : float
        Relative error of the values. A line search ends where less than that is left to gain.

    Returns
    -------
    ndarray of bool, shape (T,)
        Which of these machines ask for another evaluation.
    """
    going = np.empty(len(rows), np.bool_)
    for i in range(len(rows)):
        row = rows[i]
        state, v = states[row], vectors[row]
        value, grad = values[i], grads[i]
        going[i] = _advance(state, v, points[row], value, grad, method, max_iter, tolerance, precision)
        if going[i]:
            line = _pair(v, 0)[1] if state.phase == PROBING else v[DIRECTION]
            _set_sum(points[row], v[X], state.step, line)
    return going


@kernel
def _advance(
    state: Any,
    v: Array,
    point: Array,
    value: float,
    grad: Array,
    method: int,
    max_iter: int,
    tolerance: float,
    precision: float,
) -> bool:
    """Advance one machine: to another step along its line, to another line, or, for False, to its end."""
    state.evaluations += 1
    if state.phase == PROBING:
        _probe(state, v, grad)
        return bool(state.phase == PROBING) or _begin_line(state, v)
    if state.phase == STARTING:
        state.value = value
        _set(v[X], point)
        _set(v[GRAD], grad)
    else:
        if not _end_line(state, v, value, grad, method, precision):
            return True
        if state.best == 0:
            return _begin_again(state, v, method)
        _accept(state, v, method)
    if state.iterations >= max_iter or _is_within(v[GRAD], tolerance):
        return False
    if method == NEWTON:
        _begin_newton(state, v)
        return True
    if method == CG:
        _direct_cg(state, v)
    else:
        _direct_lbfgs(state, v)
    return _begin_line(state, v)


# Vectors


@reduction
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@kernel
def _set(out: Array, a: Array) -> None:
    for j in range(out.shape[0]):  # takes a second less to compile than `out[:] = a`
        out[j] = a[j]


@kernel
def _set_sum(out: Array, a: Array, factor: float, b: Array) -> None:
    """Set `out` to `a + factor * b`."""
    for j in range(out.shape[0]):
        out[j] = a[j] + factor * b[j]


@kernel
def _set_product(out: Array, factor: float, a: Array) -> None:
    """Set `out` to `factor * a`."""
    for j in range(out.shape[0]):
        out[j] = factor * a[j]


@kernel
def _is_within(a: Array, tolerance: float) -> bool:
    j = 0
    while j < a.shape[0] and abs(a[j]) <= tolerance:
        j += 1
    return bool(j == a.shape[0])


@kernel
def _pair(v: Array, k: int) -> tuple[Array, Array]:
    """The step with number `k` and the change of the gradient along it."""
    place = PAIRS + 2 * (k % HISTORY)
    return v[place], v[place + 1]


# The line search: bracketing and cubic interpolation


@kernel
def _begin_line(state: Any, v: Array) -> bool:
    """Open a bracket along the direction; False where it does not lead down."""
    state.phase = SEARCHING
    state.slope = _dot(v[GRAD], v[DIRECTION])
    state.trials = 0
    state.best, state.best_value = 0.0, state.value
    state.low[0], state.low[1], state.low[2] = 0.0, state.value, state.slope
    state.high[0], state.high[1], state.high[2] = np.inf, np.inf, np.inf
    return bool(state.slope < 0)


@kernel
def _end_line(state: Any, v: Array, value: float, grad: Array, method: int, precision: float) -> bool:
    """Take one trial into account; unless it is the last, `step` becomes the next."""
    slope = _dot(grad, v[DIRECTION])
    decreased = value <= state.value + DECREASE * state.step * state.slope
    better = decreased and value < state.best_value
    if better:
        state.best, state.best_value = state.step, value
        _set(v[BEST_GRAD], grad)
    flat = CURVATURE[method] * state.slope
    strong = method == CG and state.trials < STRONG_TRIALS
    state.trials += 1
    if state.trials == TRIALS or (better and slope >= flat and (slope <= -flat or not strong)):
        return True
    end = state.high if not decreased or value > state.low[1] or slope >= 0 else state.low
    end[0], end[1], end[2] = state.step, value, slope
    state.step = _between(state.low, state.high)
    return bool(-state.slope * state.step <= precision * abs(state.value))


@kernel
def _between(low: Array, high: Array) -> Any:
    """Where the cubic through both ends is least, but away from them; doubled while `high` is infinite."""
    a, value_a, slope_a = low[0], low[1], low[2]
    b, value_b, slope_b = high[0], high[1], high[2]
    if not np.isfinite(b):
        return 2 * a
    chord = slope_a + slope_b - 3 * (value_b - value_a) / (b - a)
    root = np.sqrt(max(chord**2 - slope_a * slope_b, 0.0))
    part = 1 - (slope_b + root - chord) / (slope_b - slope_a + 2 * root)
    if not np.isfinite(part):
        part = 0.5
    return a + min(max(part, MARGIN), 1 - MARGIN) * (b - a)


@kernel
def _accept(state: Any, v: Array, method: int) -> None:
    """Go to the best trial, and remember the pair of step and change."""
    step, change = _pair(v, state.iterations if method == LBFGS else 0)
    _set_product(step, state.best, v[DIRECTION])
    _set_sum(change, v[BEST_GRAD], -1.0, v[GRAD])
    _set_sum(v[X], v[X], 1.0, step)
    _set(v[GRAD], v[BEST_GRAD])
    state.decrease = state.best_value - state.value
    state.value = state.best_value
    state.iterations += 1


@kernel
def _begin_again(state: Any, v: Array, method: int) -> bool:
    """After a line without descent, search along the gradient, at the scale of the last pair; once."""
    if method != LBFGS or state.oldest == state.iterations:
        return False
    state.oldest = state.iterations
    _direct_lbfgs(state, v)
    return _begin_line(state, v)


# Directions, each with the first step to try


@kernel
def _direct_lbfgs(state: Any, v: Array) -> None:
    """Limited-memory BFGS (Nocedal 1980): the two-loop recursion."""
    grad, direction = v[GRAD], v[DIRECTION]
    _set_product(direction, -1.0, grad)
    if state.iterations == 0:
        state.step = 1 / max(np.sqrt(_dot(grad, grad)), TINY)
        return
    state.step = 1.0
    newest, oldest = state.iterations - 1, max(state.iterations - HISTORY, state.oldest)
    step, change = _pair(v, newest)
    product, square = _dot(step, change), _dot(change, change)
    usable = product > 1e-16 * square
    state.inverses[newest % HISTORY] = 1 / product if usable else 0.0
    for k in range(newest, oldest - 1, -1):
        step, change = _pair(v, k)
        weight = state.inverses[k % HISTORY] * _dot(step, direction)
        state.weights[k % HISTORY] = weight
        _set_sum(direction, direction, -weight, change)
    if usable:
        _set_product(direction, product / square, direction)
    for k in range(oldest, newest + 1):
        step, change = _pair(v, k)
        weight = state.weights[k % HISTORY] - state.inverses[k % HISTORY] * _dot(change, direction)
        _set_sum(direction, direction, weight, step)


@kernel
def _direct_cg(state: Any, v: Array) -> None:
    """Nonlinear conjugate gradients with Polak and Ribiere's coefficient, restarted where it is negative."""
    grad, direction = v[GRAD], v[DIRECTION]
    square = _dot(grad, grad)
    if state.iterations == 0:
        _set_product(direction, -1.0, grad)
        state.step = 1 / max(np.sqrt(square), TINY)
    else:
        coefficient = max(_dot(grad, _pair(v, 0)[1]) / max(state.square, TINY), 0.0)
        _set_product(direction, coefficient, direction)
        _set_sum(direction, direction, -1.0, grad)
        slope = _dot(grad, direction)
        if slope >= 0:
            _set_product(direction, -1.0, grad)
            slope = -square
        step = min(1.0, 2.02 * state.decrease / min(slope, -TINY))
        state.step = step if step > 0 else 1.0
    state.square = square


@kernel
def _begin_newton(state: Any, v: Array) -> None:
    """Begin to solve for a Newton step, by conjugate gradients on differences of gradients."""
    residual, search = _pair(v, 0)
    v[DIRECTION] = 0.0
    _set(residual, v[GRAD])
    _set_product(search, -1.0, v[GRAD])
    state.square = _dot(residual, residual)
    state.target = min(0.25, np.sqrt(state.square)) * state.square  # Nocedal and Wright, algorithm 7.1
    state.step = DIFFERENCE / max(np.sqrt(state.square), TINY)
    state.trials = 0
    state.phase = PROBING


@kernel
def _probe(state: Any, v: Array, grad: Array) -> None:
    """Improve a Newton step by the gradient a little further along; cut off where curvature ends."""
    (residual, search), solution, product = _pair(v, 0), v[DIRECTION], v[BEST_GRAD]
    _set_sum(product, grad, -1.0, v[GRAD])
    _set_product(product, 1 / state.step, product)
    curvature = _dot(search, product)
    if curvature > 1e-12 * _dot(search, search):
        _set_sum(solution, solution, state.square / curvature, search)
        _set_sum(residual, residual, state.square / curvature, product)
        square = _dot(residual, residual)
        _set_product(search, square / state.square, search)
        _set_sum(search, search, -1.0, residual)
        state.square = square
        state.trials += 1
        if square > state.target and state.trials < INNER:
            state.step = DIFFERENCE / max(np.sqrt(_dot(search, search)), TINY)
            return
    elif state.trials == 0:
        _set(solution, search)
    state.step = 1.0
    state.phase = SEARCHING
