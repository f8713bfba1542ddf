"""What attacks within a bound have in common: the ball, the best points, the samples that are left."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._core.checks import check_option
from .._core.errors import ArgumentError
from .._core.typing import Array
from .losses import Loss
from .oracle import Look, Oracle
from .perturbations import copied, dots, norms, places, put, scaled, take

__all__ = ["Search", "Worst", "check_bound"]

STRETCHES = 3  # of an L2 perturbation that the range has clipped
NEARLY = 0.99  # of the bound, long enough


class Worst(NamedTuple):
    """What an attack within a bound found.

    Attributes
    ----------
    x : array, shape (N, ...)
        Of all points visited, the one with the lowest margin.
    margins : ndarray of float, shape (N,)
        That margin, averaged over the draws of a stochastic defence.
    """

    x: Any
    margins: Array


def check_bound(norm: str, eps: float) -> None:
    """Refuse a bound that is none."""
    check_option("norm", norm, ("linf", "l2"))
    if not 0 <= eps < np.inf:
        raise ArgumentError(f"`eps` must be finite and at least 0, got {eps!r}; pass the largest norm.")


class Search:
    """Samples under attack within a bound, and the best perturbed sample of each so far.

    Every sample that is left has had the same number of looks. Arrays of points hold one for each of `rows`;
    numbers, such as targets, stand in arrays of all N samples.

    Parameters
    ----------
    oracle : Oracle
        The samples behind the defended classifier.
    norm : {"linf", "l2"}
        Norm of the perturbations.
    eps : float
        Bound of it.
    budget : int
        Most looks for each sample.
    on_step : callable
        Called with the fraction of the budget that is spent.

    Attributes
    ----------
    rows : ndarray of int
        Samples that are still classified correctly.
    best : array, shape (N, ...)
        The point of each sample with the lowest mean margin.
    lowest : ndarray of float, shape (N,)
        That margin.
    scores : ndarray of float, shape (N, K)
        Of the last look.
    spent : int
        Looks that each of `rows` has had.
    """

    def __init__(
        self,
        oracle: Oracle,
        norm: str,
        eps: float,
        budget: int,
        on_step: Callable[[float], None] = lambda done: None,
    ) -> None:
        self.oracle, self.norm, self.eps, self.budget, self.on_step = oracle, norm, eps, budget, on_step
        self.spent = 0
        self.rows = np.arange(len(oracle))
        self.lowest = np.full(len(oracle), np.inf)
        self.scores = np.zeros((len(oracle), oracle.nb_classes))
        self._suspect = np.zeros(len(oracle), bool)
        xp = array_namespace(oracle.x)
        self.best = copied(oracle.x)
        self.x, (low, high) = oracle.x, oracle.clip_values
        reach = eps if norm == "linf" else float(high) - float(low)
        self.low, self.high = xp.clip(self.x - reach, low, high), xp.clip(self.x + reach, low, high)

    @property
    def worst(self) -> Worst:
        """The result."""
        return Worst(self.best, self.lowest)

    @property
    def left(self) -> int:
        """Looks that each of `rows` may still have."""
        return self.budget - self.spent if len(self.rows) else 0

    def look(self, points: Any, loss: Loss, targets: Array | None) -> tuple[Look, Array]:
        """Look at one point of each of `rows`, and let those go that are broken.

        Returns the look, and the places of those that stay. A sample behind a stochastic defence goes if it
        is wrong on every draw of two looks in a row.
        """
        rows = self.rows
        look = self.oracle.look(points, rows, loss, None if targets is None else targets[rows])
        self.spent += 1
        self.scores[rows] = look.scores
        wrong = look.margin < 0
        broken = wrong & (self._suspect[rows] | (not self.oracle.stochastic))
        self._suspect[rows] = wrong
        stay = self.settle(points, look.mean, broken)
        self.on_step(self.spent / self.budget)
        return look, stay

    def settle(self, points: Any, margins: Array, broken: Array) -> Array:
        """Keep points that have lower margins, and let broken samples go; which of `rows` stay."""
        better = places((margins < self.lowest[self.rows]) | broken, points)
        self.lowest[self.rows[better]] = margins[better]
        self.best = put(self.best, self.rows[better], take(points, better))
        stay = places(~broken, points, self.rows)
        if broken.any():
            self.rows = self.rows[stay]
            self.x, self.low, self.high = (take(part, stay) for part in (self.x, self.low, self.high))
        return stay

    def try_out(self, points: Any) -> None:
        """Keep points that have lower margins, by forward passes alone."""
        self.settle(points, self.oracle.mean_margin(points, self.rows), np.zeros(len(self.rows), bool))

    def suspects(self) -> Array:
        """Which of `rows` were wrong on every draw of one look: to be looked at again."""
        return self._suspect[self.rows]

    def back(self, moved: Any) -> Any:
        """The points, one for each of `rows`, brought back into the ball and into the range."""
        xp = array_namespace(moved)
        if self.norm == "linf":
            return xp.minimum(xp.maximum(moved, self.low), self.high)
        # The nearest point is a multiple of the perturbation, clipped: as long as the bound allows.
        delta = moved - self.x
        factors = np.minimum(1, self.eps / np.maximum(np.sqrt(dots(delta, delta)), 1e-30))
        for _ in range(STRETCHES):
            moved = xp.minimum(xp.maximum(self.x + scaled(delta, factors), self.low), self.high)
            clipped = moved - self.x
            lengths = np.sqrt(dots(clipped, clipped))
            short = (factors < 1) & (lengths < NEARLY * self.eps)
            if not short.any():
                return moved
            factors = np.where(short, np.minimum(1, factors * self.eps / np.maximum(lengths, 1e-30)), factors)
        return xp.minimum(xp.maximum(self.x + scaled(delta, factors), self.low), self.high)

    def start(self) -> Any:
        """A random point at the bound, for each of `rows`."""
        if self.norm == "linf":
            noise = 2 * self.oracle.random(self.rows) - 1
        else:
            noise = self.oracle.standard_normal(self.rows)
        return self.back(self.x + scaled(noise, self.eps / np.maximum(norms(noise, self.norm), 1e-30)))

    def usable(self, gradient: Any) -> tuple[Any, Array]:
        """The gradient, or a random one where it is zero or not finite, and its largest magnitude."""
        largest = norms(gradient, "linf")
        useless = places(~(np.isfinite(largest) & (largest > 0)), gradient)
        if len(useless):
            noise = self.oracle.standard_normal(self.rows[useless])
            gradient = put(gradient, useless, noise)
            largest[useless] = norms(noise, "linf")
        return gradient, largest

    def direction(self, gradient: Any) -> Any:
        """The steepest step of size 1."""
        gradient, largest = self.usable(gradient)
        if self.norm == "linf":
            return array_namespace(gradient).sign(gradient)
        gradient = scaled(gradient, 1 / largest)  # first: the square of a tiny gradient may be nothing
        return scaled(gradient, 1 / np.sqrt(dots(gradient, gradient)))
