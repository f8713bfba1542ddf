"""Pictures of arrays and of the records of an evaluation; they need the extra ``plots``.

Every function takes Matplotlib axes, draws into them and returns them: `ax` where it draws one plot, `axes`
where it draws several. Without axes it makes a figure; ``ax.figure.savefig(path)`` writes it, `png` turns it
into bytes.

In a notebook that figure belongs to pyplot, which shows it below the cell, once, and then closes it.
Elsewhere pyplot does not know the figure: a script or a server that draws thousands of them leaves none open.
To see a window, bring axes from pyplot::

    figure, ax = plt.subplots()
    plots.curve(report.curves[0], ax=ax)
    plt.show()
"""

import io
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_number,
    check_option,
    check_values,
)
from ._core.optional import require
from ._core.tensors import to_numpy
from ._core.typing import Array, ClipValues, Shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .evaluation.report import Curve, RobustnessReport, RobustnessRow

__all__ = [
    "SheetColumn",
    "accuracies",
    "before_after",
    "contact_sheet",
    "curve",
    "difference_column",
    "frame_strip",
    "png",
    "report",
    "samples",
    "spectra",
    "spectrogram",
    "spectrum",
    "waveforms",
]

_UNIT = (0.0, 1.0)
_RIGHT, _WRONG = "#1a6faf", "#c8401c"  # told apart by every kind of colour vision
# Okabe and Ito's colours without yellow, which is lost on white; markers and dashes do without colour.
_COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "os^Dv<P>"
_DASHES = ("-", "--", "-.", ":")
_INCH = 1.25  # width of one image
_POINTS = 2000  # buckets of a long waveform, frames of a spectrogram: more than a screen has pixels
_CAPTION = 0.2  # height of what stands below it
_SAMPLES = 3  # rows of pictures in a report
_WIDTH = 10.0  # of a report, in inches


# Figures and axes


def _new_figure(width: float, height: float, dpi: float = 100, layout: str = "constrained") -> "Figure":
    """Make an empty figure, in inches; pyplot owns it only where pyplot shows it, in IPython."""
    options = {"figsize": (width, height), "dpi": dpi, "layout": layout}
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return require("matplotlib.pyplot", extra="plots").figure(**options)
    return require("matplotlib.figure", extra="plots").Figure(**options)


def _one(ax: Any, width: float = 6.4, height: float = 3.6, layout: str = "constrained") -> "Axes":
    """Return the caller's Axes, or new ones in a figure of that size."""
    if ax is None:
        return _new_figure(width, height, layout=layout).subplots()
    _check_axes("ax", ax)
    return ax


def _grid(axes: Any, rows: int, columns: int, make: Callable[[], "Figure"]) -> Array:
    """Return the caller's Axes as rows and columns, or new ones in the figure that `make` returns."""
    return make().subplots(rows, columns, squeeze=False) if axes is None else _fitting(axes, rows, columns)


def _fitting(axes: Any, rows: int, columns: int) -> Array:
    """Return the caller's Axes as rows and columns; a single row or column may have one axis."""
    grid = np.asarray(axes, dtype=object)
    if grid.shape != (rows, columns) and not (1 in (rows, columns) and grid.shape == (rows * columns,)):
        raise ValueError(
            f"`axes` must be an array of {rows} x {columns} Axes, got shape {grid.shape}; "
            f"make it with figure.subplots({rows}, {columns}, squeeze=False)."
        )
    for ax in grid.flat:
        _check_axes("axes", ax)
    return grid.reshape(rows, columns)


def _check_axes(name: str, ax: Any) -> None:
    if not isinstance(ax, require("matplotlib.axes", extra="plots").Axes):
        rule = "be one Matplotlib Axes" if name == "ax" else "hold Matplotlib Axes"
        raise TypeError(f"`{name}` must {rule}, got {type(ax).__name__}; make it with figure.subplots().")


def _check_limits(limits: Any) -> None:
    """Refuse what is neither None nor a pair of finite numbers in their order."""
    if limits is None:
        return
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise ValueError(f"`limits` must be a pair (darkest, brightest), got {limits!r}.")
    for limit in limits:
        check_number("limits", limit)
    if limits[0] >= limits[1]:
        raise ValueError(f"`limits` must have darkest < brightest, got {limits!r}.")


def png(axes: "Axes | Array") -> bytes:
    """Return the figure of some axes as a PNG file, for a page or a file, and close it.

    A closed figure does not appear below the cell of a notebook.

    Parameters
    ----------
    axes : Axes or ndarray of Axes
        What a function of this module returned.

    Returns
    -------
    bytes

    Examples
    --------
    >>> png(waveforms([0.0, 1.0, 0.0, -1.0]))[1:4]
    b'PNG'
    """
    figure = np.asarray(axes, dtype=object).flat[0].figure.canvas.figure  # the whole, if it has subfigures
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.05)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return file.getvalue()


