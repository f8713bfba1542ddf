"""A classifier of ART as one for attacks."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier, TensorFlowV2Classifier
from art.estimators.classification.classifier import ClassGradientsMixin
from art.estimators.estimator import LossGradientsMixin
from scipy.special import softmax

from .._core.errors import ArgumentError
from .._core.typing import Array
from ..neural.torch_module import TorchModule, own_type
from ..preprocessor import Preprocessor
from .classifiers import are_probabilities, check_outputs, defences_in, fits, is_a, unchanged
from .perturbations import host

__all__ = ["ArtClassifier", "from_art", "predictions"]

FEW = 3  # classes in a derivative, for each of which a gradient is asked
METHODS = (
    "predict",
    "loss_gradient",
    "class_gradient",
    "_apply_preprocessing",
    "_apply_preprocessing_gradient",
)
TINY = 1e-30  # in place of a share of 0


class ArtClassifier:
    """A classifier of ART of which nothing is known but its predictions.

    Parameters
    ----------
    classifier : art.estimators.BaseEstimator
        The classifier. Its own preprocessing and postprocessing are a part of it.
    of_probabilities : bool
        Whether it returns probabilities, and not logits.
    """

    def __init__(self, classifier: Any, *, of_probabilities: bool) -> None:
        self.classifier = classifier
        self.model = getattr(classifier, "model", None)
        self.nb_classes = int(classifier.nb_classes)
        self.input_shape = classifier.input_shape
        self.of_probabilities = of_probabilities
        self.channels_first = bool(getattr(classifier, "channels_first", False))
        self.preprocessing_defences = getattr(classifier, "preprocessing_defences", None) or ()

    def array(self, x: Any) -> Array:
        """Samples as an array of NumPy, in `float32`."""
        return np.asarray(host(x), np.float32)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`."""
        return np.asarray(self.classifier.predict(self.array(x), batch_size=max(1, len(x))))

    def activations(self, x: Any, layer: Any) -> Array:
        """Output of a layer, by its name or number as ART has it."""
        x = self.array(x)
        return np.asarray(self.classifier.get_activations(x, layer, batch_size=max(1, len(x))))


class _Direct(ArtClassifier):
    """One whose network is differentiated here, and whose preprocessing by ART.

    Parameters
    ----------
    network : TorchClassifier or TensorFlowClassifier
        The network behind the preprocessing.
    """

    def __init__(self, classifier: Any, network: Any) -> None:
        super().__init__(classifier, of_probabilities=network.of_probabilities)
        self.network = network

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        x = self.array(x)
        seen, _ = self.classifier._apply_preprocessing(x, y=None, fit=False)
        scores, pull = self.network.forward(seen)

        def back(derivative: Array) -> Array:
            gradient = self.classifier._apply_preprocessing_gradient(x, host(pull(derivative)))
            return self.array(gradient)

        return scores, back


class _Asked(ArtClassifier):
    """One whose gradients ART is asked for, class by class.

    A derivative with more than three classes in a row is that of the cross-entropy, the label its only
    negative entry: `loss_gradient` has its direction, and its length up to a factor.
    """

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        x = self.array(x)
        scores = self.predict(x)

        def back(derivative: Array) -> Array:
            return self.array(self._pulled(x, scores, derivative))

        return scores, back

    def __init__(self, classifier: Any, x: Array, *, of_probabilities: bool) -> None:
        super().__init__(classifier, of_probabilities=of_probabilities)
        self._averages = False
        if not isinstance(classifier, ClassGradientsMixin):
            label = np.zeros(2, int)
            one, two = (self._loss_gradient(x[[0] * n], label[:n])[0] for n in (1, 2))
            self._averages = bool(np.linalg.norm(two) < 0.75 * np.linalg.norm(one))

    def _pulled(self, x: Array, scores: Array, derivative: Array) -> Array:
        by_class = isinstance(self.classifier, ClassGradientsMixin)
        by_loss = isinstance(self.classifier, LossGradientsMixin)
        few = np.count_nonzero(derivative, axis=1).max(initial=0) <= FEW
        if by_class and few:
            return _summed(x, derivative, lambda k: self.classifier.class_gradient(x, k)[:, 0])
        if not by_loss:
            pulled: Array = np.einsum("nk,nk...->n...", derivative, self.classifier.class_gradient(x))
            return pulled
        if self.of_probabilities:
            derivative = derivative * scores  # with respect to their logarithms
        if few:
            return self._by_difference(x, derivative)
        # Of the cross-entropy, which lacks in probability what the label does not have.
        label = derivative.argmin(axis=1)
        own = np.arange(self.nb_classes) == label[:, None]
        shares = (
            scores.astype(np.float64) if self.of_probabilities else softmax(scores.astype(np.float64), axis=1)
        )
        lacking = np.where(own, 0, shares).sum(axis=1)
        factors = -derivative[own] / np.maximum(lacking, TINY)
        gradient = _weighted(factors, self._loss_gradient(x, label))
        lost = ~gradient.reshape(len(x), -1).any(axis=1)  # of a model that is sure of itself
        if lost.any():
            rival = np.where(own, -np.inf, derivative).argmax(axis=1)
            towards = (np.arange(self.nb_classes) == rival[:, None]) * 1.0 - own
            gradient[lost] = self._by_difference(x[lost], towards[lost])
        return gradient

    def _by_difference(self, x: Array, derivative: Array) -> Array:
        """The difference of two cross-entropies is that of two log-probabilities."""
        return -_summed(x, derivative, lambda k: self._loss_gradient(x, k))

    def _loss_gradient(self, x: Array, label: Array) -> Array:
        """Gradients of the loss of each sample."""
        one_hot = np.eye(self.nb_classes, dtype=np.float32)[label]
        gradient: Array = np.asarray(self.classifier.loss_gradient(x, one_hot), np.float64)
        return gradient * len(x) if self._averages else gradient


