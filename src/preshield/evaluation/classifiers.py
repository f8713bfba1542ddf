"""Classifiers of every kind in one form, which is what attacks and defended models ask for.

An adapter has the attributes `model`, `nb_classes`, `input_shape`, `of_probabilities` and `channels_first`,
and the methods

- `array(x)`: samples in the framework, in the floating type and on the device in which they are attacked;
- `predict(x)`: scores `(N, K)`, or labels `(N,)` of a classifier without gradients;
- `forward(x)`: scores `(N, K)`, and a function that takes a derivative with respect to them back to the
  samples, once. A classifier without gradients lacks this method.

What is returned to the attack is NumPy's, but for gradients, which are like what `array` returns.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.remedies import how_to_resize
from .._core.tensors import framework
from .._core.typing import Array, Shape
from ..neural.outputs import numbers_of, scores_of
from ..neural.pretrained import PretrainedModel
from ..neural.torch_module import TorchModule
from ..preprocessor import Preprocessor
from .metrics import REJECTED
from .perturbations import host

__all__ = [
    "PredictOnly",
    "are_probabilities",
    "as_classifier",
    "check_outputs",
    "defences_in",
    "distributions",
    "fits",
    "has_gradients",
    "is_a",
    "labels_of",
    "predictor",
    "takes_channels_first",
    "unchanged",
]

BATCH = 128  # samples that a network predicts at once, as in ART
ADAPTER = ("array", "predict", "forward", "nb_classes", "input_shape", "of_probabilities")


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
    model : object
        What `predict` belongs to, if that may hold defences.
    """

    channels_first = False
    of_probabilities = False

    def __init__(
        self,
        predict: Callable[[Array], Any],
        input_shape: Shape,
        views: Sequence[Any] = (),
        name: str = "classifier",
        model: Any = None,
    ) -> None:
        self.model = model
        self._predict = predict
        self.input_shape = input_shape
        self.views = views
        self._name = name

    def array(self, x: Any) -> Array:
        """Samples as an array of NumPy, in `float32`."""
        return np.asarray(host(x), np.float32)

    def predict(self, x: Any, batch_size: int = BATCH) -> Array:
        """Return scores or labels, in batches."""

        def checked(batch: Array) -> Array:
            return check_outputs(np.asarray(self._predict(batch)), len(batch), self._name)

        return _in_batches(checked, host(x), batch_size)


def as_classifier(model: Any, x: Array, name: str = "classifier") -> Any:
    """Return `model` as a classifier that attacks can use.

    Parameters
    ----------
    model : object
        A torch module; a Keras model; a function of JAX; an ART classifier; a `PretrainedModel`; a
        `MajorityVote`; a `SqueezeDetector`; an adapter with gradients, which is returned as it is; anything
        else with `predict_proba` or `predict`, or a callable, of which predictions alone are used. Models may
        return their scores in an object, as `scores_of` has it.
    x : ndarray of float32, shape (N, ...)
        A few samples, as the model receives them. A torch module gets them in its own floating type.
    name : str
        What messages call the model.

    Returns
    -------
    object
        Adapter, as the description of this file has it.

    Raises
    ------
    ArgumentError
        If it is no classifier, has one output, or does not take samples of this shape. Errors of the model
        itself pass as they are, with a note.
    """
    model = _unwrapped(model)
    if has_gradients(model):
        return model
    if is_a(model, "art.estimators.estimator", "BaseEstimator"):
        from .art_classifier import from_art

        return from_art(model, x, name)
    with ExitStack() as stack:
        for part in defences_in(model):  # whose own streams stay where they are
            stack.enter_context(part.frozen())
        if is_a(model, "keras", "Model") and sys.modules["keras"].config.backend() != "torch":
            return _from_keras(model, x, name)
        if is_a(model, "torch.nn", "Module"):
            return _from_torch(model, x, name)
    if hasattr(model, "for_attacks"):  # compares views, and knows better than its predictions tell
        with noted(f"Raised by `{name}` when it was called with {_described(x)}."):
            return model.for_attacks(x)
    return _from_function(model, x, name)


def predictor(model: Any, name: str = "classifier", batch_size: int = BATCH) -> Callable[[Array], Array]:
    """Return the predictions of a classifier of any kind as a function of arrays.

    Parameters
    ----------
    model : object
        As `as_classifier` takes it.
    name : str
        What messages call the model.
    batch_size : int
        Samples that a network predicts at once.

    Returns
    -------
    callable
        Maps `(N, ...)` to scores `(N, K)` or labels `(N,)`.

    Raises
    ------
    ArgumentError
        If it is no classifier, or an estimator of scikit-learn whose classes are not 0, ..., K - 1.
    """
    model = _unwrapped(model)
    if is_a(model, "art.estimators.estimator", "BaseEstimator"):
        from .art_classifier import predictions

        return lambda x: predictions(model, x)
    if is_a(model, "keras", "Model"):
        return lambda x: _in_batches(
            lambda batch: numbers_of(model.predict_on_batch(batch), name), x, batch_size
        )
    if is_a(model, "torch.nn", "Module"):
        network = TorchModule(model)
        return lambda x: _in_batches(lambda batch: numbers_of(network.returned(batch), name), x, batch_size)
    predict = _called(model, name)
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
        elif len(shape) == 3 and len(outputs) == count:
            remedy = "; if a model scores each frame or window, wrap it in one that returns scores.mean(1)"
        raise ArgumentError(
            f"`{name}` must return {label}one row of scores for each sample, shape ({count}, K) with K >= 2, "
            f"got shape {shape}{remedy}."
        )
    if outputs.dtype.kind not in "biuf":
        raise ArgumentError(f"`{name}` must return scores that are real numbers, got dtype {outputs.dtype}.")
    return outputs


def labels_of(outputs: Array, count: int, name: str) -> Array:
    """Labels `(N,)` from predictions of a classifier, which are scores `(N, K)` or labels.

    They are refused as by `check_outputs`, and so is a score that is not a number.
    """
    outputs = check_outputs(outputs, count, name)
    if outputs.ndim == 2:
        if np.isnan(outputs).any():
            raise ArgumentError(
                f"`{name}` must return scores that are numbers, got {int(np.isnan(outputs).sum())} NaN."
            )
        outputs = outputs.argmax(axis=1)
    labels: Array = outputs.astype(np.int64)
    return labels


def has_gradients(classifier: Any) -> bool:
    """Whether something is an adapter whose gradients can be had."""
    return all(hasattr(classifier, name) for name in ADAPTER)


def takes_channels_first(model: Any) -> bool:
    """Whether a model takes images as torch does, (N, C, H, W)."""
    model = _unwrapped(model)
    of_torch = is_a(model, "torch.nn", "Module") and not is_a(model, "keras", "Model")
    return of_torch or bool(getattr(model, "channels_first", False))


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
    torch_modules = [model for model in (*models, *inner) if is_a(model, "torch.nn", "Module")]
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
    parts = list(model.modules()) if hasattr(model, "modules") else [model]
    # A Keras model on torch is a module of torch, and its layers are not.
    layers = [layer for part in parts if hasattr(part, "_flatten_layers") for layer in part._flatten_layers()]
    held = [getattr(part, "defence", None) for part in (*parts, *layers)]
    return list({id(part): part for part in held if isinstance(part, Preprocessor)}.values())


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether `value` is an instance of a class, without importing its module to find out."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(value, cls)


def _unwrapped(model: Any) -> Any:
    """The module of a pretrained model, which takes pixels in the size of the model."""
    return model.model if isinstance(model, PretrainedModel) else model


def _from_torch(model: Any, x: Array, name: str) -> Any:
    from .torch_classifier import TorchClassifier, passes_gradients

    network = TorchModule(model)
    given = f"a tensor of shape {x.shape}, {network.dtype}, on {network.device}"
    outputs = _tried(lambda x: numbers_of(network.returned(x), name), x, name, given=given)
    if not passes_gradients(network, x, name):
        return PredictOnly(predictor(model, name), x.shape[1:], name=name, model=model)
    return TorchClassifier(model, **_facts(outputs, x))


def _from_keras(model: Any, x: Array, name: str) -> Any:
    takes = getattr(model, "input_shape", None)  # None, too, where layers are not connected yet
    takes = takes if isinstance(takes, tuple) else None
    outputs = _tried(lambda x: numbers_of(model(x, training=False), name), x, name, takes=takes)
    if sys.modules["keras"].config.backend() == "tensorflow":
        from .tensorflow_classifier import TensorFlowClassifier, passes_gradients

        if passes_gradients(model, x, name):
            double = outputs.dtype == np.float64
            return TensorFlowClassifier(model, **_facts(outputs, x), double=double)
    if sys.modules["keras"].config.backend() == "jax":
        from . import jax_classifier

        function = jax_classifier.keras_function(model)
        if (
            found := jax_classifier.from_function(model, function, x, name, **_facts(outputs, x))
        ) is not None:
            return found
    return PredictOnly(predictor(model, name), x.shape[1:], name=name, model=model)


def _from_function(model: Any, x: Array, name: str) -> Any:
    """A function of JAX, with its derivatives; of anything else the predictions."""
    function = _called(model, name)
    returned: list[Any] = []

    def predict(x: Array) -> Array:
        returned.append(function(x))
        return numbers_of(returned[0], name)

    outputs = _tried(PredictOnly(predict, x.shape[1:], name=name).predict, x, name, labels=True)
    if outputs.ndim == 2 and framework(scores_of(returned[0], name)) == "jax":
        from . import jax_classifier

        if (
            found := jax_classifier.from_function(model, function, x, name, **_facts(outputs, x))
        ) is not None:
            return found
    return PredictOnly(predictor(model, name), x.shape[1:], name=name, model=model)


def _called(model: Any, name: str) -> Callable[[Any], Any]:
    """What predicts: a method, or the model itself."""
    of_labels = ("_decide",) if hasattr(model, "for_attacks") else ()  # of a detector, no `predict`
    names = (*of_labels, "predict_proba", "predict")
    function: Any = next((getattr(model, name) for name in names if hasattr(model, name)), model)
    if not callable(function):
        raise ArgumentError(
            f"`{name}` must be a torch module, a Keras model, a function of JAX, an ART classifier, or "
            f"something with `predict`, got {type(model).__module__}.{type(model).__name__}."
        )
    _check_classes(model, name)
    called: Callable[[Any], Any] = function
    return called


def _facts(outputs: Array, x: Array) -> dict[str, Any]:
    """What every adapter is told, from a few samples and the scores for them."""
    return {
        "nb_classes": outputs.shape[1],
        "input_shape": x.shape[1:],
        "of_probabilities": are_probabilities(outputs),
    }


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
    try:
        with noted(f"Raised by `{name}` when it was called with {given or _described(x)}."):
            outputs = predict(x)
    except Exception as error:
        if takes is None or fits(x.shape[1:], takes[1:]):
            raise
        raise ArgumentError(
            f"`{name}` takes samples of shape {takes[1:]}, got {x.shape[1:]}"
            f"{how_to_resize(x.shape[1:], takes[1:])}: {error}"
        ) from error
    return check_outputs(outputs, len(x), name, labels=labels)


def _described(x: Array) -> str:
    return f"a NumPy array of shape {x.shape} and dtype {x.dtype}"


def fits(shape: Shape, takes: tuple[int | None, ...]) -> bool:
    """Whether a sample has a shape; None and -1 stand for any length."""
    return len(shape) == len(takes) and all(
        want in (None, -1, got) for got, want in zip(shape, takes, strict=True)
    )
