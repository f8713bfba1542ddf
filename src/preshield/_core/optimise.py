"""Batched minimisers: many independent problems at once, one line search for each.

The problems of a batch share their dimension and nothing else. A problem that has converged, or whose line
search found no descent, is taken out of the batch and costs nothing further.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .typing import Array

__all__ = ["METHODS", "Minimum", "Objective", "minimise"]

METHODS = ("L-BFGS-B", "CG", "Newton-CG")

Objective = Callable[[Array, Array], tuple[Array, Array]]
"""`(points (B, n), problems (B,)) -> (values (B,), gradients (B, n))`; `problems` numbers the rows."""

HISTORY = 5
DECREASE = 1e-4  # Armijo: the fraction of the predicted decrease that a step must reach
TRIALS = 20  # evaluations in one line search
INNER = 20  # conjugate-gradient steps inside a Newton step
DIFFERENCE = 1e-6  # length of the step over which a Newton step differences gradients
TINY = 1e-300


@dataclass(frozen=True)
class Minimum:
    """Where the minimiser stopped.

    Attributes
    ----------
    x : ndarray, shape (B, n)
        Points.
    value : ndarray, shape (B,)
        Objective at the points.
    iterations : ndarray of int, shape (B,)
        Steps taken.
    evaluations : ndarray of int, shape (B,)
        Evaluations of objective and gradient.
    """

    x: Array
    value: Array
    iterations: Array
    evaluations: Array


def minimise(
    objective: Objective,
    x: Array,
    *,
    method: str = "L-BFGS-B",
    max_iter: int = 100,
    tolerance: float = 1e-5,
) -> Minimum:
    """Minimise every row of `x` on its own.

    Parameters
    ----------
    objective : callable
        `(points (B, n), problems (B,)) -> (values (B,), gradients (B, n))`. It is called with the rows that
        are still being worked on; `problems` holds their numbers in `x`.
    x : ndarray of float64, shape (B, n)
        Starting points; not changed.
    method : {"L-BFGS-B", "CG", "Newton-CG"}
        Limited-memory BFGS, nonlinear conjugate gradients (Polak-Ribiere), or Newton steps solved by
        conjugate gradients with differenced gradients. There are no bounds: the first name is SciPy's.
    max_iter : int
        Largest number of steps.
    tolerance : float
        A row is finished when the largest entry of its gradient is at most this.

    Returns
    -------
    Minimum
        No value in it is above the value at the start.

    Notes
    -----
    Steps satisfy the weak Wolfe conditions, found by bracketing and cubic interpolation; these can be met
    even where the objective has kinks (Lewis and Overton 2013, doi:10.1007/s10107-012-0514-2). Conjugate
    gradients ask for the strong conditions first.
    """
    result = Minimum(x.copy(), np.empty(len(x)), np.zeros(len(x), dtype=int), np.zeros(len(x), dtype=int))
    rows = np.arange(len(x))
    evaluate = _Counted(objective, result.evaluations)
    value, grad = evaluate(x, rows)
    result.value[:] = value
    methods: dict[str, type[_Lbfgs | _ConjugateGradient | _Newton]]
    methods = {"L-BFGS-B": _Lbfgs, "CG": _ConjugateGradient, "Newton-CG": _Newton}
    direction_of = methods[method]()
    for _ in range(max_iter):
        going = np.abs(grad).max(axis=1, initial=0) > tolerance
        if not going.all():
            x, value, grad, rows = x[going], value[going], grad[going], rows[going]
            direction_of.keep(going)
        if not len(rows):
            break
        direction, step = direction_of(x, value, grad, rows, evaluate)
        step, new_value, new_grad = _line_search(
            evaluate,
            x,
            value,
            grad,
            rows,
            direction,
            step,
            direction_of.curvature,
            direction_of.strong_trials,
        )
        moved = step > 0
        change = step[:, None] * direction
        result.x[rows] = x = x + change
        result.value[rows] = new_value
        result.iterations[rows[moved]] += 1
        direction_of.update(change, new_grad - grad, new_value - value)
        value, grad = new_value, new_grad
        if not moved.all():
            x, value, grad, rows = x[moved], value[moved], grad[moved], rows[moved]
            direction_of.keep(moved)
    return result


class _Counted:
    """An objective that counts its evaluations."""

    def __init__(self, objective: Objective, evaluations: Array) -> None:
        self.objective = objective
        self.evaluations = evaluations

    def __call__(self, x: Array, rows: Array) -> tuple[Array, Array]:
        self.evaluations[rows] += 1
        return self.objective(x, rows)


def _dot(a: Array, b: Array, rows: Array | None = None) -> Array:
    """Inner product of each row of `a` with its row of `b`: the same, or the one that `rows` names."""
    from .kernels.rows import row_dots

    out = np.empty(len(a))
    row_dots(out, a, b, np.arange(len(a)) if rows is None else rows)
    return out


def _line_search(
    evaluate: _Counted,
    x: Array,
    value: Array,
    grad: Array,
    rows: Array,
    direction: Array,
    step: Array,
    curvature: float,
    strong_trials: int,
) -> tuple[Array, Array, Array]:
    """Step along `direction` for each row, with value and gradient there; 0 where nothing decreases."""
    from .kernels.rows import advance, narrow

    slope = _dot(grad, direction)
    low = np.stack((np.zeros(len(x)), value, slope), axis=1)  # ends of the bracket: step, value, slope
    high = np.full_like(low, np.inf)
    best, best_value, best_grad = np.zeros(len(x)), value.copy(), grad.copy()
    pending = np.flatnonzero(slope < 0)
    step = step.copy()
    for count in range(TRIALS):
        if not len(pending):
            break
        trial = np.empty((len(pending), x.shape[1]))
        advance(trial, x, step, direction, pending)
        trial_value, trial_grad = evaluate(trial, rows[pending])
        trial_slope = _dot(trial_grad, direction, pending)
        enough = value + DECREASE * step * slope
        flat = curvature * slope
        steep = -flat if count < strong_trials else np.full(len(x), np.inf)
        better, done = narrow(
            low, high, step, best, best_value, pending, trial_value, trial_slope, enough, flat, steep
        )
        best_grad[pending[better]] = trial_grad[better]
        pending = pending[~done]
    return best, best_value, best_grad


class _Lbfgs:
    """Limited-memory BFGS (Nocedal 1980): the two-loop recursion, for all rows at once."""

    curvature = 0.3
    strong_trials = 0

    def __init__(self) -> None:
        self.steps = self.changes = self.inverses = np.empty((HISTORY, 0))
        self.stored = 0

    def __call__(
        self, x: Array, value: Array, grad: Array, rows: Array, evaluate: _Counted
    ) -> tuple[Array, Array]:
        from .kernels.rows import two_loops

        direction = -grad
        if not self.stored:
            return direction, 1 / np.maximum(np.sqrt(_dot(grad, grad)), TINY)
        newest_first = np.arange(self.stored - 1, max(-1, self.stored - HISTORY - 1), -1) % HISTORY
        two_loops(direction, self.steps, self.changes, self.inverses, newest_first)
        return direction, np.ones(len(x))

    def update(self, step: Array, change: Array, decrease: Array) -> None:
        if not self.stored:
            self.steps, self.changes = np.empty((HISTORY, *step.shape)), np.empty((HISTORY, *step.shape))
            self.inverses = np.empty((HISTORY, len(step)))
        product = _dot(step, change)
        usable = product > 1e-16 * _dot(change, change)  # else the pair counts for nothing
        place = self.stored % HISTORY
        self.steps[place], self.changes[place] = step, change
        self.inverses[place] = np.where(usable, 1 / np.where(usable, product, 1.0), 0.0)
        self.stored += 1

    def keep(self, rows: Array) -> None:
        if self.stored:  # `compress` keeps the order in memory, on which the order of summation depends
            self.steps, self.changes, self.inverses = (
                np.compress(rows, a, axis=1) for a in (self.steps, self.changes, self.inverses)
            )


class _ConjugateGradient:
    """Nonlinear conjugate gradients with Polak and Ribiere's coefficient, restarted where it is negative."""

    curvature = 0.1
    strong_trials = 4  # conjugacy needs a step near the minimum along the line

    def __init__(self) -> None:
        self.grad: Array | None = None
        self.direction: Array | None = None
        self.decrease: Array | None = None

    def __call__(
        self, x: Array, value: Array, grad: Array, rows: Array, evaluate: _Counted
    ) -> tuple[Array, Array]:
        direction = -grad
        step = 1 / np.maximum(np.sqrt(_dot(grad, grad)), TINY)
        if self.grad is not None and self.direction is not None and self.decrease is not None:
            coefficient = _dot(grad, grad - self.grad) / np.maximum(_dot(self.grad, self.grad), TINY)
            direction += np.maximum(coefficient, 0)[:, None] * self.direction
            slope = _dot(grad, direction)
            uphill = slope >= 0
            direction[uphill] = -grad[uphill]
            slope = np.where(uphill, -_dot(grad, grad), slope)
            step = np.minimum(1.0, 2.02 * self.decrease / np.minimum(slope, -TINY))
            step = np.where(step > 0, step, 1.0)
        self.grad, self.direction = grad, direction
        return direction, step

    def update(self, step: Array, change: Array, decrease: Array) -> None:
        self.decrease = decrease

    def keep(self, rows: Array) -> None:
        if self.grad is not None and self.direction is not None and self.decrease is not None:
            self.grad, self.direction = self.grad[rows], self.direction[rows]
            self.decrease = self.decrease[rows]


