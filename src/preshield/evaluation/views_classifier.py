"""A classifier that compares several views, as an attacker sees it who knows all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np

from .._core.layout import channel_axis
from .._core.typing import Array, Shape
from ..preprocessor import Preprocessor
from .defended import Addressed, drawing, held, logits_of, pulled, through
from .gradients import gradient_variants, side_by_side
from .perturbations import scaled

__all__ = ["STEP", "Rule", "ViewsClassifier", "log_probabilities"]

STEP = 1e-6  # of a margin that only has to have a sign

Pull = Callable[[Array], Any]
Address = tuple[Array, tuple[int, ...]]  # numbers of the samples, and a seed


class Rule(Protocol):
    """What is decided by the log-probabilities of several views, shape (V, N, K)."""

    def decide(self, seen_as: Array) -> Array:
        """Label of each sample, shape (N,); -1 where it is rejected."""

    def scores(self, seen_as: Array) -> tuple[Array, Callable[[Array], Array]]:
        """How far each class is from being the accepted label, shape (N, K), higher if nearer.

        And what takes a derivative with respect to these scores to the logits of the views, (V, N, K).
        """

    def margin(self, seen_as: Array, y: Array) -> Array:
        """How far the best wrong class is from being accepted, shape (N,); negative where one is."""

    def climbed(self, scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
        """What an attack climbs, whatever its loss, shape (N,), and its derivative by the scores (N, K)."""

    def variants(self) -> "Sequence[Rule]":
        """The same rule with each derivative that is worth an attack, the strongest first."""


class ViewsClassifier(Addressed):
    """A differentiable stand-in for a classifier that compares views.

    A label, and a rejection, have no gradient: they do not change until something crosses a threshold. The
    stand-in has scores instead, of which the rule says how far each class is from being accepted. Whether an
    attack has succeeded is decided as ever.

    Parameters
    ----------
    classifier : object
        What `as_classifier` returns, with gradients.
    views : sequence of Preprocessor or None
        What stands in front of it in each view.
    rule : Rule
        What is decided by its predictions.
    input_shape : tuple of int
        Shape of one sample.
    """

    of_probabilities = False

    def __init__(
        self, classifier: Any, views: Sequence[Preprocessor | None], rule: Rule, *, input_shape: Shape
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.model = classifier.model
        self.views = list(views)
        self.rule = rule
        self.nb_classes = int(classifier.nb_classes)
        self.input_shape = input_shape
        self._held = drawing(classifier)
        self.stochastic = bool(self._held) or any(view is not None and view.stochastic for view in views)
        axes = [view._axes for view in views if view is not None and view._axes != (None, None)]
        self.channels_first = bool(getattr(classifier, "channels_first", False))
        if axes:
            self.channels_first = any(channel_axis(len(input_shape) + 1, *a) < len(input_shape) for a in axes)

    def variants(self) -> list[Self]:
        """The same with each gradient of its views, as `gradient_variants` has them, and of its rule."""
        each = side_by_side([gradient_variants(view) for view in self.views])
        own = [all(new is old for new, old in zip(views, self.views, strict=True)) for views in each]
        return [
            self
            if rule == self.rule and same
            else type(self)(self.classifier, views, rule, input_shape=self.input_shape)
            for rule in self.rule.variants()
            for views, same in zip(each, own, strict=True)
        ]

    # What every adapter has

    def array(self, x: Any) -> Any:
        """Samples in the framework, in the floating type and on the device in which they are attacked."""
        return self.classifier.array(x)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`; an accepted label has the largest."""
        return self.rule.scores(self._seen(x))[0]

    def forward(self, x: Any) -> tuple[Array, Pull]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        return self._passed(x)[1:]

    # What such a classifier has alone

    def look(self, x: Any, y: Array) -> tuple[Array, Pull, Array]:
        """What `forward` and `margin` return, from one pass through each view."""
        seen_as, scores, pull = self._passed(x)
        return scores, pull, self.rule.margin(seen_as, y)

    def climbed(self, scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
        """What an attack climbs, whatever its loss, and its derivative with respect to the scores."""
        return self.rule.climbed(scores, y, targets, margin)

    def decide(self, x: Any) -> Array:
        """The label, shape (N,); -1 where it rejects."""
        return self.rule.decide(self._seen(x))

    def margin(self, x: Any, y: Array) -> Array:
        """How far the best wrong class is from being accepted, shape (N,); negative where one is."""
        return self.rule.margin(self._seen(x), y)

    def _seen(self, x: Any) -> Array:
        """Log-probabilities in each view, shape (V, N, K)."""
        return np.stack([self._logits(self.classifier.predict(seen))[0] for seen, *_ in self._passes(x)])

    def _passed(self, x: Any) -> tuple[Array, Array, Pull]:
        """The same, the scores, and what takes a derivative with respect to these back to the samples."""
        found, steps = [], []
        for seen, back, address in self._passes(x):
            outputs, pull = self.classifier.forward(seen)
            logits, derivative = self._logits(outputs)
            found.append(logits)
            steps.append((pull, derivative, back, address))
        seen_as = np.stack(found)
        scores, to_views = self.rule.scores(seen_as)

        def pull_views(upstream: Array) -> Any:
            total: Any = 0
            for (pull, derivative, back, address), of_view in zip(steps, to_views(upstream), strict=True):
                with held(self._held, *address):
                    gradient, factors = pulled(pull, of_view * derivative)
                total = total + back(scaled(gradient, factors))[0]
            return total

        return seen_as, scores, pull_views

    def _passes(self, x: Any) -> Iterator[tuple[Any, Callable[[Any], Any], Address]]:
        """What the classifier receives in each view, the way back, and from where it draws meanwhile."""
        numbers, seed = self._address
        numbers = np.arange(len(x)) if numbers is None else numbers
        for place, view in enumerate(self.views, 1):  # a seed that ends in 0 is that without it
            address = numbers, (*seed, place)
            seen, back = through(view, x, numbers, [address[1]], self.classifier.array)
            with held(self._held, *address):
                yield seen, back, address

    def _logits(self, outputs: Array) -> tuple[Array, Array]:
        """Log-probabilities, and the derivative of the logits."""
        return log_probabilities(outputs, of_probabilities=self.classifier.of_probabilities)


def log_probabilities(outputs: Array, *, of_probabilities: bool) -> tuple[Array, Array]:
    """Logarithm of the softmax of logits, or of probabilities, and the derivative of the logits."""
    from scipy.special import log_softmax  # which takes as long to load as the rest of the package

    logits, derivative = logits_of(outputs, of_probabilities=of_probabilities)
    return log_softmax(logits, axis=1), derivative
