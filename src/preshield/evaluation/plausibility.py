"""Labels that do not fit a classifier, noticed before the attacks begin."""

import warnings

import numpy as np

from .._core.typing import Array
from .batch import OF_ESTIMATE, Batch, BatchEvaluation
from .classifiers import unchanged
from .metrics import REJECTED

__all__ = ["near_chance", "warn_near_chance"]

LOOKED_AT = 256  # samples, spread over all of them
SURE = 0.01  # probability of either error
FEEBLE = 0.25  # share of the way from chance to 1 that a poor classifier makes


def warn_near_chance(plan: BatchEvaluation, x: Array, y: Array, batch_size: int) -> None:
    """Warn of labels that are predicted as badly as by chance, in each row.

    A classifier that was trained behind its defence may be as bad without it, so all rows count.

    Parameters
    ----------
    plan : BatchEvaluation
        What will be done.
    x, y : ndarray, shapes (N, ...) and (N,)
        Samples and labels.
    batch_size : int
        Samples at once.
    """
    places = np.unique(np.linspace(0, len(y) - 1, LOOKED_AT).astype(np.int64))
    parts = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    found = []
    with unchanged(*(subject.classifier for subject in plan.subjects)):
        for subject in plan.subjects:
            labels = np.concatenate([_predicted(plan, subject.name, x[some], y[some]) for some in parts])
            accepted = labels != REJECTED
            found.append((int((labels == y[places])[accepted].sum()), int(accepted.sum())))
            if not near_chance(*found[-1], plan.nb_classes):
                return
    right, count = found[0]
    warnings.warn(
        f"The classifier is right on {right} of {count} samples without any attack, no better than chance"
        f" with {plan.nb_classes} classes{', and so is each row' if len(found) > 1 else ''}. Check that"
        " labels count the classes in the model's order, that samples have the range, the channels and the"
        " size that it was trained on, and that its normalisation is applied once.",
        stacklevel=3,
    )


def _predicted(plan: BatchEvaluation, row: str, x: Array, y: Array) -> Array:
    """Labels at one draw of a row."""
    batch = Batch(plan, np.array(x, dtype=np.float32), y, plan.first)
    model = batch.models[row][0].with_draws(1)
    labels: Array = model.labels(model.array(batch.x), batch.numbers, (plan.attacker.seed, OF_ESTIMATE))[0]
    return labels


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
