"""Signals over time, and their frequencies over time."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_bool, check_integer, check_number, check_values
from .._core.errors import ArgumentError
from .._core.tensors import to_numpy
from .._core.typing import Array
from .figures import COLOURS, check_limits, legend_beside, one_axes, plain, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["spectrogram", "waveforms"]

_POINTS = 2000  # buckets of a long waveform, frames of a spectrogram: more than a screen has pixels


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
    ax = one_axes(ax, 6.4, 0.7 + 0.8 * len(signals) if stacked else 2.6)
    peak = max(float(np.abs(signal).max()) for signal in signals) or 1.0
    lanes = -2.2 * peak * np.arange(len(signals)) * stacked
    for signal, name, lane, colour in zip(signals, names, lanes, cycle(COLOURS), strict=False):
        shown = _extremes(signal)
        ax.plot(
            shown / (rate or 1),
            signal[shown] + lane,
            label=plain(name),
            color=colour,
            linewidth=0.8,
            alpha=0.8,
        )
    ax.set_xlabel("Sample" if rate is None else "Time (s)")
    ax.set_xlim(0, max(map(len, signals)) / (rate or 1))
    if stacked:
        ax.set_yticks(lanes, [wrapped(name, 20) for name in names])
        ax.set_ylabel(f"Amplitude, each lane ±{1.1 * peak:.3g}")
        ax.set_ylim(lanes[-1] - 1.1 * peak, 1.1 * peak)
        ax.hlines(
            lanes[1:] + 1.1 * peak, 0, 1, color="0.8", linewidth=0.8, transform=ax.get_yaxis_transform()
        )
    else:
        ax.set_ylabel("Amplitude")
        if any(names):
            legend_beside(ax)
    return ax


def _signals(x: Any, labels: Sequence[str] | None) -> tuple[list[Array], list[str]]:
    """Return signals and their names."""
    if isinstance(x, Mapping):
        labels = list(x) if labels is None else labels
        x = list(x.values())
    elif len(x) > 0 and np.ndim(x[0]) == 0:
        x = [x]
    signals = [_signal(signal) for signal in x]
    if not signals:
        raise ArgumentError("`x` must hold at least one signal, got none.")
    if labels is not None and len(labels) != len(signals):
        raise ArgumentError(
            f"`labels` must name each of the {len(signals)} signals, got {len(labels)} names."
        )
    return signals, [""] * len(signals) if labels is None else list(map(str, labels))


def _signal(x: Any) -> Array:
    """Return one signal as float64."""
    x = to_numpy(x)
    if x.ndim != 1 or len(x) < 2:
        hint = f"; draw one of the {len(x)} signals" if x.ndim == 2 and len(x) else ""
        raise ArgumentError(
            f"`x` must be a signal of shape (T,), with two values or more, got {x.shape}{hint}."
        )
    check_values("x", x)
    return np.asarray(x, dtype=float)


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
    signal = _signal(x)
    if window is None:
        window = 2 ** round(np.log2(max(0.032 * rate, 4)))
    window = check_integer("window", window, minimum=2)
    check_limits(limits)
    window = min(window, len(signal))
    levels, hop = _levels(signal / full_scale, window)
    high = limits[1] if limits else levels.max()
    low = limits[0] if limits else high - 80
    ax = one_axes(ax)
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


def _levels(signal: Array, window: int) -> tuple[Array, int]:
    """Levels in dB, shape (frequencies, times), and the samples from one time to the next."""
    hop = max(window // 4, -(-len(signal) // _POINTS), 1)
    hann = np.hanning(window + 1)[:-1]
    padded = np.pad(signal, window // 2, mode="reflect")  # zeros would add a click at either end
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    amplitude = 2 / hann.sum() * np.abs(np.fft.rfft(frames * hann, axis=1)).T
    return 20 * np.log10(np.maximum(amplitude, 1e-10)), hop
