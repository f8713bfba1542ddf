"""The feature maps of a convolution, and what the scores of a model owe to them."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.tensors import to_numpy
from .._core.typing import Array
from .layers import convolution, convolutions, framework_of, is_of_layers
from .locks import LOCKS
from .outputs import scores_of
from .torch_module import TorchModule

__all__ = ["FeatureMaps", "FeatureView"]


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Feature maps of one batch.

    Attributes
    ----------
    values : ndarray of float32, shape (N, h, w, C)
        What the convolution gave, after all that follows it and keeps its shape.
    scores : ndarray of float32, shape (N, K)
        What the model gave, before a softmax at its end.
    gradient : callable
        Maps weights of the scores, shape (N, K), to the gradient of their weighted sum with respect to
        `values`.
    """

    values: Array
    scores: Array
    gradient: Callable[[Array], Array]


class FeatureView:
    """A model as seen from one of its convolutions; nothing in the model is changed.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        A functional or sequential Keras model, on the backend TensorFlow or torch; any module.
    layer : str, optional
        Name of the convolution, as in `convolutions`; the last one if omitted.

    Raises
    ------
    TypeError
        If `model` is neither a Keras model nor a torch module.
    ValueError
        If it has no convolution or none of that name, is a Keras model of another kind, or runs on JAX.

    Notes
    -----
    From the convolution on, the maps are followed through all that keeps their shape, up to the next
    convolution: batch normalisation, an activation, dropout, a residual sum. So they are the very input of a
    global average pooling, whether the activation is a part of the convolution, a layer or a function.
    """

    def __init__(self, model: Any, layer: str | None = None) -> None:
        self.model = model
        self.framework = framework_of(model)
        self.name, conv = convolution(model, layer)
        self.channels_first = self.framework == "torch" or conv.data_format == "channels_first"
        if self.framework == "keras":
            _check_keras(model)

    def __call__(self, x: Array) -> FeatureMaps:
        """Feature maps of the batch `x`, in the layout of the model."""
        run = _run_keras if self.framework == "keras" else _run_torch
        torch = sys.modules.get("torch")
        with torch.inference_mode(False) if torch else nullcontext():  # which has no gradients to the end
            # By its name, since a copy of a Keras model has layers of its own.
            conv = convolution(self.model, self.name)[1]
            layout = "(N, C, H, W)" if self.channels_first else "(N, H, W, C)"
            with noted(f"Raised by `model`, which takes images {layout}, for images of shape {x.shape}."):
                scores, path = run(self.model, conv, x)
        if path.maps is None:
            raise ArgumentError(f"`model` does not use its convolution {self.name!r}; name another `layer`.")
        if len(getattr(scores, "shape", ())) != 2:
            found = tuple(scores.shape) if hasattr(scores, "shape") else type(scores).__name__
            raise ArgumentError(f"`model` must return one score per class, shape (N, K), got {found}.")

        def gradient(weights: Array) -> Array:
            found = path.gradient(scores, weights)
            if found is None:
                raise ArgumentError(
                    f"`model` has scores that do not depend on its convolution {self.name!r}; "
                    "name another `layer`."
                )
            return self._channels_last(found)

        return FeatureMaps(self._channels_last(path.maps), to_numpy(scores).astype(np.float32), gradient)

    def _channels_last(self, maps: Any) -> Array:
        values = to_numpy(maps).astype(np.float32, copy=False)
        return np.moveaxis(values, 1, 3) if self.channels_first else values


class _Path:
    """Follows the feature maps towards the scores, and remembers what goes into a softmax."""

    def __init__(self) -> None:
        self.maps: Any = None
        self.open = True
        self.softmax: tuple[Any, Any] = (None, None)

    def step(self, inputs: Any, output: Any, *, convolves: bool) -> None:
        if self.open and self.maps is not None and any(value is self.maps for value in inputs):
            if convolves:
                self.open = False
            elif getattr(output, "shape", None) == self.maps.shape and output.dtype == self.maps.dtype:
                self.maps = output

    def logits(self, output: Any) -> Any:
        """What was given to the softmax that made `output`, or `output` itself."""
        return self.softmax[1] if output is self.softmax[0] else output


class _TorchPath(_Path):
    """Gradients of torch, recorded from the convolution on only."""

    def begin(self, maps: Any) -> Any:
        self.maps, self.open = maps.detach().requires_grad_(), True
        with self.recording():
            self.maps = self.maps.clone()  # a leaf may not be changed in place, as by nn.ReLU(inplace=True)
        return self.maps

    def recording(self) -> AbstractContextManager[Any]:
        """For what the model computes next, whatever context it does so in."""
        enabled: AbstractContextManager[Any] = sys.modules["torch"].set_grad_enabled(self.maps is not None)
        return enabled

    def gradient(self, scores: Any, weights: Array) -> Any:
        torch = sys.modules["torch"]
        if not scores.requires_grad:
            return None
        rows = torch.from_numpy(weights).to(scores)
        return torch.autograd.grad(scores, self.maps, rows, retain_graph=True, allow_unused=True)[0]


