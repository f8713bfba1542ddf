"""Classifiers of every kind as ART's, which is what attacks and defended classifiers ask for."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.optional import require
from .._core.typing import Array, Shape
from ..neural.outputs import numbers_of, scores_of
from ..neural.torch_module import TorchModule, own_type
from ..preprocessor import Preprocessor
from .metrics import REJECTED

__all__ = [
    "PredictOnly",
    "are_probabilities",
    "as_classifier",
    "check_outputs",
    "defences_in",
    "distributions",
    "fits",
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
    name : str
        What messages call the classifier.
    """

    clip_values = None
    channels_first = False

    def __init__(
        self,
        predict: Callable[[Array], Any],
        input_shape: Shape,
        views: Sequence[Any] = (),
        name: str = "classifier",
    ) -> None:
        self._predict = predict
        self.input_shape = input_shape
        self.views = views
        self._name = name

    def predict(self, x: Array, batch_size: int = 128) -> Array:
        """Return scores or labels, in batches."""

        def checked(batch: Array) -> Array:
            return check_outputs(np.asarray(self._predict(batch)), len(batch), self._name)

        return _in_batches(checked, x, batch_size)


def as_classifier(model: Any, x: Array, clip_values: tuple[float, float], name: str = "classifier") -> Any:
    """Return `model` as a classifier with the methods of ART's.

    Parameters
    ----------
    model : object
        An ART classifier, which is returned as it is; a Keras model; a torch module; a `MajorityVote`;
        anything else with `predict_proba` or `predict`, or a callable, of which predictions alone are used.
        Models may return their scores in an object, as `scores_of` has it.
    x : ndarray of float32, shape (N, ...)
        A few samples, as the model receives them. A torch module gets them in its own floating type.
    clip_values : tuple of float
        Smallest and largest value of a sample.
    name : str
        What messages call the model.

    Returns
    -------
    object

    Raises
    ------
    ArgumentError
        If it is no classifier, has one output, or does not take samples of this shape. Errors of the model
        itself pass as they are, with a note.
    """
    if _is_a(model, "art.estimators.estimator", "BaseEstimator"):
        _check_precision_of_art(model, x, name)
        return model
    with ExitStack() as stack:
        for part in defences_in(model):  # whose own streams stay where they are
            stack.enter_context(part.frozen())
        if _is_a(model, "keras", "Model") and sys.modules["keras"].config.backend() != "torch":
            return _from_keras(model, x, clip_values, name)
        if _is_a(model, "torch.nn", "Module"):
            return _from_torch(model, x, clip_values, name)
    if hasattr(model, "for_attacks"):  # a vote, which knows better than its predictions tell
        _tried(model.predict, x, name, labels=True)
        return model.for_attacks(x, clip_values)
    classifier = PredictOnly(predictor(model, name), x.shape[1:], name=name)
    _tried(classifier.predict, x, name, labels=True)
    return classifier


def predictor(model: Any, name: str = "classifier") -> Callable[[Array], Array]:
    """Return the predictions of a classifier of any kind as a function of arrays; ART is not needed for it.

    Parameters
    ----------
    model : object
        As `as_classifier` takes it. A network predicts in batches.
    name : str
        What messages call the model.

    Returns
    -------
    callable
        Maps `(N, ...)` to scores `(N, K)` or labels `(N,)`.

    Raises
    ------
    ArgumentError
        If it is no classifier, or an estimator of scikit-learn whose classes are not 0, ..., K - 1.
    """
    if _is_a(model, "art.estimators.estimator", "BaseEstimator"):
        return lambda x: np.asarray(model.predict(_as_art_takes(model, x)))
    if _is_a(model, "keras", "Model"):
        return lambda x: _in_batches(lambda batch: numbers_of(model.predict_on_batch(batch), name), x)
    if _is_a(model, "torch.nn", "Module"):
        network = TorchModule(model)
        return lambda x: _in_batches(lambda batch: numbers_of(network.returned(batch), name), x)
    predict = next((getattr(model, n) for n in ("predict_proba", "predict") if hasattr(model, n)), model)
    if not callable(predict):
        raise ArgumentError(
            f"`{name}` must be an ART classifier, a Keras model, a torch module, or something with "
            f"`predict`, got {type(model).__module__}.{type(model).__name__}."
        )
    _check_classes(model, name)
    return lambda x: numbers_of(predict(x), name)


