"""What every plot needs: figures, checks of the axes passed in, colours, names that fit."""

import io
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_number
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.text import printable
from .._core.typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "RIGHT",
    "WRONG",
    "check_limits",
    "fitting_axes",
    "legend_beside",
    "new_figure",
    "one_axes",
    "plain",
    "png",
    "wrapped",
]

LONGEST, UNBROKEN = 120, 40  # characters of a name, and of one word in it, beside a chart that is to be seen
RIGHT, WRONG = "#1a6faf", "#c8401c"  # told apart by every kind of colour vision
# Okabe and Ito's colours without yellow, which is lost on white; markers and dashes do without colour.
COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def new_figure(width: float, height: float, dpi: float = 100, layout: str = "constrained") -> "Figure":
    """Make an empty figure, in inches; pyplot owns it only where pyplot shows it, in IPython."""
    options = {"figsize": (width, height), "dpi": dpi, "layout": layout}
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return require("matplotlib.pyplot", extra="plots").figure(**options)
    return require("matplotlib.figure", extra="plots").Figure(**options)


def one_axes(ax: Any, width: float = 6.4, height: float = 3.6, layout: str = "constrained") -> "Axes":
    """Return the caller's Axes, or new ones in a figure of that size."""
    if ax is None:
        return new_figure(width, height, layout=layout).subplots()
    _check_axes("ax", ax)
    return ax


def fitting_axes(axes: Any, rows: int, columns: int) -> Array:
    """Return the caller's Axes as rows and columns; a single row or column may have one axis."""
    grid = np.asarray(axes, dtype=object)
    if grid.shape != (rows, columns) and not (1 in (rows, columns) and grid.shape == (rows * columns,)):
        raise ArgumentError(
            f"`axes` must be an array of {rows} x {columns} Axes, got shape {grid.shape}; "
            f"make it with figure.subplots({rows}, {columns}, squeeze=False)."
        )
    for ax in grid.flat:
        _check_axes("axes", ax)
    return grid.reshape(rows, columns)


def _check_axes(name: str, ax: Any) -> None:
    if not isinstance(ax, require("matplotlib.axes", extra="plots").Axes):
        rule = "be one Matplotlib Axes" if name == "ax" else "hold Matplotlib Axes"
        raise ArgumentError(f"`{name}` must {rule}, got {type(ax).__name__}; make it with figure.subplots().")


def png(axes: "Axes | Array") -> bytes:
    """Return the figure of some axes as a PNG file, for a page or a file, and close it.

    A closed figure does not appear below the cell of a notebook.

    Parameters
    ----------
    axes : Axes or ndarray of Axes
        What a function of `preshield.plots` returned.

    Returns
    -------
    bytes

    Examples
    --------
    >>> from preshield import plots
    >>> plots.png(plots.waveforms([0.0, 1.0, 0.0, -1.0]))[1:4]
    b'PNG'
    """
    figure = np.asarray(axes, dtype=object).flat[0].figure.canvas.figure  # the whole, if it has subfigures
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.05)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return file.getvalue()


def check_limits(limits: Any) -> None:
    """Refuse what is neither None nor a pair of finite numbers in their order."""
    if limits is None:
        return
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise ArgumentError(f"`limits` must be a pair (darkest, brightest), got {limits!r}.")
    for limit in limits:
        check_number("limits", limit)
    if limits[0] >= limits[1]:
        raise ArgumentError(f"`limits` must have darkest < brightest, got {limits!r}.")


def legend_beside(ax: "Axes") -> None:
    """Name the lines to the right of the axes."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)


def plain(text: str) -> str:
    """A name as Matplotlib draws it character by character, and not as a formula."""
    return printable(text, LONGEST).replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """Break a long text after its first comma, between words, and before the capitals of a long word."""
    text = re.sub(rf"(\S{{{UNBROKEN}}})(?=\S)", r"\1 ", plain(text))
    if len(text) <= width:
        return text
    lines = []
    for part in re.split(r"(?<=,) ", text, maxsplit=1):
        if max(map(len, part.split()), default=0) > width:
            part = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", part)
        lines += textwrap.wrap(part, width, break_long_words=False)
    return "\n".join(lines)
