"""The samples of a report, shown as what they are: images, videos or signals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.typing import Array, ClipValues
from .comparisons import amplification, difference_column, mean_of_codes
from .figures import fitting_axes, new_figure, wrapped
from .images import CAPTION, caption, heading, scaled_images, show_image
from .signals import waveforms
from .videos import frame_strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluation.report import RobustnessReport, RobustnessRow

__all__ = ["FIGURE_WIDTH", "SamplePlan", "plan_samples", "samples"]

FIGURE_WIDTH = 10.0  # in inches
_IMAGES, _FRAMES, _SIGNALS = 2, 8, 2  # shown at most
_LONGEST_NAME = 18  # characters of a class under an image
_BELOW = ("Attacked, then defended", "Attacked through the defence", "Difference")


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
    if clean.ndim == 4 and clean.shape[-1] in (1, 3):
        return _plan_images(report, clean, attacked)
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


def _plan_images(report: "RobustnessReport", clean: Array, attacked: Array) -> SamplePlan:
    """For each image its attack, and below what the model receives through each defence."""
    rows = [row for row in report.rows[1:] if "received" in row.pictures]
    images = _clearest(rows, report.pictures)[:_IMAGES]
    name = _Names(report)
    undefended = report.rows[0].pictures
    clip_values = report.threat.clip_values
    shown = [_scaled(x, clean.shape[-1], clip_values) for x in (clean, attacked)]

    def difference(ax: "Axes", x: Array, k: int) -> None:
        added = difference_column(
            clean[k : k + 1], x[k : k + 1], norm=report.threat.norm, clip_values=clip_values
        )
        show_image(ax, added.images[0])
        words = f"{added.labels[0]}, {added.subtitle}" if added.labels else ""
        caption(ax, words if np.any(x[k] != clean[k]) else "wrong as it is")

    def draw(grid: Array) -> None:
        for k, columns in zip(images, grid.T.reshape(len(images), 3, -1), strict=True):
            for ax, title in zip(columns[:, 0], ("Original", "Attacked", "Difference"), strict=True):
                heading(ax, title)
            show_image(columns[0, 0], shown[0][k])
            caption(columns[0, 0], *name.clean(k))
            show_image(columns[1, 0], shown[1][k])
            if "predicted" in undefended:
                caption(columns[1, 0], *name.of(undefended, k, 0))
            difference(columns[2, 0], attacked, k)
            for place, row in enumerate(rows, 1):
                for part, ax in zip(("defended", "received"), columns[:2, place], strict=True):
                    seen = _scaled(_channels_last(row.pictures[part]), clean.shape[-1], clip_values)
                    show_image(ax, seen[k])
                    caption(ax, *name.of(row.pictures, k, int(part == "received")))
                difference(columns[2, place], _channels_last(row.pictures["attacked"]), k)
            for ax, title in zip(columns[:, 1:2].flat, _BELOW, strict=False):
                heading(ax, title)
        for words, ax in zip(["no defence", *(row.name for row in rows)], grid[:, 0], strict=True):
            style = {"rotation": 0, "ha": "right", "va": "center", "fontweight": "bold"}
            ax.set_ylabel(wrapped(words, 16), fontsize=7, **style)

    columns = 3 * len(images)
    height = 0.7 + (1 + len(rows)) * (_image_height(clean, columns + 1) + CAPTION)
    return SamplePlan(1 + len(rows), columns, height, draw)


def _clearest(rows: "Sequence[RobustnessRow]", pictures: Mapping[str, Array]) -> list[int]:
    """Which images to show, those first of which most defences were right before the attack."""
    clean = pictures["clean"]
    axes = tuple(range(1, clean.ndim))
    wrong = np.zeros(len(clean))
    for row in rows:
        wrong += (row.pictures["attacked"] == clean).all(axis=axes)
    return list(map(int, np.argsort(wrong, kind="stable")))


def _scaled(x: Array, channels: int, clip_values: ClipValues) -> Array:
    return scaled_images("pictures", mean_of_codes(x.astype(np.float32), channels), clip_values)


class _Names:
    """Classes that were predicted, as captions."""

    def __init__(self, report: "RobustnessReport") -> None:
        self.names, self.pictures = report.class_names, report.pictures

    def clean(self, k: int) -> tuple[str, bool | None]:
        """Of an image as it is."""
        if "predicted" not in self.pictures:
            return self._name(self.pictures["labels"][k]), None
        return self._caption(self.pictures["predicted"][k], self.pictures["confidence"][k], k)

    def of(self, pictures: Mapping[str, Array], k: int, column: int) -> tuple[str, bool | None]:
        """Of an image in a row."""
        return self._caption(pictures["predicted"][k, column], pictures["confidence"][k, column], k)

    def _caption(self, label: int, confidence: float, k: int) -> tuple[str, bool | None]:
        name = self._name(label)
        sure = "" if np.isnan(confidence) else f", {confidence:.2f}"
        return name + sure, bool(label == self.pictures["labels"][k])

    def _name(self, label: int) -> str:
        if label < 0:
            return "rejected"
        name = self.names[label] if label < len(self.names) else str(label)
        return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


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
