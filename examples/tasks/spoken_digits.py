"""Spoken digits: recordings of 0.75 s, and a small network that tells them apart.

`spoken_digits.npz` holds what `synthesise_spoken_digits.py` made with the speech synthesiser espeak-ng, so
that nobody else needs it. Speakers differ in voice; each speaks with several accents, speeds and pitches.
Samples are stored as 8-bit codes of the mu-law, as in digital telephony: fine steps near zero, coarse ones
where a signal is loud. NumPy compresses them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SpokenDigits", "classifier", "decode", "encode", "load"]

Array: TypeAlias = NDArray[Any]

FILE = Path(__file__).with_name("spoken_digits.npz")
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE = 8000  # Hz
LENGTH = 6000  # samples of a recording
MU = 255  # of the mu-law


@dataclass(frozen=True, eq=False)
class SpokenDigits:
    """Recordings of spoken digits; the class is the digit.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, shape (N, 6000, 1)
        Waveforms in [-1, 1].
    y_train, y_test : ndarray of int64, shape (N,)
        Digits, which are indices into `class_names`.
    speakers_train, speakers_test : ndarray of str, shape (N,)
        Who speaks: a voice of espeak-ng. Nobody is in both sets.
    sample_rate : int
        Samples in a second, in Hz.
    class_names : tuple of str
        The words.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    speakers_train: Array
    speakers_test: Array
    sample_rate: int = SAMPLE_RATE
    class_names: tuple[str, ...] = CLASS_NAMES


def load(file: Path = FILE) -> SpokenDigits:
    """Read the recordings.

    Parameters
    ----------
    file : Path
        Written by `synthesise_spoken_digits.py`.

    Returns
    -------
    SpokenDigits
    """
    with np.load(file) as stored:
        x = decode(stored["codes"])[..., None]
        y = stored["digits"].astype(np.int64)
        speakers, test = stored["speakers"], stored["test"]
    return SpokenDigits(x[~test], y[~test], x[test], y[test], speakers[~test], speakers[test])


def encode(x: Array) -> Array:
    """Turn waveforms into codes of the mu-law.

    Parameters
    ----------
    x : ndarray of float
        Values in [-1, 1].

    Returns
    -------
    ndarray of uint8
        From 1 to 255; zero becomes 128.
    """
    level = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    codes: Array = np.rint(128 + 127 * level).astype(np.uint8)
    return codes


def decode(codes: Array) -> Array:
    """Turn codes of the mu-law back into waveforms.

    Parameters
    ----------
    codes : ndarray of uint8
        From 1 to 255.

    Returns
    -------
    ndarray of float32
        Values in [-1, 1]; next to a value v, they lie (1 / 255 + v) / 23 apart.
    """
    level = (np.arange(256) - 128) / 127
    values: Array = np.sign(level) * np.expm1(np.abs(level) * np.log1p(MU)) / MU
    return values.astype(np.float32)[codes]


def classifier(seed: int = 0) -> Any:
    """Build a Keras model with four convolutions over time; its outputs are logits.

    Parameters
    ----------
    seed : int
        Seed of the initial weights.

    Returns
    -------
    keras.Model
        Compiled, not trained; from (N, 6000, 1) to (N, 10).
    """
    import keras

    layers = keras.layers
    seeds = np.random.SeedSequence(seed).generate_state(6).tolist()

    def weights() -> Any:
        return keras.initializers.HeUniform(seed=seeds.pop())

    model = keras.Sequential([keras.Input((LENGTH, 1))])
    for filters, width, stride in ((32, 64, 4), (64, 5, 1), (96, 3, 1), (128, 3, 1)):
        model.add(
            layers.Conv1D(
                filters, width, stride, padding="same", activation="relu", kernel_initializer=weights()
            )
        )
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.MaxPooling1D(4))
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dropout(0.3, seed=seeds.pop()))
    model.add(layers.Dense(len(CLASS_NAMES), kernel_initializer=weights()))
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model
