"""Detection by comparison: how far predictions lie apart, and the rule of a detector, for attacks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from .._core.errors import ArgumentError
from .._core.typing import Array
from .losses import best_other
from .metrics import REJECTED
from .views_classifier import STEP

__all__ = ["Detection", "distances", "samples_needed", "threshold_of"]

TINY = 1e-30  # in the place of a distance of 0
ROUNDING = 1e-9  # of a product of a rate and a number of samples


def distances(seen_as: Array) -> Array:
    """L1 distance of the probabilities in each view from those in the first, shape (V - 1, N), in [0, 2].

    Parameters
    ----------
    seen_as : ndarray of float64, shape (V, N, K)
        Log-probabilities in each view.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> distances(np.log([[[0.5, 0.5]], [[0.9, 0.1]]])).round(3)
    array([[0.8]])
    """
    shares = np.exp(seen_as)
    apart: Array = np.minimum(np.abs(shares[1:] - shares[0]).sum(axis=2), 2.0)
    return apart


def samples_needed(fpr: float) -> int:
    """Fewest clean samples from which a threshold for a false positive rate can be taken."""
    return max(1, int(np.ceil(1 / fpr - ROUNDING)) - 1)


def threshold_of(scores: Array, fpr: float) -> float:
    """The threshold that a fresh score of the same kind exceeds with a probability of at most `fpr`.

    Parameters
    ----------
    scores : ndarray of float, shape (N,)
        Of clean samples, which are exchangeable with those to come.
    fpr : float
        False positive rate, within (0, 1).

    Returns
    -------
    float
        The ``ceil((1 - fpr) (N + 1))``-th smallest score, as in split conformal prediction: at most
        ``fpr (N + 1) - 1`` of the scores lie above.

    Raises
    ------
    ArgumentError
        If there are fewer scores than ``1 / fpr - 1``, so that no score is large enough.

    Examples
    --------
    >>> threshold_of(np.arange(19), 0.05), threshold_of(np.arange(39), 0.05)
    (18.0, 37.0)
    """
    above = int(np.floor(fpr * (len(scores) + 1) + ROUNDING)) - 1
    if above < 0:
        needed = samples_needed(fpr)
        raise ArgumentError(
            f"`x` must hold at least {needed} clean samples for fpr={fpr:g}, which is 1 / fpr - 1, got "
            f"{len(scores)}; pass more, or a larger `fpr`: {1 / (len(scores) + 1):.3g} or more for so many."
        )
    return float(np.sort(scores)[len(scores) - 1 - above])


@dataclass(frozen=True)
class Detection:
    """Accept the label of the first view unless another view lies farther away than the threshold.

    An adversarial example has to get a wrong label and to stay below the threshold. The score of a class is
    minus the sum of what is missing to both: what the class lacks to be the label, in log-probabilities, and
    by how much the distance of each view exceeds the threshold, both as log-odds of half the distance, which
    keep their gradient where views are sure of their labels, and of the same label. The class that is
    accepted has a score above 0: what is left until it is not.

    Attributes
    ----------
    threshold : float
        Largest L1 distance of the probabilities that is accepted.
    aim : {"distance", "agreement"}
        What an attack climbs: the score above, by its own derivative; or agreement on a class, which is what
        brings views together that are far apart. Then a view beyond the threshold lacks that label as well,
        and its distance moves that view alone, or the first one would go back to where it came from.
    """

    threshold: float
    aim: Literal["distance", "agreement"] = "distance"

    def variants(self) -> "list[Detection]":
        """The rule with each aim: agreement gets far, and distance then closer."""
        return [replace(self, aim="agreement"), replace(self, aim="distance")]

    def decide(self, seen_as: Array) -> Array:
        """Label of the first view, shape (N,); -1 where a view is too far away."""
        reported = distances(seen_as).max(axis=0) > self.threshold
        label: Array = np.where(reported, REJECTED, seen_as[0].argmax(axis=1))
        return label

    def scores(self, seen_as: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, and what takes a derivative to the logits of the views (V, N, K)."""
        return self._worked_out(seen_as)

    def margin(self, seen_as: Array, y: Array) -> Array:
        """How far the best wrong class is from being accepted, shape (N,); negative where one is."""
        scores, label = self._worked_out(seen_as)[0], self.decide(seen_as)
        best = scores[np.arange(len(y)), best_other(scores, y)]
        wrong = (label != y) & (label != REJECTED)
        margin: Array = np.where(wrong, -np.maximum(best, STEP), np.maximum(-best, STEP))
        return margin

    def climbed(self, scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
        """The score of the target or of the best wrong class, and its derivative."""
        best = best_other(scores, y)
        climbed = best if targets is None else np.where(margin < 0, best, targets)
        return scores[np.arange(len(y)), climbed], (np.arange(scores.shape[1]) == climbed[:, None]) * 1.0

    @cached_property
    def _limit(self) -> float:
        """Log-odds of half the threshold."""
        return float(np.log(max(self.threshold, TINY)) - np.log(max(2 - self.threshold, TINY)))

    def _worked_out(self, seen_as: Array) -> tuple[Array, Callable[[Array], Array]]:
        first, classes = seen_as[0], np.arange(seen_as.shape[2])
        label = first.argmax(axis=1)
        top: Array = classes == label[:, None]
        second = np.where(top, -np.inf, first).argmax(axis=1)
        apart = distances(seen_as)
        shared = np.minimum(seen_as[1:], first)  # the probability that both have
        common = np.logaddexp.reduce(shared, axis=2)
        excess = np.log(np.maximum(apart, TINY)) - common - np.log(2) - self._limit
        beyond: Array = np.asarray(apart > self.threshold)
        excess = np.where(beyond, np.maximum(excess, STEP), np.minimum(excess, -STEP))
        reported: Array = np.asarray(beyond.any(axis=0))
        lead = np.maximum(first.max(axis=1) - first[np.arange(len(first)), second], STEP)
        slack = -excess.max(axis=0)
        scores: Array = first - first.max(axis=1, keepdims=True)
        scores = scores - np.where(beyond, excess, 0).sum(axis=0)[:, None]
        if self.aim == "agreement":
            lacking = seen_as[1:].max(axis=2, keepdims=True) - seen_as[1:]
            scores = scores - (lacking * beyond[:, :, None]).sum(axis=0)
        scores = np.where(top & ~reported[:, None], np.minimum(lead, slack)[:, None], scores)

        def to_views(upstream: Array) -> Array:
            """Derivatives of the log-probabilities, then of the logits, whose softmax they are."""
            accepted = top & ~reported[:, None]
            of_class = np.where(accepted, 0, upstream)
            of_first = of_class - top * of_class.sum(axis=1, keepdims=True)
            of_distance = -np.where(beyond, of_class.sum(axis=1), 0)
            of_slack = (upstream * accepted).sum(axis=1)
            by_lead = lead <= slack
            of_first += np.where(by_lead, of_slack, 0)[:, None] * (top * 1.0 - (classes == second[:, None]))
            nearest = np.arange(len(excess))[:, None] == excess.argmax(axis=0)
            of_distance = of_distance - np.where(nearest & ~by_lead, of_slack, 0)
            shares = np.exp(seen_as)
            signs = np.sign(shares[0] - shares[1:]) / np.maximum(apart, TINY)[:, :, None]
            weights = np.exp(shared - common[:, :, None])
            smaller = seen_as[1:] < first
            of_others = -signs * shares[1:] - weights * smaller
            of_firsts = signs * shares[0] - weights * ~smaller
            of_views = np.empty(seen_as.shape)
            of_views[1:] = of_distance[:, :, None] * of_others
            of_views[0] = of_first
            if self.aim == "agreement":
                highest = classes == seen_as[1:].argmax(axis=2)[:, :, None]
                missing = of_class * beyond[:, :, None]
                of_views[1:] += missing - highest * missing.sum(axis=2, keepdims=True)
            else:
                of_views[0] += (of_distance[:, :, None] * of_firsts).sum(axis=0)
            of_logits: Array = of_views - shares * of_views.sum(axis=2, keepdims=True)
            return of_logits

        return scores, to_views
