"""Classifiers of every kind as ART's, which is what attacks and defended classifiers ask for."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.typing import Array, Shape
from ..preprocessor import Preprocessor

__all__ = [
    "PredictOnly",
    "are_probabilities",
    "as_classifier",
    "defences_in",
    "has_gradients",
    "predictor",
    "unchanged",
]

BATCH = 128  # samples that a network predicts at once, as in ART
TINY = 1e-30  # in place of a probability of 0
SLOPE = 1e-13  # of the cross-entropy where its own is less; too little to be seen elsewhere


class PredictOnly:
    """A classifier of which nothing is known but its predictions.

    Parameters
    ----------
    predict : callable
        Maps `(N, ...)` to scores `(N, K)`, or to labels `(N,)` in which -1 means that a sample is rejected.
    input_shape : tuple of int
        Shape of one sample.
    views : sequence of Preprocessor or None
        Defences that `predict` applies.
    """

    clip_values = None
    channels_first = False

    def __init__(
        self, predict: Callable[[Array], Any], input_shape: Shape, views: Sequence[Any] = ()
    ) -> None:
        self._predict = predict
        self.input_shape = input_shape
        self.views = views

    def predict(self, x: Array, batch_size: int = 128) -> Array:
        """Return scores or labels, in batches."""
        return _in_batches(self._predict, x, batch_size)


def as_classifier(model: Any, x: Array, clip_values: tuple[float, float]) -> Any:
    """Return `model` as a classifier with the methods of ART's.

    Parameters
    ----------
    model : object
        An ART classifier, which is returned as it is; a Keras model; a torch module; a `MajorityVote`;
        anything else with `predict_proba` or `predict`, or a callable, of which predictions alone are used.
    x : ndarray of float32, shape (N, ...)
        A few samples, as the model receives them.
    clip_values : tuple of float
        Smallest and largest value of a sample.

    Returns
    -------
    object

    Raises
    ------
    TypeError
        If it is no classifier.
    ValueError
        If it has one output, or the samples do not fit it.
    """
    if _is_a(model, "art.estimators.estimator", "BaseEstimator"):
        return model
    with ExitStack() as stack:
        for part in defences_in(model):  # whose own streams stay where they are
            stack.enter_context(part.frozen())
        if _is_a(model, "keras", "Model") and sys.modules["keras"].config.backend() != "torch":
            return _from_keras(model, x, clip_values)
        if _is_a(model, "torch.nn", "Module"):
            return _from_torch(model, x, clip_values)
    if hasattr(model, "for_attacks"):  # a vote, which knows better than its predictions tell
        _outputs(lambda: model.predict(x), x, None, labels=True)
        return model.for_attacks(x, clip_values)
    classifier = PredictOnly(predictor(model), x.shape[1:])
    _outputs(lambda: classifier.predict(x), x, None, labels=True)
    return classifier


def predictor(model: Any) -> Callable[[Array], Array]:
    """Return the predictions of a classifier of any kind as a function of arrays; ART is not needed for it.

    Parameters
    ----------
    model : object
        As `as_classifier` takes it. A network predicts in batches.

    Returns
    -------
    callable
        Maps `(N, ...)` to scores `(N, K)` or labels `(N,)`.

    Raises
    ------
    TypeError
        If it is no classifier.
    """
    if _is_a(model, "art.estimators.estimator", "BaseEstimator"):
        return lambda x: np.asarray(model.predict(x))
    if _is_a(model, "keras", "Model"):
        return lambda x: _in_batches(lambda batch: np.asarray(model.predict_on_batch(batch)), x)
    if _is_a(model, "torch.nn", "Module"):
        return lambda x: _in_batches(lambda batch: _torch_outputs(model, batch), x)
    predict = next((getattr(model, n) for n in ("predict_proba", "predict") if hasattr(model, n)), model)
    if not callable(predict):
        raise ArgumentError(
            "`classifier` must be an ART classifier, a Keras model, a torch module, or something with "
            f"`predict`, got {type(model).__module__}.{type(model).__name__}."
        )
    return lambda x: np.asarray(predict(x))


def has_gradients(classifier: Any) -> bool:
    """Whether the gradient of its loss can be had."""
    return _is_a(classifier, "art.estimators.estimator", "LossGradientsMixin")


def are_probabilities(outputs: Array) -> bool:
    """Whether each row is a distribution: what a softmax leaves."""
    if outputs.ndim != 2:
        return False
    return bool(outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-4))


@contextmanager
def unchanged(*models: Any) -> Iterator[None]:
    """Give torch modules their training flags back, which ART changes to predict."""
    inner = [getattr(model, "model", None) for model in models]  # of a classifier of ART
    torch_modules = [model for model in (*models, *inner) if _is_a(model, "torch.nn", "Module")]
    modules = [module for model in torch_modules for module in model.modules()]
    flags = [module.training for module in modules]
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def defences_in(model: Any) -> list[Preprocessor]:
    """Defences that are modules or layers of a torch or Keras model."""
    walk = getattr(model, "modules", None) or getattr(model, "_flatten_layers", None)
    parts = [getattr(part, "defence", None) for part in walk()] if walk is not None else []
    return [part for part in parts if isinstance(part, Preprocessor)]


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether `value` is an instance of a class, without importing its module to find out."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(value, cls)


def _from_keras(model: Any, x: Array, clip_values: tuple[float, float]) -> Any:
    backend = sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        raise ArgumentError(
            f"`classifier` is a Keras model on the {backend!r} backend; attacks need TensorFlow or torch: "
            "set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )
    require("art", extra="art")
    from .keras_classifier import CrossEntropy, KerasClassifier

    outputs = _outputs(lambda: np.asarray(model(x, training=False)), x, getattr(model, "input_shape", None))
    return KerasClassifier(
        model=model,
        nb_classes=outputs.shape[1],
        input_shape=x.shape[1:],
        loss_object=CrossEntropy(of_probabilities=are_probabilities(outputs)),
        clip_values=clip_values,
    )


def _from_torch(model: Any, x: Array, clip_values: tuple[float, float]) -> Any:
    art = require("art.estimators.classification", extra="art")
    torch = require("torch", extra="torch")
    device = _device(model)

    outputs = _outputs(lambda: _torch_outputs(model, x), x, None)
    of_probabilities = are_probabilities(outputs)

    def cross_entropy(outputs: Any, labels: Any) -> Any:  # as `CrossEntropy` for Keras; labels are one-hot
        logits = outputs.clamp_min(TINY).log() if of_probabilities else outputs
        others = logits.masked_fill(labels > 0, -math.inf).logsumexp(dim=1)
        odds = others - (labels * logits).sum(dim=1)
        return (torch.nn.functional.softplus(odds) + SLOPE * odds).mean()

    return art.PyTorchClassifier(
        model=model,
        loss=cross_entropy,
        input_shape=x.shape[1:],
        nb_classes=outputs.shape[1],
        clip_values=clip_values,
        device_type="cpu" if device.type == "cpu" else "gpu",
    )


def _torch_outputs(model: Any, x: Array) -> Array:
    torch = sys.modules["torch"]
    with torch.no_grad(), unchanged(model):
        tensor = torch.from_numpy(np.array(x, dtype=np.float32)).to(_device(model))
        outputs: Array = model.eval()(tensor).cpu().numpy()
    return outputs


def _device(model: Any) -> Any:
    return next((p.device for p in model.parameters()), sys.modules["torch"].device("cpu"))


def _in_batches(predict: Callable[[Array], Any], x: Array, size: int = BATCH) -> Array:
    return np.concatenate([np.asarray(predict(x[i : i + size])) for i in range(0, max(len(x), 1), size)])


def _outputs(
    predict: Callable[[], Array], x: Array, expected: Shape | None, *, labels: bool = False
) -> Array:
    """Outputs of a model for `x`; what it says if it cannot take them is passed on with the shapes."""
    try:
        outputs = predict()
    except Exception as error:
        wanted = "" if expected is None else f", which expects {tuple(expected)},"
        raise ArgumentError(
            f"`classifier`{wanted} cannot take samples of shape {x.shape[1:]}: {error}"
        ) from error
    if labels and outputs.shape == x.shape[:1]:
        return outputs
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ArgumentError(
            f"`classifier` must return one score per class, shape (N, K) with K >= 2, got {outputs.shape}; "
            "give a binary model two logits."
        )
    return outputs
