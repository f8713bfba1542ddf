"""A classifier behind a defence, as an attacker sees it who knows both."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._core.errors import ArgumentError
from .._core.layout import channel_axis
from .._core.passes import Pass
from .._core.random import FROZEN
from .._core.samples import drawing as drawing_of
from .._core.tensors import on_device
from .._core.typing import Array, Shape
from ..preprocessor import Preprocessor
from .classifiers import defences_in
from .losses import Loss
from .metrics import REJECTED
from .oracle import Look, key
from .perturbations import host, places, scaled, take

__all__ = ["Addressed", "DefendedModel", "drawing", "held", "logits_of", "pulled", "through", "usable"]

TINY = 1e-30  # in place of a probability of 0
LARGE = 1e30  # in place of an infinite score
TOGETHER, VALUES = 128, 1 << 19  # how much the classifier sees at once for several draws


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
        self._held = [] if hasattr(classifier, "at") else drawing(classifier)
        self._own_draws = hasattr(classifier, "at") or bool(self._held)
        parts = (classifier, defence, *self._held)
        self.stochastic = any(getattr(part, "stochastic", False) for part in parts)
        self.draws = draws if self.stochastic else 1
        self._rows = sys.maxsize  # that an accelerator takes at once, as far as is known
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
        """Margins, scores and the gradient of a loss at `x`; without labels, -1, margins mean nothing."""
        margins: list[Array] = []
        scores: list[Array] = []
        values: list[Array] = []
        total: Any = None
        units = np.ones(len(x))

        def look_at(draws: range) -> None:
            nonlocal total, units
            seen, back = self._seen(x, numbers, seed, draws)
            ys = np.tile(y, len(draws))
            with self._drawn(numbers, (*seed, draws[0])):
                outputs, pull, margin = self._forward(seen, ys)
            logits, derivative = logits_of(outputs, of_probabilities=self.classifier.of_probabilities)
            if hasattr(self.classifier, "climbed") and (y >= 0).all():
                value, slope = self.classifier.climbed(logits, y, targets, margin)
            else:  # which may know the samples, and so has those of one draw at a time
                of_draws = [loss(part, y, targets) for part in np.split(logits, len(draws))]
                value, slope = map(np.concatenate, zip(*of_draws, strict=True))
            with self._drawn(numbers, (*seed, draws[0])):
                gradients, all_factors = pulled(pull, slope * derivative)
            parts = back(gradients)
            for found, part in ((margins, margin), (scores, logits), (values, value)):
                found.append(part.reshape(len(draws), len(x), *part.shape[1:]))
            for gradient, factors in zip(parts, np.split(all_factors, len(draws)), strict=True):
                if total is None:
                    total, units = gradient, factors
                else:
                    larger = np.maximum(units, factors)
                    total = scaled(total, units / larger) + scaled(gradient, factors / larger)
                    units = larger

        self._in_groups(look_at, x, range(self.draws))
        return Look(
            margin=np.concatenate(margins).max(axis=0),
            mean=np.concatenate(margins).mean(axis=0),
            scores=np.concatenate(scores).mean(axis=0),
            values=np.concatenate(values).mean(axis=0),
            factors=units / self.draws,
            gradient=total,
        )

    def margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Largest margin over twice the draws, and the passes that it took; a draw that is right decides."""
        largest, undecided = np.full(len(x), -np.inf), np.arange(len(x))
        passes = np.zeros(len(x), np.int64)
        for draw in range(2 * self.draws if self.draws > 1 else 1):
            one = range(draw, draw + 1)
            (margin,) = self._margins(take(x, undecided), y[undecided], numbers[undecided], seed, one)
            passes[undecided] += 1
            largest[undecided] = np.maximum(largest[undecided], margin)
            undecided = undecided[places(margin < 0, x, undecided)]
            if not len(undecided):
                break
        return largest, passes

    def mean_margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Margin averaged over the draws, and the passes that it took."""
        margins = self._margins(x, y, numbers, seed, range(self.draws))
        return margins.mean(axis=0), np.full(len(x), self.draws)

    def median_margin(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Median margin over twice the draws, and the passes that it took."""
        draws = 2 * self.draws if self.draws > 1 else 1
        margins = self._margins(x, y, numbers, seed, range(draws))
        return np.median(margins, axis=0), np.full(len(x), draws)

    # What the evaluation asks

    def labels(self, x: Any, numbers: Array, seed: tuple[int, ...]) -> Array:
        """Label of each sample under each draw, shape (draws, N); -1 where the sample is rejected."""
        labels = []

        def add(draws: range) -> None:
            outputs = self.outputs(self._seen(x, numbers, seed, draws)[0], numbers, (*seed, draws[0]))
            given = outputs if outputs.ndim == 1 else outputs.argmax(axis=1)
            labels.append(given.reshape(len(draws), len(x)))

        self._in_groups(add, x, range(self.draws))
        return np.concatenate(labels)

    def scores(self, x: Any, numbers: Array, seed: tuple[int, ...], *, rejected_as: int = REJECTED) -> Array:
        """Logits or log-probabilities `(N, K)`, averaged over the draws; of labels, how often each is given.

        A sample that is rejected counts for `rejected_as`, or for no class.
        """
        scores = []
        for draw in range(self.draws):
            seen = self.defended(x, numbers, (*seed, draw))
            with self._drawn(numbers, (*seed, draw)):
                outputs = np.asarray(self.classifier.predict(seen))
            if outputs.ndim == 1:
                labels = np.where(outputs == REJECTED, rejected_as, outputs)
                scores.append((labels[:, None] == np.arange(self.nb_classes)) * 1.0)
            else:
                scores.append(logits_of(outputs, of_probabilities=self.classifier.of_probabilities)[0])
        average: Array = np.mean(scores, axis=0)
        return average

    def defended(self, x: Any, numbers: Array, seed: tuple[int, ...]) -> Any:
        """What the classifier receives under a draw."""
        return through(self.defence, x, numbers, [seed], self.classifier.array)[0]

    def outputs(self, seen: Any, numbers: Array, seed: tuple[int, ...]) -> Array:
        """Scores `(N, K)` or labels `(N,)` of the classifier itself: what it decides by."""
        with self._drawn(numbers, seed):
            decides = getattr(self.classifier, "decide", self.classifier.predict)
            return usable(np.asarray(decides(seen)))

    def decisions(self, seen: Any, numbers: Array, seed: tuple[int, ...]) -> tuple[Array, Array]:
        """Labels `(N,)` of what the classifier receives, and their probabilities; NaN if it gives none."""
        outputs = self.outputs(seen, numbers, seed)
        if outputs.ndim == 1:
            return outputs.astype(np.int64), np.full(len(outputs), np.nan, np.float32)
        shares = outputs.astype(np.float64)
        if not self.classifier.of_probabilities:
            from scipy.special import softmax  # which takes as long to load as the rest of the package

            shares = softmax(shares, axis=1)
        return shares.argmax(axis=1), shares.max(axis=1).astype(np.float32)

    def _forward(self, seen: Any, y: Array) -> tuple[Array, Callable[[Array], Any], Array]:
        """Scores, what takes a derivative back, and margins, all from one pass."""
        if hasattr(self.classifier, "look"):
            found: tuple[Array, Callable[[Array], Any], Array] = self.classifier.look(seen, y)
            return found
        outputs, pull = self.classifier.forward(seen)
        return outputs, pull, _margin(usable(outputs), y)

    def _margins(self, x: Any, y: Array, numbers: Array, seed: tuple[int, ...], draws: range) -> Array:
        """Margins under some draws, shape (draws, n)."""
        margins = []

        def add(some: range) -> None:
            seen, _ = self._seen(x, numbers, seed, some)
            ys = np.tile(y, len(some))
            if hasattr(self.classifier, "margin"):
                with self._drawn(numbers, (*seed, some[0])):
                    margin = self.classifier.margin(seen, ys)
            else:
                margin = _margin(self.outputs(seen, numbers, (*seed, some[0])), ys)
            margins.append(margin.reshape(len(some), len(x)))

        self._in_groups(add, x, draws)
        return np.concatenate(margins)

    def _in_groups(self, run: Callable[[range], None], x: Any, draws: range) -> None:
        """Do something for draws, for as many at once as fit; a classifier that draws itself sees one."""
        samples = max(1, len(x))
        while draws:
            rows = (
                self._rows if on_device(x) else min(TOGETHER, VALUES // max(1, math.prod(self.input_shape)))
            )
            size = 1 if self._own_draws else min(len(draws), max(1, rows // samples))
            try:
                run(draws[:size])
            except Exception as error:
                if size == 1 or not on_device(x) or "out of memory" not in str(error).lower():
                    raise
                self._rows = samples * (size // 2)
            else:
                draws = draws[size:]

    def _seen(
        self, x: Any, numbers: Array, seed: tuple[int, ...], draws: range
    ) -> tuple[Any, Callable[[Any], list[Any]]]:
        """What the classifier receives under these draws, one after the other, and the way back of each."""
        return through(self.defence, x, numbers, [(*seed, draw) for draw in draws], self.classifier.array)

    def _drawn(self, numbers: Array, seed: tuple[int, ...]) -> AbstractContextManager[Any]:
        """Let the classifier, and the defences that it holds, draw from these addresses."""
        if hasattr(self.classifier, "at"):
            context: AbstractContextManager[Any] = self.classifier.at(numbers, seed)
            return context
        return held(self._held, numbers, seed)


class Addressed:
    """A classifier for attacks that draws itself: numbers of the samples and a seed say what."""

    def __init__(self) -> None:
        self._address: tuple[Array | None, tuple[int, ...]] = None, (0,)

    @contextmanager
    def at(self, numbers: Array | None, seed: tuple[int, ...]) -> Iterator[None]:
        """Draw from these addresses; without numbers, those are counted from 0."""
        before, self._address = self._address, (numbers, seed)
        try:
            yield
        finally:
            self._address = before


def through(
    defence: Preprocessor | None,
    x: Any,
    numbers: Array,
    seeds: Sequence[tuple[int, ...]],
    like: Callable[[Any], Any],
) -> tuple[Any, Callable[[Any], list[Any]]]:
    """A batch behind a defence under some draws, end to end, and the backward pass through each of them.

    On an accelerator the defence computes there, if it can. What NumPy computes is made `like` the batch.
    """
    if defence is None:
        return x, lambda grad: [grad]
    count, words = len(x), [key(seed, defence._seed_words) for seed in seeds]
    if defence._seed_words and defence._takes_index:
        words = [np.concatenate([of_draw, numbers.astype(np.uint32)]) for of_draw in words]

    def parts(batch: Any) -> list[Any]:
        return [batch[start : start + count] for start in range(0, len(seeds) * count, max(1, count))]

    if (begun := defence._accelerated(x, words)) is not None:
        seen, pull = begun
        return seen, lambda grad: parts(pull(grad))
    passes = [Pass.begin(defence, host(x), of_draw, runs=True, kept=True) for of_draw in words]
    outputs = [like(one.output()) for one in passes]
    seen = outputs[0] if len(outputs) == 1 else array_namespace(outputs[0]).concat(outputs)
    return seen, lambda grad: [
        like(one.pull_back(host(part))) for one, part in zip(passes, parts(grad), strict=True)
    ]


def held(defences: Sequence[Preprocessor], numbers: Array, seed: tuple[int, ...]) -> ExitStack:
    """Let defences within a model draw from these addresses."""
    stack = ExitStack()
    for place, defence in enumerate(defences):
        stack.enter_context(FROZEN.held(defence, int(key((*seed, place + 1), 1)[0]), numbers.tolist()))
    return stack


def pulled(pull: Callable[[Array], Any], derivative: Array) -> tuple[Any, Array]:
    """What a derivative leaves at the samples, and the factors by which that must be multiplied.

    The derivative of each sample is made about 1 before: that of a model which is sure of itself would not
    fit its floating type.
    """
    sizes = np.abs(derivative).max(axis=1)
    factors: Array = np.where(sizes > 0, sizes, 1.0)
    return pull(derivative / factors[:, None]), factors


def _margin(outputs: Array, y: Array) -> Array:
    """By how much the score of `y` exceeds the best other; of labels, 1 unless another is predicted."""
    if outputs.ndim == 1:
        return np.where((outputs == y) | (outputs == REJECTED), 1.0, -1.0)
    own = np.arange(outputs.shape[1]) == y[:, None]
    margin: Array = outputs[np.arange(len(y)), y] - np.where(own, -np.inf, outputs).max(axis=1)
    return margin


def logits_of(outputs: Array, *, of_probabilities: bool) -> tuple[Array, Array]:
    """Scores as logits, and the derivative of these."""
    outputs = usable(outputs).astype(np.float64)
    if not of_probabilities:  # of a class that is ruled out, minus infinity, no difference could be taken
        return np.clip(outputs, -LARGE, LARGE), np.ones_like(outputs)
    floored = np.maximum(outputs, TINY)
    return np.log(floored), (outputs > TINY) / floored


def usable(outputs: Array, name: str = "classifier") -> Array:
    """Scores or labels, if they name a class; messages call what returned them `name`."""
    rows = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
    spoilt = np.isnan(rows).any(axis=1) | (np.isposinf(rows).sum(axis=1) > 1)
    if spoilt.any():  # whatever the label, the largest would be the first class
        kind = "NaN" if np.isnan(rows).any() else "several infinite scores"
        raise ArgumentError(
            f"`{name}` must return numbers, got {kind} for {spoilt.sum()} of {len(outputs)} samples; "
            "look for an overflow in the model."
        )
    return outputs


def drawing(classifier: Any) -> list[Preprocessor]:
    """Stochastic defences that a classifier applies itself: before its model, in its views, as layers."""
    held = (
        *(getattr(classifier, "preprocessing_defences", None) or ()),
        *defences_in(getattr(classifier, "model", None)),
    )
    views = (*(d for d in held if d.apply_predict), *getattr(classifier, "views", ()))
    own = (one for view in views if isinstance(view, Preprocessor) for one in drawing_of(view))
    return list({id(one): one for one in own}.values())
