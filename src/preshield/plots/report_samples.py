"""The samples of a report, shown as what they are: images, videos or signals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.typing import Array, ClipValues
from .comparisons import amplification, before_after, difference_column
from .figures import fitting_axes, new_figure
from .images import CAPTION, SheetColumn, contact_sheet, scaled_images
from .signals import waveforms
from .videos import frame_strip

if TYPE_CHECKING:
    from ..evaluation.report import RobustnessReport

__all__ = ["FIGURE_WIDTH", "SamplePlan", "plan_samples", "samples"]

FIGURE_WIDTH = 10.0  # in inches
_IMAGES, _FRAMES, _SIGNALS = 3, 8, 2  # shown at most


def samples(report: "RobustnessReport", *, axes: Array | None = None) -> Array:
    """Draw the samples of a report: before and after the attack, and what the model receives of them.

    Parameters
    ----------
    report : RobustnessReport
        What an evaluation found.
    axes : array of Axes, optional
        Where to draw, in rows and columns.

    Returns
    -------
    ndarray of Axes
        In rows and columns; empty if the samples are of a kind that is not shown.

    Raises
    ------
    ValueError
        If `axes` do not fit the report.
    """
    plan = plan_samples(report)
    if not plan.rows:
        return np.empty((0, 0), dtype=object)
    if axes is None:
        axes = new_figure(FIGURE_WIDTH, plan.height, dpi=160).subplots(plan.rows, plan.columns, squeeze=False)
    grid = fitting_axes(axes, plan.rows, plan.columns)
    plan.draw(grid)
    return grid


@dataclass(frozen=True)
class SamplePlan:
    """The axes that samples need, the height in inches, and who draws into them; by default nothing."""

    rows: int = 0
    columns: int = 0
    height: float = 0.0
    draw: Callable[[Array], object] = lambda axes: None


def plan_samples(report: "RobustnessReport") -> SamplePlan:
    """Choose by the shape of the samples how they are shown."""
    clean, attacked = (
        _channels_last(report.pictures.get(name, np.empty(0))) for name in ("clean", "attacked")
    )
    if not (len(clean) and len(attacked)):
        return SamplePlan()
    pictures = {row.name: row.pictures for row in report.rows[1:] if "defended" in row.pictures}
    received = {name: _channels_last(own["defended"]) for name, own in pictures.items()}
    through = {name: _channels_last(own["attacked"]) for name, own in pictures.items()}
    if clean.ndim == 4 and clean.shape[-1] in (1, 3):
        return _plan_images(report, clean, attacked, received, through)
    if clean.ndim == 5 and clean.shape[-1] in (1, 3):
        first = {name: x[0] for name, x in received.items()}
        return _plan_videos(clean[0], attacked[0], first, report.threat.clip_values)
    if clean.ndim in (1, 2):
        return _plan_signals(clean, attacked, received)
    if clean.ndim == 3 and 1 in clean.shape[1:]:  # a single channel, first or last
        clean, attacked = clean.reshape(len(clean), -1), attacked.reshape(len(attacked), -1)
        return _plan_signals(clean, attacked, {name: x.reshape(len(x), -1) for name, x in received.items()})
    return SamplePlan()


def _channels_last(x: Array) -> Array:
    """Put the channels of images and videos last, if they stand second."""
    first = x.ndim in (4, 5) and x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3)
    return np.moveaxis(x, 1, -1) if first else x


def _plan_images(
    report: "RobustnessReport",
    clean: Array,
    attacked: Array,
    received: Mapping[str, Array],
    through: Mapping[str, Array],
) -> SamplePlan:
    """Above, what the model receives; below, the examples that were made through each defence."""
    threat, labels = report.threat, report.pictures.get("labels")
    count = min(_IMAGES, *map(len, (clean, attacked, *received.values(), *through.values())))
    rows, columns = count * (2 if through else 1), 3 + len(received)
    clean, attacked = clean[:count], attacked[:count]

    def draw(grid: Array) -> None:
        before_after(
            clean,
            attacked,
            {name: x[:count] for name, x in received.items()},
            labels=None if labels is None else list(labels[:count]),
            norm=threat.norm,
            clip_values=threat.clip_values,
            axes=grid[:count],
        )
        for x, column in zip(through.values(), grid[count:, 3:].T, strict=True):
            x = x[:count]
            added = difference_column(clean, x, norm=threat.norm, clip_values=threat.clip_values)
            shown = SheetColumn("", "", x, added.labels, clip_values=threat.clip_values)
            contact_sheet([shown], axes=column)
        for ax in grid[count:, :3].flat:
            ax.set_axis_off()
        for ax in grid[count : count + 1, 2]:  # none, if there is no defence
            style = {"fontsize": 7, "fontweight": "bold", "ha": "right", "va": "center"}
            ax.text(1, 0.5, "Attacked through\nthe defence:", transform=ax.transAxes, **style)

    return SamplePlan(rows, columns, 0.6 + rows * (_image_height(clean, columns) + CAPTION), draw)


def _plan_videos(
    clean: Array, attacked: Array, received: Mapping[str, Array], clip_values: ClipValues
) -> SamplePlan:
    """One video, below each other: as it is, attacked, the difference, after each defence."""

    def shown(name: str, clip: Array) -> Array:
        return scaled_images(name, clip, clip_values, "(F, H, W, C)")

    difference = difference_column(clean, attacked, clip_values=clip_values)
    clips = {
        "Before": shown("Before", clean),
        "Attacked": shown("Attacked", attacked),
        f"Difference {difference.subtitle}": difference.images,
    }
    clips |= {name: shown(name, clip) for name, clip in received.items()}
    columns = min(_FRAMES, len(clean))

    def draw(grid: Array) -> None:
        frame_strip(clips, frames=columns, axes=grid)

    return SamplePlan(len(clips), columns, 0.3 + len(clips) * _image_height(clean, columns), draw)


def _plan_signals(clean: Array, attacked: Array, received: Mapping[str, Array]) -> SamplePlan:
    """The first signals side by side, in lanes: as they are, attacked, the difference, after each defence."""
    if len(clean[0]) < 2:  # one value is no line
        return SamplePlan()
    received = {name: x for name, x in received.items() if np.ndim(x[0]) == 1 and len(x[0]) > 1}
    columns = min(_SIGNALS, len(clean))

    def draw(grid: Array) -> None:
        for k, ax in enumerate(grid.flat):
            before, after = np.asarray(clean[k], dtype=float), np.asarray(attacked[k], dtype=float)
            factor = 2 * np.abs(before).max() * amplification(after - before)
            lanes = {
                "Before": before,
                "Attacked": after,
                f"Difference ×{factor:.3g}": factor * (after - before),
            }
            lanes |= {name: x[k] for name, x in received.items() if k < len(x)}
            waveforms(lanes, ax=ax)

    return SamplePlan(1, columns, 1.2 + 0.6 * (3 + len(received)), draw)


def _image_height(images: Array, columns: int) -> float:
    """Height in inches of an image (N, H, W, C), one of so many side by side."""
    height, width = images.shape[1:3]
    return min(1.5, FIGURE_WIDTH / columns) * float(height / width)