def from_art(classifier: Any, x: Array, name: str) -> Any:
    """A classifier of ART as one for attacks.

    The network of a `PyTorchClassifier` or `TensorFlowV2Classifier` is attacked directly, unless a subclass
    has other gradients.

    Parameters
    ----------
    classifier : art.estimators.BaseEstimator
        The classifier.
    x : ndarray of float32, shape (N, ...)
        A few samples.
    name : str
        What messages call the classifier.

    Raises
    ------
    ArgumentError
        If it takes samples of another shape, or its network another floating type than ART gives it.
    """
    takes = tuple(getattr(classifier, "input_shape", None) or x.shape[1:])
    if not fits(x.shape[1:], takes):
        raise ArgumentError(f"`{name}` takes samples of shape {takes}, got {x.shape[1:]}.")
    with ExitStack() as stack:
        stack.enter_context(unchanged(classifier))
        for part in (
            *(getattr(classifier, "preprocessing_defences", None) or ()),
            *defences_in(classifier.model),
        ):
            if isinstance(part, Preprocessor):  # whose own streams stay where they are
                stack.enter_context(part.frozen())
        _check_precision(classifier, x, name)
        outputs = check_outputs(np.asarray(classifier.predict(x)), len(x), name, labels=False)
        of_probabilities = are_probabilities(outputs)
        network = _network(classifier, x, outputs, name)
        if network is None and isinstance(classifier, ClassGradientsMixin | LossGradientsMixin):
            return _Asked(classifier, x, of_probabilities=of_probabilities)
        if network is None:
            return ArtClassifier(classifier, of_probabilities=of_probabilities)
    return _Direct(classifier, network) if classifier.preprocessing_operations else network


def _network(classifier: Any, x: Array, outputs: Array, name: str) -> Any:
    """The network of a classifier that does with it what ART does; None if it may do something else."""
    kind = next((c for c in (PyTorchClassifier, TensorFlowV2Classifier) if isinstance(classifier, c)), None)
    if kind is None or getattr(classifier, "postprocessing_defences", None):
        return None
    if any(getattr(type(classifier), m) is not getattr(kind, m) or m in vars(classifier) for m in METHODS):
        return None
    seen, _ = classifier._apply_preprocessing(x, y=None, fit=False)
    facts = {
        "nb_classes": int(classifier.nb_classes),
        "input_shape": classifier.input_shape,
        "of_probabilities": are_probabilities(outputs),
    }
    network: Any
    if kind is PyTorchClassifier:
        from .torch_classifier import TorchClassifier, passes_gradients

        network = TorchClassifier(classifier.model, **facts)
        differentiable = passes_gradients(TorchModule(classifier.model), seen, name)
    else:
        from . import tensorflow_classifier

        network = tensorflow_classifier.TensorFlowClassifier(classifier.model, **facts)
        differentiable = tensorflow_classifier.passes_gradients(classifier.model, seen, name)
    same = differentiable and np.allclose(network.predict(seen), outputs, rtol=1e-3, atol=1e-5)
    return network if same else None


def predictions(classifier: Any, x: Array) -> Array:
    """What a classifier of ART predicts, whose torch module gets samples in its own floating type."""
    module = getattr(classifier, "model", None)
    if x.dtype != object and is_a(module, "torch.nn", "Module"):
        kind = str(own_type(module)[0]).removeprefix("torch.")
        x = x.astype("float32" if kind == "bfloat16" else kind, copy=False)  # which NumPy lacks
    return np.asarray(classifier.predict(x))


def _check_precision(classifier: Any, x: Array, name: str) -> None:
    """Refuse a classifier whose torch module takes another floating type than ART gives it."""
    module = getattr(classifier, "model", None)
    if not is_a(module, "torch.nn", "Module"):
        return
    dtype, _ = own_type(module)
    if dtype == sys.modules["torch"].float32:
        return
    try:
        classifier.predict(x)
    except Exception as error:
        raise ArgumentError(
            f"`{name}` is a {type(classifier).__name__} of ART around a model in {dtype}, and got float32: "
            f"{error}; pass the torch module itself, or module.float() to ART."
        ) from error


def _summed(x: Array, derivative: Array, gradient_of: Callable[[Array], Array]) -> Array:
    """The gradients of classes, one for each sample, times the entries of a derivative: the few largest."""
    total = np.zeros(x.shape)
    order = np.argsort(-np.abs(derivative), axis=1)[:, :FEW]
    for classes in order.T:
        entries = np.take_along_axis(derivative, classes[:, None], axis=1)[:, 0]
        if entries.any():
            total += _weighted(entries, gradient_of(classes))
    return total


def _weighted(weights: Array, gradient: Array) -> Array:
    weighted: Array = gradient * weights.reshape(-1, *[1] * (gradient.ndim - 1))
    return weighted
