"""Figures of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._core.optional import require
from ._core.typing import Array

__all__ = ["SheetColumn", "contact_sheet"]

_RIGHT, _WRONG = "#1a6faf", "#c8401c"  # told apart by every kind of colour vision
_INCH = 1.25  # side of one image


@dataclass(frozen=True, eq=False)
class SheetColumn:
    """One column of a contact sheet.

    Attributes
    ----------
    title, subtitle : str
        What stands above the column.
    images : ndarray, shape (N, H, W, 3)
        One image per row, in [0, 1].
    labels : sequence of str
        What stands below each image.
    right : sequence of bool, optional
        Whether each label is a correct prediction. Labels without it are neither.
    """

    title: str
    subtitle: str
    images: Array
    labels: Sequence[str]
    right: Sequence[bool] | None = None


def contact_sheet(columns: Sequence[SheetColumn], *, title: str = "") -> Any:
    """Draw images side by side, each with its predicted class.

    A correct prediction is blue with a tick, a wrong one is orange with a cross.

    Parameters
    ----------
    columns : sequence of SheetColumn
        All with the same number of images.
    title : str
        Heading of the sheet.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ImportError
        If Matplotlib is missing.
    """
    figure_module = require("matplotlib.figure", extra="plots")
    rows = len(columns[0].images)
    figure = figure_module.Figure(
        figsize=(_INCH * len(columns), 1.1 * _INCH * rows + 0.8), dpi=150, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.05, hspace=0, wspace=0)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, column_axes in zip(columns, axes.T, strict=True):
        for row, ax in enumerate(column_axes):
            ax.imshow(column.images[row], vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            _caption(ax, column.labels[row], None if column.right is None else column.right[row])
        column_axes[0].set_title(column.title, fontsize=7, fontweight="bold", pad=14)
        column_axes[0].annotate(
            column.subtitle,
            (0.5, 1),
            xytext=(0, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=5.5,
            color="0.35",
        )
    return figure


def _caption(ax: Any, label: str, right: bool | None) -> None:
    """Write a prediction below an image and frame the image in the same colour."""
    if right is None:
        ax.set_xlabel(label, fontsize=6, labelpad=2)
        return
    colour, mark = (_RIGHT, "\N{CHECK MARK}") if right else (_WRONG, "\N{BALLOT X}")
    ax.set_xlabel(f"{mark} {label}", fontsize=6, labelpad=2, color=colour)
    ax.spines[:].set(color=colour, linewidth=1.5)