# Pictures


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
    clip_values: ClipValues = _UNIT


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
        raise ValueError("`columns` must hold at least one SheetColumn, got none.")
    shown = [_images(f"images of column {c.title!r}", c.images, c.clip_values) for c in columns]
    rows = len(shown[0])
    for column, images in zip(columns, shown, strict=True):
        for name in ("images", "labels", "right"):
            entries = images if name == "images" else getattr(column, name)
            if entries is not None and len(entries) != rows:
                raise ValueError(
                    f"`columns` must have one entry for each of the {rows} rows, but `{name}` of column "
                    f"{column.title!r} has {len(entries)}."
                )
    header = 0.7 if title else 0.5
    footer = _CAPTION if any(column.labels is not None for column in columns) else 0.03
    size = (shown[0].shape[1:], rows, len(columns))
    grid = _grid(axes, *size[1:], lambda: _sheet_figure(*size, header, footer))
    if title:
        grid[0, 0].figure.suptitle(title, fontsize=10)
    for column, images, column_axes in zip(columns, shown, grid.T, strict=True):
        for row, ax in enumerate(column_axes):
            _show_image(ax, images[row])
            if column.labels is not None:
                _caption(ax, column.labels[row], None if column.right is None else column.right[row])
        _heading(column_axes[0], column.title, column.subtitle, level=any(c.subtitle for c in columns))
    return grid


def difference_column(
    clean: Array,
    attacked: Array,
    *,
    amplify: float | None = None,
    norm: str = "l2",
    clip_values: ClipValues = _UNIT,
) -> SheetColumn:
    """Show what an attack added, amplified, about mid grey.

    Parameters
    ----------
    clean, attacked : ndarray, shape (N, H, W, C)
        Images before and after the attack.
    amplify : float, optional
        Factor. By default the largest difference of the batch reaches black or white.
    norm : {"l2", "linf"}
        The norm that stands below each image, in the units of the images.
    clip_values : tuple, default (0, 1)
        Smallest and largest value of an image.

    Returns
    -------
    SheetColumn
        Images in [0, 1]; the factor stands in the subtitle.

    Raises
    ------
    ValueError
        If the two differ in shape or are no images.

    Examples
    --------
    >>> clean = np.zeros((1, 2, 2, 1))
    >>> column = difference_column(clean, clean + 0.05)
    >>> column.subtitle, column.labels
    ('×10', ['L2 0.1'])
    """
    check_option("norm", norm, ("l2", "linf"))
    before, after = _images("clean", clean, clip_values), _images("attacked", attacked, clip_values)
    _check_same_shape("clean", before, "attacked", after)
    factor = _factor(after - before, amplify)
    added = np.subtract(to_numpy(attacked), to_numpy(clean), dtype=float).reshape(len(before), -1)
    order, name = {"l2": (2, "L2"), "linf": (np.inf, "L∞")}[norm]
    return SheetColumn(
        title="Difference",
        subtitle=f"×{factor:.3g}",
        images=np.clip(0.5 + factor * (after - before), 0, 1),
        labels=[f"{name} {size:.3g}" for size in np.linalg.norm(added, ord=order, axis=1)],
    )


def before_after(
    clean: Array,
    attacked: Array,
    defended: Array | Mapping[str, Array],
    *,
    labels: Sequence[Any] | None = None,
    predictions: Mapping[str, Sequence[Any]] | None = None,
    amplify: float | None = None,
    norm: str = "l2",
    clip_values: ClipValues = _UNIT,
    title: str = "",
    axes: Array | None = None,
) -> Array:
    """Draw images before the attack, attacked, what was added, and what defences make of it.

    Parameters
    ----------
    clean, attacked : ndarray, shape (N, H, W, C)
        Images before and after the attack.
    defended : ndarray, shape (N, H', W', C'), or dict of str to ndarray
        The attacked images after a defence, or after several, by name. If C' is a multiple of C, as in a
        thermometer code, each channel is shown by the mean of its codes.
    labels : sequence of length N, optional
        True class of each image.
    predictions : dict of str to sequence of length N, optional
        Predicted classes, by the title of a column: "Before", "Attacked", "Defended" or the name of a
        defence. With `labels` they are marked as right or wrong.
    amplify, norm
        Of the difference; see `difference_column`.
    clip_values : tuple, default (0, 1)
        Smallest and largest value of an image.
    title : str
        Heading of the figure.
    axes : ndarray of Axes, shape (N, columns), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (N, columns)
        Columns: before, attacked, difference, and one for each defence.

    Raises
    ------
    ValueError
        If the batches do not fit each other, or a key of `predictions` is no title of a column.

    Examples
    --------
    >>> clean = np.full((2, 8, 8, 1), 0.4)
    >>> axes = before_after(clean, clean + 0.02, {"rounding": np.round(clean, 1)})
    >>> [ax.get_title() for ax in axes[0]]
    ['Before', 'Attacked', 'Difference', 'rounding']
    """
    named = defended if isinstance(defended, Mapping) else {"Defended": defended}
    batches = {"Before": clean, "Attacked": attacked}
    channels = _images("clean", clean, clip_values).shape[-1]
    batches |= {name: _mean_of_codes(to_numpy(x), channels) for name, x in named.items()}
    predictions = predictions or {}
    if unknown := set(predictions) - set(batches):
        raise ValueError(
            f"`predictions` must have titles of columns as keys ({', '.join(batches)}), "
            f"got {', '.join(map(repr, sorted(unknown)))}."
        )
    columns = [_predicted(name, x, predictions.get(name), labels, clip_values) for name, x in batches.items()]
    columns.insert(2, difference_column(clean, attacked, amplify=amplify, norm=norm, clip_values=clip_values))
    return contact_sheet(columns, title=title, axes=axes)


