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
    from ..evaluation.report import RobustnessReport, RobustnessRow

__all__ = ["FIGURE_WIDTH", "SamplePlan", "plan_samples", "samples"]

FIGURE_WIDTH = 10.0  # in inches
_IMAGES, _FRAMES, _SIGNALS = 2, 8, 2  # shown at most
_LONGEST_NAME = 18  # characters of a class under an image
_ABOVE = ("Original", "Attacked", "Difference")
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
    images = _clearest(rows, clean)[:_IMAGES]
    columns = 3 * len(images)

    def draw(grid: Array) -> None:
        for k, three in zip(images, np.split(grid, len(images), axis=1), strict=True):
            for axes, titles in zip(three, (_ABOVE, _BELOW), strict=False):
                for ax, title in zip(axes, titles, strict=True):
                    heading(ax, title)
            _draw_image(three[0], report, clean[k], (clean[k], attacked[k]), k, None)
            for axes, row in zip(three[1:], rows, strict=True):
                seen = (_channels_last(row.pictures[name])[k] for name in ("defended", "received"))
                _draw_image(axes, report, clean[k], tuple(seen), k, row)
        for name, ax in zip(["no defence", *(row.name for row in rows)], grid[:, 0], strict=True):
            style = {"rotation": 0, "ha": "right", "va": "center", "fontweight": "bold"}
            ax.set_ylabel(wrapped(name, 16), fontsize=7, **style)

    height = 0.7 + (1 + len(rows)) * (_image_height(clean, columns + 1) + CAPTION)
    return SamplePlan(1 + len(rows), columns, height, draw)


def _draw_image(
    axes: Array,
    report: "RobustnessReport",
    clean: Array,
    seen: tuple[Array, ...],
    k: int,
    row: "RobustnessRow | None",
) -> None:
    """Draw what the model receives, with its predictions, and the perturbation that it receives last.

    Without a row, the undefended model, which receives the image as it is and attacked.
    """
    undefended = report.rows[0].pictures
    if row is None:
        attacked = seen[1]
        predictions = [_prediction(report, report.pictures, k), _prediction(report, undefended, (k, 0))]
    else:
        attacked = _channels_last(row.pictures["attacked"])[k]
        predictions = [_prediction(report, row.pictures, (k, column)) for column in (0, 1)]
    clip_values = report.threat.clip_values
    for ax, x, prediction in zip(axes[:2], seen, predictions, strict=True):
        x = mean_of_codes(x[None], clean.shape[-1])
        show_image(ax, scaled_images("pictures", x, clip_values)[0])
        caption(ax, *prediction)
    added = difference_column(
        clean[None],
        attacked[None],
        amplify=_visible(clean, attacked, clip_values),
        norm=report.threat.norm,
        clip_values=clip_values,
    )
    show_image(axes[2], added.images[0])
    words = f"{added.labels[0]}, {added.subtitle}" if added.labels else ""
    if np.array_equal(clean, attacked):
        words = "wrong without an attack" if predictions[1][1] is False else "no attack succeeded"
    caption(axes[2], words)


def _clearest(rows: "Sequence[RobustnessRow]", clean: Array) -> list[int]:
    """Which images (N, H, W, C) to show, those first that most attacks changed: the others tell nothing."""
    changed = np.zeros(len(clean))
    for row in rows:
        changed += (_channels_last(row.pictures["attacked"]) != clean).any(axis=(1, 2, 3))
    return list(map(int, np.argsort(-changed, kind="stable")))


def _visible(before: Array, after: Array, clip_values: ClipValues) -> float:
    """Factor for which one value in 200 of a difference is black or white; the few largest are beyond."""
    low, high = (float(np.mean(value)) for value in clip_values)
    size = float(np.quantile(np.abs(np.subtract(after, before, dtype=float)), 0.995)) / (high - low)
    return 0.5 / size if size else 1.0


def _prediction(
    report: "RobustnessReport", pictures: Mapping[str, Array], place: int | tuple[int, int]
) -> tuple[str, bool | None]:
    """The class that was predicted, with its probability, and whether it is the true one."""
    if "predicted" not in pictures or "labels" not in report.pictures:
        return "", None
    label, confidence = int(pictures["predicted"][place]), float(pictures["confidence"][place])
    name = report.class_names[label] if 0 <= label < len(report.class_names) else str(label)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    words = "rejected" if label < 0 else name
    if not np.isnan(confidence):
        words += f", {confidence:.2f}"
    true = report.pictures["labels"][place if isinstance(place, int) else place[0]]
    return words, bool(label == true)


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
