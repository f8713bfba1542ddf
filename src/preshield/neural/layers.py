"""The convolutions of a model, by name."""

import sys
from collections.abc import Iterator
from typing import Any, Literal

from .._core.errors import ArgumentError

__all__ = ["convolution", "convolutions", "framework_of", "is_from_keras", "is_of_layers", "keras_layers"]

_OF_KERAS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")


def framework_of(model: object, name: str = "model") -> Literal["keras", "torch"]:
    """Tell whether `model` is a Keras model or a torch module, without importing either to find out.

    Parameters
    ----------
    model : object
        The model.
    name : str
        What the message calls it.

    Returns
    -------
    {"keras", "torch"}
        A Keras model on the torch backend, which is a module too, is "keras".

    Raises
    ------
    TypeError
        If it is neither.
    """
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if isinstance(model, getattr(keras, "Model", ())):
        return "keras"
    if isinstance(model, getattr(getattr(torch, "nn", None), "Module", ())):
        return "torch"
    raise ArgumentError(
        f"`{name}` must be a Keras model or a torch module, got {type(model).__module__}."
        f"{type(model).__name__}; of an ART classifier, give its `.model`."
    )


def convolutions(model: Any) -> dict[str, Any]:
    """Two-dimensional convolutions of a model, transposed ones excepted.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        The model.

    Returns
    -------
    dict
        Layers by name, in the order in which the model holds them. The name of a layer in a nested Keras
        model is preceded by that of the model, ``"resnet50/conv1_conv"``; modules have torch's dotted names.

    Raises
    ------
    TypeError
        If it is neither a Keras model nor a torch module.
    """
    if framework_of(model) == "torch":
        conv = sys.modules["torch"].nn.Conv2d
        return {name: module for name, module in model.named_modules() if isinstance(module, conv)}
    classes = tuple(getattr(sys.modules["keras"].layers, name) for name in _OF_KERAS)
    return {name: layer for name, layer in keras_layers(model) if isinstance(layer, classes)}


def convolution(
    model: Any, name: str | None = None, which: Literal["first", "last"] = "last"
) -> tuple[str, Any]:
    """A convolution of a model: the one that is named, or the first or the last.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        The model.
    name : str, optional
        Name of the convolution, as in `convolutions`.
    which : {"first", "last"}
        The one to take if none is named.

    Returns
    -------
    tuple of str and layer
        The name and the layer itself.

    Raises
    ------
    TypeError
        If `model` is neither a Keras model nor a torch module.
    ValueError
        If it has no convolution, or none of that name; the message lists the names.
    """
    found = convolutions(model)
    if not found:
        raise ArgumentError(
            f"`model` must have a two-dimensional convolution, got a {type(model).__name__} without one; "
            "pass the network that holds it."
        )
    if name is None:
        name = list(found)[0 if which == "first" else -1]
    if name not in found:
        raise ArgumentError(
            f"`layer` must be one of the convolutions {', '.join(map(repr, found))}, got {name!r}."
        )
    return name, found[name]


def is_of_layers(model: Any) -> bool:
    """Whether a layer of Keras is a functional or sequential model, whose layers are all that it computes."""
    keras = sys.modules["keras"]
    return isinstance(model, keras.Sequential | keras.Function) and is_from_keras(model, "call")


def is_from_keras(model: Any, method: str) -> bool:
    """Whether a Keras model has a method from Keras itself, not from a subclass."""
    owner = next(base for base in type(model).__mro__ if method in vars(base))
    return owner.__module__.partition(".")[0] == "keras"


def keras_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Layers of a Keras model and of the models within it, by name."""
    for layer in model.layers:
        yield prefix + layer.name, layer
        if isinstance(layer, sys.modules["keras"].Model):
            yield from keras_layers(layer, f"{prefix}{layer.name}/")
