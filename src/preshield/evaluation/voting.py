"""The rule of a vote, for attacks: how far each class is from being elected."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._core.typing import Array
from .losses import best_other, climbed_class
from .metrics import REJECTED
from .views_classifier import STEP
from .vote_report import elect

__all__ = ["Election"]


@dataclass(frozen=True)
class Election:
    """Accept the label with the most votes.

    In one view, class k lacks the difference between the largest log-probability and its own; the score of k
    is minus the mean of this over the views in which it lacks least, as many as elect it: 0 where they all
    vote for it. The gradient of the score of a wrong class pulls the views that are needed, and have not
    changed yet, towards that class.

    Attributes
    ----------
    min_votes : int
        Votes that a label needs.
    """

    min_votes: int

    def variants(self) -> "list[Election]":
        """The rule itself."""
        return [self]

    def decide(self, seen_as: Array) -> Array:
        """What the vote says, shape (N,); -1 where it rejects."""
        return elect(seen_as.argmax(axis=2).T, self.min_votes)

    def scores(self, seen_as: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, up to 0, and what takes a derivative to the logits of the views (V, N, K)."""
        shares = self._shares(seen_as)
        highest = np.arange(seen_as.shape[2]) == seen_as.argmax(axis=2)[:, :, None]

        def to_views(upstream: Array) -> Array:
            of_views = upstream * shares
            # Adding to all logits changes nothing: those of a softmax and its logarithm are one.
            of_logits: Array = of_views - highest * of_views.sum(axis=2, keepdims=True)
            return of_logits

        return self._means(seen_as, shares), to_views

    def margin(self, seen_as: Array, y: Array) -> Array:
        """How far the best wrong class is from being elected, shape (N,); negative where one is."""
        label, rows = self.decide(seen_as), np.arange(len(y))
        scores = self._means(seen_as, self._shares(seen_as))
        lacking = -scores[rows, best_other(scores, y)]
        wrong = (label != y) & (label != REJECTED)
        margin: Array = np.where(wrong, np.minimum(scores[rows, y], -STEP), np.maximum(lacking, STEP))
        return margin

    def climbed(self, scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
        """The score of one class: what the label loses elects nobody, nor do votes for many wrong classes."""
        return climbed_class(scores, y, targets, margin)

    def _means(self, seen_as: Array, shares: Array) -> Array:
        scores: Array = -(shares * _lacking(seen_as)).sum(axis=0)
        return scores

    def _shares(self, seen_as: Array) -> Array:
        """Weight of each view in the score of each class, shape (V, N, K)."""
        rank = _lacking(seen_as).argsort(axis=0, kind="stable").argsort(axis=0)
        labels = seen_as.argmax(axis=2)
        same = labels[:, None] == labels
        others = labels[:, :, None] != np.arange(seen_as.shape[2])
        needed = np.full(seen_as.shape[1:], self.min_votes)
        for count in range(self.min_votes, len(labels) // 2 + 1):  # more is a majority in any case
            agreeing = np.einsum("vwn,wnk->vnk", same, rank >= count, dtype=int)  # in the views that are left
            needed += (agreeing * others).max(axis=0) >= count
        shares: Array = (rank < needed) / needed
        return shares


def _lacking(seen_as: Array) -> Array:
    """What each class lacks to be the label of each view, shape (V, N, K)."""
    lacking: Array = seen_as.max(axis=2, keepdims=True) - seen_as
    return lacking
