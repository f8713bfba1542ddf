"""Batched minimisers: many independent problems at once, one line search for each.

The problems of a batch share their dimension and nothing else: while one tries another step, its neighbour
may be on its next line. A problem that has converged, or whose line search found no descent, is taken out of
the batch and costs nothing further.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .typing import Array

__all__ = ["METHODS", "Minimum", "Objective", "minimise"]

METHODS = ("L-BFGS-B", "CG", "Newton-CG")
"""Methods with a line search."""

FIRST_DECAY, SECOND_DECAY, TINY = 0.9, 0.999, 1e-8  # of Adam: its averages, and what keeps steps finite

Objective = Callable[[Array, Array], tuple[Array, Array]]
"""`(points (B, n), problems (B,)) -> (values (B,), gradients (B, n))`; `problems` numbers the rows."""


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
    precision: float = 0.0,
    learning_rate: float = 0.3,
) -> Minimum:
    """Minimise every row of `x` on its own.

    Parameters
    ----------
    objective : callable
        `(points (B, n), problems (B,)) -> (values (B,), gradients (B, n))`. It is called with the rows that
        are still being worked on; `problems` holds their numbers in `x`. The points are to be read, and hold
        others after the call.
    x : ndarray of float64, shape (B, n)
        Starting points; not changed.
    method : {"L-BFGS-B", "CG", "Newton-CG", "Adam"}
        Limited-memory BFGS, nonlinear conjugate gradients (Polak-Ribiere), or Newton steps solved by
        conjugate gradients with differenced gradients; there are no bounds: the first name is SciPy's. Or
        Adam (Kingma and Ba 2015, arXiv:1412.6980), which needs one evaluation for each step.
    max_iter : int
        Largest number of steps.
    tolerance : float
        A row is finished when the largest entry of its gradient is at most this.
    precision : float
        Relative error of the values of the objective. A line search does not look for less.
    learning_rate : float
        Of Adam: about how far the first step goes along each axis. It falls to zero along a cosine.

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
    if method == "Adam":
        return _adam(objective, x, max_iter, tolerance, learning_rate)
    from .kernels.descent import STATE, X, advance, vectors_needed

    kind = METHODS.index(method)
    states = np.zeros(len(x), STATE)
    vectors = np.empty((len(x), vectors_needed(kind), x.shape[1]))
    points, rows = x.copy(), np.arange(len(x))
    while len(rows):
        asked = points if len(rows) == len(points) else points[rows]
        values, grads = (np.ascontiguousarray(a, np.float64) for a in objective(asked, rows))
        rows = rows[
            advance(states, vectors, points, rows, values, grads, kind, max_iter, tolerance, precision)
        ]
        del grads  # before the next ones take memory
    return Minimum(vectors[:, X], states["value"], states["iterations"], states["evaluations"])


def _adam(objective: Objective, x: Array, max_iter: int, tolerance: float, learning_rate: float) -> Minimum:
    """Adam for every row; the best point that a row has seen is kept."""
    points, best, value = x.copy(), x.copy(), np.full(len(x), np.inf)
    first, second = np.zeros_like(points), np.zeros_like(points)
    iterations, evaluations, rows = np.zeros(len(x), int), np.zeros(len(x), int), np.arange(len(x))
    for step in range(max_iter + 1):
        values, grads = (np.asarray(a, np.float64) for a in objective(points[rows], rows))
        evaluations[rows] += 1
        better = (values < value[rows]) | (step == 0)
        best[rows[better]], value[rows[better]] = points[rows[better]], values[better]
        going = np.abs(grads).max(axis=1, initial=0) > tolerance
        rows, grads = rows[going], grads[going]
        if step == max_iter or not len(rows):
            break
        first[rows] += (1 - FIRST_DECAY) * (grads - first[rows])
        second[rows] += (1 - SECOND_DECAY) * (grads**2 - second[rows])
        mean = first[rows] / (1 - FIRST_DECAY ** (step + 1))
        size = np.sqrt(second[rows] / (1 - SECOND_DECAY ** (step + 1))) + TINY
        points[rows] -= learning_rate / 2 * (1 + np.cos(np.pi * step / max_iter)) * mean / size
        iterations[rows] += 1
    return Minimum(best, value, iterations, evaluations)
