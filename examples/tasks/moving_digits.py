"""A small task for video: which digit moves over the photograph?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from preshield.evaluation.photographs import bundled_photographs

__all__ = ["MovingDigits", "classifier", "make"]

Array: TypeAlias = NDArray[Any]

FRAMES, SIDE, DIGIT = 8, 32, 16  # frames of a clip; pixels of its side, and of a digit's
DIM = 0.5  # brightness of a photograph behind a digit
TEST_DIGITS = 360  # the last of 1797
TEST_PHOTOGRAPHS = 3  # the last of ten


@dataclass(frozen=True, eq=False)
class MovingDigits:
    """Clips of a digit that moves over a dimmed photograph; the class is the digit.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, shape (N, 8, 32, 32, 3)
        Clips in [0, 1]. No image of a digit and no photograph is in both.
    y_train, y_test : ndarray of int64, shape (N,)
        The digits.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def make(seed: int, *, train: int = 2874, test: int = 64) -> MovingDigits:
    """Compose clips from the handwritten digits of scikit-learn and the bundled photographs.

    A digit, enlarged from 8 x 8 to 16 x 16 pixels, starts anywhere, moves by one or two pixels per frame in
    each direction and bounces off the border. The photograph, at half its size, stands still.

    Parameters
    ----------
    seed : int
        Seed of the order of the digits and of crops, starts and velocities.
    train, test : int
        Clips in each set. There are 1437 and 360 images of digits; beyond that they repeat, each time on
        another path.

    Returns
    -------
    MovingDigits

    Raises
    ------
    ImportError
        If scikit-image, which brings some of the photographs, is missing.
    """
    digits = load_digits()
    images = zoom(digits.images / 16, (1, 2, 2), order=1, mode="nearest", grid_mode=True).astype(np.float32)
    photographs = [_halved(photograph / 255) for photograph in bundled_photographs().values()]
    known, new = slice(None, -TEST_DIGITS), slice(-TEST_DIGITS, None)
    rng = np.random.default_rng(seed)
    return MovingDigits(
        *_clips(rng, train, images[known], digits.target[known], photographs[:-TEST_PHOTOGRAPHS]),
        *_clips(rng, test, images[new], digits.target[new], photographs[-TEST_PHOTOGRAPHS:]),
    )


def classifier(seed: int) -> Any:
    """Build a 3-D convolutional network with 75 000 parameters.

    Parameters
    ----------
    seed : int
        Seed of the initial weights.

    Returns
    -------
    keras.Model
        Compiled; its outputs are logits of shape (N, 10).
    """
    import keras

    layers = keras.layers
    seeds = np.random.SeedSequence(seed).generate_state(5).tolist()

    def weights() -> Any:
        return keras.initializers.GlorotUniform(seed=seeds.pop())

    model = keras.Sequential([keras.Input((FRAMES, SIDE, SIDE, 3)), layers.Rescaling(4.0, -2.0)])
    for filters, strides in ((16, 2), (32, 2), (64, 2)):
        model.add(layers.Conv3D(filters, 3, strides, "same", activation="relu", kernel_initializer=weights()))
    model.add(layers.GlobalMaxPooling3D())  # a digit may be anywhere
    model.add(layers.Dense(64, activation="relu", kernel_initializer=weights()))
    model.add(layers.Dense(10, kernel_initializer=weights()))
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def _halved(photograph: Array) -> Array:
    """Average each 2 x 2 block of a photograph `(H, W, 3)`."""
    height, width = photograph.shape[0] // 2, photograph.shape[1] // 2
    halved: Array = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return halved


def _clips(
    rng: np.random.Generator, count: int, images: Array, labels: Array, photographs: Sequence[Array]
) -> tuple[Array, Array]:
    """Clips `(count, 8, 32, 32, 3)` of images `(n, 16, 16)` over photographs, and their labels `(count,)`."""
    chosen = np.resize(rng.permutation(len(images)), count)
    paths = _paths(rng, count)
    clips = np.empty((count, FRAMES, SIDE, SIDE, 3), np.float32)
    for clip, image, path in zip(clips, images[chosen], paths, strict=True):
        photograph = photographs[int(rng.integers(len(photographs)))]
        i, j = (rng.integers(length - SIDE + 1) for length in photograph.shape[:2])
        clip[:] = DIM * photograph[i : i + SIDE, j : j + SIDE]
        for frame, (top, left) in zip(clip, path, strict=True):
            window = frame[top : top + DIGIT, left : left + DIGIT]
            window += image[..., None] * (1 - window)  # white ink
    return clips, labels[chosen]


def _paths(rng: np.random.Generator, count: int) -> Array:
    """Row and column of the upper left corner of a digit in each frame, shape `(count, 8, 2)`."""
    room = SIDE - DIGIT
    starts = rng.integers(0, room + 1, (count, 1, 2))
    velocities = rng.choice([-2, -1, 1, 2], (count, 1, 2))
    paths = starts + velocities * np.arange(FRAMES)[:, None]
    return room - np.abs(paths % (2 * room) - room)  # a triangle wave: back where it meets the border
