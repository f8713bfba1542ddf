"""What a detector found: distances of clean and of attacked samples, and every figure that follows."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._core.errors import ArgumentError
from .._core.text import in_markdown
from .._core.typing import Array
from . import metrics
from .documents import aligned, report_in, report_text, saved
from .roc import roc

if TYPE_CHECKING:
    from .roc import RocCurve

__all__ = ["DetectionReport", "Scored"]

FORMAT = 1  # of the JSON document


@dataclass(frozen=True, eq=False)
class Scored:
    """Samples as a detector sees them.

    Attributes
    ----------
    distances : ndarray of float64, shape (N, V)
        L1 distance of the probabilities behind each defence from those of the sample as it is.
    labels : ndarray of int, shape (N,)
        Label that the model gives the sample as it is.
    """

    distances: Array
    labels: Array

    @property
    def scores(self) -> Array:
        """The largest distance of each sample, shape (N,)."""
        largest: Array = self.distances.max(axis=1)
        return largest


@dataclass(frozen=True, eq=False, repr=False)
class DetectionReport:
    """How well a detector tells attacked samples from clean ones.

    Attributes
    ----------
    defences : tuple of str
        What the samples are compared behind.
    fpr : float
        False positive rate for which the threshold was chosen.
    threshold : float
        Score above which a sample is reported.
    y : ndarray of int, shape (N,)
        True labels.
    clean : Scored
        The samples before the attacks.
    attacked : dict of str to Scored
        The same samples after each attack.
    """

    defences: tuple[str, ...]
    fpr: float
    threshold: float
    y: Array
    clean: Scored
    attacked: dict[str, Scored]

    @property
    def false_positive_rate(self) -> float:
        """Share of the clean samples that are reported."""
        return _share(self.clean.scores > self.threshold)

    @property
    def true_positive_rates(self) -> dict[str, float]:
        """Share of the successful examples of each attack that are reported; nan if there are none.

        An attack has succeeded if the model is wrong.
        """
        return {
            name: _share((found.scores > self.threshold)[self._succeeded(found)])
            for name, found in self.attacked.items()
        }

    @property
    def evaded(self) -> dict[str, float]:
        """Share of all samples that are wrong after each attack, and not reported."""
        return {
            name: _share(self._succeeded(found) & (found.scores <= self.threshold))
            for name, found in self.attacked.items()
        }

    @property
    def roc(self) -> "dict[str, RocCurve]":
        """Curve of each attack that succeeded: its successful examples beside the clean samples.

        `RocCurve` reports low scores, so the thresholds are those of minus the score.
        """
        return {
            name: roc(-self.clean.scores, -found.scores[self._succeeded(found)])
            for name, found in self.attacked.items()
            if len(self.clean.scores) and self._succeeded(found).any()
        }

    def _succeeded(self, found: Scored) -> Array:
        succeeded: Array = found.labels != self.y
        return succeeded

    # Tables

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text, headings first: the clean samples, then those of each attack."""
        accuracy = _number(metrics.accuracy(self.clean.labels, self.y))
        curves, detected, evaded = self.roc, self.true_positive_rates, self.evaded
        rows: list[tuple[str, ...]] = [("", "Accuracy", "Reported", "Detected", "Evaded", "ROC area")]
        rows.append(("clean", accuracy, _number(self.false_positive_rate), "-", "-", "-"))
        for name, found in self.attacked.items():
            figures = (
                metrics.accuracy(found.labels, self.y),
                _share(found.scores > self.threshold),
                detected[name],
                evaded[name],
                curves[name].auc if name in curves else float("nan"),
            )
            rows.append((name, *map(_number, figures)))
        return rows

    def explanation(self) -> str:
        """What the columns mean, and what the figures leave out."""
        return (
            f"{len(self.y)} samples; threshold {self.threshold:.4g}, chosen for a false positive rate of "
            f"{self.fpr:g}, compared behind {', '.join(self.defences)}. Accuracy: of the model alone. "
            "Reported: share of all samples; of the clean ones, the false positive rate. Detected: share of "
            "the samples that the model gets wrong, the true positive rate. Evaded: share of all samples "
            "that are wrong and not reported. ROC area: successful examples against clean samples. What is "
            "left against an attacker who knows the detector is measured by `evaluate`."
        )

    def __str__(self) -> str:
        """The table with aligned columns, and what they mean."""
        return f"{aligned(self.cells())}\n\n{self.explanation()}"

    __repr__ = __str__  # a console shows the table

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, and what the columns mean."""
        from .report_html import of_detection

        return of_detection(self)

    # Files

    def to_markdown(self, path: str | Path | None = None) -> str:
        """The table and what its columns mean, in GitHub's Markdown.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str
        """
        head, *body = self.cells()
        rule = (":---", *["---:"] * (len(head) - 1))
        lines = [head, rule, *((in_markdown(name), *cells) for name, *cells in body)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return saved(f"{table}\n\n{in_markdown(self.explanation())}\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The table and the ROC curves as one page that needs no other file.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str

        Raises
        ------
        ImportError
            If Matplotlib is missing.
        """
        from .report_html import page_of_detection

        return saved(page_of_detection(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything in the report as JSON.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str
        """
        return saved(report_text(self, FORMAT), path)

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read a report back.

        Parameters
        ----------
        source : str or Path
            The text, or a path to a file; a string that starts with a brace is a text.

        Returns
        -------
        DetectionReport

        Raises
        ------
        ArgumentError
            If it is no report of this version, or a damaged one.
        """
        report = report_in(source, cls, FORMAT, (Scored,))
        size = report.y.shape
        for scored in (report.clean, *report.attacked.values()):
            shapes = scored.labels.shape, scored.distances.shape
            if len(size) != 1 or shapes != (size, (*size, len(report.defences))) or not report.defences:
                raise ArgumentError(f"`source` holds a damaged record: arrays of shape {shapes}.")
            if not np.isfinite(scored.distances).all():
                raise ArgumentError("`source` holds a damaged record: distances that are not finite.")
        return report


def _share(which: Array) -> float:
    return float(which.mean()) if which.size else float("nan")


def _number(value: Any) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