class _TensorFlowPath(_Path):
    """Gradients of TensorFlow, recorded from the convolution on only."""

    def __init__(self) -> None:
        super().__init__()
        self.tape = sys.modules["tensorflow"].GradientTape(persistent=True, watch_accessed_variables=False)

    def begin(self, maps: Any) -> Any:
        with self.tape:
            self.tape.watch(maps)
        self.maps, self.open = maps, True
        return maps

    def recording(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.maps is None else self.tape

    def gradient(self, scores: Any, weights: Array) -> Any:
        rows = sys.modules["tensorflow"].cast(weights, scores.dtype)
        return self.tape.gradient(scores, self.maps, output_gradients=rows)


def _run_torch(model: Any, conv: Any, x: Array) -> tuple[Any, _TorchPath]:
    from torch.overrides import TorchFunctionMode

    path, thread = _TorchPath(), get_ident()

    class Watch(TorchFunctionMode):  # type: ignore[misc]
        """Sees every function that the model calls in this thread, as a layer or by itself."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            with path.recording():
                output = function(*args, **kwargs or {})
            name = getattr(function, "__name__", "")
            if name in ("softmax", "log_softmax"):
                path.softmax = (output, args[0])
            if getattr(output, "requires_grad", False):
                inputs = (*args, *(kwargs or {}).values())
                path.step(inputs, output, convolves=name.startswith("conv"))
            return output

    def begin(module: Any, args: Any, output: Any) -> Any:
        return path.begin(output) if get_ident() == thread else None  # others may use the model meanwhile

    network = TorchModule(model)
    with LOCKS.flags:
        handle = conv.register_forward_hook(begin)
        try:
            inputs = network.tensor(x)
            with Watch():
                output = network(inputs)
        finally:
            handle.remove()
    return path.logits(scores_of(output)), path


def _run_keras(model: Any, conv: Any, x: Array) -> tuple[Any, Any]:
    keras = sys.modules["keras"]
    convs = list(convolutions(model).values())
    path = _TorchPath() if keras.config.backend() == "torch" else _TensorFlowPath()

    def run(part: Any, inputs: Any) -> Any:
        """Call the layers of a model one by one, those of the models within it too."""
        if isinstance(part, keras.Sequential):
            for layer in part.layers:
                inputs = call(layer, inputs)
            return inputs
        # Keras has no public way through a graph but to call its layers symbolically, which leaves traces in
        # them: `layer.output` would be ambiguous from then on.
        outputs = part._run_through_graph(inputs, operation_fn=lambda layer: partial(call, layer))
        return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if is_of_layers(layer):
            return run(layer, *args)
        with path.recording():
            output = layer(*args, **kwargs)
            if getattr(layer, "activation", None) is keras.activations.softmax:
                path.softmax = (output, _before_activation(layer, args[0], output))
            elif isinstance(layer, keras.layers.Softmax):
                path.softmax = (output, args[0])
        if layer is conv:
            return path.begin(output)
        path.step(keras.tree.flatten((args, kwargs)), output, convolves=layer in convs)
        return output

    output = run(model, keras.ops.convert_to_tensor(x))
    return path.logits(scores_of(output)), path


def _before_activation(layer: Any, x: Any, output: Any) -> Any:
    keras = sys.modules["keras"]
    if isinstance(layer, keras.layers.Dense):
        product = keras.ops.matmul(x, layer.kernel)
        return product + layer.bias if layer.use_bias else product
    return x if isinstance(layer, keras.layers.Activation) else output


def _check_keras(model: Any) -> None:
    keras = sys.modules["keras"]
    parts = [model]
    for part in parts:
        if not is_of_layers(part):
            raise ArgumentError(
                "`model` must be functional or sequential, so that its layers can be called one by one, got "
                f"{part.name!r} of the class {type(part).__name__} with a `call` of its own; build it as "
                "keras.Model(inputs, outputs)."
            )
        parts += [layer for layer in part.layers if isinstance(layer, keras.Model)]
    backend = keras.config.backend()
    if backend not in ("tensorflow", "torch"):
        raise ArgumentError(
            f"`model` runs on the Keras backend {backend!r}; activation maps need TensorFlow or torch: set "
            "the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )
