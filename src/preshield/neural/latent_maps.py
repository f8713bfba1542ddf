"""Any generator and any encoder, as functions of NumPy arrays."""

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.tensors import to_numpy
from .._core.typing import Array, Shape
from .layers import framework_of
from .locks import LOCKS
from .torch_module import TorchModule

__all__ = ["Encoder", "Errors", "Generator"]

Errors = Callable[[Array, Array], tuple[Array, Array]]
"""`(latents (B, ...), images (B,)) -> (errors (B,), gradients (B, ...))`; `images` numbers the targets."""


class Generator:
    """A model that makes images of latents: its images, and how far they are from others.

    Parameters
    ----------
    model : keras.Model, torch.nn.Module or generator of ART's
        Maps latents `(N, ...)` to images. Of ART's, the model within is used.

    Attributes
    ----------
    latent_shape : tuple of int or None
        Shape of one latent: the attribute `encoding_length` of the model, if it has one; else the input of a
        Keras model, or of the first linear or convolutional layer of a torch module. None where neither
        tells; whoever knows it may set it.

    Raises
    ------
    TypeError
        If the model is of another kind.
    ValueError
        If it is a Keras model that runs on neither TensorFlow nor torch.

    Notes
    -----
    Models compute as they do in prediction: without dropout, with the moving averages of batch
    normalisation. The flags of a torch module are as before afterwards. TensorFlow compiles a model once,
    whatever the number of latents, and again only if the model is another object.
    """

    def __init__(self, model: Any) -> None:
        network = _network(model)
        self._backend = _backend(network, "gan")
        self.latent_shape = _latent_shape(model, network)

    def image_shape(self) -> Shape:
        """Shape of one image, found by making one."""
        if self.latent_shape is None:
            raise ArgumentError(
                "`gan` does not tell the shape of its latents: set its attribute `encoding_length` to the "
                "number of their entries, or to their shape."
            )
        return self.images(np.zeros((1, *self.latent_shape))).shape[1:]

    def images(self, latents: Array) -> Array:
        """Images of latents.

        Parameters
        ----------
        latents : ndarray of float, shape (N, ...)
            Latents.

        Returns
        -------
        ndarray of float32, shape (N, ...)
            Images.

        Raises
        ------
        ValueError
            If the model does not make one finite image of each latent. Its own errors pass as they are.
        """
        with noted(f"Raised by `gan` for {len(latents)} latents of shape {latents.shape[1:]}."):
            images = np.asarray(self._backend.outputs(np.asarray(latents, np.float32)), np.float32)
        return _one_for_each("gan", "image", "latent", images, latents)

    def errors(self, targets: Array) -> Errors:
        """Mean squared errors of the images of latents, and their gradients.

        Parameters
        ----------
        targets : ndarray of float, shape (T, ...)
            What the images are compared with, in the shape in which the model makes them.

        Returns
        -------
        callable
            `(latents, numbers) -> (errors, gradients)`: the mean squared error between each image and the
            target of its number, and its gradient with respect to the latents.
        """
        return self._backend.errors(np.asarray(targets, np.float32))


class Encoder:
    """A model that makes latents of images.

    Parameters
    ----------
    model : keras.Model, torch.nn.Module, encoder of ART's or callable
        Maps images `(N, ...)` to latents. An object that is no model and has a method `predict` is asked
        by it.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def latents(self, images: Array) -> Array:
        """Latents of images.

        Parameters
        ----------
        images : ndarray of float, shape (N, ...)
            Images, in the layout that the model takes.

        Returns
        -------
        ndarray of float32, shape (N, ...)
            Latents.

        Raises
        ------
        ValueError
            If its latents are not finite numbers, one for each image. Its own errors pass as they are.
        """
        with noted(f"Raised by `inverse_gan` for {len(images)} images of shape {images.shape[1:]}."):
            latents = np.asarray(self._outputs(np.asarray(images, np.float32)), np.float32)
        return _one_for_each("inverse_gan", "latent", "image", latents, images)

    def _outputs(self, images: Array) -> Array:
        network = _network(self.model)
        if _is_network(network):
            return _backend(network, "inverse_gan").outputs(images)
        return to_numpy(self.model.predict(images) if hasattr(self.model, "predict") else self.model(images))


def _is_network(model: Any) -> bool:
    try:
        return bool(framework_of(model))
    except TypeError:
        return False


def _network(model: Any) -> Any:
    """The Keras model or torch module within an estimator of ART's; anything else as it is."""
    inner = None if _is_network(model) else getattr(model, "model", None)
    return inner if inner is not None and _is_network(inner) else model


def _backend(network: Any, name: str) -> "_TensorFlow | _Torch":
    if not _is_network(network):
        raise ArgumentError(
            f"`{name}` must be a Keras model, a torch module, an estimator of ART's that holds one, or a "
            f"model of preshield's, such as VariationalAutoencoder(), got {network!r} of type "
            f"{type(network).__name__}."
        )
    if framework_of(network) == "torch":
        return _Torch(network)
    backend = sys.modules["keras"].config.backend()
    if backend == "tensorflow":
        return _TensorFlow(network)
    if backend == "torch":
        return _Torch(network)
    raise ArgumentError(
        f"`{name}` runs on the Keras backend {backend!r}, which is not supported: set the environment "
        "variable KERAS_BACKEND=tensorflow, or torch, before Keras is imported."
    )


