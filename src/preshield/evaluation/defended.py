"""A classifier behind a defence, as an attacker sees it who knows both."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.layout import channel_axis
from .._core.random import FROZEN
from .._core.samples import leaves
from .._core.typing import Array, Seed, Shape
from ..preprocessor import Preprocessor
from .classifiers import defences_in
from .losses import Loss
from .metrics import REJECTED
from .oracle import Look, key
from .perturbations import host, scaled

__all__ = ["DefendedModel"]

TINY = 1e-30  # in place of a probability of 0


class DefendedModel:
    """A classifier whose inputs pass through a defence.

    Gradients are those of the classifier at the defended sample, pulled back through the defence with the
    very draw that made it: exact where the defence is differentiable, the backward pass differentiable
    approximation (BPDA) [1]_ where it is not. For a stochastic defence, gradients and predictions are
    averaged over several draws (expectation over transformation, EOT [2]_). What the classifier draws itself,
    in a vote or in `preprocessing_defences`, is drawn from the same addresses.

    Each method takes the numbers of the samples and a seed, and gives the same for the same.

    Parameters
    ----------
    classifier : object
        What `as_classifier` returns.
    defence : Preprocessor, optional
        What stands in front of it; nothing if omitted.
    draws : int
        Draws of a stochastic defence, or vote, for each evaluation; others are evaluated once.
    clip_values : tuple of float
        Smallest and largest value of a sample.
    nb_classes : int
        Number of classes.
    input_shape : tuple of int
        Shape of one sample, before the defence.

    References
    ----------
    .. [1] Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018.
       arXiv:1802.00420
    .. [2] Athalye, Engstrom, Ilyas, Kwok. Synthesizing Robust Adversarial Examples. ICML 2018.
       arXiv:1707.07397
    """

    def __init__(
        self,
        classifier: Any,
        defence: Preprocessor | None = None,
        *,
        draws: int = 16,
        clip_values: tuple[float, float],
        nb_classes: int,
        input_shape: Shape,
    ) -> None:
        self.classifier = classifier
        self.defence = defence
        self._held = _drawing(classifier)
        parts = (classifier, defence, *self._held)
        self.stochastic = any(getattr(part, "stochastic", False) for part in parts)
        self.draws = draws if self.stochastic else 1
        self.clip_values = clip_values
        self.nb_classes = nb_classes
        self.input_shape = input_shape
        self.channels_first = bool(getattr(classifier, "channels_first", False))
        if defence is not None and defence._axes != (None, None):
            axis = channel_axis(len(input_shape) + 1, *defence._axes)
            self.channels_first = axis < len(input_shape)

    def with_draws(self, draws: int) -> "DefendedModel":
        """The same classifier and defence with another number of draws."""
        return DefendedModel(
            self.classifier,
            self.defence,
            draws=draws,
            clip_values=self.clip_values,
            nb_classes=self.nb_classes,
            input_shape=self.input_shape,
        )

    def array(self, x: Array) -> Any:
        """Samples in the framework, in the floating type and on the device in which they are attacked."""
        return self.classifier.array(x)

    # What an Oracle asks

    def look(
        self, x: Any, y: Array, loss: Loss, targets: Array | None, numbers: Array, seed: tuple[int, ...]
    ) -> Look:
        """Margins, scores and the gradient of a loss at `x`."""
        margins, scores, values = [], [], []
        total: Any = None
        units = np.ones(len(x))
        for draw in range(self.draws):
            seen, back = self.defended(x, numbers, (*seed, draw))
            with self._drawn(numbers, (*seed, draw)):
                outputs, pull = self.classifier.forward(seen)
            logits, derivative = _logits(outputs, getattr(self.classifier, "of_probabilities", False))
            value, slope = loss(logits, y, targets)
            if hasattr(self.classifier, "decide"):  # what is lost by the label elects nobody
                slope = np.where(np.arange(slope.shape[1]) == y[:, None], 0.0, slope)
            slope = slope * derivative
            sizes = np.abs(slope).max(axis=1)
            factors = np.where(sizes > 0, sizes, 1.0)
            with self._drawn(numbers, (*seed, draw)):
                gradient = back(pull(slope / factors[:, None]))
            margins.append(self._margin(seen, outputs, y, numbers, (*seed, draw)))
            scores.append(logits)
            values.append(value)
            if total is None:
                total, units = gradient, factors
            else:
                larger = np.maximum(units, factors)
                total, units = scaled(total, units / larger) + scaled(gradient, factors / larger), larger
        mean_of = [np.mean(part, axis=0) for part in (margins, scores, values)]
        return Look(np.max(margins, axis=0), *mean_of, units / self.draws, total)

    def margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Largest margin over twice the draws, and the passes that it took; a draw that is right decides."""
        largest, undecided = np.full(len(x), -np.inf), np.arange(len(x))
        passes = np.zeros(len(x), np.int64)
        from .perturbations import take

        for draw in range(2 * self.draws if self.draws > 1 else 1):
            margin = self._margin_of_draw(take(x, undecided), y[undecided], numbers[undecided], (*seed, draw))
            passes[undecided] += 1
            largest[undecided] = np.maximum(largest[undecided], margin)
            undecided = undecided[margin < 0]
            if not len(undecided):
                break
        return largest, passes

    def mean_margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Margin averaged over the draws, and the passes that it took."""
        margins = [self._margin_of_draw(x, y, numbers, (*seed, draw)) for draw in range(self.draws)]
        return np.mean(margins, axis=0), np.full(len(x), self.draws)

    def median_margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Median margin over twice the draws, and the passes that it took."""
        draws = 2 * self.draws if self.draws > 1 else 1
        margins = [self._margin_of_draw(x, y, numbers, (*seed, draw)) for draw in range(draws)]
        return np.median(margins, axis=0), np.full(len(x), draws)

    # What the evaluation asks

    def labels(self, x: Any, numbers: Array, seed: tuple[int, ...]) -> Array:
        """Label of each sample under each draw, shape (draws, N); -1 where the sample is rejected."""
        labels = []
        for draw in range(self.draws):
            outputs = self.outputs(self.defended(x, numbers, (*seed, draw))[0], numbers, (*seed, draw))
            labels.append(outputs if outputs.ndim == 1 else outputs.argmax(axis=1))
        return np.stack(labels)

    def defended(
        self, x: Any, numbers: Array, seed: tuple[int, ...]
    ) -> tuple[Any, Callable[[Any], Any]]:
        """What the classifier receives under a draw, and the backward pass through that draw."""
        if self.defence is None:
            return x, lambda grad: grad
        defence = self.defence
        checked = defence._checked(host(x))
        words = key(seed, defence._seed_words)
        if defence._seed_words and defence._takes_index:
            words = np.concatenate([words, numbers.astype(np.uint32)])
        draw = defence._begin(checked, words)
        seen = defence._run(checked, draw)
        like = self.classifier.array
        return like(seen), lambda grad: like(defence._pull_back(checked, host(grad), draw))

    def outputs(self, seen: Any, numbers: Array, seed: tuple[int, ...]) -> Array:
        """Scores `(N, K)` or labels `(N,)` of the classifier itself: what it decides by."""
        with self._drawn(numbers, seed):
            decides = getattr(self.classifier, "decide", self.classifier.predict)
            return _usable(np.asarray(decides(seen)))

    def _margin_of_draw(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> Array:
        seen, _ = self.defended(x, numbers, seed)
        return self._margin(seen, None, y, numbers, seed)

    def _margin(self, seen: Any, outputs: Array | None, y: Array, numbers: Array, seed: tuple[int, ...]) -> Array:
        """By how much the score of `y` exceeds the best other; of labels, 1 unless another is predicted."""
        if hasattr(self.classifier, "margin"):
            with self._drawn(numbers, seed):
                margin: Array = self.classifier.margin(seen, y)
            return margin
        outputs = self.outputs(seen, numbers, seed) if outputs is None else _usable(outputs)
        if outputs.ndim == 1:
            return np.where((outputs == y) | (outputs == REJECTED), 1.0, -1.0)
        own = np.arange(outputs.shape[1]) == y[:, None]
        margin = outputs[own] - np.where(own, -np.inf, outputs).max(axis=1)
        return margin

    def _drawn(self, numbers: Array, seed: tuple[int, ...]) -> ExitStack:
        """Let the defences that the classifier holds draw from these addresses."""
        stack = ExitStack()
        for place, defence in enumerate(self._held):
            stack.enter_context(FROZEN.held(defence, int(key((*seed, place + 1), 1)[0])))
        return stack


def _logits(outputs: Array, of_probabilities: bool) -> tuple[Array, Array]:
    """Scores as logits, and the derivative of these."""
    outputs = _usable(outputs).astype(np.float64)
    if not of_probabilities:
        return outputs, np.ones_like(outputs)
    floored = np.maximum(outputs, TINY)
    return np.log(floored), (outputs > TINY) / floored


def _usable(outputs: Array) -> Array:
    rows = outputs.reshape(len(outputs), -1)
    spoilt = np.isnan(rows).any(axis=1) | (np.isposinf(rows).sum(axis=1) > 1)
    if spoilt.any():  # whatever the label, the largest would be the first class
        kind = "NaN" if np.isnan(rows).any() else "several infinite scores"
        raise ArgumentError(
            f"`classifier` must return numbers, got {kind} for {spoilt.sum()} of {len(outputs)} samples; "
            "look for an overflow in the model."
        )
    return outputs


def _drawing(classifier: Any) -> list[Preprocessor]:
    """Stochastic defences that a classifier applies itself: before its model, in its views, as layers."""
    held = (
        *(getattr(classifier, "preprocessing_defences", None) or ()),
        *defences_in(getattr(classifier, "model", None)),
    )
    views = (*(d for d in held if d.apply_predict), *getattr(classifier, "views", ()))
    own = (leaf for view in views if isinstance(view, Preprocessor) for leaf in leaves(view))
    return list({id(leaf): leaf for leaf in own if leaf.stochastic}.values())