def frame_strip(
    clips: Array | Mapping[str, Array],
    *,
    frames: int = 8,
    rate: float | None = None,
    clip_values: ClipValues = _UNIT,
    axes: Array | None = None,
) -> Array:
    """Draw frames of a video, evenly spaced from the first to the last.

    Parameters
    ----------
    clips : ndarray, shape (F, H, W, C), or dict of str to ndarray
        A video, or several of the same number of frames, one below the other.
    frames : int, default 8
        How many frames; all, if the video has fewer.
    rate : float, optional
        Frames per second; with it, frames are named by their time.
    clip_values : tuple, default (0, 1)
        The values shown as black and white.
    axes : ndarray of Axes, shape (clips, frames), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (clips, frames)

    Raises
    ------
    ValueError
        If a clip is no video, or the clips differ in their number of frames.

    Examples
    --------
    >>> axes = frame_strip(np.zeros((30, 8, 8, 3)), frames=3, rate=25)
    >>> [ax.get_title() for ax in axes[0]]
    ['0.00 s', '0.56 s', '1.16 s']
    """
    check_integer("frames", frames, minimum=1)
    if rate is not None:
        check_number("rate", rate, minimum=1e-12)
    named = clips if isinstance(clips, Mapping) else {"": clips}
    shown = {name: _images("clips", clip, clip_values, "(F, H, W, C)") for name, clip in named.items()}
    lengths = {len(clip) for clip in shown.values()}
    if len(lengths) != 1:
        raise ValueError(
            "`clips` must hold at least one video, all of one number of frames, got "
            f"{', '.join(map(str, sorted(lengths))) or 'none'}."
        )
    places = np.linspace(0, lengths.pop() - 1, num=frames).round().astype(int)
    places = np.unique(places)
    size = (next(iter(shown.values())).shape[1:], len(shown), len(places))
    grid = _grid(axes, *size[1:], lambda: _sheet_figure(*size, header=0.3, footer=0.03))
    for place, ax in zip(places, grid[0], strict=True):
        _heading(ax, f"frame {place}" if rate is None else f"{place / rate:.2f} s")
    for (name, clip), row in zip(shown.items(), grid, strict=True):
        for place, ax in zip(places, row, strict=True):
            _show_image(ax, clip[place])
        row[0].set_ylabel(_wrapped(name, 16), fontsize=7)
    return grid


def _images(name: str, x: Any, clip_values: ClipValues, layout: str = "(N, H, W, C)") -> Array:
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
        raise ValueError(
            f"`{name}` must have the shape {layout}, not empty, with 1 or 3 channels, got {x.shape}{hint}."
        )
    low, high = (np.asarray(value, dtype=float) for value in clip_values)
    if x.dtype.kind in "iu" and (x > high).any():  # would all be white
        raise ValueError(
            f"`{name}` must lie within `clip_values` if it holds integers, got values up to {x.max()} "
            f"for clip_values={clip_values!r}; pass for example clip_values=(0, 255)."
        )
    scaled: Array = np.clip((x - low) / (high - low), 0, 1)
    return scaled


def _check_same_shape(name: str, x: Array, other_name: str, other: Array) -> None:
    if x.shape != other.shape:
        raise ValueError(f"`{name}` and `{other_name}` must have one shape, got {x.shape} and {other.shape}.")


def _factor(difference: Array, amplify: float | None) -> float:
    """By how much a difference is amplified: as stated, or such that the largest is one half."""
    if amplify is not None:
        check_number("amplify", amplify, minimum=0)
        return float(amplify)
    largest = float(np.abs(difference).max())
    return 0.5 / largest if largest else 1.0


def _mean_of_codes(x: Array, channels: int) -> Array:
    """Average the codes of each channel; images as they are."""
    if x.ndim != 4 or x.shape[-1] == channels or x.shape[-1] % channels:
        return x
    mean: Array = x.reshape(*x.shape[:-1], channels, -1).mean(axis=-1)
    return mean


def _predicted(
    title: str, x: Array, predicted: Sequence[Any] | None, true: Sequence[Any] | None, clip_values: ClipValues
) -> SheetColumn:
    """Make a column of images with their predicted classes; the first shows the true ones if it has none."""
    right = None
    if predicted is not None and true is not None:
        right = [bool(p == t) for p, t in zip(predicted, true, strict=True)]
    below = true if predicted is None and title == "Before" else predicted
    below = None if below is None else list(map(str, below))
    return SheetColumn(title, "", x, below, right, clip_values)


