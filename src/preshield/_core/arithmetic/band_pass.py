"""A Butterworth filter that runs forwards and backwards, as a gain for each frequency."""

from math import pi, tan
from typing import Any

from .namespace import clipped, counted, moved

__all__ = ["band_pass"]

LEAST = 1e-20  # in the place of a divisor of 0
EXPONENT = 15  # of ten: a gain is at least the inverse of the square of this power, which floats can hold


def band_pass(
    x: Any, xp: Any, low: float | None, high: float | None, order: int, size: int, axis: int
) -> Any:
    """Keep a band of frequencies of signals that are silent before and after.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    low, high : float or None
        Ends of the band, as fractions of the sampling rate; None if it has no such end.
    order : int
        Of the filter.
    size : int
        Of the Fourier transform: at least the length, and for how long the filter rings.
    axis : int
        Of time.
    """
    length = x.shape[axis]
    spectrum = xp.fft.rfft(moved(x, axis, -1, xp), n=size)
    gain = xp.astype(_gains(x, xp, low, high, order, size), spectrum.dtype)
    return moved(xp.fft.irfft(spectrum * gain, n=size)[..., :length], -1, axis, xp)


def _gains(x: Any, xp: Any, low: float | None, high: float | None, order: int, size: int) -> Any:
    """The squared magnitude of the frequency response, ``1 / (1 + ratio ** (2 * order))``.

    `ratio` is the frequency of the analogue low-pass filter that the bilinear transform makes of this one, as
    a quotient of sines and cosines, which are finite where their tangent is not.
    """
    angle = xp.astype(counted(size // 2 + 1, x, xp), x.dtype) * (pi / size)
    sine, cosine = xp.sin(angle), xp.sin(pi / 2 - angle)
    if low is not None and high is not None:
        first, last = tan(pi * low), tan(pi * high)
        above = xp.abs(sine * sine - cosine * cosine * (first * last))
        below = sine * cosine * (last - first)
    elif high is not None:
        above, below = sine, cosine * tan(pi * high)
    else:
        above, below = cosine * tan(pi * (low or 0)), sine
    ratio = clipped(above / clipped(below, LEAST, 1.0, xp), 0.0, 10 ** (EXPONENT / order), xp)
    return 1 / (1 + ratio ** (2 * order))