def _latent_shape(model: Any, network: Any) -> Shape | None:
    length = getattr(model, "encoding_length", None)
    if length is not None:
        return tuple(int(n) for n in np.atleast_1d(length))
    if framework_of(network) == "keras":
        shape = getattr(network, "input_shape", None)  # None, too, where layers are not connected yet
        known = isinstance(shape, tuple) and all(isinstance(n, int) for n in shape[1:])
        return tuple(shape[1:]) if known else None  # type: ignore[index]
    for module in network.modules():
        latent: Shape
        if hasattr(module, "in_features"):
            latent = (int(module.in_features),)
        elif type(module).__name__.removeprefix("Lazy") in ("ConvTranspose2d", "Conv2d"):
            latent = (int(module.in_channels), 1, 1)
        else:
            continue
        return latent if latent[0] else None  # 0 in a lazy layer, which waits for its first input
    return None


def _one_for_each(name: str, output: str, of: str, outputs: Array, inputs: Array) -> Array:
    """Refuse outputs that are not one for each input, and those that are not finite."""
    if outputs.ndim < 2 or len(outputs) != len(inputs):
        raise ArgumentError(
            f"`{name}` must give one {output} for each {of}, for {len(inputs)} of them a shape "
            f"{(len(inputs), '...')}, got {outputs.shape}."
        )
    if not np.isfinite(outputs).all():
        count = int((~np.isfinite(outputs)).sum())
        raise ArgumentError(f"`{name}` must give finite {output}s, got {count} values that are not.")
    return outputs


# torch


class _Torch:
    """A torch module, or a Keras model on torch. Errors are computed in `float32` or `float64`."""

    def __init__(self, model: Any) -> None:
        self.module = TorchModule(model)

    def outputs(self, x: Array) -> Array:
        return self.module.outputs(x)

    def errors(self, targets: Array) -> Errors:
        torch = sys.modules["torch"]
        exact = torch.promote_types(self.module.dtype, torch.float32)
        wanted = torch.tensor(targets, dtype=exact, device=self.module.device)

        def errors(latents: Array, numbers: Array) -> tuple[Array, Array]:
            # Whatever mode the caller is in, this is differentiated.
            with torch.inference_mode(False), torch.enable_grad():
                z = torch.tensor(latents, dtype=exact, device=self.module.device, requires_grad=True)
                chosen = wanted[torch.from_numpy(np.asarray(numbers, np.int64)).to(wanted.device)]
                images = self.module(z.to(self.module.dtype)).to(exact)
                values = ((images - chosen) ** 2).flatten(1).mean(dim=1)
                (grads,) = torch.autograd.grad(values.sum(), z, allow_unused=True, materialize_grads=True)
            return to_numpy(values), to_numpy(grads)

        return errors


# TensorFlow

_COMPILED: "WeakKeyDictionary[Any, dict[Shape, tuple[Any, Any]]]" = WeakKeyDictionary()


class _TensorFlow:
    """A Keras model on TensorFlow."""

    def __init__(self, model: Any) -> None:
        self.tf = sys.modules["tensorflow"]
        self.model = model

    def outputs(self, x: Array) -> Array:
        return to_numpy(self._compiled(x.shape[1:])[0](self.tf.constant(x)))

    def errors(self, targets: Array) -> Errors:
        tf = self.tf
        wanted = tf.constant(targets)

        def errors(latents: Array, numbers: Array) -> tuple[Array, Array]:
            z, rows = (tf.constant(a, kind) for a, kind in ((latents, tf.float32), (numbers, tf.int32)))
            values, grads = self._compiled(latents.shape[1:])[1](z, wanted, rows)
            return values.numpy(), grads.numpy()

        return errors

    def _compiled(self, shape: Shape) -> tuple[Any, Any]:
        with LOCKS.compiling:
            known = _COMPILED.setdefault(self.model, {})
            if shape not in known:
                known[shape] = _compile(self.tf, ref(self.model), shape)
            return known[shape]


def _compile(tf: Any, model: Any, shape: Shape) -> tuple[Any, Any]:
    """Outputs, and errors with their gradients, for any number of inputs of a shape.

    `model` is a weak reference: what is compiled must not keep the model alive that it is kept with.
    """
    inputs = tf.TensorSpec((None, *shape), tf.float32)
    targets, numbers = tf.TensorSpec(None, tf.float32), tf.TensorSpec((None,), tf.int32)

    @tf.function(input_signature=[inputs])  # type: ignore[untyped-decorator]
    def outputs(x: Any) -> Any:
        return model()(x, training=False)

    @tf.function(input_signature=[inputs, targets, numbers])  # type: ignore[untyped-decorator]
    def errors(latents: Any, targets: Any, numbers: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(latents)
            images = tf.cast(model()(latents, training=False), tf.float32)
            squares = tf.math.squared_difference(images, tf.gather(targets, numbers))
            values = tf.reduce_mean(tf.reshape(squares, (tf.shape(numbers)[0], -1)), axis=1)
        return values, tape.gradient(values, latents, unconnected_gradients="zero")

    return outputs, errors
