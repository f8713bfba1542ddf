"""What a vote found: the labels of the views, and every figure that follows from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from .._core.errors import ArgumentError
from .._core.typing import Array
from . import metrics
from .documents import aligned, document, saved
from .metrics import REJECTED

__all__ = ["VotePoint", "VoteReport", "elect"]

FORMAT = 1  # of the JSON document


def elect(votes: Array, min_votes: int) -> Array:
    """Label with the most votes, if it has `min_votes` of them and no other label has as many.

    Parameters
    ----------
    votes : ndarray of int, shape (N, V)
        Labels of the views; -1 is no vote.
    min_votes : int
        Votes that a label needs.

    Returns
    -------
    ndarray of int, shape (N,)
        -1 where the sample is rejected.

    Examples
    --------
    >>> elect(np.array([[3, 3, 5], [3, 4, 5]]), 2)
    array([ 3, -1])
    """
    agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2) * (votes != REJECTED)
    most = agreeing.max(axis=1)
    winner = votes[np.arange(len(votes)), agreeing.argmax(axis=1)]
    tied = ((agreeing == most[:, None]) & (votes != winner[:, None])).any(axis=1)
    label: Array = np.where((most >= min_votes) & ~tied, winner, REJECTED)
    return label


@dataclass(frozen=True)
class VotePoint:
    """A vote with one number of votes needed.

    Attributes
    ----------
    min_votes : int
        Votes that a label needs.
    accuracy : float
        Share of samples that are right; a rejected sample is not.
    rejection_rate : float
        Share of samples that are rejected.
    accepted_accuracy : float
        Accuracy on the others; nan if there are none.
    """

    min_votes: int
    accuracy: float
    rejection_rate: float
    accepted_accuracy: float

    @property
    def coverage(self) -> float:
        """Share of samples that are not rejected."""
        return 1 - self.rejection_rate


@dataclass(frozen=True, eq=False, repr=False)
class VoteReport:
    """How well a vote and each of its views do.

    Attributes
    ----------
    views : tuple of str
        What each view is.
    votes : ndarray of int, shape (N, V)
        Label of each sample in each view; -1 where the classifier rejected it itself.
    y : ndarray of int, shape (N,)
        True labels.
    min_votes : int
        Votes that a label needs.
    """

    views: tuple[str, ...]
    votes: Array
    y: Array
    min_votes: int

    @property
    def view_accuracies(self) -> tuple[float, ...]:
        """Accuracy of each view alone."""
        return tuple(metrics.accuracy(labels, self.y) for labels in self.votes.T)

    @property
    def accuracy(self) -> float:
        """Accuracy of the vote; a rejected sample is not right."""
        return self._chosen.accuracy

    @property
    def rejection_rate(self) -> float:
        """Share of samples that the vote rejects."""
        return self._chosen.rejection_rate

    @property
    def accepted_accuracy(self) -> float:
        """Accuracy of the vote on the samples that it does not reject; nan if there are none."""
        return self._chosen.accepted_accuracy

    @property
    def curve(self) -> tuple[VotePoint, ...]:
        """Coverage and accuracy for every `min_votes` from 1 to the number of views."""
        return tuple(map(self._point, range(1, len(self.views) + 1)))

    @property
    def _chosen(self) -> VotePoint:
        return self._point(self.min_votes)

    def _point(self, min_votes: int) -> VotePoint:
        label = elect(self.votes, min_votes)
        return VotePoint(
            min_votes,
            metrics.accuracy(label, self.y),
            metrics.rejection_rate(label),
            metrics.accepted_accuracy(label, self.y),
        )

    # Tables

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text, headings first: each view, then the vote for every `min_votes`."""
        size = len(self.views)
        rows: list[tuple[str, ...]] = [("", "Accuracy", "Rejected", "Accepted")]
        for name, labels in zip(self.views, self.votes.T, strict=True):
            figures = metrics.accuracy(labels, self.y), metrics.rejection_rate(labels)
            rows.append((name, *map(_number, (*figures, metrics.accepted_accuracy(labels, self.y)))))
        for point in self.curve:
            name = f"vote, {point.min_votes} of {size}" + (" *" if point.min_votes == self.min_votes else "")
            figures = point.accuracy, point.rejection_rate
            rows.append((name, *map(_number, (*figures, point.accepted_accuracy))))
        return rows

    def explanation(self) -> str:
        """What the columns mean, and what the figures leave out."""
        return (
            f"{len(self.y)} samples; * is the vote in use. Accuracy: a rejected sample counts as wrong. "
            "Accepted: accuracy on the samples that are not rejected. What is left against an attacker who "
            "knows of the vote says `evaluate`."
        )

    def __str__(self) -> str:
        """The table with aligned columns, and what they mean."""
        return f"{aligned(self.cells())}\n\n{self.explanation()}"

    __repr__ = __str__  # a console shows the table

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, and what the columns mean."""
        from .._core import html

        (_, *head), *body = self.cells()
        table = html.table(("View", *head), body, label="Votes", strong=("Accuracy",))
        return html.scoped(table, html.tag("p", self.explanation()))

    # Files

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
        record = {
            "format": FORMAT,
            "views": self.views,
            "votes": self.votes.tolist(),
            "y": self.y.tolist(),
            "min_votes": self.min_votes,
        }
        return saved(json.dumps(record), path)

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read a report back.

        Parameters
        ----------
        source : str or Path
            The text, or a path to a file; a string that starts with a brace is a text.

        Returns
        -------
        VoteReport

        Raises
        ------
        ArgumentError
            If it is no report of this version, or a damaged one.
        """
        record = document(source, "VoteReport", FORMAT)
        try:
            views, y = tuple(record["views"]), np.array(record["y"], dtype=np.int64)
            votes = np.array(record["votes"], dtype=np.int64).reshape(len(y), len(views))
            min_votes = int(record["min_votes"])
            if not all(isinstance(view, str) for view in views) or not 1 <= min_votes <= len(views):
                raise ValueError(f"{len(views)} views and min_votes={min_votes}")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ArgumentError(f"`source` must be the JSON of a VoteReport: {error!r}.") from error
        return cls(views, votes, y, min_votes)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
