"""A vote over several views, as an attacker sees it who knows all of them."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin

from .._core.errors import ArgumentError
from .._core.typing import Array, Shape
from ..preprocessor import Preprocessor
from .classifiers import TINY, are_probabilities
from .estimator import DefendedClassifier
from .gradients import gradient_variants, side_by_side
from .metrics import REJECTED
from .vote_report import elect

__all__ = ["VotingClassifier"]

STEP = 1e-6  # of a margin that only has to have a sign

Pass = tuple[Array, Callable[[Array], Array]]


class VotingClassifier(ClassGradientsMixin, ClassifierMixin, LossGradientsMixin, BaseEstimator):  # type: ignore[misc]
    """A differentiable stand-in for a vote, for any attack of ART.

    A vote has no gradient: its label does not change until that of a view does. What the stand-in has is the
    distance of each class from being elected. In one view, class k lacks the difference between the largest
    log-probability and its own; the score of k is minus the mean of this over the views in which it lacks
    least, as many as elect it: 0 where they all vote for it. The loss is the score of the best wrong class:
    its gradient pulls the views that are needed, and have not changed yet, towards one class. Whether an
    attack has succeeded is decided by the vote.

    Parameters
    ----------
    classifier : object
        An ART classifier with the gradients of a cross-entropy.
    views : sequence of Preprocessor or None
        What stands in front of it in each view.
    min_votes : int
        Votes that a label needs.
    clip_values : tuple of float
        Smallest and largest value of a sample.
    input_shape : tuple of int
        Shape of one sample.
    """

    def __init__(
        self,
        classifier: Any,
        views: Sequence[Preprocessor | None],
        min_votes: int,
        *,
        clip_values: tuple[float, float],
        input_shape: Shape,
    ) -> None:
        super().__init__(model=getattr(classifier, "model", None), clip_values=clip_values)
        self.classifier = classifier
        self.min_votes = min_votes
        self.nb_classes = int(classifier.nb_classes)
        self._input_shape = input_shape
        self.views = [
            DefendedClassifier(
                classifier,
                view,
                draws=1,
                clip_values=clip_values,
                nb_classes=self.nb_classes,
                input_shape=input_shape,
            )
            for view in views
        ]
        self.restart(0)
        self.channels_first = any(view.channels_first for view in self.views)
        self.stochastic = any(view.stochastic for view in self.views)

    def restart(self, seed: int) -> None:
        """Draw from this seed on, in each view something else."""
        for view, words in zip(self.views, np.random.SeedSequence(seed).spawn(len(self.views)), strict=True):
            view.restart(int(words.generate_state(1)[0]))

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""
        return self._input_shape

    def variants(self) -> list[Self]:
        """The same vote with each gradient that its views offer, as `gradient_variants` has them."""
        each = [gradient_variants(view.defence) for view in self.views]
        own = [view.defence for view in self.views]
        others = [
            views for views in side_by_side(each) if any(a is not b for a, b in zip(views, own, strict=True))
        ]
        same = {"clip_values": self.clip_values, "input_shape": self._input_shape}
        return [self, *(type(self)(self.classifier, views, self.min_votes, **same) for views in others)]

    # What ART's attacks call

    def predict(self, x: Array, batch_size: int = 128, **kwargs: Any) -> Array:
        """Scores `(N, K)`, up to 0; the label of the vote has the largest, unless it rejects."""
        return self._scores(self._views(x)[1]).astype(np.float32)

    def loss_gradient(self, x: Array, y: Array, **kwargs: Any) -> Array:
        """Gradient of the loss with respect to `x`."""
        passes, seen_as = self._views(x)
        rows, rival = np.arange(len(x)), _best_other(self._scores(seen_as), _indices(y))
        shares = self._shares(seen_as)[:, rows, rival]
        label, total = np.eye(self.nb_classes, dtype=np.float32), np.zeros(x.shape, np.float32)
        for (seen, back), outputs, share in zip(passes, seen_as, shares, strict=True):
            # The difference of two cross-entropies is that of two log-probabilities.
            towards, away = (
                self.classifier.loss_gradient(seen, label[c], **kwargs)
                for c in (rival, outputs.argmax(axis=1))
            )
            total += back(_weighted(away - towards, share))
        return total

    def class_gradient(self, x: Array, label: Any = None, **kwargs: Any) -> Array:
        """Gradients of the scores with respect to `x`."""
        passes, seen_as = self._views(x)
        rows, total = np.arange(len(x)), np.zeros((len(x), self.nb_classes, *x.shape[1:]), np.float32)
        for (seen, back), outputs, share in zip(passes, seen_as, self._shares(seen_as), strict=True):
            gradients = self.classifier.class_gradient(seen, **kwargs)
            lacking = gradients - gradients[rows, outputs.argmax(axis=1)][:, None]
            total += back(_weighted(lacking, share))
        return total if label is None else total[rows, np.broadcast_to(label, len(x))][:, None]

    def compute_loss(self, x: Array, y: Array, **kwargs: Any) -> Array:
        """Loss of each sample, shape (N,)."""
        scores = self.predict(x)
        loss: Array = scores[np.arange(len(x)), _best_other(scores, _indices(y))]
        return loss

    def fit(self, x: Array, y: Array, **kwargs: Any) -> None:
        """Refuse: this class is for attacks."""
        raise ArgumentError("A VotingClassifier is for attacks; train the classifier itself.")

    # What a DefendedClassifier calls

    def decide(self, x: Array) -> Array:
        """What the vote says, shape (N,); -1 where it rejects."""
        return self._elected(self._views(x)[1])

    def margin(self, x: Array, y: Array) -> Array:
        """How far the best wrong class is from being elected, shape (N,); negative where one is."""
        seen_as = self._views(x)[1]
        label, scores, rows = self._elected(seen_as), self._scores(seen_as), np.arange(len(x))
        lacking = -scores[rows, _best_other(scores, y)]
        wrong = (label != y) & (label != REJECTED)
        margin: Array = np.where(wrong, np.minimum(scores[rows, y], -STEP), np.maximum(lacking, STEP))
        return margin

    def _views(self, x: Array) -> tuple[list[Pass], Array]:
        """The passes through the views, and the log-probabilities in each, shape (V, N, K)."""
        passes = [view.defended(x) for view in self.views]
        outputs = [view.outputs(seen) for view, (seen, _) in zip(self.views, passes, strict=True)]
        return passes, np.stack([_log_probabilities(scores) for scores in outputs])

    def _elected(self, seen_as: Array) -> Array:
        return elect(seen_as.argmax(axis=2).T, self.min_votes)

    def _scores(self, seen_as: Array) -> Array:
        scores: Array = -(self._shares(seen_as) * _lacking(seen_as)).sum(axis=0)
        return scores

    def _shares(self, seen_as: Array) -> Array:
        """Weight of each view in the score of each class, shape (V, N, K)."""
        rank = _lacking(seen_as).argsort(axis=0, kind="stable").argsort(axis=0)
        labels = seen_as.argmax(axis=2)
        same = labels[:, None] == labels
        others = labels[:, :, None] != np.arange(self.nb_classes)
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


def _best_other(scores: Array, y: Array) -> Array:
    """The class with the largest score but `y`, shape (N,)."""
    other: Array = np.where(np.arange(scores.shape[1]) == y[:, None], -np.inf, scores).argmax(axis=1)
    return other


def _weighted(gradient: Array, weights: Array) -> Array:
    by_sample = weights.reshape(*weights.shape, *[1] * (gradient.ndim - weights.ndim))
    weighted: Array = gradient * by_sample.astype(gradient.dtype)
    return weighted


def _indices(y: Array) -> Array:
    return y.argmax(axis=1) if y.ndim == 2 else y


def _log_probabilities(outputs: Array) -> Array:
    """Of scores `(N, K)`: probabilities or logits."""
    outputs = outputs.astype(np.float64)
    if are_probabilities(outputs):
        return np.log(np.maximum(outputs, TINY))
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_probabilities: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities
