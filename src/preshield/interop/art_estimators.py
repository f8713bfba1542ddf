"""ART's estimators, corrected where they would be wrong with a defence.

docs/migrating.md has a table of all estimators. Some feed their defences, or differentiate through them, in
a way that is silently wrong. A method of those is replaced when their module is loaded; the replacement acts
only on an estimator that holds a defence of preshield, and leaves the others to ART.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import wraps
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.layout import as_numbers, object_array
from .._core.passes import Pass
from .._core.tensors import framework, to_numpy
from .._core.typing import Array
from ..preprocessor import Preprocessor

__all__ = ["correct"]

Method = Callable[..., Any]
Correction = Callable[[Method], Method]
Backward = Callable[[Any], Array]


def correct(module: ModuleType) -> None:
    """Replace what is wrong in one module of ART.

    Parameters
    ----------
    module : module
        Any module of `art.estimators` or `art.experimental.estimators`.
    """
    for owner, corrections in CORRECTIONS.get(module.__name__, {}).items():
        cls = getattr(module, owner, None)
        for name, correction in corrections.items():
            method = getattr(cls, name, None)
            if method is None:
                warnings.warn(
                    f"This version of ART has no {owner}.{name}, which preshield corrects in ART 1.20; "
                    "compare gradients with finite differences before you trust them.",
                    stacklevel=2,
                )
            else:
                setattr(cls, name, correction(method))


# Passes through the list of an estimator, on NumPy arrays


def _ours(estimator: Any) -> list[Preprocessor]:
    """The defences of preshield in the list of an estimator."""
    return [op for op in estimator.preprocessing_operations if isinstance(op, Preprocessor)]


def _applied(estimator: Any, fit: bool) -> list[Any]:
    operations = estimator.preprocessing_operations
    return [op for op in operations if (op.apply_fit if fit else op.apply_predict)]


def _in_one_graph(estimator: Any) -> bool:
    """Whether the framework of the estimator differentiates through the list."""
    return bool(getattr(estimator, "all_framework_preprocessing", False))


def _of_objects(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "O"


def _ragged(x: Any) -> bool:
    """Whether samples may differ in length: an object array of them."""
    return _of_objects(x) and x.ndim == 1


def _apply(operation: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """One operation; ART's own take samples of different lengths one by one."""
    if isinstance(operation, Preprocessor) or not _ragged(x):
        return operation(x, y)  # type: ignore[no-any-return]
    return object_array([operation(sample[None])[0][0] for sample in x]), y


def _pass(operation: Any, x: Any, y: Any) -> tuple[Any, Any, Backward]:
    """One operation, and the way back through the same draw."""
    if isinstance(operation, Preprocessor):
        begun = Pass.begin(operation, x, runs=True, kept=True)
        return begun.output(), begun.labels(y), begun.pull_back

    def back(grad: Any) -> Array:
        if not _ragged(x):
            return np.asarray(operation.estimate_gradient(x, grad))
        pairs = zip(x, grad, strict=True)
        return object_array([operation.estimate_gradient(a[None], b[None])[0] for a, b in pairs])

    return *_apply(operation, x, y), back


def _defended(estimator: Any, x: Any, y: Any, fit: bool = False) -> tuple[Any, Any, Backward]:
    """What the model receives, and the way back through the very same pass."""
    steps = []
    for operation in _applied(estimator, fit):
        x, y, step = _pass(operation, x, y)
        steps.append(step)
    seen = x

    def back(grad: Any) -> Array:
        grad = to_numpy(grad)
        if _ragged(seen):  # ART may have stacked samples of one length, and added an axis to each
            floats = (np.asarray(g, np.result_type(s, np.float32)) for g, s in zip(grad, seen, strict=True))
            grad = object_array([g.reshape(s.shape) for g, s in zip(floats, seen, strict=True)])
        for step in reversed(steps):
            grad = step(grad)
        return np.asarray(grad)

    return seen, y, back