def check_outputs(outputs: Array, count: int, name: str, *, labels: bool = True) -> Array:
    """Return predictions of a classifier, if they are what one returns.

    Parameters
    ----------
    outputs : ndarray
        What it returned.
    count : int
        Number of samples.
    name : str
        What messages call the classifier.
    labels : bool, default True
        Whether it may return labels instead of scores.

    Returns
    -------
    ndarray
        `outputs`: scores `(count, K)` with at least two columns, or labels `(count,)`.

    Raises
    ------
    ArgumentError
        If they have another shape or hold no numbers, or labels are neither class indices nor -1.
    """
    shape = outputs.shape
    if labels and shape == (count,):
        numeric = outputs.dtype.kind in "biuf" and bool(np.isfinite(outputs).all())
        if not numeric or (outputs != np.floor(outputs)).any() or (outputs < REJECTED).any():
            raise ArgumentError(
                f"`{name}` must return class indices from 0 on, or {REJECTED} to reject, got {outputs!r}; "
                "scores need one column for each class."
            )
        return outputs
    if len(shape) != 2 or len(outputs) != count or shape[1] < 2:
        label = f"one label for each of the {count} samples, shape ({count},), or " if labels else ""
        remedy = ""
        if shape in ((count,), (count, 1)):
            remedy = "; give a binary model two columns, such as 0 and its logit"
        elif len(shape) > 2 and shape[:1] == (count,) and int(np.prod(shape[2:])) == 1:
            remedy = f"; reshape the scores to ({count}, {shape[1]})"
        raise ArgumentError(
            f"`{name}` must return {label}one row of scores for each sample, shape ({count}, K) with K >= 2, "
            f"got shape {shape}{remedy}."
        )
    if outputs.dtype.kind not in "biuf":
        raise ArgumentError(f"`{name}` must return scores that are real numbers, got dtype {outputs.dtype}.")
    return outputs


def has_gradients(classifier: Any) -> bool:
    """Whether the gradient of its loss can be had."""
    return _is_a(classifier, "art.estimators.estimator", "LossGradientsMixin")


def are_probabilities(outputs: Array) -> bool:
    """Whether each row is a distribution: what a softmax leaves."""
    return outputs.ndim == 2 and bool(distributions(outputs).all())


def distributions(rows: Array) -> Array:
    """Which rows `(N, K)` are distributions, shape (N,)."""
    rows = rows.astype(np.float64)
    # Half precision rounds each entry by up to 2**-9 of itself, and so the sum of all.
    mantissas = np.frexp(rows)[0] * 2**11
    rounding = np.where((mantissas == np.rint(mantissas)).all(axis=1), 2**-8, 1e-4)
    found: Array = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= rounding)
    return found


@contextmanager
def unchanged(*models: Any) -> Iterator[None]:
    """Give torch modules their training flags back, which ART changes to predict."""
    inner = [getattr(model, "model", None) for model in models]  # of a classifier of ART
    torch_modules = [model for model in (*models, *inner) if _is_a(model, "torch.nn", "Module")]
    modules = [module for model in torch_modules for module in model.modules()]
    flags = [getattr(module, "training", None) for module in modules]  # a frozen ScriptModule has none
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            if flag is not None:
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


