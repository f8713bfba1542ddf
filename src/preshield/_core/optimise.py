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
    from .kernels.descent import STATE, X, advance, vectors_needed

    kind = METHODS.index(method)
    states = np.zeros(len(x), STATE)
    vectors = np.empty((len(x), vectors_needed(kind), x.shape[1]))
    points, rows = x.copy(), np.arange(len(x))
    while len(rows):
        values, grads = (np.ascontiguousarray(a, np.float64) for a in objective(points[rows], rows))
        rows = rows[advance(states, vectors, points, rows, values, grads, kind, max_iter, tolerance)]
    return Minimum(vectors[:, X].copy(), states["value"], states["iterations"], states["evaluations"])
