"""A whole report in one figure."""

from typing import TYPE_CHECKING

import numpy as np

from .._core.typing import Array
from .charts import accuracies, chart_height, curve
from .figures import fitting_axes, new_figure
from .report_samples import FIGURE_WIDTH, SamplePlan, plan_samples

if TYPE_CHECKING:
    from ..evaluation.report import RobustnessReport

__all__ = ["report"]


def report(report: "RobustnessReport", *, axes: Array | None = None) -> Array:
    """Draw a report: accuracies, curves, and the samples as they are, attacked and defended.

    Images are shown as a contact sheet, videos as strips of frames, signals as waveforms; samples of any
    other kind are not shown.

    Parameters
    ----------
    report : RobustnessReport
        What an evaluation found.
    axes : array of Axes, shape (K,), optional
        Where to draw: the accuracies, each curve, then the samples row by row.

    Returns
    -------
    ndarray of Axes, shape (K,)

    Raises
    ------
    ValueError
        If the report has no rows, or `axes` do not fit it.
    """
    charts, plan = 1 + len(report.curves), plan_samples(report)
    if axes is None:
        flat = _new_axes(report, plan)
    else:
        flat = fitting_axes(axes, 1, charts + plan.rows * plan.columns)[0]
    accuracies(report, ax=flat[0])
    for one, ax in zip(report.curves, flat[1:charts], strict=True):
        curve(one, ax=ax)
    plan.draw(flat[charts:].reshape(plan.rows, plan.columns))
    return flat


def _new_axes(report: "RobustnessReport", plan: SamplePlan) -> Array:
    """Make a figure with the accuracies above, two curves to a row, and the samples below."""
    curves = len(report.curves)
    curve_rows = -(-curves // 2)
    blocks = [  # rows, columns, axes, height
        (1, 1, 1, chart_height(len(report.rows))),
        (curve_rows, min(2, curves), curves, 3.0 * curve_rows),
        (plan.rows, plan.columns, plan.rows * plan.columns, plan.height),
    ]
    blocks = [block for block in blocks if block[0]]
    heights = [height for *_, height in blocks]
    figure = new_figure(FIGURE_WIDTH, sum(heights), dpi=120)
    places = figure.add_gridspec(len(blocks), 1, height_ratios=heights)
    axes = []
    for (rows, columns, count, _), place in zip(blocks, places, strict=True):
        cells = place.subgridspec(rows, columns)
        axes += [figure.add_subplot(cells[k]) for k in range(count)]
    return np.array(axes, dtype=object)
