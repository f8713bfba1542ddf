"""A low-pass filter of feature maps, as a layer of Keras and a module of torch, and its place in a model."""

import copy
import warnings
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from .._core.blurring import check_kernel, check_kernel_size, filter_taps
from .._core.checks import check_bool, check_number
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.typing import Array
from .layers import convolution, convolutions, framework_of, is_from_keras, is_of_layers, keras_layers

__all__ = ["insert_blur", "keras_layer", "penalty", "torch_module"]


def insert_blur(
    model: Any,
    layer: str | None = None,
    kernel_size: int = 5,
    kernel: str = "box",
    trainable: bool = False,
    linf: float = 0.0,
    tv: float = 0.0,
) -> Any:
    """Copy a model, its weights shared, and filter what a convolution puts out; see `BlurNet.insert`."""
    check_kernel_size(kernel_size)
    check_kernel(kernel)
    check_bool(trainable=trainable)
    check_number("linf", linf, 0)
    check_number("tv", tv, 0)
    if linf and not trainable:
        raise ArgumentError(
            f"`linf` must be 0 for filters that are not trained, got {linf!r}; pass trainable=True."
        )
    framework = framework_of(model)
    if framework == "torch" and isinstance(model, require("torch.jit", extra="torch").ScriptModule):
        raise ArgumentError(
            "`model` must not be scripted or traced yet, got a ScriptModule; do it afterwards."
        )
    name, conv = convolution(model, layer, "first")
    parameters = {
        "kernel_size": int(kernel_size),
        "kernel": kernel,
        "learned": bool(trainable),
        "linf": float(linf),
        "tv": float(tv),
    }
    if framework == "torch":
        weight = conv.weight
        blur = torch_module()(conv.out_channels, **parameters).to(weight.device, weight.dtype)
        return _torch_copy(model, name, blur)
    if not is_from_keras(model, "train_step"):
        raise _code_of_its_own(model)
    taken = {part.name for _, part in keras_layers(model)}
    blur_name = f"{conv.name}_blur"
    while blur_name in taken:  # by an earlier filter
        blur_name += "_blur"
    blur = keras_layer()(**parameters, data_format=conv.data_format, dtype=conv.dtype_policy, name=blur_name)
    new = _keras_copy(model, conv, blur)
    if model.compiled:
        # A loss or a metric that Keras does not know by name cannot be made anew.
        with suppress(TypeError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            new.compile_from_config(model.get_compile_config())
    return new


def penalty(model: Any) -> Any:
    """What the filters in a torch module add to its loss.

    Parameters
    ----------
    model : torch.nn.Module
        What `BlurNet.insert` returned, or a module that holds it.

    Returns
    -------
    torch.Tensor
        A number to add to the loss: the L-infinity norms of the filters as they are, and the total variation
        of the feature maps of the last forward pass in training mode.

    Raises
    ------
    TypeError
        If `model` is no torch module. A Keras model has the penalty in ``model.losses``, and ``model.fit``
        adds it.
    ValueError
        If it holds no filter.

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> from preshield import BlurNet
    >>> plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> blurred = BlurNet.insert(plain, kernel_size=5, trainable=True, linf=10.0)
    >>> round(penalty(blurred).item(), 4)  # every weight of a box is 1 / 25
    0.4
    """
    if framework_of(model) != "torch":
        raise ArgumentError(
            "`model` must be a torch module, got a Keras model: `model.fit` adds the penalty, and a loop of "
            "your own finds it in `model.losses`."
        )
    found = [module.penalty() for module in model.modules() if isinstance(module, torch_module())]
    if not found:
        raise ArgumentError(
            f"`model` must hold a filter, got a {type(model).__name__} without one; insert it with "
            "BlurNet.insert."
        )
    return sum(found[1:], found[0])


@cache
def keras_layer() -> Any:
    """The layer of Keras, on any backend; the call also registers it, for models that are loaded.

    Returns
    -------
    type
        ``FeatureBlur(kernel_size=5, kernel="box", learned=False, linf=0.0, tv=0.0, data_format=None)``, a
        subclass of `keras.layers.Layer` for feature maps `(N, H, W, C)`, or `(N, C, H, W)` by `data_format`.

    Raises
    ------
    ImportError
        If Keras is missing.
    """
    require("keras", extra="tensorflow")
    import keras
    from keras import ops

    @keras.saving.register_keras_serializable("preshield")
    class FeatureBlur(keras.layers.Layer):  # type: ignore[misc]
        """Depthwise low-pass filter, the borders padded with zeros."""

        def __init__(
            self,
            kernel_size: int = 5,
            kernel: str = "box",
            learned: bool = False,
            linf: float = 0.0,
            tv: float = 0.0,
            data_format: str | None = None,
            **kwargs: Any,
        ) -> None:
            super().__init__(**kwargs)
            self.kernel_size = kernel_size
            self.kernel = kernel
            self.learned = learned  # not `trainable`, which comes and goes as a model is frozen
            self.linf = linf
            self.tv = tv
            self.data_format = data_format or keras.config.image_data_format()
            self.first_axis = 1 if self.data_format == "channels_last" else 2  # of the rows

        def build(self, shape: Any) -> None:
            channels = shape[-1] if self.first_axis == 1 else shape[1]
            weights = _square(self.kernel, self.kernel_size)[:, :, None, None]
            self.weight = self.add_weight(
                name="weight",
                shape=(self.kernel_size, self.kernel_size, channels, 1),
                initializer=lambda shape, dtype: ops.convert_to_tensor(
                    np.broadcast_to(weights, shape), dtype
                ),
                trainable=self.learned,
            )

        def call(self, x: Any) -> Any:
            if self.linf:
                norms = ops.max(ops.abs(self.weight), axis=(0, 1, 3))
                self.add_loss(self.linf * ops.mean(norms))
            if self.tv:
                self.add_loss(self.tv * self.total_variation(x))
            return ops.depthwise_conv(x, self.weight, padding="same", data_format=self.data_format)

        def total_variation(self, x: Any) -> Any:
            """Mean over samples and channels of the sum of absolute differences of neighbours."""
            rows, columns = self.first_axis, self.first_axis + 1
            maps = ops.sum(ops.abs(ops.diff(x, axis=rows)), axis=(rows, columns))
            return ops.mean(maps + ops.sum(ops.abs(ops.diff(x, axis=columns)), axis=(rows, columns)))

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def get_config(self) -> dict[str, Any]:
            names = ("kernel_size", "kernel", "learned", "linf", "tv", "data_format")
            return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    return FeatureBlur


@cache
def torch_module() -> Any:
    """The module of torch.

    Returns
    -------
    type
        ``TorchFeatureBlur(channels, kernel_size=5, kernel="box", learned=False, linf=0.0, tv=0.0)``, a
        subclass of `torch.nn.Module` for feature maps `(N, C, H, W)`, with a method ``penalty()``.

    Raises
    ------
    ImportError
        If torch is missing.
    """
    require("torch", extra="torch")
    import torch
    from torch import nn

    class TorchFeatureBlur(nn.Module):  # type: ignore[misc]
        """Depthwise low-pass filter, the borders padded with zeros."""

        __qualname__ = "TorchFeatureBlur"  # by which pickle asks this file for it

        def __init__(
            self,
            channels: int,
            kernel_size: int = 5,
            kernel: str = "box",
            learned: bool = False,
            linf: float = 0.0,
            tv: float = 0.0,
        ) -> None:
            super().__init__()
            weight = torch.tensor(_square(kernel, kernel_size), dtype=torch.get_default_dtype())
            weight = weight.repeat(channels, 1, 1, 1)
            if learned:
                self.weight = nn.Parameter(weight)
            else:
                self.register_buffer("weight", weight)
            self.register_buffer("variation", torch.zeros(()), persistent=False)
            self.channels = channels
            self.padding = kernel_size // 2
            self.linf = linf
            self.tv = tv

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and self.tv > 0.0:
                rows = torch.diff(x, dim=-2).abs().sum(dim=(-2, -1))
                columns = torch.diff(x, dim=-1).abs().sum(dim=(-2, -1))
                self.variation = (rows + columns).mean()  # over samples and channels
            return nn.functional.conv2d(x, self.weight, padding=self.padding, groups=self.channels)

        def penalty(self) -> torch.Tensor:
            """What this filter adds to the loss."""
            norms = self.weight.abs().amax(dim=(1, 2, 3))
            return self.linf * norms.mean() + self.tv * self.variation

        def __getstate__(self) -> dict[str, Any]:
            """Leave out the graph of the last pass, which can neither be copied nor pickled."""
            buffers = {**self._buffers, "variation": self.variation.detach()}
            return {**self.__dict__, "_buffers": buffers}

    return TorchFeatureBlur


def __getattr__(name: str) -> Any:
    if name == "TorchFeatureBlur":
        return torch_module()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _square(kernel: str, size: int) -> Array:
    taps = filter_taps(kernel, size)
    return np.outer(taps, taps)


def _keras_copy(model: Any, conv: Any, blur: Any) -> Any:
    """The same layers in a new model, and `blur` after each call of `conv`."""
    keras = require("keras", extra="tensorflow")
    if not is_of_layers(model):
        raise _code_of_its_own(model)

    def copied(layer: Any) -> Any:
        """A layer itself; a model in the model anew, if it holds the convolution."""
        if isinstance(layer, keras.Model) and any(part is conv for part in convolutions(layer).values()):
            return _keras_copy(layer, conv, blur)
        return layer

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        out = layer(*args, **kwargs)
        return blur(out) if layer is conv else out

    if isinstance(model, keras.Sequential):
        if getattr(model, "inputs", None) is None:
            raise ArgumentError(
                f"`model` must be built, got the Sequential {model.name!r} whose input is not known; call "
                "model.build(shape), or begin it with keras.Input(shape)."
            )
        inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
        layers = [part for layer in model.layers for part in ([layer, blur] if layer is conv else [layer])]
        return keras.Sequential([*inputs, *map(copied, layers)], name=model.name)
    graph = keras.Model(model.input, model.output, name=model.name)  # not compiled: clones compile
    return keras.models.clone_model(graph, clone_function=copied, call_function=call)


def _code_of_its_own(model: Any) -> ValueError:
    return ValueError(
        "`model` must be a functional or a Sequential Keras model, down to its convolution, got an "
        f"instance of {type(model).__name__}, whose code cannot be changed; call a layer "
        "preshield.neural.feature_blur.keras_layer()() in that code."
    )


def _torch_copy(model: Any, name: str, blur: Any) -> Any:
    """The same tensors in a copy of the modules, and `blur` after the convolution of this name."""
    torch = require("torch", extra="torch")
    shared = [*model.parameters(), *model.buffers()]
    try:
        new = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    except RuntimeError as error:
        raise ArgumentError(
            f"`model` must be one that copy.deepcopy can copy, got a {type(model).__name__} that it cannot "
            f"({error}); in the place of torch.nn.utils.weight_norm, take that of "
            "torch.nn.utils.parametrizations."
        ) from error
    conv = new.get_submodule(name)
    filtered = torch.nn.Sequential(conv, blur)
    filtered.train(conv.training)
    if conv is new:
        return filtered
    for parent in list(new.modules()):
        for key, child in list(parent._modules.items()):  # named_children() has each module once
            if child is conv:
                setattr(parent, key, filtered)
    return new
