"""AutoAttack: the suite of attacks that published robust accuracies are measured with."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace

from .._core.checks import check_option
from .._core.errors import ArgumentError
from .._core.typing import Array
from .bounded_attack import likeliest_wrong
from .losses import Loss, cross_entropy, logits_ratio, targeted_logits_ratio, targeted_margin
from .oracle import Oracle
from .perturbations import between, chosen, dots, host, norms, scaled, take
from .projection import nearest_on_plane
from .search import Search, Worst, check_bound
from .square_attack import square_attack

__all__ = ["apgd", "autoattack", "fab"]

STEPS = 100  # of APGD and of FAB
TARGETS = 9
QUERIES = 5000  # of Square
EOT = 20  # draws of a stochastic defence, in `rand`
FEWEST_CLASSES = {"standard": 4, "rand": 3}  # for which the difference of logits ratio is defined
MOMENTUM = 0.75  # weight of the new step
RISING = 0.75  # of the steps since the last checkpoint, for the step size to stay
OVERSHOOT, BACKWARD, MOST_BIAS = 1.05, 0.9, 0.1  # of FAB: eta, beta and alpha_max


def autoattack(
    oracle: Oracle,
    *,
    norm: str,
    eps: float,
    version: Literal["standard", "rand"] = "standard",
    on_step: Callable[[float], None] = lambda done: None,
) -> Worst:
    """Run the attacks of AutoAttack [1]_, each on the samples that those before have left.

    `standard`: APGD on the cross-entropy, APGD on the targeted difference of logits ratio (DLR), FAB, both
    for up to nine classes, 100 steps each, and Square with 5,000 queries [2]_ [3]_. `rand`, for stochastic
    defences: APGD on the cross-entropy and on the DLR, with gradients averaged over 20 draws.

    Parameters
    ----------
    oracle : Oracle
        N samples behind the defended classifier.
    norm : {"linf", "l2"}
        Norm of the perturbation.
    eps : float
        Bound of it, at least 0.
    version : {"standard", "rand"}
        Which attacks.
    on_step : callable
        Called with the fraction of the gradients that is spent.

    Returns
    -------
    Worst
        A misclassified sample within the bound where one was found, else the one with the lowest margin.

    Raises
    ------
    ValueError
        If a parameter is outside its legal values, or the DLR is undefined because there are too few classes.

    Notes
    -----
    Differences from the published code: a sample leaves at its first misclassified point, and behind a
    stochastic defence only if that is wrong on every draw of two looks; a gradient that is zero or not
    finite is replaced by a random direction; the cross-entropy is computed from log-odds, so that its
    gradient does not vanish.

    References
    ----------
    .. [1] Croce, Hein. Reliable evaluation of adversarial robustness with an ensemble of diverse
       parameter-free attacks. ICML 2020. arXiv:2003.01690
    .. [2] Croce, Hein. Minimally distorted adversarial examples with a fast adaptive boundary attack.
       ICML 2020. arXiv:1907.02044
    .. [3] Andriushchenko, Croce, Flammarion, Hein. Square Attack: a query-efficient black-box adversarial
       attack via random search. ECCV 2020. arXiv:1912.00049
    """
    check_bound(norm, eps)
    check_option("version", version, tuple(FEWEST_CLASSES))
    if oracle.nb_classes < FEWEST_CLASSES[version]:
        raise ArgumentError(
            f"`version={version!r}` needs at least {FEWEST_CLASSES[version]} classes, "
            f"got {oracle.nb_classes}: the difference of logits ratio is undefined for fewer; "
            "leave `attacks` at its default."
        )
    if not eps:
        return Worst(oracle.x, np.full(len(oracle), np.inf))
    targets = min(TARGETS, oracle.nb_classes - 1) if version == "standard" else 0
    looks = 1 + (STEPS + 1) * (2 + targets) + STEPS * targets
    own = oracle.model
    if version == "rand":
        oracle.model = own.with_draws(EOT)
    try:
        search = Search(oracle, norm, eps, looks, on_step)
        search.look(oracle.x, cross_entropy, None)
        aims = likeliest_wrong(search.scores, oracle.y)[:targets]
        apgd(search, cross_entropy, None, STEPS)
        if version == "rand":
            apgd(search, logits_ratio, None, STEPS)
        for aim in aims:
            apgd(search, targeted_logits_ratio, aim, STEPS)
        for aim in aims:
            fab(search, aim, STEPS)
        if version == "standard":
            _square(search)
    finally:
        oracle.model = own
    on_step(1.0)
    return search.worst


def apgd(search: Search, loss: Loss, targets: Array | None, steps: int) -> None:
    """Climb a loss with momentum; halve the step, and go back to the highest point, where it stops rising.

    The step size of a sample, at first twice the bound, halves at a checkpoint if the loss rose in at most
    3/4 of the steps since the last one, or if neither step size nor highest loss changed since then.
    """
    if not len(search.rows):
        return
    everyone = len(search.oracle)
    sizes = np.full(everyone, 2 * search.eps)
    last, highest, at_checkpoint = (np.full(everyone, -np.inf) for _ in range(3))
    rises, halved = np.zeros(everyone, int), np.ones(everyone, bool)
    interval, since = max(int(0.22 * steps), 1), 0
    shortest, shorter = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    point = before = top = search.start()
    steepest: Any = None
    for step in range(steps + 1):
        look, stay = search.look(point, loss, targets)
        if step == steps or not len(stay):
            return
        rows, values, gradient = search.rows, look.values[stay], take(look.gradient, stay)
        point, before, top = (take(part, stay) for part in (point, before, top))
        higher = values > highest[rows]
        top = chosen(higher, point, top)
        steepest = gradient if step == 0 else chosen(higher, gradient, take(steepest, stay))
        rises[rows] += (values > last[rows]) & (step > 0)
        last[rows], highest[rows] = values, np.maximum(values, highest[rows])
        if step and since == interval:
            stuck = ~halved[rows] & (at_checkpoint[rows] >= highest[rows])
            stuck |= rises[rows] <= RISING * interval
            sizes[rows[stuck]] /= 2
            point, gradient = chosen(stuck, top, point), chosen(stuck, steepest, gradient)
            halved[rows], at_checkpoint[rows], rises[rows] = stuck, highest[rows], 0
            interval, since = max(interval - shorter, shortest), 0
        since += 1
        moved = search.back(point + scaled(search.direction(gradient), sizes[rows]))
        if step:
            moved = search.back(point + MOMENTUM * (moved - point) + (1 - MOMENTUM) * (point - before))
        again = search.suspects()
        if again.any():  # wrong on every draw: to be confirmed where it is
            moved = chosen(again, point, moved)
        before, point = point, moved


def fab(search: Search, targets: Array, steps: int) -> None:
    """Walk along the boundary to a target, towards the sample, until it is within the bound.

    Each step goes to the hyperplane that the gradient takes for the boundary, from the point and, with a
    small weight, from the sample.
    """
    point, (low, high) = search.x, search.oracle.clip_values
    for _ in range(steps):
        rows, x = search.rows, search.x
        if not len(rows):
            return
        look = search.oracle.look(point, rows, targeted_margin, targets[rows])
        search.spent += 1
        normals, _ = search.usable(look.gradient)
        rise = -look.values / look.factors
        away = dots(normals, point - x)
        onwards = nearest_on_plane(point, normals, rise, (low, high), search.norm) - point
        anew = nearest_on_plane(x, normals, rise + away, (low, high), search.norm) - x
        lengths, others = (np.maximum(norms(part, search.norm), 1e-8) for part in (onwards, anew))
        bias = np.minimum(lengths / (lengths + others), MOST_BIAS)
        point = between(point + OVERSHOOT * onwards, x + OVERSHOOT * anew, bias)
        point = array_namespace(point).clip(point, low, high)
        margins = search.oracle.margin(point, rows)
        inside = (margins < 0) & (norms(point - x, search.norm) <= search.eps)
        point = between(x, point, np.where(inside, 1.0, np.where(margins < 0, BACKWARD, 1.0)))
        stay = search.settle(point, np.where(inside, margins, np.inf), inside)
        point = take(point, stay)
        search.on_step(search.spent / search.budget)


def _square(search: Search) -> None:
    """Random search, without gradients; it stays on the CPU."""
    oracle, rows = search.oracle, search.rows
    if not len(rows):
        return

    def margins(points: Array, some: Array) -> Array:
        return oracle.mean_margin(oracle.model.array(points), rows[some])

    found = square_attack(
        host(search.x),
        margins,
        norm=search.norm,
        eps=search.eps,
        clip_values=oracle.clip_values,
        channels_first=oracle.model.channels_first,
        queries=QUERIES,
        seed=oracle.seed(),
        numbers=oracle.numbers[rows],
    )
    points = oracle.model.array(found)
    left = oracle.margin(points, rows)
    search.settle(points, left, left < 0)
