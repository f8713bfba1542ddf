"""What a proof leaves of the accuracy, and what an attack does."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from .._core.errors import ArgumentError
from .figures import COLOURS, legend_beside, one_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluation.report import RobustnessRow
    from ..evaluation.smoothing_report import SmoothingReport

__all__ = ["certified_accuracy"]

POINTS = 200  # of the curve of an attack


def certified_accuracy(
    reports: "SmoothingReport | Mapping[str, SmoothingReport]",
    *,
    attacked: "Mapping[str, RobustnessRow] | None" = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw certified accuracy against the L2 radius.

    Parameters
    ----------
    reports : SmoothingReport, or mapping of str to SmoothingReport
        What `RandomizedSmoothing.report` found, by the name of its line.
    attacked : mapping of str to RobustnessRow, optional
        What `evaluate` found with an L2 threat, by the same names or others: a broken line each, where a
        sample that is rejected is not broken. Of a smoothed classifier it lies above the proof.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no report, or a report has no samples.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield.evaluation.smoothing_report import SmoothingReport
    >>> found = np.array([0, 1, 0]), np.array([0.2, 0.5, 0.4]), np.array([0, 1, 1]), np.array([0, 1, 1])
    >>> certified_accuracy(SmoothingReport(*found, sigma=0.25, n0=100, n=1000, alpha=0.001)).get_xlabel()
    'L2 radius'
    """
    named = dict(reports) if isinstance(reports, Mapping) else {"certified": reports}
    if not named or not all(len(report.y) for report in named.values()):
        raise ArgumentError("`reports` must hold a report, each with at least one sample.")
    ax = one_axes(ax)
    rows, end = dict(attacked or {}), max(report.largest_radius for report in named.values())
    names = [*named, *(name for name in rows if name not in named)]
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        text = wrapped(name, 26)
        if name in named:
            radii, accuracies = named[name].curve
            places, values = [*radii, radii[-1], end], [*accuracies, 0.0, 0.0]
            # Each accuracy holds up to its radius, included.
            ax.step(places, values, where="pre", color=colour, label=text, clip_on=False, zorder=3)
        if name in rows:
            grid = np.linspace(0, end, POINTS)
            kept = [rows[name].accuracy_at(float(radius), or_rejected=True) for radius in grid]
            label = f"{text}, attacked" if name in named else text
            ax.plot(grid, kept, "--", color=colour, label=label, clip_on=False, zorder=3)
    ax.set(xlim=(0, end), ylim=(0, 1), xlabel="L2 radius", ylabel="Accuracy")
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax)
    return ax
