"""A function of JAX as a classifier for attacks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.tensors import filled, on_device
from .._core.typing import Array, Shape
from ..neural.outputs import scores_of
from .perturbations import at_least, host, take

__all__ = ["JaxClassifier", "from_function", "keras_function"]

# What JAX raises if a function leaves it, as NumPy does, or if nobody knows the derivative of an operation.
UNTRACEABLE = (TypeError, ValueError, NotImplementedError, jax.errors.JAXIndexError)


class JaxClassifier:
    """A function of JAX, attacked through its own derivatives.

    Samples are in `float32`, or in `float64` if the function returns that: NumPy arrays, or arrays of JAX
    where an accelerator computes. JAX compiles each operation for each size of a batch, and an attack has
    batches of all sizes: on the host arithmetic on them is left to NumPy, and the function sees only sizes
    that are powers of two. The last sample is repeated.

    Parameters
    ----------
    model : object
        What the function belongs to.
    function : callable
        Maps samples (N, ...) to scores (N, K), as `scores_of` finds them.
    nb_classes : int
        Number of scores, K.
    input_shape : tuple of int
        Shape of one sample.
    of_probabilities : bool
        Whether the scores are probabilities, and not logits.
    double : bool
        Whether the function computes in `float64`.
    device : jax.Device, optional
        The accelerator on which its scores lie.
    """

    channels_first = False

    def __init__(
        self,
        model: Any,
        function: Callable[[Any], Any],
        *,
        nb_classes: int,
        input_shape: Shape,
        of_probabilities: bool,
        double: bool = False,
        device: Any = None,
    ) -> None:
        self.model = model
        self.nb_classes = nb_classes
        self.input_shape = input_shape
        self.of_probabilities = of_probabilities
        self._function = function
        self._dtype = np.float64 if double else np.float32
        self._device = device

    def array(self, x: Any) -> Any:
        """Samples as an array of NumPy, or on the accelerator."""
        if self._device is None:
            return np.asarray(host(x), self._dtype)
        if isinstance(x, jax.Array):
            return x.astype(self._dtype)
        return jax.device_put(np.asarray(x, self._dtype), self._device)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`."""
        return self._exact(self._scores(self._padded(x)))[: len(x)]

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Any]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        scores, back = jax.vjp(self._scores, self._padded(x))

        def pull(derivative: Array) -> Any:
            upstream = np.zeros(scores.shape, self._dtype)
            upstream[: len(x)] = derivative
            (gradient,) = back(jnp.asarray(upstream, scores.dtype))
            return (host(gradient) if self._device is None else gradient)[: len(x)]

        return self._exact(scores)[: len(x)], pull

    def _scores(self, x: Any) -> Any:
        return scores_of(self._function(x), "classifier")

    def _exact(self, scores: Any) -> Array:
        return host(scores).astype(self._dtype, copy=False)

    def _padded(self, x: Any) -> Any:
        """A batch whose size is a power of two."""
        x = at_least(self.array(x))
        return jnp.asarray(take(x, filled(len(x))))


def keras_function(model: Any) -> Callable[[Any], Any]:
    """A Keras model on JAX as a function, compiled once; its weights are those that it has when called."""
    run = jax.jit(lambda *args: model.stateless_call(*args, training=False)[0])

    def function(x: Any) -> Any:
        weights = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
        return run(*weights, x)

    return function


def from_function(
    model: Any, function: Callable[[Any], Any], x: Array, name: str, **facts: Any
) -> JaxClassifier | None:
    """The classifier, if JAX can differentiate a function, and its scores are connected to its input."""
    try:
        scores, back = jax.vjp(lambda entry: scores_of(function(entry), name), jnp.asarray(x))
        if not isinstance(scores, jax.Array) or not jnp.issubdtype(scores.dtype, jnp.floating):
            return None
        graph = jax.make_jaxpr(back)(scores).jaxpr
    except UNTRACEABLE:
        return None
    reached = set(graph.invars)
    for step in graph.eqns:
        if any(isinstance(v, type(graph.invars[0])) and v in reached for v in step.invars):
            reached.update(step.outvars)
    if not any(v in reached for v in graph.outvars):
        return None
    (device, *others), double = scores.devices(), scores.dtype == jnp.float64
    is_far = on_device(scores) and not others  # samples cannot lie where a model is spread over several
    return JaxClassifier(model, function, **facts, double=double, device=device if is_far else None)
