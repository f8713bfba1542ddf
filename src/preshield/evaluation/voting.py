"""A vote over several views, as an attacker sees it who knows all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax

from .._core.layout import channel_axis
from .._core.typing import Array, Shape
from ..preprocessor import Preprocessor
from .defended import Addressed, drawing, held, logits_of, pulled, through
from .gradients import gradient_variants, side_by_side
from .losses import best_other
from .metrics import REJECTED
from .perturbations import scaled
from .vote_report import elect

__all__ = ["VotingClassifier"]

STEP = 1e-6  # of a margin that only has to have a sign

Pull = Callable[[Array], Any]
Address = tuple[Array, tuple[int, ...]]  # numbers of the samples, and a seed


class VotingClassifier(Addressed):
    """A differentiable stand-in for a vote.

    A vote has no gradient: its label does not change until that of a view does. What the stand-in has is the
    distance of each class from being elected. In one view, class k lacks the difference between the largest
    log-probability and its own; the score of k is minus the mean of this over the views in which it lacks
    least, as many as elect it: 0 where they all vote for it. The gradient of the score of a wrong class pulls
    the views that are needed, and have not changed yet, towards that class. Whether an attack has succeeded
    is decided by the vote.

    Parameters
    ----------
    classifier : object
        What `as_classifier` returns, with gradients.
    views : sequence of Preprocessor or None
        What stands in front of it in each view.
    min_votes : int
        Votes that a label needs.
    input_shape : tuple of int
        Shape of one sample.
    """

    of_probabilities = False

    def __init__(
        self, classifier: Any, views: Sequence[Preprocessor | None], min_votes: int, *, input_shape: Shape
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.model = classifier.model
        self.views = list(views)
        self.min_votes = min_votes
        self.nb_classes = int(classifier.nb_classes)
        self.input_shape = input_shape
        self._held = drawing(classifier)
        self.stochastic = bool(self._held) or any(view is not None and view.stochastic for view in views)
        axes = [view._axes for view in views if view is not None and view._axes != (None, None)]
        self.channels_first = bool(getattr(classifier, "channels_first", False))
        if axes:
            self.channels_first = any(channel_axis(len(input_shape) + 1, *a) < len(input_shape) for a in axes)

    def variants(self) -> list[Self]:
        """The same vote with each gradient that its views offer, as `gradient_variants` has them."""
        each = side_by_side([gradient_variants(view) for view in self.views])
        return [
            self
            if all(new is old for new, old in zip(views, self.views, strict=True))
            else type(self)(self.classifier, views, self.min_votes, input_shape=self.input_shape)
            for views in each
        ]

    # What every adapter has

    def array(self, x: Any) -> Any:
        """Samples in the framework, in the floating type and on the device in which they are attacked."""
        return self.classifier.array(x)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`, up to 0; the label of the vote has the largest, unless it rejects."""
        return self._scores(self._seen(x))

    def forward(self, x: Any) -> tuple[Array, Pull]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        seen_as, pull = self._passed(x)
        return self._scores(seen_as), pull

    # What only a vote has

    def look(self, x: Any, y: Array) -> tuple[Array, Pull, Array]:
        """What `forward` and `margin` return, from one pass through each view."""
        seen_as, pull = self._passed(x)
        return self._scores(seen_as), pull, self._margin(seen_as, y)

    def decide(self, x: Any) -> Array:
        """What the vote says, shape (N,); -1 where it rejects."""
        return self._elected(self._seen(x))

    def margin(self, x: Any, y: Array) -> Array:
        """How far the best wrong class is from being elected, shape (N,); negative where one is."""
        return self._margin(self._seen(x), y)

    def _margin(self, seen_as: Array, y: Array) -> Array:
        label, scores, rows = self._elected(seen_as), self._scores(seen_as), np.arange(len(y))
        lacking = -scores[rows, best_other(scores, y)]
        wrong = (label != y) & (label != REJECTED)
        margin: Array = np.where(wrong, np.minimum(scores[rows, y], -STEP), np.maximum(lacking, STEP))
        return margin

    def _seen(self, x: Any) -> Array:
        """Log-probabilities in each view, shape (V, N, K)."""
        return np.stack([self._logits(self.classifier.predict(seen))[0] for seen, *_ in self._passes(x)])

    def _passed(self, x: Any) -> tuple[Array, Pull]:
        """The same, and what takes a derivative with respect to the scores back to the samples."""
        found, steps = [], []
        for seen, back, address in self._passes(x):
            outputs, pull = self.classifier.forward(seen)
            logits, derivative = self._logits(outputs)
            found.append(logits)
            steps.append((pull, derivative, back, address))
        seen_as = np.stack(found)
        shares = self._shares(seen_as)
        highest = np.arange(self.nb_classes) == seen_as.argmax(axis=2)[:, :, None]

        def pull_views(upstream: Array) -> Any:
            total: Any = 0
            for (pull, derivative, back, address), share, top in zip(steps, shares, highest, strict=True):
                of_view = upstream * share
                # Adding to all logits changes nothing: those of a softmax and its logarithm are one.
                of_view = of_view - top * of_view.sum(axis=1, keepdims=True)
                with held(self._held, *address):
                    gradient, factors = pulled(pull, of_view * derivative)
                total = total + back(scaled(gradient, factors))[0]
            return total

        return seen_as, pull_views

    def _passes(self, x: Any) -> Iterator[tuple[Any, Callable[[Any], Any], Address]]:
        """What the classifier receives in each view, the way back, and from where it draws meanwhile."""
        numbers, seed = self._address  # each view draws something else
        numbers = np.arange(len(x)) if numbers is None else numbers
        for place, view in enumerate(self.views, 1):  # a seed that ends in 0 is that without it
            address = numbers, (*seed, place)
            seen, back = through(view, x, numbers, [address[1]], self.classifier.array)
            with held(self._held, *address):
                yield seen, back, address

    def _logits(self, outputs: Array) -> tuple[Array, Array]:
        """Log-probabilities, and the derivative of the logits."""
        logits, derivative = logits_of(outputs, of_probabilities=self.classifier.of_probabilities)
        return log_softmax(logits, axis=1), derivative

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
