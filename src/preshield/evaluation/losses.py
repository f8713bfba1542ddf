"""What an attack climbs: losses of scores, each with its derivative.

A loss maps scores `(n, K)`, logits or log-probabilities, labels `(n,)` and targets `(n,)`, which those
without aim ignore, to one value for each sample `(n,)`, and to its derivative with respect to the scores
`(n, K)`. All are NumPy arrays of float64: a model, in whatever framework, gives scores and takes their
derivative back.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.typing import Array

__all__ = [
    "Loss",
    "all_others",
    "best_other",
    "climbed_class",
    "cross_entropy",
    "logits_ratio",
    "margin",
    "targeted_logits_ratio",
    "targeted_margin",
]

# Targets are an array, or None for losses without.
Loss = Callable[[Array, Array, Any], tuple[Array, Array]]

SLOPE = 1e-13  # of the cross-entropy where its own is less; too little to be seen elsewhere
SPAN = 20.0  # of the scores of a model whose probabilities are neither even nor certain
TINY = 1e-12  # in the place of a difference of 0


def cross_entropy(scores: Array, y: Array, targets: Array | None = None) -> tuple[Array, Array]:
    """Cross-entropy, from the log-odds of the label: it keeps its direction where a model is sure."""
    own = _own(scores, y)
    others = np.where(own, -np.inf, scores)
    together = _log_sum(others)
    odds = together - scores[own]
    values = np.logaddexp(0, odds) + SLOPE * odds
    slope = np.exp(-np.logaddexp(0, -odds)) + SLOPE
    derivative = np.where(own, -1.0, np.exp(others - together[:, None]))
    return values, derivative * slope[:, None]


def all_others(scores: Array, y: Array, targets: Array | None = None) -> tuple[Array, Array]:
    """A mean margin of the wrong classes, weighted as in a cross-entropy of scores that span `SPAN`.

    The derivative, of constant weights, points as that cross-entropy does, whatever the scale of the scores.
    """
    own = _own(scores, y)
    span = np.maximum(np.ptp(scores, axis=1, keepdims=True), np.finfo(float).tiny)
    others = np.where(own, -np.inf, SPAN * (scores / span))
    weights = np.exp(others - _log_sum(others)[:, None])
    derivative = weights - own
    return (derivative * scores).sum(axis=1), derivative


def margin(scores: Array, y: Array, targets: Array | None = None) -> tuple[Array, Array]:
    """By how much the best wrong class exceeds the label."""
    return targeted_margin(scores, y, best_other(scores, y))


def targeted_margin(scores: Array, y: Array, targets: Array) -> tuple[Array, Array]:
    """By how much the targets exceed the labels."""
    derivative = _own(scores, targets) * 1.0 - _own(scores, y)
    return _at(scores, targets) - _at(scores, y), derivative


def logits_ratio(scores: Array, y: Array, targets: Array | None = None) -> tuple[Array, Array]:
    """Difference of logits ratio of Croce and Hein 2020, arXiv:2003.01690; of two classes, their margin."""
    if scores.shape[1] < 3:
        return margin(scores, y)
    order = np.argsort(scores, axis=1)
    first, second, third = order[:, -1], order[:, -2], order[:, -3]
    other = np.where(first == y, second, first)
    span = np.maximum(_at(scores, first) - _at(scores, third), TINY)
    values = (_at(scores, other) - _at(scores, y)) / span
    derivative = _own(scores, other) * 1.0 - _own(scores, y)
    derivative -= values[:, None] * (_own(scores, first) * 1.0 - _own(scores, third))
    return values, derivative / span[:, None]


def targeted_logits_ratio(scores: Array, y: Array, targets: Array) -> tuple[Array, Array]:
    """Its targeted form; of fewer than four classes, the targeted margin."""
    if scores.shape[1] < 4:
        return targeted_margin(scores, y, targets)
    order = np.argsort(scores, axis=1)
    first, third, fourth = order[:, -1], order[:, -3], order[:, -4]
    span = np.maximum(_at(scores, first) - (_at(scores, third) + _at(scores, fourth)) / 2, TINY)
    values = (_at(scores, targets) - _at(scores, y)) / span
    derivative = _own(scores, targets) * 1.0 - _own(scores, y)
    of_span = _own(scores, first) - (_own(scores, third) * 0.5 + _own(scores, fourth) * 0.5)
    return values, (derivative - values[:, None] * of_span) / span[:, None]


def best_other(scores: Array, y: Array) -> Array:
    """The class with the largest score but `y`, shape (n,)."""
    other: Array = np.where(_own(scores, y), -np.inf, scores).argmax(axis=1)
    return other


def climbed_class(scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
    """The score of the target or of the best wrong class, whatever the label loses; and its derivative.

    For a classifier that decides otherwise than by its largest score. Where its margin is negative, a wrong
    class has won already: there minus the score of the label.
    """
    wrong = margin < 0
    climbed = np.where(wrong, y, best_other(scores, y) if targets is None else targets)
    signs = np.where(wrong, -1.0, 1.0)
    slopes = signs[:, None] * (np.arange(scores.shape[1]) == climbed[:, None])
    return signs * scores[np.arange(len(y)), climbed], slopes


def _own(scores: Array, classes: Array) -> Array:
    """Which entry of each row is that of its class."""
    own: Array = np.arange(scores.shape[1]) == classes[:, None]
    return own


def _at(scores: Array, classes: Array) -> Array:
    values: Array = scores[np.arange(len(scores)), classes]
    return values


def _log_sum(scores: Array) -> Array:
    """Logarithm of the sum of the exponentials of each row."""
    largest = scores.max(axis=1)
    found: Array = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    return found
