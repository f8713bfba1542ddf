"""What randomized smoothing found: labels, certified radii, and every figure that follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from .._core.checks import check_number
from .._core.errors import ArgumentError
from .._core.text import in_markdown
from .._core.typing import Array
from . import metrics
from .documents import aligned, report_in, report_text, saved
from .metrics import REJECTED

if TYPE_CHECKING:
    from .._core.html import Html

__all__ = ["SmoothingReport", "certified", "largest_radius", "lower_bound", "significant"]

FORMAT = 1  # of the JSON document
ROWS = 6  # of the table, if nobody says which radii it shows
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between them, but for a power of ten


def lower_bound(successes: Array, trials: int, alpha: float) -> Array:
    """One-sided lower confidence bound of a binomial proportion, by the method of Clopper and Pearson.

    Parameters
    ----------
    successes : ndarray of int, shape (N,)
        How often something happened.
    trials : int
        Out of how many times.
    alpha : float
        Probability with which the bound may be too high.

    Returns
    -------
    ndarray of float, shape (N,)

    Examples
    --------
    >>> lower_bound(np.array([0, 1, 2]), 2, 0.25).round(4)  # 2 of 2: the square root of 0.25
    array([0.   , 0.134, 0.5  ])
    """
    from scipy.special import betaincinv

    bound: Array = np.zeros(len(successes))
    some = successes > 0
    bound[some] = betaincinv(successes[some], trials - successes[some] + 1.0, alpha)
    return bound


def largest_radius(sigma: float, n: int, alpha: float) -> float:
    """The radius if all draws agree: more cannot be certified with so many of them."""
    from scipy.special import ndtri

    return float(sigma * max(0.0, ndtri(alpha ** (1 / n))))


def certified(selection: Array, estimation: Array, n: int, sigma: float, alpha: float) -> tuple[Array, Array]:
    """Labels and radii from how often each class was predicted.

    Parameters
    ----------
    selection : ndarray of int, shape (N, K)
        Predictions of each class under the draws that choose the label.
    estimation : ndarray of int, shape (N, K)
        The same under the draws that measure its probability.
    n : int
        How many these are; some may have had no label.
    sigma : float
        Standard deviation of the noise.
    alpha : float
        Probability of a certificate that is wrong.

    Returns
    -------
    labels : ndarray of int, shape (N,)
        -1 where nothing can be certified.
    radii : ndarray of float, shape (N,)
        0 there.
    """
    from scipy.special import ndtri

    labels = selection.argmax(axis=1)
    bound = lower_bound(estimation[np.arange(len(labels)), labels], n, alpha)
    sure = bound > 0.5
    radii = np.zeros(len(labels))
    radii[sure] = sigma * ndtri(bound[sure])
    return np.where(sure, labels, REJECTED), radii


def significant(counts: Array, alpha: float) -> Array:
    """The most frequent class of each row, if chance does not explain its lead over the second.

    Parameters
    ----------
    counts : ndarray of int, shape (N, K)
        Predictions of each class.
    alpha : float
        Level of the exact two-sided binomial test.

    Returns
    -------
    ndarray of int, shape (N,)
        -1 if chance explains it.

    Examples
    --------
    >>> significant(np.array([[10, 0], [9, 1], [5, 5]]), alpha=0.01)  # p: 0.002, 0.021, 1
    array([ 0, -1, -1])
    """
    from scipy.special import bdtr

    order = np.sort(counts, axis=1)
    first, second = order[:, -1], order[:, -2] if counts.shape[1] > 1 else np.zeros(len(counts), np.int64)
    # The test is symmetric: twice the probability of so few for the second, or of fewer.
    chance = np.minimum(1.0, 2 * bdtr(second.astype(float), first + second, 0.5))
    labels: Array = np.where((chance <= alpha) & (first > second), counts.argmax(axis=1), REJECTED)
    return labels


@dataclass(frozen=True, eq=False, repr=False)
class SmoothingReport:
    """How much accuracy a smoothed classifier keeps for certain.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
        Labels of the smoothed classifier; -1 where it abstains.
    radii : ndarray of float, shape (N,)
        Certified L2 radius of each sample, in units of the data; 0 where it abstains.
    y : ndarray of int, shape (N,)
        True labels.
    plain : ndarray of int, shape (N,)
        Labels of the model itself, without noise and without the denoiser.
    sigma : float
        Standard deviation of the noise, in units of the data.
    n0, n : int
        Draws that chose the label of a sample, and draws that measured its probability.
    alpha : float
        Probability of a certificate that is wrong, for each sample.
    model, denoiser : str
        What was smoothed, and what stood behind the noise, if anything did.
    """

    labels: Array
    radii: Array
    y: Array
    plain: Array
    sigma: float
    n0: int
    n: int
    alpha: float
    model: str = ""
    denoiser: str = ""

    def certified_accuracy(self, radius: float = 0.0) -> float:
        """Share of samples with the right label and a certified radius of at least `radius`."""
        check_number("radius", radius, 0)
        return _mean(self._right & (self.radii >= radius))

    def interval(self, radius: float = 0.0) -> tuple[float, float]:
        """95% interval (Wilson) of `certified_accuracy` over the samples."""
        return metrics.interval(self.certified_accuracy(radius), len(self.y))

    @property
    def accuracy(self) -> float:
        """Accuracy of the smoothed classifier on the samples as they are; abstaining is not right."""
        return self.certified_accuracy()

    @property
    def plain_accuracy(self) -> float:
        """Accuracy of the model itself, without noise."""
        return _mean(self.plain == self.y)

    @property
    def abstention_rate(self) -> float:
        """Share of samples for which the smoothed classifier abstains."""
        return _mean(self.labels == REJECTED)

    @property
    def mean_radius(self) -> float:
        """Mean certified radius, 0 for samples whose label is wrong or that have none."""
        return _mean(np.where(self._right, self.radii, 0.0))

    @property
    def largest_radius(self) -> float:
        """The radius that `n` draws which all agree certify."""
        return largest_radius(self.sigma, self.n, self.alpha)

    @property
    def curve(self) -> tuple[Array, Array]:
        """Where the certified accuracy falls, and to what: it has the value `accuracies[i]` up to `radii[i]`.

        Returns
        -------
        radii, accuracies : ndarray of float, shape (M,)
            Both begin at 0. Beyond the last radius the accuracy is 0.
        """
        radii = np.unique(np.concatenate([[0.0], self.radii[self._right]]))
        return radii, np.array([self.certified_accuracy(radius) for radius in radii])

    @property
    def usual_radii(self) -> tuple[float, ...]:
        """Round numbers from 0 up to `largest_radius`."""
        rough = self.largest_radius / ROWS
        power = 10.0 ** np.floor(np.log10(rough)) if rough > 0 else 1.0
        step = next(power * step for step in STEPS if power * step >= rough)
        return tuple(float(f"{step * k:.6g}") for k in range(int(self.largest_radius / step) + 1))

    @property
    def _right(self) -> Array:
        right: Array = self.labels == self.y
        return right

    # Tables

    def cells(self, radii: Sequence[float] | None = None) -> list[tuple[str, ...]]:
        """The table as text, headings first; at `usual_radii` unless others are given."""
        rows: list[tuple[str, ...]] = [("L2 radius", "Certified accuracy", "95% interval")]
        for radius in self.usual_radii if radii is None else radii:
            low, high = self.interval(radius)
            accuracy = self.certified_accuracy(radius)
            rows.append((f"{radius:g}", _number(accuracy), f"[{_number(low)}, {_number(high)}]"))
        return rows

    def table(self, radii: Sequence[float] | None = None) -> str:
        """The table with aligned columns."""
        return aligned(self.cells(radii))

    def summary(self) -> str:
        """The figures beside the table, in one line."""
        return (
            f"{len(self.y)} samples. Model alone: accuracy {_number(self.plain_accuracy)}. Smoothed: "
            f"{_number(self.accuracy)}, abstains on {_number(self.abstention_rate)}, mean certified radius "
            f"{self.mean_radius:.3f}."
        )

    def explanation(self) -> str:
        """What was done, and what the figures mean."""
        denoised = f" and denoised by {self.denoiser}" if self.denoiser else ""
        return (
            f"Gaussian noise of standard deviation {self.sigma:g}{denoised}; {self.n0} draws choose the "
            f"label, {self.n} measure its probability. Certified accuracy: the label is right, and no "
            "perturbation of at most this L2 norm changes it. Each certificate holds with probability "
            f"{1 - self.alpha:g}. The largest radius that {self.n} draws can certify is "
            f"{self.largest_radius:.3f}."
        )

    def __str__(self) -> str:
        """The table, the summary and what they mean."""
        return f"{self.table()}\n\n{self.summary()}\n\n{self.explanation()}"

    __repr__ = __str__  # a console shows the table

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, and what it means."""
        from .._core import html

        return html.scoped(*self.parts())

    def parts(self) -> tuple["Html", ...]:
        """The same as parts of a page."""
        from .._core import html

        head, *body = self.cells()
        table = html.table(head, body, label="Certified accuracy", strong=("Certified accuracy",))
        return table, html.tag("p", self.summary()), html.tag("p", self.explanation())

    # Files

    def to_markdown(self, path: str | Path | None = None) -> str:
        """The table and what it means, in GitHub's Markdown.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str
        """
        head, *body = self.cells()
        lines = "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---:",) * len(head), *body))
        words = (self.summary(), self.explanation())
        return saved("\n\n".join((lines, *map(in_markdown, words))) + "\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The table and the curve as one page that needs no other file.

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
        from .report_html import page_of_smoothing

        return saved(page_of_smoothing(self), path)

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
        SmoothingReport

        Raises
        ------
        ArgumentError
            If it is no report of this version, or a damaged one.
        """
        report = report_in(source, cls, FORMAT)
        arrays = report.labels, report.radii, report.y, report.plain
        if any(array.shape != (len(report.y),) for array in arrays) or not 1 <= report.n0 <= report.n:
            raise ArgumentError(
                f"`source` holds a damaged record: a {cls.__name__} of parts that do not fit."
            )
        return report


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
