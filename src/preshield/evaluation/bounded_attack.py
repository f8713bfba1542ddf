"""An attack within a bound that spends its gradients where they break most."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .._core.checks import check_integer
from .._core.typing import Array
from .losses import Loss, cross_entropy, targeted_logits_ratio, targeted_margin
from .oracle import Oracle
from .perturbations import chosen, copied, take
from .search import Search, Worst, check_bound

__all__ = ["bounded_attack"]

FIRST_ROUND = 100  # looks; each round has twice as many as the one before
UNTARGETED = 0.3  # of the looks of a round
MOST_TARGETS = 9  # that are screened
FEWEST_STEPS = 3  # that tell something about a target
FINALS_FROM = 50  # looks of a round that has two finalists


class Round(NamedTuple):
    """Steps without a target; targets that are screened, with their steps; finalists, with theirs."""

    untargeted: int
    screened: int
    screening: int
    finalists: int
    final: int


def bounded_attack(
    oracle: Oracle,
    *,
    norm: str,
    eps: float,
    budget: int,
    on_step: Callable[[float], None] = lambda done: None,
) -> Worst:
    """Look for the perturbation within a bound that a classifier gets most wrong.

    Each run follows the gradient of one loss, normalised, in steps that shrink along a cosine from twice the
    bound to nothing, and back into the ball after each. A round runs the cross-entropy; then the margin of
    each of the likeliest wrong classes, for a few steps; then the targeted logits ratio [1]_ of the two
    classes that came closest, for many. The first round starts from the sample, and its finals from the best
    point so far; later rounds start from random points, and each is twice as long as the one before.

    Parameters
    ----------
    oracle : Oracle
        N samples behind the defended classifier.
    norm : {"linf", "l2"}
        Norm of the perturbation.
    eps : float
        Bound of it, at least 0.
    budget : int
        Most gradients for each sample, each averaged over the draws of a stochastic defence. There is one
        forward pass for each, and one more for the last point.
    on_step : callable
        Called with the fraction of the budget that is spent.

    Returns
    -------
    Worst
        The point with the lowest margin that was visited. A sample that is misclassified returns as it is.
        Coordinates (L-inf) and norms (L2) exceed `eps` by rounding alone.

    Raises
    ------
    ValueError
        If a parameter is outside its legal values.

    Notes
    -----
    A sample is done as soon as it is misclassified: behind a stochastic defence, on every draw of two looks.
    Several losses and targets find what one long run does not: of 117 digits that AutoAttack breaks in L2,
    100 steps along the cross-entropy break 108, ten for each of nine targets 114, and this attack 115.

    References
    ----------
    .. [1] Croce, Hein. Reliable evaluation of adversarial robustness with an ensemble of diverse
       parameter-free attacks. ICML 2020. arXiv:2003.01690
    """
    check_bound(norm, eps)
    check_integer("budget", budget, 1)
    if not eps:
        return Worst(oracle.x, np.full(len(oracle), np.inf))
    search = Search(oracle, norm, eps, budget, on_step)
    for number, plan in enumerate(rounds(budget, oracle.nb_classes - 1)):
        start = search.start if number else lambda: search.x
        climb(search, start, cross_entropy, None, plan.untargeted)
        targets = likeliest_wrong(search.scores, oracle.y)
        if plan.screened:
            targets = targets[: plan.screened]
            reached = [climb(search, start, targeted_margin, target, plan.screening) for target in targets]
            targets = np.take_along_axis(targets, np.argsort(reached, axis=0, kind="stable"), axis=0)
        start = search.start if number else lambda: copied(take(search.best, search.rows))
        for target in targets[: plan.finalists]:
            climb(search, start, targeted_logits_ratio, target, plan.final)
        if not len(search.rows):
            break
    on_step(1.0)
    return search.worst


def rounds(budget: int, wrong_classes: int) -> Iterator[Round]:
    """Share a budget out: the sum of all steps is the budget."""
    size = FIRST_ROUND
    while budget:
        if budget < 1.5 * size:  # too little would be left for another round
            size = budget
        rest = size - round(UNTARGETED * size) if size >= FEWEST_STEPS + 2 else 0
        screened = min(wrong_classes, MOST_TARGETS, rest // 2 // FEWEST_STEPS)
        screened = screened if screened > 1 else 0  # nothing to choose from
        screening = rest // 2 // screened if screened else 0
        rest -= screened * screening
        finalists = min(2 if size >= FINALS_FROM else 1, wrong_classes, rest)
        final = rest // finalists if finalists else 0
        yield Round(size - screened * screening - finalists * final, screened, screening, finalists, final)
        budget, size = budget - size, 2 * size


def climb(search: Search, start: Callable[[], Any], loss: Loss, targets: Array | None, steps: int) -> Array:
    """Follow the gradient of a loss in shrinking steps; the lowest margin on the way, shape (N,)."""
    lowest = np.full(len(search.oracle), np.inf)
    if not (steps and len(search.rows)):
        return lowest
    point = start()
    for step in range(steps):
        rows = search.rows
        look, stay = search.look(point, loss, targets)
        lowest[rows] = np.minimum(lowest[rows], look.mean)
        last = step == steps - 1
        if not len(stay) or (last and search.left):
            break
        size = search.eps * (1 + np.cos(np.pi * step / (steps - 1 + last)))
        point, again = take(point, stay), search.suspects()
        moved = search.back(point + size * search.direction(take(look.gradient, stay)))
        point = chosen(again, point, moved) if again.any() else moved
        if last:  # of the whole attack: where it leads is still to be seen
            search.try_out(point)
    return lowest


def likeliest_wrong(scores: Array, y: Array) -> Array:
    """The wrong classes of each sample, the likeliest first, shape (K - 1, N)."""
    own = np.arange(scores.shape[1]) == y[:, None]
    order = np.argsort(np.where(own, np.inf, -scores), axis=1, kind="stable")
    return np.ascontiguousarray(order[:, :-1].T)