def _from_keras(model: Any, x: Array, clip_values: tuple[float, float], name: str) -> Any:
    backend = sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        raise ArgumentError(
            f"`{name}` is a Keras model on the {backend!r} backend; attacks need TensorFlow or torch: "
            "set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )
    require("art", extra="art")
    from .keras_classifier import CrossEntropy, KerasClassifier

    takes = getattr(model, "input_shape", None)  # None, too, where layers are not connected yet
    returned: list[Any] = []

    def predict(x: Array) -> Array:
        returned.append(model(x, training=False))
        return numbers_of(returned[0], name)

    outputs = _tried(predict, x, name, takes=takes if isinstance(takes, tuple) else None)
    if not _passes_gradients_of_keras(model, x, name):
        return PredictOnly(predictor(model, name), x.shape[1:], name=name)
    return KerasClassifier(
        model=model,
        nb_classes=outputs.shape[1],
        input_shape=x.shape[1:],
        loss_object=CrossEntropy(of_probabilities=are_probabilities(outputs)),
        clip_values=clip_values,
        plain=getattr(returned[0], "dtype", None) == "float32",
    )


def _from_torch(model: Any, x: Array, clip_values: tuple[float, float], name: str) -> Any:
    require("art", extra="art")
    from .torch_classifier import CrossEntropy, TorchClassifier

    network = TorchModule(model)
    given = f"a tensor of shape {x.shape}, {network.dtype}, on {network.device}"
    outputs = _tried(lambda x: numbers_of(network.returned(x), name), x, name, given=given)
    if not _passes_gradients(network, x, name):
        return PredictOnly(predictor(model, name), x.shape[1:], name=name)
    return TorchClassifier(
        model=model,
        nb_classes=outputs.shape[1],
        input_shape=x.shape[1:],
        loss=CrossEntropy(of_probabilities=are_probabilities(outputs)),
        clip_values=clip_values,
    )


def _passes_gradients(network: TorchModule, x: Array, name: str) -> bool:
    """Whether the scores of a module are connected to its input: not if it leaves torch, or detaches."""
    torch = sys.modules["torch"]
    with torch.enable_grad():
        samples = network.tensor(x).requires_grad_()
        scores = scores_of(network(samples), name)
        if not getattr(scores, "requires_grad", False):
            return False
        (grad,) = torch.autograd.grad(scores.sum(), samples, allow_unused=True)
    return grad is not None


def _passes_gradients_of_keras(model: Any, x: Array, name: str) -> bool:
    """The same of a Keras model on TensorFlow."""
    tf = sys.modules["tensorflow"]
    samples = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(samples)
        scores = scores_of(model(samples, training=False), name)
    return tf.is_tensor(scores) and tape.gradient(scores, samples) is not None


def _as_art_takes(classifier: Any, x: Array) -> Array:
    """Samples in the floating type of the torch module of a classifier of ART, which passes them on."""
    module = getattr(classifier, "model", None)
    if x.dtype == object or not _is_a(module, "torch.nn", "Module"):
        return x
    kind = str(own_type(module)[0]).removeprefix("torch.")
    return x.astype("float32" if kind == "bfloat16" else kind, copy=False)  # which NumPy lacks


def _check_precision_of_art(classifier: Any, x: Array, name: str) -> None:
    """Refuse a classifier of ART whose torch module takes another floating type than ART gives it."""
    module = getattr(classifier, "model", None)
    if not _is_a(module, "torch.nn", "Module"):
        return
    dtype, _ = own_type(module)
    if dtype == sys.modules["torch"].float32:
        return
    try:
        with unchanged(module):
            classifier.predict(x)
    except Exception as error:
        raise ArgumentError(
            f"`{name}` is a {type(classifier).__name__} of ART around a model in {dtype}, and got float32: "
            f"{error}; pass the torch module itself, or module.float() to ART."
        ) from error


def _check_classes(model: Any, name: str) -> None:
    """Refuse an estimator of scikit-learn whose columns of probabilities are not its labels."""
    classes = getattr(model, "classes_", None)
    if classes is None or not hasattr(model, "predict_proba"):
        return
    if not np.array_equal(classes, np.arange(len(classes))):
        raise ArgumentError(
            f"`{name}` must have the classes 0, ..., K - 1, the columns of its `predict_proba`, got "
            f"`classes_` {classes!r}; train it on such labels, for example with scikit-learn's LabelEncoder."
        )


def _in_batches(predict: Callable[[Array], Any], x: Array, size: int = BATCH) -> Array:
    outputs = [np.asarray(predict(x[i : i + size])) for i in range(0, max(len(x), 1), size)]
    return np.concatenate(outputs) if outputs[0].ndim else outputs[0]  # which the checks then refuse


def _tried(
    predict: Callable[[Array], Array],
    x: Array,
    name: str,
    *,
    labels: bool = False,
    given: str = "",
    takes: Shape | None = None,
) -> Array:
    """Predictions for `x`, checked; what else the model raises passes as it is."""
    given = given or f"a NumPy array of shape {x.shape} and dtype {x.dtype}"
    try:
        with noted(f"Raised by `{name}` when it was called with {given}."):
            outputs = predict(x)
    except Exception as error:
        if takes is None or fits(x.shape[1:], takes[1:]):
            raise
        raise ArgumentError(
            f"`{name}` takes samples of shape {takes[1:]}, got {x.shape[1:]}: {error}"
        ) from error
    return check_outputs(outputs, len(x), name, labels=labels)


def fits(shape: Shape, takes: tuple[int | None, ...]) -> bool:
    """Whether a sample has a shape; None and -1 stand for any length."""
    return len(shape) == len(takes) and all(
        want in (None, -1, got) for got, want in zip(shape, takes, strict=True)
    )