class _Newton:
    """Newton steps by conjugate gradients on differences of gradients, cut off where curvature ends."""

    curvature = 0.9
    strong_trials = 0

    def __call__(
        self, x: Array, value: Array, grad: Array, rows: Array, evaluate: _Counted
    ) -> tuple[Array, Array]:
        solution = np.zeros_like(grad)
        residual = grad.copy()
        search = -grad
        squares = _dot(residual, residual)
        target = np.minimum(0.25, np.sqrt(squares)) * squares  # Nocedal and Wright, algorithm 7.1
        pending = np.arange(len(x))
        for inner in range(INNER):
            length = np.sqrt(_dot(search[pending], search[pending]))
            width = DIFFERENCE / np.maximum(length, TINY)
            ahead = x[pending] + width[:, None] * search[pending]
            product = (evaluate(ahead, rows[pending])[1] - grad[pending]) / width[:, None]
            curvature = _dot(search[pending], product)
            curved = curvature > 1e-12 * length**2
            if inner == 0:
                solution[pending[~curved]] = -grad[pending[~curved]]
            pending, product, curvature = pending[curved], product[curved], curvature[curved]
            step = (squares[pending] / curvature)[:, None]
            solution[pending] += step * search[pending]
            residual[pending] += step * product
            now = _dot(residual[pending], residual[pending])
            search[pending] *= (now / squares[pending])[:, None]
            search[pending] -= residual[pending]
            squares[pending] = now
            pending = pending[now > target[pending]]
            if not len(pending):
                break
        return solution, np.ones(len(x))

    def update(self, step: Array, change: Array, decrease: Array) -> None:
        """Nothing is remembered from step to step."""

    def keep(self, rows: Array) -> None:
        """Nothing is remembered from step to step."""
