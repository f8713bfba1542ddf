"""A small convolutional classifier and its training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.optional import require
from .._core.typing import Array, Shape

__all__ = ["small_cnn", "train"]


def small_cnn(input_shape: Shape, classes: int, *, seed: int = 0) -> Any:
    """Build a Keras model with three convolutions and about 225 000 parameters.

    Parameters
    ----------
    input_shape : tuple of int
        (H, W, C); values are expected in [0, 1].
    classes : int
        Number of classes.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    keras.Model
        Compiled; its outputs are logits of shape (N, classes).
    """
    keras = require("keras", extra="demo")
    layers = keras.layers
    seeds = np.random.SeedSequence(seed).generate_state(5).tolist()

    def weights() -> Any:
        return keras.initializers.GlorotUniform(seed=seeds.pop())

    model = keras.Sequential([keras.Input(input_shape), layers.Rescaling(4.0, -2.0)])
    for filters in (32, 64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=weights()))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu", kernel_initializer=weights()))
    model.add(layers.Dense(classes, kernel_initializer=weights()))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)  # or the first step would be traced twice
    return model


def train(
    model: Any,
    x: Array,
    y: Array,
    *,
    epochs: int = 8,
    batch_size: int = 32,
    seed: int = 0,
    on_epoch: Callable[[float], None] = lambda done: None,
) -> None:
    """Train a compiled Keras model in an order that depends on `seed` alone.

    Parameters
    ----------
    model : keras.Model
        Compiled model.
    x : ndarray, shape (N, H, W, C)
        Samples.
    y : ndarray of int, shape (N,)
        Class indices.
    epochs, batch_size : int
        Passes over the data; samples per step. In each pass the samples that fill no step are
        left out.
    seed : int
        Seed of the order in which samples are seen.
    on_epoch : callable
        Called after each epoch with the fraction of the training that is done.
    """
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(x))
    whole = len(x) // size * size
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for batch in order[:whole].reshape(-1, size):
            model.train_on_batch(x[batch], y[batch])
        on_epoch((epoch + 1) / epochs)
