"""Logits of a Keras model, and the gradient that an attack follows."""

from typing import Any

import numpy as np

from .._core.optional import require
from .._core.typing import Array

__all__ = ["KerasLogits"]

_BATCH = 256


class KerasLogits:
    """A Keras classifier on the TensorFlow backend as functions from NumPy to NumPy.

    Parameters
    ----------
    model : keras.Model
        Maps (N, ...) to logits (N, K).

    Raises
    ------
    ImportError
        If TensorFlow is missing.
    ValueError
        If Keras runs on another backend.
    """

    def __init__(self, model: Any) -> None:
        tf = require("tensorflow", extra="demo")
        backend = require("keras", extra="demo").config.backend()
        if backend != "tensorflow":
            raise ValueError(
                f"Keras must run on the TensorFlow backend, got {backend!r}; "
                "set the environment variable KERAS_BACKEND=tensorflow"
            )

        def logits(x: Any) -> Any:
            return model(x, training=False)

        def margin(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                z = model(x, training=False)
                own = tf.one_hot(y, z.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
                value = tf.reduce_max(tf.where(own, z, z.dtype.min), axis=-1) - tf.reduce_max(
                    tf.where(own, z.dtype.min, z), axis=-1
                )
            return value, tape.gradient(value, x)

        samples = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        labels = tf.TensorSpec((None,), tf.int64)
        self._logits = tf.function(logits, input_signature=[samples])
        self._margin = tf.function(margin, input_signature=[samples, labels])

    def logits(self, x: Array) -> Array:
        """Return the logits of a batch.

        Parameters
        ----------
        x : ndarray of float32, shape (N, ...)
            Samples.

        Returns
        -------
        ndarray of float32, shape (N, K)
        """
        batches = range(0, len(x), _BATCH)
        return np.concatenate([self._logits(x[i : i + _BATCH]).numpy() for i in batches])

    def margin_and_gradient(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return by how much the logit of `y` exceeds the best other one, and its gradient.

        Parameters
        ----------
        x : ndarray of float32, shape (N, ...)
            Samples.
        y : ndarray of int64, shape (N,)
            Labels.

        Returns
        -------
        margin : ndarray of float32, shape (N,)
            Negative where the model predicts another class than `y`.
        gradient : ndarray of float32, shape (N, ...)
            Gradient of each margin with respect to its sample.
        """
        margins, gradients = [], []
        for i in range(0, len(x), _BATCH):
            margin, gradient = self._margin(x[i : i + _BATCH], y[i : i + _BATCH])
            margins.append(margin.numpy())
            gradients.append(gradient.numpy())
        return np.concatenate(margins), np.concatenate(gradients)
