"""Images side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_clip_values, check_values
from .._core.errors import ArgumentError
from .._core.tensors import to_numpy
from .._core.typing import Array, ClipValues, Shape
from .figures import RIGHT, WRONG, fitting_axes, new_figure, plain, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CAPTION",
    "SheetColumn",
    "caption",
    "contact_sheet",
    "heading",
    "scaled_images",
    "sheet_axes",
    "show_image",
]

CAPTION = 0.2  # height of what stands below an image, in inches
_INCH = 1.25  # width of one image


@dataclass(frozen=True, eq=False)
class SheetColumn:
    """One column of a contact sheet.

    Attributes
    ----------
    title, subtitle : str
        What stands above the column.
    images : ndarray, shape (N, H, W, 1) or (N, H, W, 3)
        One image per row.
    labels : sequence of str, optional
        What stands below each image.
    right : sequence of bool, optional
        Whether each label is a correct prediction. Labels without it are neither.
    clip_values : tuple, default (0, 1)
        The values shown as black and white; others are saturated.
    """

    title: str
    subtitle: str
    images: Array
    labels: Sequence[str] | None = None
    right: Sequence[bool] | None = None
    clip_values: ClipValues = (0.0, 1.0)


def contact_sheet(columns: Sequence[SheetColumn], *, title: str = "", axes: Array | None = None) -> Array:
    """Draw images side by side, each with its predicted class.

    A correct prediction is blue with a tick, a wrong one is orange with a cross.

    Parameters
    ----------
    columns : sequence of SheetColumn
        All with the same number of images.
    title : str
        Heading of the figure.
    axes : ndarray of Axes, shape (N, columns), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (N, columns)

    Raises
    ------
    ImportError
        If Matplotlib is missing.
    ValueError
        If the columns are empty, of different lengths or no images, or `axes` do not fit them.

    Examples
    --------
    >>> images = np.linspace(0, 1, 2 * 8 * 8).reshape(2, 8, 8, 1)
    >>> contact_sheet([SheetColumn("Before", "", images), SheetColumn("After", "", images**2)]).shape
    (2, 2)
    """
    if not columns:
        raise ArgumentError("`columns` must hold at least one SheetColumn, got none.")
    shown = [scaled_images(f"images of column {c.title!r}", c.images, c.clip_values) for c in columns]
    rows = len(shown[0])
    for column, images in zip(columns, shown, strict=True):
        for name, entries in {"images": images, "labels": column.labels, "right": column.right}.items():
            if entries is not None and len(entries) != rows:
                raise ArgumentError(
                    f"`columns` must have one entry for each of the {rows} rows, but `{name}` of column "
                    f"{column.title!r} has {len(entries)}."
                )
    header = 0.7 if title else 0.5
    footer = CAPTION if any(column.labels is not None for column in columns) else 0.03
    grid = sheet_axes(axes, shown[0].shape[1:], rows, len(columns), header=header, footer=footer)
    if title:
        grid[0, 0].figure.suptitle(title, fontsize=10)
    for column, images, column_axes in zip(columns, shown, grid.T, strict=True):
        for row, ax in enumerate(column_axes):
            show_image(ax, images[row])
            if column.labels is not None:
                caption(ax, column.labels[row], None if column.right is None else column.right[row])
        heading(column_axes[0], column.title, column.subtitle, level=any(c.subtitle for c in columns))
    return grid


def scaled_images(name: str, x: Any, clip_values: ClipValues, layout: str = "(N, H, W, C)") -> Array:
    """Return a batch of images such that 0 is the smallest and 1 the largest of `clip_values`."""
    check_clip_values(clip_values)
    x = to_numpy(x)
    check_values(name, x)
    if x.ndim != 4 or not x.size or x.shape[-1] not in (1, 3):
        hint = ""
        if x.ndim == 3:
            hint = "; add the first axis with x[None]"
        elif x.ndim == 4 and x.size and x.shape[1] in (1, 3):
            hint = "; put the channels last with numpy.moveaxis(x, 1, -1)"
        raise ArgumentError(
            f"`{name}` must have the shape {layout}, not empty, with 1 or 3 channels, got {x.shape}{hint}."
        )
    low, high = (np.asarray(value, dtype=float) for value in clip_values)
    if x.dtype.kind in "iu" and (x > high).any():  # would all be white
        raise ArgumentError(
            f"`{name}` must lie within `clip_values` if it holds integers, got values up to {x.max()} "
            f"for clip_values={clip_values!r}; pass for example clip_values=(0, 255)."
        )
    shown: Array = np.clip((x - low) / (high - low), 0, 1)
    return shown


def sheet_axes(
    axes: Array | None, shape: Shape, rows: int, columns: int, *, header: float, footer: float
) -> Array:
    """Return the caller's Axes, or new ones for images (H, W, C).

    The header above all and the footer below each row are in inches.
    """
    if axes is not None:
        return fitting_axes(axes, rows, columns)
    height = rows * (_INCH * shape[0] / shape[1] + footer) + header
    figure = new_figure(max(_INCH * columns, 2.5), height, dpi=150, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    grid: Array = figure.subplots(rows, columns, squeeze=False)
    return grid


def show_image(ax: "Axes", image: Array) -> None:
    """Show one image in [0, 1]."""
    image = image[..., 0] if image.shape[-1] == 1 else image
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def heading(ax: "Axes", title: str, subtitle: str = "", level: bool = False) -> None:
    """Write above an image, at the level of titles that have a subtitle or of those that have none."""
    room = ax.get_position().width * ax.figure.bbox.width / ax.figure.dpi  # in inches
    characters = min(max(int(23 * room), 12), 16)  # of this size, and no longer lines where there is more
    ax.set_title(wrapped(title, characters), fontsize=7, fontweight="bold", pad=12 if level else 4)
    ax.annotate(
        plain(subtitle),
        (0.5, 1),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=6.5,
        color="0.35",
    )


def caption(ax: "Axes", label: str, right: bool | None = None) -> None:
    """Write a prediction below an image and frame the image in the same colour."""
    label = plain(str(label))
    if right is None:
        ax.set_xlabel(label, fontsize=6.5, labelpad=2)
        return
    colour, mark = (RIGHT, "\N{CHECK MARK}") if right else (WRONG, "\N{BALLOT X}")
    ax.set_xlabel(f"{mark} {label}", fontsize=6.5, labelpad=2, color=colour)
    ax.spines[:].set(color=colour, linewidth=1.5)
