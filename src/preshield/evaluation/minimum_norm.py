"""Smallest perturbations: walks along the decision boundary, for arrays of any framework."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._core.typing import Array
from .losses import Loss, all_others, best_other, margin, targeted_margin
from .oracle import Look, Oracle
from .perturbations import between, chosen, copied, dots, for_each, norms, places, put, scaled, take, unit
from .projection import nearest_in_ball, nearest_on_plane

__all__ = ["Adversarials", "for_most_draws", "minimum_norm_attack", "pull_towards"]

FIRST, POLISH, OTHER = 8, 14, 10  # looks of walks along the boundary, while the budget is small
BEYOND = 2  # of them across the boundary of another class, to begin there
TARGETS = 4  # wrong classes that are walked to, the nearest first
BLOCK = 100  # looks of the first part of a large budget
STRETCHES = 1, 1.2, 1.5, 2, 3, 5, 8, 16  # of a perturbation that most draws get wrong, until all do
HONEST = 0.4  # error of a linear prediction, relative to the change that it predicts
DUAL = {"l2": "l2", "linf": "l1", "l1": "linf"}
STRAIGHT = 0.001  # the same, where the linear prediction needs no caution
LEAST = 1 / 2000  # of the widest perturbation: a step without a gradient


class Adversarials(NamedTuple):
    """What a search for small perturbations found.

    Attributes
    ----------
    x : array, shape (N, ...)
        The perturbed samples, as the oracle holds them; where the attack failed, the last point tried.
    norms : ndarray of float, shape (N,)
        Norm of each perturbation: 0 where the sample was wrong from the start, infinite where the attack
        failed. Where predictions vary, most draws are wrong from this norm on.
    """

    x: Any
    norms: Array


def minimum_norm_attack(
    oracle: Oracle,
    *,
    norm: str,
    budget: int,
    start: Any = None,
    on_step: Callable[[float], None] = lambda done: None,
) -> Adversarials:
    """Look for the smallest perturbation that makes the prediction wrong.

    A first short walk along the decision boundary shows whether the gradient predicts the margin. Half of the
    first 100 gradients then go down to the boundary, from the sample, within a bound that grows until the
    prediction is wrong and shrinks while it is: this averages the gradient over many points on both sides.
    Where the gradient predicts the margin, the rest goes along the boundary: from the nearest wrong point,
    then, for the nearest other classes, from beyond theirs, because the gradient at the sample may not lead
    there. Elsewhere, as behind a defence whose gradient is an estimate, it goes down again from a random
    point. A larger budget adds longer walks from random points, every fourth of the other kind. No step has a
    length in the unit of the data, and no decision depends on the scale of the logits.

    Parameters
    ----------
    oracle : Oracle
        The samples behind the defended classifier.
    norm : str
        Of the perturbation: "l2", "linf" or "l1".
    budget : int
        Gradient evaluations for each sample, at least 1. A stochastic defence averages each over its draws.
    start : array, shape (N, ...), optional
        Perturbed samples within the range, found elsewhere, to begin a walk at.
    on_step : callable
        Called with the fraction of the work that is done.

    Returns
    -------
    Adversarials
        On a linear model, the distances to the decision boundary; elsewhere, upper bounds of them.

    Notes
    -----
    The walk along the boundary combines the projections of the sample and of the current point onto the
    linearised boundary, as FAB does [1]_, towards one class at a time and with the share of the first
    falling. The bound of the walk down is adapted as in DDN [2]_ and FMN [3]_.

    References
    ----------
    .. [1] Croce, Hein. Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML
       2020. arXiv:1907.02044
    .. [2] Rony et al. Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
       Defenses. CVPR 2019. arXiv:1811.09600
    .. [3] Pintor et al. Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints. NeurIPS
       2021. arXiv:2102.12827
    """
    search = _Search(oracle, norm, budget, on_step)
    rows, left = search.rows, budget - 1
    for points, found in ((start, None), (oracle.x, search.found)):
        if points is not None and left and len(rows):
            looks = min(left, FIRST)
            left -= looks
            targets = None if found is None else search.ranking(rows)[:, 0]
            honest = search.along(rows, looks, take(points, rows), targets, of(found, rows))
    if left and len(rows):
        for kind, some in ((True, honest), (False, ~honest)):
            search.finish(rows[places(some, oracle.x, rows)], left, honest=kind)
    on_step(1.0)
    return Adversarials(search.x, search.norms)


class _Search:
    """The nearest wrong points so far, and the walks that look for nearer ones."""

    def __init__(self, oracle: Oracle, norm: str, budget: int, on_step: Callable[[float], None]) -> None:
        self.oracle, self.norm, self.budget = oracle, norm, budget
        self.on_step, self.looks, self.all_looks = on_step, 0, budget * len(oracle)
        self.x, self.norms = copied(oracle.x), np.full(len(oracle), np.inf)
        everyone = np.arange(len(oracle))
        self.found = oracle.look(oracle.x, everyone, margin)
        wrong = self._agreed(self.found.mean < 0, oracle.x, everyone)
        self.rows, self.norms[wrong] = places(~wrong, oracle.x), 0
        self._count(len(oracle) + (budget - 1) * int(wrong.sum()))
        own = np.arange(oracle.nb_classes) == oracle.y[:, None]
        self.scores = np.where(own, -np.inf, self.found.scores)
        self.reached = np.where(own, np.nan, np.inf)  # the smallest norm while each class was aimed at

    def ranking(self, rows: Array) -> Array:
        """Wrong classes, the nearest first; those that were not reached by their score."""
        order: Array = np.lexsort((-self.scores[rows], self.reached[rows]), axis=1)
        return order[:, :-1]

    def finish(self, rows: Array, left: int, *, honest: bool) -> None:
        """Spend what is left of the budget."""
        if not len(rows):
            return
        block = min(left, max(0, BLOCK - self.budget + left))
        self._first(rows, block, honest)
        left, walks = left - block, 0
        while left > 0:
            # Twice as long each time, so that a larger budget does first what a smaller one does.
            block = min(left, 2 * (self.budget - left))
            left -= block
            length = max(FIRST, block // 4)
            while block > 0:
                looks = block if block < 1.5 * length else length
                start = self._elsewhere(rows, near_best=walks % 2 == 0)
                if honest == (walks % 4 != 3):
                    self.along(rows, looks, start, self._target(rows, walks) if honest else None)
                else:
                    self.down(rows, looks, start, margin if walks % 2 else all_others)
                block -= looks
                walks += 1

    def _first(self, rows: Array, left: int, honest: bool) -> None:
        """Spend the first part of it: half goes down, the rest along the boundary if that is honest."""
        x = take(self.oracle.x, rows)
        looks = left // 2
        self.down(rows, looks, x, all_others, of(self.found, rows))
        left -= looks
        if not honest:
            self.down(rows, left, self._elsewhere(rows, near_best=False), margin)
            return
        looks, rank = min(left, POLISH), 0
        self.along(rows, looks, take(self.x, rows), self._target(rows, rank))
        left -= looks
        while left > 0:
            looks, rank = left if left < 1.5 * OTHER else OTHER, rank + 1
            self.back(rows, looks, self._target(rows, rank))
            left -= looks

    def _target(self, rows: Array, rank: int) -> Array:
        targets: Array = self.ranking(rows)[:, rank % min(TARGETS, self.oracle.nb_classes - 1)]
        return targets

    def along(
        self, rows: Array, looks: int, points: Any, targets: Array | None, found: Look | None = None
    ) -> Array:
        """Walk along the boundary of these classes, or of the best at each point.

        Returns whether most changes of the loss were as predicted, shape (n,).
        """
        x, aim = take(self.oracle.x, rows), (margin, None) if targets is None else (targeted_margin, targets)
        rights, missed, straight = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), bool)
        steps = looks - (found is None)
        found = self._look(rows, points, *aim) if found is None else found
        for k in range(steps):
            fall = (1 + np.cos(np.pi * k / max(steps - 1, 1))) / 2
            values, normals = self._plane(rows, found, rights)
            lead = (0.0005 + 0.0495 * fall) * 2.0**rights
            rise = dots(normals, points - x) - values
            ahead = nearest_on_plane(x, normals, rise * (1 + lead), self.oracle.clip_values, self.norm)
            if k:  # its share falls from 1 to 0.1, unless the boundary is straight here
                beside = lead * np.abs(rise) - values
                here = nearest_on_plane(points, normals, beside, self.oracle.clip_values, self.norm)
                ahead = self._clipped(between(here, ahead, np.where(straight, 1, 0.1 + 0.9 * fall)))
            change = found.factors * dots(found.gradient, ahead - points)
            before, points, found = found, ahead, self._look(rows, ahead, *aim)
            error = np.abs(found.values - before.values - change)
            missed += ~(error <= HONEST * np.abs(change))
            straight = error <= STRAIGHT * np.abs(change)
            rights = np.maximum(0, rights + np.where(found.mean < 0, -1, 1))
        return missed <= steps / 2

    def back(self, rows: Array, looks: int, targets: Array) -> None:
        """Walk along the boundary of these classes, after steps beyond it, each as long as the best norm."""
        points, steps = take(self.oracle.x, rows), min(BEYOND, looks - 1)
        for _ in range(steps):
            found = self._look(rows, points, targeted_margin, targets)
            _, normals = self._plane(rows, found, np.zeros(len(rows)))
            step = self._uphill(normals)
            points = self._clipped(points + scaled(step, self._best(rows) / norms(step, self.norm)))
        self.along(rows, looks - steps, points, targets)

    def down(self, rows: Array, looks: int, points: Any, loss: Loss, found: Look | None = None) -> None:
        """Walk up a loss within a bound that follows the boundary, narrower after each success."""
        if not looks:
            return
        x, none = take(self.oracle.x, rows), np.zeros(len(rows))
        steps = looks - (found is None)
        found = self._look(rows, points, margin) if found is None else found
        values, normals = self._plane(rows, found, none)
        rise = dots(normals, points - x) - values
        bound = norms(nearest_on_plane(x, normals, rise, self.oracle.clip_values, self.norm) - x, self.norm)
        for k in range(steps):
            fall = (1 + np.cos(np.pi * k / max(steps - 1, 1))) / 2
            if k:
                _, normals = self._plane(rows, found, none)
                change = 0.01 + 0.19 * fall
                wider = np.where(np.isfinite(self.norms[rows]), 1 + change, 1.5) * bound
                narrower = (1 - change) * np.minimum(bound, norms(points - x, self.norm))
                bound = np.where(found.mean < 0, narrower, wider)
            points = points + scaled(self._uphill(normals), (0.01 + 0.49 * fall) * bound)
            points = self._clipped(nearest_in_ball(x, points, bound, self.norm))
            found = self._look(rows, points, loss)

    def _look(self, rows: Array, points: Any, loss: Loss, targets: Array | None = None) -> Look:
        """Look at points, and keep those that are wrong and nearer than all before."""
        found = self.oracle.look(points, rows, loss, targets)
        lengths = norms(points - take(self.oracle.x, rows), self.norm)
        wrong, best = found.mean < 0, self.norms[rows]
        nearer = wrong & (lengths < best)
        wrong = np.where(nearer, self._agreed(nearer, points, rows), wrong)
        kept = places((wrong & (lengths < best)) | np.isinf(best), points)
        self.x = put(self.x, rows[kept], take(points, kept))
        self.norms[rows] = np.where(wrong, np.minimum(lengths, best), best)
        classes = best_other(found.scores, self.oracle.y[rows]) if targets is None else targets
        reached = self.reached[rows, classes]
        self.reached[rows, classes] = np.where(wrong, np.minimum(lengths, reached), reached)
        self._count(len(np.unique(rows)))
        return found

    def _agreed(self, wrong: Array, points: Any, rows: Array) -> Array:
        """Which of these wrong points other draws find wrong too: of many, the luckiest would be kept."""
        agreed, some = wrong.copy(), places(wrong, points)
        if self.oracle.stochastic and len(some):
            agreed[some] = self.oracle.median_margin(take(points, some), rows[some]) < 0
        return agreed

    def _plane(self, rows: Array, found: Look, rights: Array) -> tuple[Array, Any]:
        """Value and gradient of a linear loss that is 0 at the boundary, the gradient's largest component 1.

        Without a usable gradient the direction is random and the distance short, but doubled each time.
        """
        xp = array_namespace(found.gradient)
        sizes = norms(found.gradient, "linf")
        usable = np.isfinite(sizes) & (sizes > 0) & np.isfinite(found.values)
        sizes = np.where(usable, sizes, 1)
        normals = found.gradient / for_each(sizes, found.gradient)
        values = np.where(usable, found.values, 0) / found.factors / sizes
        lost = places(~usable, normals)
        if len(lost):
            noise = self.oracle.standard_normal(rows[lost])
            low, high = self.oracle.clip_values
            lengths = LEAST * (high - low) * norms(xp.ones_like(noise), self.norm) * 2.0 ** rights[lost]
            values[lost] = -lengths * norms(noise, DUAL[self.norm])
            normals = put(normals, lost, noise)
        return values, normals

    def _elsewhere(self, rows: Array, near_best: bool) -> Any:
        """Random points as far away as the nearest wrong ones, or points near those."""
        x, best = take(self.oracle.x, rows), self._best(rows)
        noise = self.oracle.standard_normal(rows)
        centre, size = (take(self.x, rows), 0.3 * best) if near_best else (x, best)
        moved = centre + scaled(noise, size / norms(noise, self.norm))
        return self._clipped(moved)

    def _best(self, rows: Array) -> Array:
        """Norms of the nearest wrong points; 0 where there is none."""
        return np.where(np.isfinite(self.norms[rows]), self.norms[rows], 0)

    def _uphill(self, normals: Any) -> Any:
        """The direction of a step."""
        return array_namespace(normals).sign(normals) if self.norm == "linf" else unit(normals)

    def _clipped(self, points: Any) -> Any:
        return array_namespace(points).clip(points, *self.oracle.clip_values)

    def _count(self, looks: int) -> None:
        self.looks += looks
        self.on_step(self.looks / self.all_looks)


def of(found: Look | None, rows: Array) -> Look | None:
    """What was seen at some of the points."""
    return None if found is None else Look._make(take(value, rows) for value in found)


def pull_towards(
    oracle: Oracle,
    moved: Any,
    *,
    norm: str,
    rows: Array | None = None,
    margin: Callable[[Any, Array], Array] | None = None,
    halvings: int = 8,
    on_step: Callable[[float], None] = lambda done: None,
) -> Adversarials:
    """Pull perturbed samples towards the originals while they stay wrong.

    Parameters
    ----------
    oracle : Oracle
        The samples behind the defended classifier.
    moved : array, shape (n, ...)
        Perturbed samples. Those that are not wrong are left where they are, with an infinite norm.
    norm : str
        Of the perturbation: "l2", "linf" or "l1".
    rows : ndarray of int, shape (n,), optional
        Which samples these are; all of them if omitted.
    margin : callable, optional
        ``margin(points, rows)`` is negative where a prediction is wrong; `oracle.margin` if omitted.
    halvings : int
        Steps of the bisection; it is exact to 2 ** -halvings of the perturbation.
    on_step : callable
        Called with the fraction of the work that is done.

    Returns
    -------
    Adversarials
    """
    rows = np.arange(len(oracle)) if rows is None else rows
    margin = oracle.margin if margin is None else margin
    x = take(oracle.x, rows)
    lengths = np.where(margin(moved, rows) < 0, norms(moved - x, norm), np.inf)
    found = places((lengths > 0) & (lengths < np.inf), x)
    near, far = np.zeros(len(rows)), np.ones(len(rows))  # the bracket, as fractions of the line
    for index in range(halvings if len(found) else 0):
        middle = (near[found] + far[found]) / 2
        points = between(take(x, found), take(moved, found), middle)
        wrong = margin(points, rows[found]) < 0
        far[found] = np.where(wrong, middle, far[found])
        near[found] = np.where(wrong, near[found], middle)
        on_step((index + 1) / halvings)
    on_step(1.0)
    pulled = chosen(far < 1, between(x, moved, far), moved)
    return Adversarials(pulled, np.where(np.isfinite(lengths), norms(pulled - x, norm), np.inf))


def for_most_draws(oracle: Oracle, found: Adversarials, *, norm: str) -> Adversarials:
    """The perturbations, longer until every draw is wrong, with the norms from which on most draws are.

    The norm that every draw needs grows with the number of draws, whatever the defence does. Without a
    stochastic defence, what was found.
    """
    if not oracle.stochastic:
        return found
    moved, rows = copied(found.x), places((found.norms > 0) & np.isfinite(found.norms), found.x)
    for factor in STRETCHES:
        x = take(oracle.x, rows)
        longer = between(x, take(found.x, rows), np.full(len(rows), factor))
        longer = array_namespace(longer).clip(longer, *oracle.clip_values)
        wrong = oracle.margin(longer, rows) < 0
        reached, left = places(wrong, longer), places(~wrong, longer, rows)
        moved = put(moved, rows[reached], take(longer, reached))
        rows = rows[left]
    pulled = pull_towards(oracle, moved, norm=norm, margin=oracle.median_margin)
    # Where no length makes every draw wrong, other draws may say no: those of the search said yes.
    return Adversarials(moved, np.where(np.isfinite(pulled.norms), pulled.norms, found.norms))
