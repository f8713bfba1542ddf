"""A function of JAX as a classifier for attacks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.typing import Array, Shape
from ..neural.outputs import scores_of
from .perturbations import at_least, host

__all__ = ["JaxClassifier", "keras_function", "passes_gradients"]

# What JAX raises if a function leaves it, as NumPy does, or if nobody knows the derivative of an operation.
UNTRACEABLE = (TypeError, ValueError, NotImplementedError, jax.errors.JAXIndexError)


class JaxClassifier:
    """A function of JAX, attacked through its own derivatives.

    Samples are NumPy arrays in `float32`, or in `float64` if the function returns that. JAX compiles each
    operation for each size of a batch, and an attack has batches of all sizes: arithmetic on them is left to
    NumPy, and the function sees only sizes that are powers of two. The last sample is repeated.

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
    ) -> None:
        self.model = model
        self.nb_classes = nb_classes
        self.input_shape = input_shape
        self.of_probabilities = of_probabilities
        self._function = function
        self._dtype = np.float64 if double else np.float32

    def array(self, x: Any) -> Array:
        """Samples as an array of NumPy."""
        return np.asarray(host(x), self._dtype)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`."""
        return self._exact(self._scores(jnp.asarray(self._padded(x))))[: len(x)]

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        scores, back = jax.vjp(self._scores, jnp.asarray(self._padded(x)))

        def pull(derivative: Array) -> Array:
            upstream = np.zeros(scores.shape, self._dtype)
            upstream[: len(x)] = derivative
            (gradient,) = back(jnp.asarray(upstream, scores.dtype))
            return host(gradient)[: len(x)]

        return self._exact(scores)[: len(x)], pull

    def _scores(self, x: Any) -> Any:
        return scores_of(self._function(x), "classifier")

    def _exact(self, scores: Any) -> Array:
        return host(scores).astype(self._dtype, copy=False)

    def _padded(self, x: Any) -> Array:
        """A batch whose size is a power of two."""
        x = at_least(self.array(x))
        size = 1 << (len(x) - 1).bit_length()
        padded: Array = x[np.minimum(np.arange(size), len(x) - 1)]
        return padded


def keras_function(model: Any) -> Callable[[Any], Any]:
    """A Keras model on JAX as a function, compiled once; its weights are those that it has when called."""
    run = jax.jit(lambda *args: model.stateless_call(*args, training=False)[0])

    def function(x: Any) -> Any:
        weights = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
        return run(*weights, x)

    return function


def passes_gradients(function: Callable[[Any], Any], x: Array, name: str) -> bool:
    """Whether JAX can differentiate a function, and its scores are connected to its input."""
    try:
        scores, back = jax.vjp(lambda entry: scores_of(function(entry), name), jnp.asarray(x))
        if not isinstance(scores, jax.Array) or not jnp.issubdtype(scores.dtype, jnp.floating):
            return False
        graph = jax.make_jaxpr(back)(scores).jaxpr
    except UNTRACEABLE:
        return False
    reached = set(graph.invars)
    for step in graph.eqns:
        if any(isinstance(v, type(graph.invars[0])) and v in reached for v in step.invars):
            reached.update(step.outvars)
    return any(v in reached for v in graph.outvars)
