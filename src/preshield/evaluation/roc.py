"""How well a score tells attacked samples from clean ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .._core.checks import check_values
from .._core.errors import ArgumentError
from .._core.typing import Array

__all__ = ["RocCurve", "roc"]


@dataclass(frozen=True)
class RocCurve:
    """Rates of a detector that reports every sample whose score is at most a threshold.

    Attributes
    ----------
    fpr : tuple of float
        Share of the clean samples that are reported, for each threshold; ascending, from 0 to 1.
    tpr : tuple of float
        Share of the attacked samples that are reported.
    thresholds : tuple of float
        Ascending; minus infinity, at which nothing is reported, comes first.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    thresholds: tuple[float, ...]

    @property
    def auc(self) -> float:
        """Area under the curve: how often an attacked sample scores below a clean one, ties counted half."""
        return float(np.trapezoid(self.tpr, self.fpr))


def roc(clean: ArrayLike, attacked: ArrayLike) -> RocCurve:
    """Compare the scores of clean and of attacked samples, such as p-values; low ones are suspicious.

    Parameters
    ----------
    clean, attacked : array_like, shapes (N,) and (M,)
        Scores.

    Returns
    -------
    RocCurve
        Which `preshield.plots.roc` draws.

    Raises
    ------
    TypeError, ValueError
        If there are no scores on a side, or they are not finite numbers.

    Examples
    --------
    >>> found = roc(clean=[0.2, 0.6, 0.9], attacked=[0.1, 0.2])
    >>> found.tpr
    (0.0, 0.5, 1.0, 1.0, 1.0)
    >>> round(found.auc, 3)
    0.917
    """
    scores = [_scores(*pair) for pair in (("clean", clean), ("attacked", attacked))]
    thresholds = np.unique(np.concatenate(scores))
    fpr, tpr = (np.searchsorted(np.sort(s), thresholds, side="right") / len(s) for s in scores)
    return RocCurve((0.0, *fpr.tolist()), (0.0, *tpr.tolist()), (-np.inf, *thresholds.tolist()))


def _scores(name: str, values: ArrayLike) -> Array:
    scores = np.asarray(values)
    if scores.ndim != 1 or not len(scores):
        raise ArgumentError(f"`{name}` must hold one score for each sample, shape (N,), got {scores.shape}.")
    check_values(name, scores)
    return scores
