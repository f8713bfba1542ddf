"""A defended model as a classifier of ART, for its attacks."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from art.estimators.classification.classifier import ClassifierNeuralNetwork

from .._core.errors import ArgumentError
from .._core.typing import Array, Shape
from .classifiers import has_gradients
from .defended import DefendedModel
from .losses import Loss, cross_entropy, margin
from .metrics import REJECTED
from .perturbations import host, scaled

__all__ = ["DefendedClassifier", "bridge"]


class DefendedClassifier(ClassifierNeuralNetwork):  # type: ignore[misc]
    """A defended model, for attacks of ART that ask for scores and gradients in NumPy.

    Scores are logits or log-probabilities, averaged over the draws of a stochastic defence, as are losses and
    gradients. Each call draws anew; what is drawn for a sample depends on the seed, on the number of the call
    and on the number of the sample.

    Parameters
    ----------
    model : DefendedModel
        The classifier behind its defence.
    numbers : ndarray of int, shape (N,), optional
        Numbers of the samples that are attacked. Batches of another size, and all without this, have the
        numbers from 0 on.
    seed : int
        Seed of the draws.
    rejected_as : int
        The class for which a sample without a label counts; none by default.
    """

    def __init__(
        self,
        model: DefendedModel,
        *,
        numbers: Array | None = None,
        seed: int = 0,
        rejected_as: int = REJECTED,
    ) -> None:
        super().__init__(model=None, clip_values=model.clip_values, channels_first=model.channels_first)
        self.defended = model
        self.nb_classes = model.nb_classes
        self.of_votes = hasattr(model.classifier, "decide")
        self._loss = (
            margin if self.of_votes else cross_entropy
        )  # of votes: what the label loses elects nobody
        self.numbers = numbers
        self.seed = seed
        self.rejected_as = rejected_as
        self._calls = 0

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""
        return self.defended.input_shape

    def address(self, count: int) -> tuple[Array, tuple[int, ...]]:
        """From where the next call draws: the numbers of so many samples, and a seed."""
        self._calls += 1
        known = self.numbers is not None and len(self.numbers) == count
        numbers = np.arange(count) if not known else np.asarray(self.numbers)
        return numbers, (self.seed, self._calls)

    def scores_at(self, x: Array, numbers: Array, seed: tuple[int, ...]) -> Array:
        """Scores `(N, K)` under the draws of an address."""
        return self.defended.scores(self.defended.array(x), numbers, seed, rejected_as=self.rejected_as)

    def gradient_at(
        self, x: Array, loss: Loss, numbers: Array, seed: tuple[int, ...], labels: Array | None = None
    ) -> Array:
        """Gradient of a loss, of labels or of scores alone, under the draws of an address, like `x`."""
        if not has_gradients(self.defended.classifier):
            raise ArgumentError(
                f"{type(self.defended.classifier).__name__} has no gradients; choose `attacks` that need "
                "none."
            )
        labels = np.full(len(x), -1) if labels is None else labels
        found = self.defended.look(self.defended.array(x), labels, loss, None, numbers, seed)
        return host(scaled(found.gradient, found.factors)).astype(np.float32, copy=False)

    # What ART's attacks call

    def predict(self, x: Array, batch_size: int = 128, **kwargs: Any) -> Array:
        """Scores `(N, K)`."""
        return self.scores_at(x, *self.address(len(x))).astype(np.float32)

    def loss_gradient(self, x: Array, y: Array, **kwargs: Any) -> Array:
        """Gradient with respect to `x` of the cross-entropy; for a vote, of the best wrong class's score."""
        return self.gradient_at(x, self._loss, *self.address(len(x)), _indices(y))

    def class_gradient(self, x: Array, label: Any = None, **kwargs: Any) -> Array:
        """Gradients `(N, K, ...)` of the scores with respect to `x`, or `(N, 1, ...)` of a label's."""
        classes = range(self.nb_classes) if label is None else [label]
        address = self.address(len(x))
        gradients = [self.gradient_at(x, _score_of(np.broadcast_to(k, len(x))), *address) for k in classes]
        return np.stack(gradients, axis=1)

    def compute_loss(self, x: Array, y: Array, reduction: str = "none", **kwargs: Any) -> Array:
        """Loss of each sample, shape (N,), or their mean or sum."""
        values: Array = self._loss(self.predict(x), _indices(y), None)[0]
        return values if reduction == "none" else getattr(np, reduction)(values)

    def get_activations(self, x: Array, layer: Any, batch_size: int = 128, framework: bool = False) -> Any:
        """Activations of the network under one draw."""
        numbers, seed = self.address(len(x))
        classifier = self.defended.classifier
        if not hasattr(classifier, "activations"):
            raise ArgumentError(
                "Activations are known of torch modules and of ART classifiers, got "
                f"{type(classifier).__name__}; choose `attacks` that need none."
            )
        seen = self.defended.defended(self.defended.array(x), numbers, seed)
        return classifier.activations(seen, layer)

    def fit(self, x: Array, y: Array, **kwargs: Any) -> None:
        """Refuse: this class is for attacks."""
        raise ArgumentError("A DefendedClassifier is for attacks; train the classifier itself.")

    def save(self, filename: str, path: str | None = None) -> None:
        """Refuse: nothing here is worth keeping."""
        raise ArgumentError("A DefendedClassifier is for attacks; save the classifier itself.")


def bridge(
    model: DefendedModel, *, numbers: Array | None = None, seed: int = 0, rejected_as: int = REJECTED
) -> Any:
    """A defended model as a classifier of ART that as many of its attacks as possible can use.

    Some, such as `AutoAttack`, take the network out of a `PyTorchClassifier` and put it into another one.
    With torch installed there is one, whatever framework the model has.

    Parameters
    ----------
    model : DefendedModel
        The classifier behind its defence.
    numbers, seed, rejected_as
        As of `DefendedClassifier`.

    Returns
    -------
    PyTorchClassifier or DefendedClassifier
    """
    classifier = DefendedClassifier(model, numbers=numbers, seed=seed, rejected_as=rejected_as)
    if find_spec("torch") is None:
        return classifier
    from .art_torch import in_torch

    return in_torch(classifier)


def _score_of(classes: Array) -> Loss:
    """The scores of some classes, one for each sample, as a loss."""

    def loss(scores: Array, y: Array, targets: Array | None) -> tuple[Array, Array]:
        own = np.arange(scores.shape[1]) == classes[:, None]
        return scores[own], own * 1.0

    return loss


def _indices(y: Array) -> Array:
    return y.argmax(axis=1) if y.ndim == 2 else y
