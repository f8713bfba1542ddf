"""A classifier behind a defence, as an attacker sees it who knows both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from art.estimators.classification.classifier import ClassifierNeuralNetwork

from .._core.errors import ArgumentError
from .._core.layout import channel_axis
from .._core.random import SeedStream, expand_seed
from .._core.typing import Array
from ..preprocessor import Preprocessor
from .classifiers import has_gradients
from .metrics import REJECTED

__all__ = ["DefendedClassifier"]


class DefendedClassifier(ClassifierNeuralNetwork):  # type: ignore[misc]
    """A classifier whose inputs pass through a defence, for any attack of ART.

    Gradients are those of the classifier at the defended sample, pulled back through the defence with the
    very draw that made it: exact where the defence is differentiable, the backward pass differentiable
    approximation (BPDA) [1]_ where it is not. For a stochastic defence, gradients and predictions are
    averaged over several draws (expectation over transformation, EOT [2]_). What the classifier draws itself,
    in a vote or in `preprocessing_defences`, is drawn anew each time too, and from the same seed.

    Parameters
    ----------
    classifier : object
        An ART classifier, a `PredictOnly`, or a `VotingClassifier`, which is judged by its votes.
    defence : Preprocessor, optional
        What stands in front of it; nothing if omitted.
    draws : int
        Draws of a stochastic defence, or vote, for each evaluation; others are evaluated once.
    seed : int
        Seed of these draws. Each evaluation makes new ones.
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
        seed: int = 0,
        clip_values: tuple[float, float],
        nb_classes: int,
        input_shape: tuple[int, ...],
    ) -> None:
        channels_first = getattr(classifier, "channels_first", False)
        if defence is not None and defence._axes != (None, None):
            channels_first = channel_axis(len(input_shape) + 1, *defence._axes) < len(input_shape)
        super().__init__(model=None, clip_values=clip_values, channels_first=bool(channels_first))
        self.classifier = classifier
        self.defence = defence
        self._held = _drawing(classifier)
        self.stochastic = any(
            getattr(part, "stochastic", False) for part in (classifier, defence, *self._held)
        )
        self.draws = draws if self.stochastic else 1
        self.nb_classes = nb_classes
        self.rejected_as = REJECTED
        self._input_shape = input_shape
        self.restart(seed)

    def with_draws(self, draws: int) -> "DefendedClassifier":
        """The same classifier and defence with another number of draws, which start anew."""
        return DefendedClassifier(
            self.classifier,
            self.defence,
            draws=draws,
            seed=self.seed,
            clip_values=self.clip_values,
            nb_classes=self.nb_classes,
            input_shape=self.input_shape,
        )

    def restart(self, seed: int) -> None:
        """Draw from this seed on, also in the views of a vote."""
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        if hasattr(self.classifier, "restart"):
            self.classifier.restart(seed)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._input_shape

    # What ART's attacks call

    def predict(self, x: Array, batch_size: int = 128, **kwargs: Any) -> Array:
        """Scores `(N, K)`, averaged over the draws."""
        scores = [self._scores(self._predicted(self.defended(x)[0])) for _ in range(self.draws)]
        average: Array = np.mean(scores, axis=0)
        return average

    def loss_gradient(self, x: Array, y: Array, **kwargs: Any) -> Array:
        """Gradient of the classifier's loss with respect to `x`, averaged over the draws."""
        return self._averaged(x, lambda seen: self._ask("loss_gradient", seen, y, **kwargs))

    def class_gradient(self, x: Array, label: Any = None, **kwargs: Any) -> Array:
        """Gradients of the scores with respect to `x`, averaged over the draws."""
        return self._averaged(x, lambda seen: self._ask("class_gradient", seen, label, **kwargs))

    def compute_loss(self, x: Array, y: Array, **kwargs: Any) -> Array:
        """Loss of the classifier, averaged over the draws."""
        losses = [self._ask("compute_loss", self.defended(x)[0], y, **kwargs) for _ in range(self.draws)]
        average: Array = np.mean(losses, axis=0)
        return average

    def get_activations(self, x: Array, layer: Any, batch_size: int = 128, framework: bool = False) -> Any:
        """Activations of the classifier under one draw."""
        return self._ask("get_activations", self.defended(x)[0], layer, batch_size, framework)

    def fit(self, x: Array, y: Array, **kwargs: Any) -> None:
        """Refuse: this class is for attacks."""
        raise ArgumentError("A DefendedClassifier is for attacks; train the classifier itself.")

    def save(self, filename: str, path: str | None = None) -> None:
        """Save the classifier, without the defence."""
        self.classifier.save(filename, path)

    # What the evaluation calls

    def labels(self, x: Array) -> Array:
        """Label of each sample under each draw, shape (draws, N); -1 where the sample is rejected."""
        outputs = (self.outputs(self.defended(x)[0]) for _ in range(self.draws))
        return np.stack([o if o.ndim == 1 else o.argmax(axis=1) for o in outputs])

    def margin(self, x: Array, y: Array) -> Array:
        """Largest margin of `y` over twice the draws, shape (N,).

        It is negative only if every draw is wrong; the first draw that is right decides.
        """
        largest, undecided = np.full(len(x), -np.inf), np.arange(len(x))
        for _ in range(2 * self.draws if self.draws > 1 else 1):
            margin = self._margin(self.defended(x[undecided])[0], y[undecided])
            largest[undecided] = np.maximum(largest[undecided], margin)
            undecided = undecided[margin < 0]
            if not len(undecided):
                break
        return largest

    def mean_margin(self, x: Array, y: Array) -> Array:
        """Margin of `y`, averaged over the draws, shape (N,)."""
        average: Array = np.mean([self._margin(self.defended(x)[0], y) for _ in range(self.draws)], axis=0)
        return average

    def median_margin(self, x: Array, y: Array) -> Array:
        """Median margin of `y` over twice the draws, shape (N,): negative if most of them are wrong."""
        draws = 2 * self.draws if self.draws > 1 else 1
        median: Array = np.median([self._margin(self.defended(x)[0], y) for _ in range(draws)], axis=0)
        return median

    def margin_and_gradient(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Largest margin over the draws, shape (N,), and the averaged gradient of the loss, like `x`."""
        target = np.eye(self.nb_classes, dtype=np.float32)[y]
        margins, total = [], np.zeros(x.shape, np.float32)
        for _ in range(self.draws):
            seen, back = self.defended(x)
            margins.append(self._margin(seen, y))
            total += back(self._ask("loss_gradient", seen, target))
        return np.max(margins, axis=0), total / self.draws

    def defended(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """What the classifier receives under the next draw, and the backward pass through that draw."""
        if self.defence is None:
            return x, lambda grad: grad
        defence = self.defence
        checked = defence._checked(x)
        draw = defence._begin(checked, expand_seed(int(self._rng.integers(2**31)), defence._seed_words))
        seen = defence._run(checked, draw).astype(np.float32, copy=False)
        return seen, lambda grad: defence._pull_back(checked, grad, draw)

    def outputs(self, seen: Array) -> Array:
        """Scores `(N, K)` or labels `(N,)` of the classifier itself: what it decides by."""
        decides = hasattr(self.classifier, "decide")
        outputs: Array = self._ask("decide", seen) if decides else self._predicted(seen)
        rows = outputs.reshape(len(outputs), -1)
        spoilt = np.isnan(rows).any(axis=1) | (np.isposinf(rows).sum(axis=1) > 1)
        if spoilt.any():  # whatever the label, the largest would be the first class
            kind = "NaN" if np.isnan(rows).any() else "several infinite scores"
            raise ArgumentError(
                f"`classifier` must return numbers, got {kind} for {spoilt.sum()} of {len(outputs)} samples; "
                "look for an overflow in the model."
            )
        return outputs

    def _predicted(self, seen: Array) -> Array:
        return np.asarray(self._ask("predict", seen, batch_size=max(1, len(seen))))

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the classifier; what it draws itself comes from the generator of this object."""
        with _drawn_from(self._rng, self._held):
            return getattr(self.classifier, method)(*args, **kwargs)

    def _averaged(self, x: Array, gradient: Callable[[Array], Array]) -> Array:
        if not has_gradients(self.classifier):
            raise ArgumentError(
                f"{type(self.classifier).__name__} has no gradients; choose `attacks` that need none."
            )
        total: Any = 0
        for _ in range(self.draws):
            seen, back = self.defended(x)
            total = total + back(gradient(seen))
        return np.asarray(total / self.draws, dtype=np.float32)

    def _scores(self, outputs: Array) -> Array:
        """Scores as they are; labels as one-hot rows, a rejected sample as `rejected_as`."""
        if outputs.ndim == 2:
            return outputs
        labels = np.where(outputs == REJECTED, self.rejected_as, outputs)
        one_hot: Array = (labels[:, None] == np.arange(self.nb_classes)) * 1.0
        return one_hot

    def _margin(self, seen: Array, y: Array) -> Array:
        """By how much the score of `y` exceeds the best other; of labels, 1 unless another is predicted."""
        if hasattr(self.classifier, "margin"):
            margin: Array = self.classifier.margin(seen, y)
            return margin
        outputs = self.outputs(seen)
        if outputs.ndim == 1:
            return np.where((outputs == y) | (outputs == REJECTED), 1.0, -1.0)
        own = np.arange(outputs.shape[1]) == y[:, None]
        margin = outputs[own] - np.where(own, -np.inf, outputs).max(axis=1)
        return margin


def _drawing(classifier: Any) -> list[Preprocessor]:
    """Stochastic defences that a classifier applies itself, in front of its model or in its views."""
    held = [d for d in getattr(classifier, "preprocessing_defences", None) or () if d.apply_predict]
    leaves = (leaf for view in (*held, *getattr(classifier, "views", ())) for leaf in _leaves(view))
    return list({id(leaf): leaf for leaf in leaves if leaf.stochastic}.values())


def _leaves(defence: Any) -> Iterator[Preprocessor]:
    if isinstance(defence, Preprocessor):
        if defence._stages:
            for stage in defence._stages:
                yield from _leaves(stage)
        else:
            yield defence


@contextmanager
def _drawn_from(rng: np.random.Generator, defences: list[Preprocessor]) -> Iterator[None]:
    """Let defences take their seeds from a generator, and leave their own streams where they are."""
    own = [(defence, defence.__dict__.pop("_stream", None)) for defence in defences]
    for defence in defences:
        defence._stream = SeedStream(rng)
    try:
        yield
    finally:
        for defence, stream in own:
            defence.__dict__.pop("_stream", None)
            if stream is not None:
                defence._stream = stream
