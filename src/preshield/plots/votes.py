"""What a vote gains, and what it refuses to answer."""

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from .._core.errors import ArgumentError
from .._core.typing import Array
from .figures import COLOURS, legend_beside, one_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluation.vote_report import VoteReport

__all__ = ["votes"]

NEAR = 0.06  # units of both axes, less than the height of a label


def votes(report: "VoteReport", *, ax: "Axes | None" = None) -> "Axes":
    """Draw the accuracy of a vote on the samples that it accepts against how many these are.

    Parameters
    ----------
    report : VoteReport
        What `MajorityVote.report` found.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        One point for each `min_votes`, with that number; the vote in use is filled. The views alone stand
        where they would be without a vote.

    Raises
    ------
    ValueError
        If the report has no samples.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield.evaluation.vote_report import VoteReport
    >>> found = VoteReport(("input", "blurred"), np.array([[0, 0], [1, 0]]), np.array([0, 1]), min_votes=2)
    >>> votes(found).get_xlabel()
    'Coverage'
    """
    if not len(report.y):
        raise ArgumentError("`report` must have at least one sample, got none.")
    from matplotlib.patheffects import withStroke

    ax = one_axes(ax)
    whole = {"clip_on": False, "zorder": 3}  # a marker at 1
    black = {"color": "black", "markersize": 7, **whole}
    places = {p.min_votes: (p.coverage, p.accepted_accuracy) for p in report.curve if p.coverage}
    distinct: Array = np.array(list(dict.fromkeys(places.values()))).reshape(-1, 2)
    ax.plot(*distinct.T, "-o", mfc="white", label="vote, by votes needed", **black)
    if report.min_votes in places:
        ax.plot(*places[report.min_votes], "o", label=f"vote in use ({report.min_votes})", **black)
    for numbers in _neighbours(places):
        coverage, accuracy = np.array([places[number] for number in numbers]).T
        label, place = ", ".join(map(str, numbers)), (coverage.mean(), accuracy.max())
        offset = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
        halo = [withStroke(linewidth=3, foreground="white")]
        ax.annotate(label, place, fontsize=9, zorder=4, path_effects=halo, **offset)
    looks = zip(cycle(COLOURS[1:]), cycle("s^Dv<P>"), strict=False)
    for name, labels, (colour, marker) in zip(report.views, report.votes.T, looks, strict=False):
        accepted = labels >= 0
        accuracy = (labels == report.y)[accepted].mean() if accepted.any() else np.nan
        ax.plot(accepted.mean(), accuracy, marker, color=colour, label=wrapped(name, 26), **whole)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Coverage", ylabel="Accuracy on accepted samples")
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax)
    return ax


def _neighbours(places: dict[int, tuple[float, float]]) -> list[list[int]]:
    """The numbers of votes in runs of points that share a label, because theirs would overlap."""
    runs: list[list[int]] = []
    for number, place in places.items():
        if runs and np.hypot(*np.subtract(place, places[runs[-1][0]])) < NEAR:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
