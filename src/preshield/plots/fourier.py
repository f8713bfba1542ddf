"""Fourier spectra of images and feature maps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_bool
from .._core.errors import ArgumentError
from .._core.fourier import log_spectrum
from .._core.typing import Array
from .figures import check_limits, fitting_axes, new_figure, one_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["spectra", "spectrum"]


def spectrum(
    x: Any,
    *,
    channels_first: bool = False,
    limits: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the two-dimensional Fourier spectrum of images or feature maps.

    That is `preshield.evaluation.metrics.spectrum`: the amplitudes are averaged over samples and channels
    and divided by the largest; their decimal logarithm is shown, with the frequency zero in the middle.

    Parameters
    ----------
    x : array_like or tensor, shape (N, H, W, C)
        Images, feature maps, or differences of them, with any number of channels.
    channels_first : bool, default False
        Whether `x` is `(N, C, H, W)`.
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
    amplitudes = log_spectrum("x", x, channels_first)
    limits = _decades([amplitudes], limits)
    ax = one_axes(ax, 4.2, 3.4, "compressed")
    image = _draw_spectrum(ax, amplitudes, limits)
    if colorbar:
        _spectrum_scale(image, ax)
    return ax


def spectra(
    batches: Mapping[str, Any],
    *,
    channels_first: bool = False,
    limits: tuple[float, float] | None = None,
    axes: Array | None = None,
) -> Array:
    """Draw the spectra of several batches of images or feature maps side by side, to one scale.

    Parameters
    ----------
    batches : dict of str to array_like or tensor, shape (N, H, W, C)
        Images or feature maps by name, such as ``{"clean": x, "attacked": x_adv, "difference": x_adv - x}``.
    channels_first : bool, default False
        Whether they are `(N, C, H, W)`.
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
        raise ArgumentError("`batches` must hold at least one batch of images, got none.")
    found = {name: log_spectrum(f"batches[{name!r}]", x, channels_first) for name, x in batches.items()}
    limits = _decades(list(found.values()), limits)
    if axes is None:
        figure = new_figure(2.3 * len(found) + 1.5, 2.9, layout="compressed")
        axes = figure.subplots(1, len(found), squeeze=False)
    row: Array = fitting_axes(axes, 1, len(found))[0]
    for (name, amplitudes), ax in zip(found.items(), row, strict=True):
        image = _draw_spectrum(ax, amplitudes, limits)
        ax.set_title(plain(name))
        if ax is not row[0]:
            ax.set(ylabel="", yticklabels=[])
    _spectrum_scale(image, list(row))
    return row


def _decades(amplitudes: Sequence[Array], limits: tuple[float, float] | None) -> tuple[float, float]:
    """The limits, or whole decades that show nearly all of the amplitudes, but no rounding errors."""
    check_limits(limits)
    if limits is not None:
        return limits
    lowest = min(float(np.percentile(a, 1)) for a in amplitudes)
    return float(np.clip(np.floor(lowest), -6, -1)), 0.0


def _draw_spectrum(ax: "Axes", amplitudes: Array, limits: tuple[float, float]) -> Any:
    """Draw what `log_spectrum` returned; return the image, for its scale."""
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
