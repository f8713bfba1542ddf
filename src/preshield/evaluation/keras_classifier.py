"""A Keras model as a classifier for attacks."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from art.estimators.classification import TensorFlowV2Classifier

from .._core.typing import Array, Shape
from ..neural.outputs import scores_of
from .classifiers import SLOPE, TINY

__all__ = ["CrossEntropy", "KerasClassifier"]


class CrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of one-hot labels, whose gradient does not vanish where a model is sure.

    In single precision a probability of 1 - 1e-8 is 1, and its gradient no longer lowers the score of the
    label: a model would look the more robust, the larger its logits. Computed from the log-odds, the gradient
    keeps its direction, and a slope where it would be too small for a number.

    Parameters
    ----------
    of_probabilities : bool
        Whether scores are probabilities, and not logits.
    """

    def __init__(self, *, of_probabilities: bool) -> None:
        super().__init__()
        self.of_probabilities = of_probabilities

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each sample, from one-hot labels and scores."""
        ops = keras.ops
        logits = ops.log(ops.maximum(y_pred, TINY)) if self.of_probabilities else y_pred
        others = ops.logsumexp(ops.where(y_true > 0, -np.inf, logits), axis=1)
        odds = others - ops.sum(y_true * logits, axis=1)
        return ops.softplus(odds) + SLOPE * odds


class KerasClassifier(TensorFlowV2Classifier):  # type: ignore[misc]
    """ART's classifier of a Keras model on TensorFlow, with one graph for the gradient of the loss.

    ART records the loss on an eager tape, and the gradients of all weights are computed with that of the
    samples. A graph leaves out what nobody asks for: for the network of the demonstration and 40 samples, it
    takes less than a third of the time, and the gradient is the same to the last bit.

    Parameters
    ----------
    model : keras.Model
        Maps samples (N, ...) to scores (N, K), as `scores_of` finds them, of any floating type.
    nb_classes : int
        Number of scores, K.
    input_shape : tuple of int
        Shape of one sample.
    loss_object : keras.losses.Loss
        Takes one-hot labels and scores.
    clip_values : tuple of float
        Smallest and largest value of a sample.
    plain : bool, default True
        Whether the model returns one tensor of `float32`, so that ART can call the model itself.
    """

    def __init__(
        self,
        model: Any,
        *,
        nb_classes: int,
        input_shape: Shape,
        loss_object: Any,
        clip_values: tuple[float, float],
        plain: bool = True,
    ) -> None:
        network = model if plain else _Network(model)
        super().__init__(network, nb_classes, input_shape, loss_object=loss_object, clip_values=clip_values)
        samples = tf.TensorSpec((None, *input_shape), tf.float32)  # one graph for batches of every size

        @tf.function(input_signature=[samples, tf.TensorSpec((None, nb_classes), tf.float32)])  # type: ignore[untyped-decorator]
        def gradient(x: Any, y: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                scores = scores_of(model(x, training=False), "classifier")
            exact = tf.cast(scores, tf.float32)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(exact)
                loss = loss_object(y, exact)
            upstream = outer.gradient(loss, exact)
            if scores.dtype.size > 2:
                return tape.gradient(scores, x, tf.cast(upstream, scores.dtype))
            # In half precision the gradient of a sure model would be 0. That of each sample is divided by a
            # power of two, and multiplied by it afterwards: the backward pass is linear.
            largest = tf.reduce_max(tf.abs(upstream), axis=1)
            scale = tf.where(largest > 0, 2 ** tf.math.ceil(tf.math.log(largest) / np.log(2)), 1.0)
            found = tape.gradient(scores, x, tf.cast(upstream / scale[:, None], scores.dtype))
            return found * tf.reshape(scale, (-1, *[1] * len(input_shape)))

        self._gradient = gradient

    def loss_gradient(self, x: Any, y: Any, training_mode: bool = False, **kwargs: Any) -> Any:
        """Gradient of the loss with respect to `x`; of arrays, as an array."""
        if training_mode or not isinstance(x, np.ndarray):
            return super().loss_gradient(x, y, training_mode=training_mode, **kwargs)
        gradient: Array = self._gradient(x, y).numpy()  # the signature casts
        return gradient


class _Network:
    """What ART calls in the place of a model that returns something else than one tensor of `float32`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, x: Any, training: bool = False) -> Any:
        return tf.cast(scores_of(self._model(x, training=training), "classifier"), tf.float32)

    def __getattr__(self, name: str) -> Any:
        """All else is that of the model, such as its layers."""
        if name.startswith("__") or name == "_model":  # which a copy does not have yet
            raise AttributeError(name)
        return getattr(self._model, name)
