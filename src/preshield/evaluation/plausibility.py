"""Labels that do not fit a classifier, noticed before the attacks begin."""

import warnings
from typing import Any

import numpy as np

from .._core.typing import Array
from .defended import drawing, held
from .metrics import REJECTED

__all__ = ["near_chance", "warn_near_chance"]

LOOKED_AT = 256  # samples, spread over all of them
SURE = 0.01  # probability of either error
FEEBLE = 0.25  # share of the way from chance to 1 that a poor classifier makes


def warn_near_chance(classifier: Any, x: Array, y: Array, batch_size: int) -> None:
    """Warn of a classifier that predicts the labels as badly as chance.

    Parameters
    ----------
    classifier : object
        What `as_classifier` returns.
    x, y : ndarray, shapes (N, ...) and (N,)
        Samples and labels.
    batch_size : int
        Samples at once.
    """
    places = np.unique(np.linspace(0, len(y) - 1, LOOKED_AT).astype(np.int64))
    outputs = np.concatenate(
        [
            _predicted(classifier, x, places[start : start + batch_size])
            for start in range(0, len(places), batch_size)
        ]
    )
    labels = outputs if outputs.ndim == 1 else outputs.argmax(axis=1)
    classes = outputs.shape[1] if outputs.ndim == 2 else max(2, int(y.max()) + 1, int(labels.max()) + 1)
    accepted = labels != REJECTED
    right, count = int((labels == y[places])[accepted].sum()), int(accepted.sum())
    if near_chance(right, count, classes):
        warnings.warn(
            f"The classifier is right on {right} of {count} samples without any attack, no better than chance"
            f" with {classes} classes. Check that labels count the classes in the model's order, that samples"
            " have the range, the channels and the size that it was trained on, and that its normalisation is"
            " applied once.",
            stacklevel=3,
        )


def _predicted(classifier: Any, x: Array, places: Array) -> Array:
    some = np.array(x[places], dtype=np.float32)
    with held(drawing(classifier), places, (0,)):  # whose own streams stay where they are
        return np.asarray(classifier.predict(classifier.array(some)))


def near_chance(right: int, count: int, classes: int) -> bool:
    """Whether a classifier that is right so often guesses, and is not just a poor one.

    Two exact binomial tests at the level of 1%: that it is no better than chance, one of `classes`, cannot be
    rejected, and that it makes a quarter of the way from chance to 1 can. So a poor classifier that does not
    do worse than that is accused in at most one of a hundred evaluations, however few the samples are.

    Parameters
    ----------
    right, count : int
        On how many of how many samples it is right.
    classes : int
        Number of classes.

    Returns
    -------
    bool

    Examples
    --------
    >>> from preshield.evaluation.plausibility import near_chance
    >>> near_chance(0, 20, 1000), near_chance(1, 10, 10), near_chance(10, 100, 10)
    (True, False, True)
    """
    from scipy.special import bdtr

    chance = 1 / classes
    feeble = chance + FEEBLE * (1 - chance)
    guesses = right == 0 or 1 - bdtr(right - 1, count, chance) > SURE
    return bool(count and guesses and bdtr(right, count, feeble) < SURE)
