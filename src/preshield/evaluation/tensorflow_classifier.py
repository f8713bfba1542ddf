"""A Keras model on TensorFlow as a classifier for attacks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .._core.typing import Array, Shape
from ..neural.outputs import scores_of
from .perturbations import at_least, host

__all__ = ["TensorFlowClassifier", "passes_gradients"]


class TensorFlowClassifier:
    """A Keras model on TensorFlow, attacked through its own derivatives, in one graph.

    Samples are NumPy arrays in `float32`, or in `float64` if the model returns that; the model casts them to
    its own type.

    Parameters
    ----------
    model : callable
        Maps samples (N, ...) to scores (N, K), as `scores_of` finds them, and takes `training`.
    nb_classes : int
        Number of scores, K.
    input_shape : tuple of int
        Shape of one sample.
    of_probabilities : bool
        Whether the scores are probabilities, and not logits.
    double : bool
        Whether the model computes in `float64`.
    """

    channels_first = False

    def __init__(
        self, model: Any, *, nb_classes: int, input_shape: Shape, of_probabilities: bool, double: bool = False
    ) -> None:
        self.model = model
        self.nb_classes = nb_classes
        self.input_shape = input_shape
        self.of_probabilities = of_probabilities
        self._dtype = tf.float64 if double else tf.float32
        samples = tf.TensorSpec((None, *input_shape), self._dtype)  # one graph for batches of every size
        # The graph itself: looking it up at each call would take as long as a small network, and TensorFlow
        # would warn of tracing where many classifiers are called a few times each.
        self._scores = tf.function(self._passes, input_signature=[samples]).get_concrete_function()

    def array(self, x: Any) -> Array:
        """Samples as an array of NumPy."""
        return np.asarray(host(x), self._dtype.as_numpy_dtype)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`."""
        return self._exact(self._scores(at_least(self.array(x))))[: len(x)]

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Array]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        entry, count = tf.constant(at_least(self.array(x))), len(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(entry)
            scores = self._scores(entry)

        def pull(derivative: Array) -> Array:
            upstream = np.zeros(scores.shape)
            upstream[:count] = derivative
            return host(tape.gradient(scores, entry, tf.cast(upstream, scores.dtype)))[:count]

        return self._exact(scores)[:count], pull

    def _exact(self, scores: Any) -> Array:
        return host(tf.cast(scores, self._dtype))

    def _passes(self, x: Any) -> Any:
        """Scores, whose backward pass leaves out the weights; that of a graph would not."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def scores_at(x: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                scores = scores_of(self.model(x, training=False), "classifier")

            def back(upstream: Any, variables: Any = ()) -> Any:
                return tape.gradient(scores, x, upstream), [None] * len(variables)

            return scores, back

        return scores_at(x)


def passes_gradients(model: Any, x: Array, name: str) -> bool:
    """Whether the scores of a Keras model are connected to its input."""
    samples = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(samples)
        scores = scores_of(model(samples, training=False), name)
    return tf.is_tensor(scores) and tape.gradient(scores, samples) is not None
