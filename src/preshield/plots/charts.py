"""Accuracies that an evaluation found."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.typing import Array
from .figures import COLOURS, WRONG, legend_beside, one_axes, plain, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluation.report import Curve, RobustnessReport, RobustnessRow
    from ..evaluation.roc import RocCurve

__all__ = ["accuracies", "chart_height", "curve", "roc"]

_MARKERS = "os^Dv<P>"
_DASHES = ("-", "--", "-.", ":")


def accuracies(report: "RobustnessReport", *, ax: "Axes | None" = None) -> "Axes":
    """Draw the accuracies of each row from clean down to the worst case, which is the figure that counts.

    Parameters
    ----------
    report : RobustnessReport
        What an evaluation found.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The number beside each row is its worst case and, where the smallest perturbation was sought, the
        ratio of its median norm to that of the undefended model.

    Raises
    ------
    ValueError
        If the report has no rows.
    """
    rows = report.rows
    if not rows:
        raise ArgumentError("`report` must have at least one row, got none.")
    ax = one_axes(ax, 6.4, chart_height(len(rows)))
    y = np.arange(len(rows))
    worst = np.array([row.worst_case for row in rows])
    best = [max(worst[k], *(c.accuracy for c in row.columns.values())) for k, row in enumerate(rows)]
    ax.hlines(y, worst, best, color="0.75", linewidth=2, zorder=1)
    ax.plot(worst, y, "D", color=WRONG, markersize=10, label="worst case", clip_on=False, zorder=2)
    looks = {"adaptive": ("s", 5), "oblivious": ("^", 7), "clean": ("o", 7)}
    for name, (marker, size) in looks.items():
        found = [row.columns[name].accuracy if name in row.columns else np.nan for row in rows]
        ax.plot(
            found, y, marker, label=name, color="black", mfc="white", markersize=size, clip_on=False, zorder=3
        )
    ax.set_yticks(y, [wrapped(row.name, 26) for row in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Accuracy")
    ax.tick_params(axis="y", length=0, pad=10)  # a marker at 0 does not touch the name
    _unit_axis(ax, "x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    _margin_column(ax, 26, "worst\ncase", [f"{value:.2f}" for value in worst], WRONG)
    if report.threat.minimum:
        _margin_column(ax, 70, "norm\nratio", [_ratio(report, row) for row in rows], "black")
    return ax


def chart_height(rows: int) -> float:
    """Height in inches that so many rows of accuracies need."""
    return 1.4 + 0.42 * max(rows, 4)


def _ratio(report: "RobustnessReport", row: "RobustnessRow") -> str:
    """Write the ratio of the median norm to that of the undefended model."""
    ratio = report.median_norm(row)[1]
    return "-" if np.isnan(ratio) else "∞" if np.isinf(ratio) else f"{ratio:.1f}×"


def _margin_column(ax: "Axes", offset: float, heading: str, entries: Iterable[str], colour: str) -> None:
    """Write numbers, `offset` points to the right of a chart whose rows stand at 0, 1, ..."""
    style = {"color": colour, "fontweight": "bold", "ha": "center", "textcoords": "offset points"}
    ax.annotate(heading, (1, 1), xytext=(offset, 6), xycoords="axes fraction", fontsize=8, **style)
    for y, entry in enumerate(entries):
        place = {"xytext": (offset, 0), "xycoords": ax.get_yaxis_transform(), "va": "center"}
        ax.annotate(entry, (1, y), **place, **style)


def curve(curve: "Curve", *, ax: "Axes | None" = None) -> "Axes":
    """Draw accuracy against what was varied, one line for each row.

    Parameters
    ----------
    curve : Curve
        Accuracies. Values that crowd near zero get a logarithmic axis; values that are no numbers stand side
        by side.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the curve has no values.

    Examples
    --------
    >>> from preshield.evaluation.report import Curve
    >>> ax = curve(Curve("eps", (0, 0.1, 0.2), {"undefended": (0.9, 0.4, 0.1)}, "adaptive"))
    >>> ax.get_ylabel()
    'Accuracy (adaptive)'
    """
    if not curve.values or not curve.accuracy:
        raise ArgumentError(
            f"`curve` must hold values and rows, got {len(curve.values)} and {len(curve.accuracy)}."
        )
    ax = one_axes(ax)
    places = _value_axis(ax, curve.values)
    looks = zip(cycle(COLOURS), cycle(_MARKERS), cycle(_DASHES), strict=False)
    few = len(places) <= 25
    for (name, accuracy), (colour, marker, dashes) in zip(curve.accuracy.items(), looks, strict=False):
        ax.plot(
            places,
            accuracy,
            label=wrapped(name, 26),
            color=colour,
            linestyle=dashes,
            marker=marker,
            markersize=5,
            markevery=1 if few else len(places) // 10,
            clip_on=False,  # a marker at 0 or 1 is whole
            zorder=3,
        )
    named = {"eps": "Bound of the perturbation (eps)", "budget": "Iterations", "eot": "Draws averaged (EOT)"}
    ax.set_xlabel(named.get(curve.parameter, plain(curve.parameter)))
    ax.set_ylabel(plain(f"Accuracy ({curve.column})"))
    _unit_axis(ax, "y")
    legend_beside(ax)
    return ax


def roc(curves: "RocCurve | Mapping[str, RocCurve]", *, ax: "Axes | None" = None) -> "Axes":
    """Draw the share of attacked samples that are detected against the share of clean ones that are reported.

    Parameters
    ----------
    curves : RocCurve or dict of str to RocCurve
        One curve, or several by name.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The area under each curve stands in the legend; a detector that guesses has 0.5, the dotted line.

    Raises
    ------
    ValueError
        If there is no curve.

    Examples
    --------
    >>> from preshield import plots
    >>> from preshield.evaluation.roc import roc
    >>> ax = plots.roc({"PGD": roc(clean=[0.2, 0.6, 0.9], attacked=[0.1, 0.2])})
    >>> ax.get_legend().get_texts()[0].get_text()
    'PGD, area 0.92'
    """
    named = curves if isinstance(curves, Mapping) else {"": curves}
    if not named:
        raise ArgumentError("`curves` must hold at least one curve, got none.")
    ax = one_axes(ax, 5.4)
    ax.plot([0, 1], [0, 1], ":", color="0.6")
    looks = zip(cycle(COLOURS), cycle(_DASHES), strict=False)
    for (name, found), (colour, dashes) in zip(named.items(), looks, strict=False):
        label = ", ".join(filter(None, [wrapped(name, 26), f"area {found.auc:.2f}"]))
        ax.plot(found.fpr, found.tpr, color=colour, linestyle=dashes, label=label, clip_on=False, zorder=3)
    ax.set(xlabel="Clean samples reported", ylabel="Attacked samples reported", aspect="equal")
    _unit_axis(ax, "x")
    _unit_axis(ax, "y")
    legend_beside(ax)
    return ax


def _value_axis(ax: "Axes", values: Sequence[Any]) -> Array:
    """Prepare the horizontal axis for values of any kind; return where they stand."""
    if not all(map(_is_number, values)):
        ax.set_xticks(range(len(values)), [wrapped(str(value), 14) for value in values])
        return np.arange(len(values), dtype=float)
    places = np.array(values, dtype=float)
    if _crowd_near_zero(places):
        if places.min() > 0:
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=places[places > 0].min(), linscale=0.5)
        ax.minorticks_off()
    if len(places) <= 10:
        labels = [f"{place:g}" if place >= 1 else f"{place:.2g}" for place in places]
        crowded = sum(map(len, labels)) > 24
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        ax.set_xticks(places, labels, **turned)
    return places


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)


def _crowd_near_zero(values: Array) -> bool:
    """Whether values span more than a decade and half of them lie in the lowest fifth of their range."""
    positive = values[values > 0]
    return bool(
        (values >= 0).all()
        and len(positive) > 2
        and positive.max() > 10 * positive.min()
        and np.median(positive) < positive.max() / 5
    )


def _unit_axis(ax: "Axes", which: str) -> None:
    """Let an axis run from 0 to 1, with a light grid."""
    getattr(ax, f"set_{which}lim")(0, 1)
    ax.grid(axis=which, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