def _sheet_figure(shape: Shape, rows: int, columns: int, header: float, footer: float) -> "Figure":
    """Make a figure for rows of images (H, W, C), a header above all and a footer below each, in inches."""
    height = rows * (_INCH * shape[0] / shape[1] + footer) + header
    figure = _new_figure(max(_INCH * columns, 2.5), height, dpi=150, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    return figure


def _show_image(ax: "Axes", image: Array) -> None:
    """Show one image in [0, 1]."""
    image = image[..., 0] if image.shape[-1] == 1 else image
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _heading(ax: "Axes", title: str, subtitle: str = "", level: bool = False) -> None:
    """Write above an image, at the level of titles that have a subtitle or of those that have none."""
    ax.set_title(_wrapped(title, 16), fontsize=7, fontweight="bold", pad=12 if level else 4)
    ax.annotate(
        subtitle,
        (0.5, 1),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=6.5,
        color="0.35",
    )


def _caption(ax: "Axes", label: str, right: bool | None) -> None:
    """Write a prediction below an image and frame the image in the same colour."""
    if right is None:
        ax.set_xlabel(label, fontsize=6.5, labelpad=2)
        return
    colour, mark = (_RIGHT, "\N{CHECK MARK}") if right else (_WRONG, "\N{BALLOT X}")
    ax.set_xlabel(f"{mark} {label}", fontsize=6.5, labelpad=2, color=colour)
    ax.spines[:].set(color=colour, linewidth=1.5)


# Sound


def waveforms(
    x: Any,
    *,
    rate: float | None = None,
    labels: Sequence[str] | None = None,
    stacked: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw signals over time, in lanes or one over the other.

    A long signal is drawn by the smallest and the largest value of each of 2000 equal spans: it looks the
    same, no peak is lost, and it draws fast.

    Parameters
    ----------
    x : array_like, shape (T,) or (N, T), sequence of such, or dict of str to array_like
        Signals; they may differ in length.
    rate : float, optional
        Samples per second; without it time is counted in samples.
    labels : sequence of str, optional
        Name of each signal; by default the keys of `x`.
    stacked : bool, default True
        Draw each of several signals in a lane of its own, all to one scale, and not one over the other.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no signal, one is empty, not finite or has several axes, or `labels` do not fit.

    Examples
    --------
    >>> t = np.arange(16000) / 16000
    >>> ax = waveforms({"clean": np.sin(20 * t), "attacked": np.sin(20 * t) + 0.01}, rate=16000)
    >>> ax.get_xlabel()
    'Time (s)'
    """
    if rate is not None:
        check_number("rate", rate, minimum=1e-12)
    check_bool(stacked=stacked)
    signals, names = _signals(x, labels)
    stacked = stacked and len(signals) > 1
    ax = _one(ax, 6.4, 0.7 + 0.8 * len(signals) if stacked else 2.6)
    peak = max(float(np.abs(signal).max()) for signal in signals) or 1.0
    lanes = -2.2 * peak * np.arange(len(signals)) * stacked
    for signal, name, lane, colour in zip(signals, names, lanes, cycle(_COLOURS), strict=False):
        shown = _extremes(signal)
        ax.plot(shown / (rate or 1), signal[shown] + lane, label=name, color=colour, linewidth=0.8, alpha=0.8)
    ax.set_xlabel("Sample" if rate is None else "Time (s)")
    ax.set_xlim(0, max(map(len, signals)) / (rate or 1))
    if stacked:
        ax.set_yticks(lanes, [_wrapped(name, 20) for name in names])
        ax.set_ylabel(f"Amplitude, each lane ±{1.1 * peak:.3g}")
        ax.set_ylim(lanes[-1] - 1.1 * peak, 1.1 * peak)
        ax.hlines(
            lanes[1:] + 1.1 * peak, 0, 1, color="0.8", linewidth=0.8, transform=ax.get_yaxis_transform()
        )
    else:
        ax.set_ylabel("Amplitude")
        _legend_beside(ax, any(names))
    return ax


def spectrogram(
    x: Any,
    rate: float,
    *,
    window: int | None = None,
    limits: tuple[float, float] | None = None,
    full_scale: float = 1.0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the level of each frequency over time.

    Parameters
    ----------
    x : array_like, shape (T,)
        Signal.
    rate : float
        Samples per second.
    window : int, optional
        Length of the Hann window, in samples; by default the power of two nearest to 32 ms. Windows overlap
        by three quarters; less in a signal so long that more than 2000 windows would be drawn.
    limits : tuple of float, optional
        Levels of the darkest and the brightest colour, in dB; by default the highest level and 80 dB less.
        Give the same to spectrograms that are to be compared.
    full_scale : float, default 1
        Amplitude of the sinusoid that has 0 dB; 32768 for 16-bit integers.
    ax : Axes, optional
        Where to draw; the colour bar takes some of its space.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the signal is not one signal of at least two finite values, or a parameter is out of its range.

    Examples
    --------
    >>> t = np.arange(8000) / 8000
    >>> ax = spectrogram(np.sin(2 * np.pi * 1000 * t), 8000)
    >>> ax.get_ylabel()
    'Frequency (kHz)'
    """
    check_number("rate", rate, minimum=1e-12)
    check_number("full_scale", full_scale, minimum=1e-12)
    signal = _signal("x", x)
    if window is None:
        window = 2 ** round(np.log2(max(0.032 * rate, 4)))
    check_integer("window", window, minimum=2)
    _check_limits(limits)
    levels, hop = _levels(signal / full_scale, min(window, len(signal)))
    high = limits[1] if limits else levels.max()
    low = limits[0] if limits else high - 80
    ax = _one(ax)
    window = min(window, len(signal))
    step, bin_width = hop / rate, rate / window / 1000
    image = ax.imshow(
        levels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=high,
        # a pixel lies about its time and frequency
        extent=(-step / 2, (levels.shape[1] - 0.5) * step, -bin_width / 2, (len(levels) - 0.5) * bin_width),
    )
    ax.set(xlim=(0, len(signal) / rate), ylim=(0, rate / 2000))
    ax.set(xlabel="Time (s)", ylabel="Frequency (kHz)")
    ax.figure.colorbar(image, ax=ax, label="Level (dB)", extend="both" if limits else "min", pad=0.02)
    return ax


def _signal(name: str, x: Any) -> Array:
    x = to_numpy(x)
    if x.ndim != 1 or len(x) < 2:
        hint = f"; draw one of the {len(x)} signals" if name == "x" and x.ndim == 2 and len(x) else ""
        raise ValueError(
            f"`{name}` must be a signal of shape (T,), with two values or more, got {x.shape}{hint}."
        )
    check_values(name, x)
    return np.asarray(x, dtype=float)


def _signals(x: Any, labels: Sequence[str] | None) -> tuple[list[Array], list[str]]:
    """Return signals and their names."""
    if isinstance(x, Mapping):
        labels = list(x) if labels is None else labels
        x = list(x.values())
    elif len(x) > 0 and np.ndim(x[0]) == 0:
        x = [x]
    signals = [_signal("x", signal) for signal in x]
    if not signals:
        raise ValueError("`x` must hold at least one signal, got none.")
    if labels is not None and len(labels) != len(signals):
        raise ValueError(f"`labels` must name each of the {len(signals)} signals, got {len(labels)} names.")
    return signals, [""] * len(signals) if labels is None else list(map(str, labels))


def _extremes(signal: Array) -> Array:
    """Indices of the samples that a picture needs: all, or the two extremes of each span, in order."""
    span = -(-len(signal) // _POINTS)
    if span <= 2:
        return np.arange(len(signal))
    whole = len(signal) // span * span
    spans = signal[:whole].reshape(-1, span)
    starts = np.arange(0, whole, span)
    rest = np.arange(whole, len(signal))
    return np.unique([*(starts + spans.argmin(axis=1)), *(starts + spans.argmax(axis=1)), *rest])


def _levels(signal: Array, window: int) -> tuple[Array, int]:
    """Levels in dB, shape (frequencies, times), and the samples from one time to the next."""
    hop = max(window // 4, -(-len(signal) // _POINTS), 1)
    hann = np.hanning(window + 1)[:-1]
    padded = np.pad(signal, window // 2, mode="reflect")  # zeros would add a click at either end
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    amplitude = 2 / hann.sum() * np.abs(np.fft.rfft(frames * hann, axis=1)).T
    return 20 * np.log10(np.maximum(amplitude, 1e-10)), hop


# Spectra of images


def spectrum(
    x: Any, *, limits: tuple[float, float] | None = None, colorbar: bool = True, ax: "Axes | None" = None
) -> "Axes":
    """Draw the two-dimensional Fourier spectrum of images.

    The amplitudes are averaged over samples and channels and divided by the largest; their decimal logarithm
    is shown, with the frequency zero in the middle.

    Parameters
    ----------
    x : array_like, shape (N, H, W, C)
        Images, or differences of images, with any number of channels.
    limits : tuple of float, optional
        Logarithms of the amplitudes shown darkest and brightest; by default 0 and the decade above which 99%
        of the amplitudes lie.
    colorbar : bool, default True
        Whether to draw the scale; it takes some of the space of `ax`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If `x` has another number of axes, is empty or not finite.

    Examples
    --------
    >>> stripes = np.sin(np.pi / 4 * np.arange(32)) * np.ones((1, 32, 1))
    >>> ax = spectrum(stripes[..., None])
    >>> ax.get_xlabel()
    'Cycles per pixel'
    """
    check_bool(colorbar=colorbar)
    amplitudes = _amplitudes("x", x)
    limits = _decades([amplitudes], limits)
    ax = _one(ax, 4.2, 3.4, "compressed")
    image = _draw_spectrum(ax, amplitudes, limits)
    if colorbar:
        _spectrum_scale(image, ax)
    return ax


def spectra(
    batches: Mapping[str, Any], *, limits: tuple[float, float] | None = None, axes: Array | None = None
) -> Array:
    """Draw the spectra of several batches of images side by side, to one scale.

    Parameters
    ----------
    batches : dict of str to array_like, shape (N, H, W, C)
        Images by name, such as ``{"clean": x, "attacked": x_adv, "difference": x_adv - x}``.
    limits : tuple of float, optional
        See `spectrum`; by default one scale that serves all.
    axes : array of Axes, shape (batches,), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (batches,)

    Raises
    ------
    ValueError
        If there is no batch, or one is not as `spectrum` needs it.

    Examples
    --------
    >>> x = np.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    >>> [ax.get_title() for ax in spectra({"clean": x, "squared": x**2})]
    ['clean', 'squared']
    """
    if not batches:
        raise ValueError("`batches` must hold at least one batch of images, got none.")
    found = {name: _amplitudes(f"batches[{name!r}]", x) for name, x in batches.items()}
    limits = _decades(list(found.values()), limits)
    width = 2.3 * len(found) + 1.5
    row: Array = _grid(axes, 1, len(found), lambda: _new_figure(width, 2.9, layout="compressed"))[0]
    for (name, amplitudes), ax in zip(found.items(), row, strict=True):
        image = _draw_spectrum(ax, amplitudes, limits)
        ax.set_title(name)
        if ax is not row[0]:
            ax.set(ylabel="", yticklabels=[])
    _spectrum_scale(image, list(row))
    return row


def _amplitudes(name: str, x: Any) -> Array:
    """Logarithm of the mean amplitude over the largest, frequency zero in the middle, shape (H, W)."""
    x = to_numpy(x)
    check_values(name, x)
    if x.ndim != 4 or not x.size:
        hint = "; add the batch axis with x[None]" if x.ndim == 3 else ""
        raise ValueError(
            f"`{name}` must be images of shape (N, H, W, C), at least one, got shape {x.shape}{hint}."
        )
    total = np.zeros(x.shape[1:3])
    for sample in x:  # one at a time: complex numbers take much memory
        total += np.abs(np.fft.fft2(sample, axes=(0, 1))).sum(axis=-1)
    relative = np.fft.fftshift(total) / (total.max() or 1.0)
    return np.asarray(np.log10(np.maximum(relative, 1e-20)))


def _decades(amplitudes: Sequence[Array], limits: tuple[float, float] | None) -> tuple[float, float]:
    """The limits, or whole decades that show nearly all of the amplitudes, but no rounding errors."""
    _check_limits(limits)
    if limits is not None:
        return limits
    lowest = min(float(np.percentile(a, 1)) for a in amplitudes)
    return float(np.clip(np.floor(lowest), -6, -1)), 0.0


def _draw_spectrum(ax: "Axes", amplitudes: Array, limits: tuple[float, float]) -> Any:
    height, width = amplitudes.shape
    image = ax.imshow(
        amplitudes,
        cmap="magma",
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        extent=(*_frequency_edges(width), *_frequency_edges(height)[::-1]),  # rows count downwards
    )
    ticks = [-0.4, -0.2, 0, 0.2, 0.4]
    ax.set(xticks=ticks, yticks=ticks, xlabel="Cycles per pixel", ylabel="Cycles per pixel", aspect="equal")
    return image


def _frequency_edges(size: int) -> tuple[float, float]:
    """Outer edges of the first and last of `size` shifted frequencies, in cycles per pixel."""
    first = -(size // 2) / size
    return first - 0.5 / size, first + 1 - 0.5 / size


def _spectrum_scale(image: Any, axes: Any) -> None:
    image.figure.colorbar(image, ax=axes, label="log10 of relative amplitude", extend="min", pad=0.03)


# Records of an evaluation


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
        raise ValueError(
            f"`curve` must hold values and rows, got {len(curve.values)} and {len(curve.accuracy)}."
        )
    ax = _one(ax)
    places = _value_axis(ax, curve.values)
    looks = zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_DASHES), strict=False)
    few = len(places) <= 25
    for (name, accuracy), (colour, marker, dashes) in zip(curve.accuracy.items(), looks, strict=False):
        ax.plot(
            places,
            accuracy,
            label=_wrapped(name, 26),
            color=colour,
            linestyle=dashes,
            marker=marker,
            markersize=5,
            markevery=1 if few else len(places) // 10,
            clip_on=False,  # a marker at 0 or 1 is whole
            zorder=3,
        )
    named = {"eps": "Bound of the perturbation (eps)", "budget": "Iterations", "eot": "Draws averaged (EOT)"}
    ax.set(xlabel=named.get(curve.parameter, curve.parameter), ylabel=f"Accuracy ({curve.column})")
    _unit_axis(ax, "y")
    _legend_beside(ax, shown=True)
    return ax


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
        raise ValueError("`report` must have at least one row, got none.")
    ax = _one(ax, 6.4, _chart_height(len(rows)))
    y = np.arange(len(rows))
    worst = np.array([row.worst_case for row in rows])
    best = [max(worst[k], *(c.accuracy for c in row.columns.values())) for k, row in enumerate(rows)]
    ax.hlines(y, worst, best, color="0.75", linewidth=2, zorder=1)
    ax.plot(worst, y, "D", color=_WRONG, markersize=10, label="worst case", clip_on=False, zorder=2)
    looks = {"adaptive": ("s", 5), "oblivious": ("^", 7), "clean": ("o", 7)}
    for name, (marker, size) in looks.items():
        found = [row.columns[name].accuracy if name in row.columns else np.nan for row in rows]
        ax.plot(
            found, y, marker, label=name, color="black", mfc="white", markersize=size, clip_on=False, zorder=3
        )
    ax.set_yticks(y, [_wrapped(row.name, 26) for row in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Accuracy")
    ax.tick_params(axis="y", length=0, pad=10)  # a marker at 0 does not touch the name
    _unit_axis(ax, "x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    _margin_column(ax, 26, "worst\ncase", [f"{value:.2f}" for value in worst], _WRONG)
    if report.threat.minimum:
        _margin_column(ax, 70, "norm\nratio", [_ratio(report, row) for row in rows], "black")
    return ax


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
    charts, plan = 1 + len(report.curves), _samples(report)
    if axes is None:
        flat = _report_axes(report, plan)
    else:
        flat = _fitting(axes, 1, charts + plan.rows * plan.columns)[0]
    accuracies(report, ax=flat[0])
    for one, ax in zip(report.curves, flat[1:charts], strict=True):
        curve(one, ax=ax)
    plan.draw(flat[charts:].reshape(plan.rows, plan.columns))
    return flat


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
    plan = _samples(report)
    if not plan.rows:
        return np.empty((0, 0), dtype=object)
    grid = _grid(axes, plan.rows, plan.columns, lambda: _new_figure(_WIDTH, plan.height, dpi=160))
    plan.draw(grid)
    return grid


@dataclass(frozen=True)
class _Samples:
    """How the samples of a report are drawn: the axes, the height in inches, and who draws into them."""

    rows: int = 0
    columns: int = 0
    height: float = 0.0
    draw: Callable[[Array], object] = lambda axes: None


def _samples(report: "RobustnessReport") -> _Samples:
    """Choose by the shape of the samples how they are shown."""
    clean, attacked = (
        _channels_last(report.pictures.get(name, np.empty(0))) for name in ("clean", "attacked")
    )
    received, through = (
        {
            row.name: _channels_last(row.pictures[name])
            for row in report.rows[1:]
            if "defended" in row.pictures
        }
        for name in ("defended", "attacked")
    )
    if not (len(clean) and len(attacked)):
        return _Samples()
    if clean.ndim == 4 and clean.shape[-1] in (1, 3):
        return _image_samples(report, clean, attacked, received, through)
    if clean.ndim == 5 and clean.shape[-1] in (1, 3):
        return _video_samples(report, clean[0], attacked[0], received)
    if clean.ndim in (1, 2):
        return _signal_samples(clean, attacked, received)
    return _Samples()


def _image_samples(
    report: "RobustnessReport",
    clean: Array,
    attacked: Array,
    received: Mapping[str, Array],
    through: Mapping[str, Array],
) -> _Samples:
    """Above, what the model receives; below, the examples that were made through each defence."""
    threat, labels = report.threat, report.pictures.get("labels")
    count = min(_SAMPLES, *map(len, (clean, attacked, *received.values(), *through.values())))
    rows, columns = count * (2 if through else 1), 3 + len(received)
    first = slice(count)

    def draw(grid: Array) -> None:
        before_after(
            clean[first],
            attacked[first],
            {name: x[first] for name, x in received.items()},
            labels=None if labels is None else list(labels[first]),
            norm=threat.norm,
            clip_values=threat.clip_values,
            axes=grid[first],
        )
        for x, column in zip(through.values(), grid[count:, 3:].T, strict=True):
            norms = difference_column(
                clean[first], x[first], norm=threat.norm, clip_values=threat.clip_values
            ).labels
            shown = SheetColumn("", "", x[first], norms, clip_values=threat.clip_values)
            contact_sheet([shown], axes=column)
        for ax in grid[count:, :3].flat:
            ax.set_axis_off()
        for ax in grid[count : count + 1, 2]:  # none, if there is no defence
            style = {"fontsize": 7, "fontweight": "bold", "ha": "right", "va": "center"}
            ax.text(1, 0.5, "Attacked through\nthe defence:", transform=ax.transAxes, **style)

    side = min(1.5, _WIDTH / columns)
    return _Samples(rows, columns, 0.5 + rows * (side * clean.shape[1] / clean.shape[2] + _CAPTION), draw)


def _video_samples(
    report: "RobustnessReport", clean: Array, attacked: Array, received: Mapping[str, Array]
) -> _Samples:
    """The first clip, below each other: as it is, attacked, the difference, after each defence."""
    difference = difference_column(clean, attacked, clip_values=report.threat.clip_values)
    clips = {
        name: _images(name, clip, report.threat.clip_values, "(F, H, W, C)")
        for name, clip in {"Before": clean, "Attacked": attacked}.items()
    }
    clips[f"Difference {difference.subtitle}"] = difference.images
    clips |= {
        name: _images(name, x[0], report.threat.clip_values, "(F, H, W, C)") for name, x in received.items()
    }
    columns = min(8, len(clean))

    def draw(grid: Array) -> None:
        frame_strip(clips, frames=columns, axes=grid)

    side = min(1.5, _WIDTH / columns)
    return _Samples(len(clips), columns, 0.3 + len(clips) * side * clean.shape[1] / clean.shape[2], draw)


def _signal_samples(clean: Array, attacked: Array, received: Mapping[str, Array]) -> _Samples:
    """The first signals side by side, in lanes: as they are, attacked, the difference, after each defence."""
    columns = min(2, len(clean))

    def draw(grid: Array) -> None:
        for k, ax in enumerate(grid.flat):
            before, after = np.asarray(clean[k], dtype=float), np.asarray(attacked[k], dtype=float)
            factor = 2 * np.abs(before).max() * _factor(after - before, None)
            lanes = {
                "Before": before,
                "Attacked": after,
                f"Difference ×{factor:.3g}": factor * (after - before),
            }
            lanes |= {name: x[k] for name, x in received.items() if k < len(x)}
            waveforms(lanes, stacked=True, ax=ax)

    return _Samples(1, columns, 1.2 + 0.6 * (3 + len(received)), draw)


def _channels_last(x: Array) -> Array:
    """Put the channels of images and videos last, if they stand second."""
    first = x.ndim in (4, 5) and x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3)
    return np.moveaxis(x, 1, -1) if first else x


def _report_axes(report: "RobustnessReport", samples: _Samples) -> Array:
    """Make a figure with the accuracies above, two curves to a row, and the samples below."""
    curves = len(report.curves)
    curve_rows = -(-curves // 2)
    grids = [
        (1, 1, 1, _chart_height(len(report.rows))),
        (curve_rows, min(2, curves), curves, 3.0 * curve_rows),
    ]
    grids += [(samples.rows, samples.columns, samples.rows * samples.columns, samples.height)]
    grids = [grid for grid in grids if grid[0]]
    heights = [height for *_, height in grids]
    figure = _new_figure(_WIDTH, sum(heights), dpi=120)
    axes = []
    for (rows, columns, count, _), place in zip(
        grids, figure.add_gridspec(len(grids), 1, height_ratios=heights), strict=True
    ):
        cells = place.subgridspec(rows, columns)
        axes += [figure.add_subplot(cells[k]) for k in range(count)]
    return np.array(axes, dtype=object)


def _chart_height(rows: int) -> float:
    return 1.4 + 0.42 * max(rows, 4)


def _ratio(report: "RobustnessReport", row: "RobustnessRow") -> str:
    ratio = report.median_norm(row)[1]
    return "-" if np.isnan(ratio) else "∞" if np.isinf(ratio) else f"{ratio:.1f}×"


def _margin_column(ax: "Axes", offset: float, heading: str, entries: Iterable[str], colour: str) -> None:
    """Write numbers, `offset` points to the right of a chart whose rows stand at 0, 1, ..."""
    style = {"color": colour, "fontweight": "bold", "ha": "center", "textcoords": "offset points"}
    ax.annotate(heading, (1, 1), xytext=(offset, 6), xycoords="axes fraction", fontsize=8, **style)
    for y, entry in enumerate(entries):
        place = {"xytext": (offset, 0), "xycoords": ax.get_yaxis_transform(), "va": "center"}
        ax.annotate(entry, (1, y), **place, **style)


def _unit_axis(ax: "Axes", which: str) -> None:
    """Let an axis run from 0 to 1, with a light grid."""
    getattr(ax, f"set_{which}lim")(0, 1)
    ax.grid(axis=which, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _legend_beside(ax: "Axes", shown: bool) -> None:
    if shown:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)


def _value_axis(ax: "Axes", values: Sequence[Any]) -> Array:
    """Prepare the horizontal axis for values of any kind; return where they stand."""
    if not all(map(_is_number, values)):
        ax.set_xticks(range(len(values)), [_wrapped(str(value), 14) for value in values])
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


def _wrapped(text: str, width: int) -> str:
    """Break a long text after its first comma, between words, and before the capitals of a long word."""
    if len(text) <= width:
        return text
    lines = []
    for part in re.split(r"(?<=,) ", text, maxsplit=1):
        if max(map(len, part.split()), default=0) > width:
            part = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", part)
        lines += textwrap.wrap(part, width, break_long_words=False)
    return "\n".join(lines)