def _call_bare(method: Method, estimator: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method on the estimator without its list, for what has been through it."""
    bare = object.__new__(type(estimator))  # to copy a PyTorchClassifier, ART writes a file
    vars(bare).update(vars(estimator), preprocessing_operations=[], all_framework_preprocessing=True)
    try:
        return method(bare, *args, **kwargs)
    finally:  # what ART makes when it is first needed
        for name in vars(bare).keys() - vars(estimator).keys() - {"all_framework_preprocessing"}:
            setattr(estimator, name, vars(bare)[name])


# Corrections: each takes a method of ART and returns what replaces it


def _lists(method: Method) -> Method:
    """`_apply_preprocessing` of NumPy batches, for lists of any kind and samples of any length.

    ART raises NotImplementedError where one of several defences is a NumPy defence of its own, and its
    standardisation takes no samples of different lengths.
    """

    @wraps(method)
    def apply_preprocessing(self: Any, x: Any, y: Any, fit: bool = False, **kwargs: Any) -> tuple[Any, Any]:
        mixed = hasattr(self, "all_framework_preprocessing") and not _in_one_graph(self)
        if not _ours(self) or framework(x) != "numpy" or not (mixed or _of_objects(x)):
            return method(self, x, y, fit, **kwargs)  # type: ignore[no-any-return]
        x = as_numbers(x) if x.ndim > 1 else x
        for operation in _applied(self, fit):
            x, y = _apply(operation, x, y)
        return x, y

    return apply_preprocessing


def _gradients(method: Method) -> Method:
    """`_apply_preprocessing_gradient` at the points that the stages saw, for estimators that others write.

    ART hands the original batch to every stage. A stochastic defence draws anew: nothing says which pass this
    one belongs to.
    """

    @wraps(method)
    def apply_preprocessing_gradient(self: Any, x: Any, gradients: Any, fit: bool = False) -> Any:
        in_a_graph = _in_one_graph(self) and not _of_objects(x)
        if not _ours(self) or framework(x) != "numpy" or in_a_graph:
            return method(self, x, gradients, fit)
        return _defended(self, x, None, fit)[2](gradients)

    return apply_preprocessing_gradient


def _at_defended(method: Method, *, where: Callable[[Any], bool] = lambda estimator: True) -> Method:
    """A gradient by the chain rule: the model's at the defended batch, pulled back through that pass.

    ART hands the original batch to every stage, lets a stochastic defence draw anew, defends twice or leaves
    the defences out.
    """
    signature = inspect.signature(method)

    @wraps(method)
    def gradient(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        given = bound.arguments
        if not _ours(self) or not where(self) or framework(given["x"]) == "torch":
            return method(self, *args, **kwargs)
        del given["self"]
        seen, labels, back = _defended(self, to_numpy(given["x"]), given.get("y"))
        given["x"] = seen
        if "y" in given:
            given["y"] = labels
        return back(_call_bare(method, self, **given.pop("kwargs", {}), **given))

    return gradient


def _mixed(method: Method) -> Method:
    """The same, in an estimator whose framework differentiates, where NumPy defences are in the list."""
    return _at_defended(method, where=lambda estimator: not _in_one_graph(estimator))


def _all_classes(method: Method) -> Method:
    """`class_gradient` of TensorFlow; where it is of all classes, ART stops after the defences."""
    mixed = _mixed(method)

    @wraps(method)
    def class_gradient(
        self: Any, x: Any, label: Any = None, training_mode: bool = False, **kwargs: Any
    ) -> Any:
        if label is not None or not _ours(self) or not _in_one_graph(self):
            return mixed(self, x, label, training_mode, **kwargs)
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            seen, _ = self._apply_preprocessing(x, y=None, fit=False)
            scores = tf.unstack(self.model(seen, training=training_mode), axis=1)
        return np.stack([tape.gradient(score, x).numpy() for score in scores], axis=1)

    return class_gradient


def _between_activations(method: Method) -> Method:
    """`custom_loss_gradient` with respect to the batch; ART defends twice, and stops after the defences."""

    @wraps(method)
    def gradient(self: Any, loss_fn: Any, x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        if not _ours(self) or framework(x) != "numpy":
            return method(self, loss_fn, x, y, *args, **kwargs)
        seen, _, back = _defended(self, x, None)
        target, _, _ = _defended(self, y, None)
        return back(_call_bare(method, self, loss_fn, seen, target, *args, **kwargs))

    return gradient


def _detector_inputs(method: Method) -> Method:
    """What a detector's model receives, where preshield's defences see the batch as the user has it.

    ART divides by the largest value and moves the channels first before the defences of a list that is all
    torch. Its own operations, the standardisation among them, expect that.
    """

    @wraps(method)
    def inputs(self: Any, x: Any, y: Any = None, fit: bool = False, no_grad: bool = True) -> tuple[Any, Any]:
        if not _ours(self) or not _in_one_graph(self):
            return method(self, x, y, fit, no_grad)  # type: ignore[no-any-return]
        import torch
        from art.estimators.object_detection.utils import cast_inputs_to_pt

        largest = 1.0 if self.clip_values is None else float(self.clip_values[1])

        def to_model(x: Any) -> Any:
            return (x if self.channels_first else x.permute(0, 3, 1, 2)) / largest

        def to_user(x: Any) -> Any:
            return (x if self.channels_first else x.permute(0, 2, 3, 1)) * largest

        x, y = cast_inputs_to_pt(x, y)
        as_user = True
        with torch.no_grad() if no_grad else nullcontext():
            for operation in _applied(self, fit):
                if isinstance(operation, Preprocessor) != as_user:
                    x, as_user = to_model(x) if as_user else to_user(x), not as_user
                x, y = operation.forward(x, y)
            x = to_model(x) if as_user else x
        return x, y if y is None else list(y)

    return inputs


def _detector_gradient(method: Method) -> Method:
    """Gradient of a detector's loss with respect to the batch as the user has it.

    ART takes it after the defences, whoever made them; beside NumPy defences it pulls the gradient of the
    model's layout back through those of the user's.
    """
    mixed = _mixed(method)

    @wraps(method)
    def loss_gradient(self: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        if not _ours(self) or not _in_one_graph(self):
            return mixed(self, x, y, **kwargs)
        import torch

        leaf = torch.from_numpy(x) if isinstance(x, np.ndarray) else x.detach()
        leaf = (leaf.clone() if leaf.is_floating_point() else leaf.float()).requires_grad_()
        (grad,) = torch.autograd.grad(self.compute_loss(leaf, y, **kwargs), leaf)
        return grad.cpu().numpy() if isinstance(x, np.ndarray) else grad

    return loss_gradient


def _frame(method: Method) -> Method:
    """One frame of a tracker, which `update` passes without the axes of samples and frames."""

    @wraps(method)
    def apply_preprocessing(self: Any, x: Any, y: Any, fit: bool = False, no_grad: bool = True) -> Any:
        if not _ours(self) or x.ndim != 3:
            return method(self, x, y, fit, no_grad=no_grad)
        out, y = method(self, x[None, None], y, fit, no_grad=no_grad)
        return out[0, 0], y

    return apply_preprocessing


def _first_frame(method: Method) -> Method:
    """The first frame of a tracker, which `predict` defends and ART's `init` does not."""

    @wraps(method)
    def init(self: Any, image: Any, box: Any) -> None:
        method(self, image, box)
        if _ours(self):
            import torch

            prev, _ = self._apply_preprocessing(torch.from_numpy(self.prev).to(self.device), None, fit=False)
            self.prev = prev.cpu().numpy()

    return init


def _fit_by_batches(method: Method) -> Method:
    """`fit_generator` by way of `fit`; ART trains on undefended batches of generators that it knows."""

    @wraps(method)
    def fit_generator(self: Any, generator: Any, nb_epochs: int = 20, **kwargs: Any) -> None:
        iterator = getattr(generator, "iterator", None)
        if iterator is None or not any(defence.apply_fit for defence in _ours(self)):
            method(self, generator, nb_epochs=nb_epochs, **kwargs)
            return
        scheduler = kwargs.pop("scheduler", None)
        steps = None if generator.size is None else -(-generator.size // generator.batch_size)
        for epoch in range(nb_epochs):
            for x, y in islice(iterator, steps):
                x, y = to_numpy(x), to_numpy(y)
                self.fit(x, y, batch_size=len(x), nb_epochs=1, **kwargs)
            if scheduler is not None:
                scheduler(epoch)

    return fit_generator


def _fit_defended(method: Method) -> Method:
    """`fit` of XGBoost behind the defences that are for training; ART leaves them out."""

    @wraps(method)
    def fit(self: Any, x: Any, y: Any, **kwargs: Any) -> None:
        if _ours(self):
            x, y = self._apply_preprocessing(x, y, fit=True)
        method(self, x, y, **kwargs)

    return fit


def _no_certificate(method: Method) -> Method:
    """Refuse a certificate of another model than the one that predicts."""

    @wraps(method)
    def eval_and_certify(self: Any, *args: Any, **kwargs: Any) -> Any:
        for defence in filter(_applies, _ours(self)):
            raise ArgumentError(
                "`preprocessing_defences` must be empty for eval_and_certify, which defends whole images "
                f"where `predict` defends ablated ones, got {defence!r}; certify what `predict` counts: "
                "estimator.ablator.certify(estimator.predict(x), size_to_certify, label)."
            )
        return method(self, *args, **kwargs)

    return eval_and_certify


# Estimators that cannot be right, refused when they are made: a class of ART, which defences, why


def _predicts(defence: Preprocessor) -> bool:
    return bool(defence.apply_predict)


def _applies(defence: Preprocessor) -> bool:
    return bool(defence.apply_fit or defence.apply_predict)


def _smooths_labels(defence: Preprocessor) -> bool:
    return _applies(defence) and any(leaf.domains == ("labels",) for leaf in _leaves(defence))


def _leaves(defence: Preprocessor) -> Iterator[Preprocessor]:
    if not defence._stages:
        yield defence
    for stage in defence._stages:
        yield from _leaves(stage)


CERTIFIED = (
    "it certifies the neighbourhood of the defended sample, so its certificate does not hold for the sample; "
    "pass apply_predict=False, or certify the model without defences"
)
LABELS = "labels there are {}, not scores of classes; leave the defence out"
REFUSALS: dict[str, tuple[Callable[[Preprocessor], bool], str]] = {
    "PytorchDeepZ": (_predicts, CERTIFIED),
    "PyTorchIBPClassifier": (_predicts, CERTIFIED),
    "TensorFlowV2Generator": (
        _applies,
        "it never applies its defences; put them into the estimator that receives what is generated",
    ),
    "ObjectDetectorMixin": (_smooths_labels, LABELS.format("boxes")),
    "ObjectTrackerMixin": (_smooths_labels, LABELS.format("boxes")),
    "SpeechRecognizerMixin": (_smooths_labels, LABELS.format("transcriptions")),
    "RegressorMixin": (_smooths_labels, LABELS.format("values")),
}


def _refusals(method: Method) -> Method:
    """What every estimator of ART calls with its list, in its constructor and in `set_params`."""

    @wraps(method)
    def update_preprocessing_operations(self: Any) -> None:
        method(self)
        for cls in type(self).__mro__:
            if cls.__name__ in REFUSALS and cls.__module__.startswith("art."):
                unfit, reason = REFUSALS[cls.__name__]
                for defence in filter(unfit, _ours(self)):
                    raise ArgumentError(
                        f"`preprocessing_defences` of {type(self).__name__} must not hold {defence!r}: "
                        f"{reason}."
                    )

    return update_preprocessing_operations


# Module, class, method

CORRECTIONS: dict[str, dict[str, dict[str, Correction]]] = {
    "art.estimators.estimator": {
        "BaseEstimator": {"_apply_preprocessing": _lists, "_update_preprocessing_operations": _refusals},
        "LossGradientsMixin": {"_apply_preprocessing_gradient": _gradients},
    },
    "art.estimators.pytorch": {
        "PyTorchEstimator": {"_apply_preprocessing": _lists, "_apply_preprocessing_gradient": _gradients}
    },
    "art.estimators.tensorflow": {
        "TensorFlowV2Estimator": {"_apply_preprocessing": _lists, "_apply_preprocessing_gradient": _gradients}
    },
    "art.estimators.classification.pytorch": {
        "PyTorchClassifier": {
            "loss_gradient": _mixed,
            "class_gradient": _mixed,
            "custom_loss_gradient": _between_activations,
            "fit_generator": _fit_by_batches,
        }
    },
    "art.estimators.classification.tensorflow": {
        "TensorFlowV2Classifier": {
            "loss_gradient": _mixed,
            "class_gradient": _all_classes,
            "fit_generator": _fit_by_batches,
        }
    },
    "art.estimators.classification.keras": {
        "KerasClassifier": {
            "loss_gradient": _at_defended,
            "class_gradient": _at_defended,
            "fit_generator": _fit_by_batches,
        }
    },
    "art.estimators.classification.scikitlearn": {
        "ScikitlearnLogisticRegression": {"loss_gradient": _at_defended, "class_gradient": _at_defended},
        "ScikitlearnSVC": {"loss_gradient": _at_defended, "class_gradient": _at_defended},
    },
    "art.estimators.classification.GPy": {
        "GPyGaussianProcessClassifier": {"loss_gradient": _at_defended, "class_gradient": _at_defended}
    },
    "art.estimators.classification.xgboost": {"XGBoostClassifier": {"fit": _fit_defended}},
    "art.estimators.regression.pytorch": {
        "PyTorchRegressor": {
            "loss_gradient": _mixed,
            "custom_loss_gradient": _between_activations,
            "fit_generator": _fit_by_batches,
        }
    },
    "art.estimators.regression.keras": {
        "KerasRegressor": {"loss_gradient": _at_defended, "fit_generator": _fit_by_batches}
    },
    "art.estimators.certification.randomized_smoothing.pytorch": {
        "PyTorchRandomizedSmoothing": {"loss_gradient": _at_defended}
    },
    "art.estimators.certification.randomized_smoothing.tensorflow": {
        "TensorFlowV2RandomizedSmoothing": {"loss_gradient": _at_defended}
    },
    "art.estimators.certification.derandomized_smoothing.pytorch": {
        "PyTorchDeRandomizedSmoothing": {"eval_and_certify": _no_certificate}
    },
    "art.estimators.certification.derandomized_smoothing.tensorflow": {
        "TensorFlowV2DeRandomizedSmoothing": {"eval_and_certify": _no_certificate}
    },
    "art.estimators.object_detection.pytorch_object_detector": {
        "PyTorchObjectDetector": {
            "_preprocess_and_convert_inputs": _detector_inputs,
            "loss_gradient": _detector_gradient,
        }
    },
    "art.estimators.object_detection.tensorflow_v2_faster_rcnn": {
        "TensorFlowV2FasterRCNN": {"loss_gradient": _at_defended}
    },
    "art.estimators.object_tracking.pytorch_goturn": {
        "PyTorchGoturn": {"_apply_preprocessing": _frame, "init": _first_frame}
    },
    "art.estimators.speech_recognition.pytorch_deep_speech": {
        "PyTorchDeepSpeech": {"loss_gradient": _at_defended}
    },
    "art.estimators.speech_recognition.pytorch_espresso": {
        "PyTorchEspresso": {"loss_gradient": _at_defended}
    },
    "art.experimental.estimators.classification.jax": {"JaxClassifier": {"loss_gradient": _at_defended}},
}
