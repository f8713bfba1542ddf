"""A band of the frequencies of audio."""

import math
from functools import lru_cache, partial

import numpy as np

from .._core.arithmetic.band_pass import band_pass
from .._core.checks import check_bool, check_integer, check_number
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype
from .._core.recordings import check_time_axis, time_axis
from .._core.threads import block_length, each_sample, map_blocks
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["BandPass"]

MOST_ORDER = 24
SHARPEST = 10_000  # of the sampling rate, the least distance of a cutoff from what comes next
RINGS_OUT = 1e-15  # what is left of an impulse is rounding error


class BandPass(Preprocessor):
    """Keep the frequencies of audio between two cutoffs, without a delay [1]_.

    Perturbations that lie outside the band of speech are removed. A Butterworth filter runs forwards and then
    backwards over the recording, so that no frequency is shifted in time.

    Parameters
    ----------
    sample_rate : int
        Sampling rate of the audio, in Hz.
    low : float, optional
        Lower cutoff, in Hz; None for a low-pass filter.
    high : float, optional
        Upper cutoff, in Hz, below half the sampling rate; None for a high-pass filter. At the cutoffs the
        amplitude is halved (-6 dB).
    order : int, default 4
        Order of the filter, 1 to 24, as for `scipy.signal.butter`. A higher order has steeper edges and rings
        longer. Outside the band the level falls by 12 dB per octave and order.
    channels_first : bool, default False
        Whether audio is `(N, C, length)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of audio, or has time where its channels are
        expected.

    Notes
    -----
    Audio `(N, length, C)` or `(N, length)`, each channel on its own, or an object array of samples
    `(length, C)` or `(length,)` of different lengths; of any scale. The recording is taken to be silent
    before and after. Shape and dtype are kept; integers become `float32`. Nothing is clipped: a filter may
    overshoot. The gradient is exact: the filter is symmetric, and thus its own transpose.

    The filter is applied as its gain for each frequency, in double precision on NumPy arrays, with
    ``gain = 1 / (1 + ratio ** (2 * order))`` and, for a low-pass filter,
    ``ratio = tan(pi * f / sample_rate) / tan(pi * high / sample_rate)``. For a filter that runs forwards
    only, with its delay, pass the coefficients of `scipy.signal.butter` to `LFilter`.

    References
    ----------
    .. [1] Hussain, Neekhara, Dubnov, McAuley, Koushanfar. WaveGuard: Understanding and Mitigating Audio
       Adversarial Examples. USENIX Security 2021. arXiv:2103.03344

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import BandPass
    >>> seconds = np.arange(16000) / 16000
    >>> tones = np.stack([np.sin(2 * np.pi * hertz * seconds) for hertz in (50, 1000, 7000)])
    >>> out = BandPass(16000, 300, 3400).transform(tones)  # the band of a telephone
    >>> np.abs(out[:, 4000:12000]).max(axis=1).round(3)
    array([0., 1., 0.])
    """

    domains = ("audio",)
    gradient_kind = "exact"
    ragged = True
    paper = "arXiv:2103.03344"
    known_attacks = (
        (
            "Yakura and Sakuma 2019 (arXiv:1810.11793): examples that are optimised through a band-pass "
            "filter survive it, and playback over the air"
        ),
        (
            "Chen et al. 2022 (arXiv:2206.03393): adaptive attacks on speaker recognition, through it and 21 "
            "other transformations of the waveform"
        ),
    )

    def __init__(
        self,
        sample_rate: int,
        low: float | None = None,
        high: float | None = None,
        order: int = 4,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        check_integer("sample_rate", sample_rate, 1)
        _check_cutoffs(int(sample_rate), low, high)
        check_integer("order", order, 1, MOST_ORDER)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        self.sample_rate = sample_rate
        self.low = low
        self.high = high
        self.order = order
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict

    def _transform(self, x: Array, draw: None) -> Array:
        return each_sample(self._filter, x) if x.dtype == object else self._filter(x)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        return self._transform(grad, draw)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        from scipy.fft import next_fast_len

        check_time_axis(shape, channels_first=self.channels_first)
        axis = time_axis(shape, channels_first=self.channels_first)
        low, high = (None if end is None else float(end) / int(self.sample_rate) for end in self._cutoffs)
        order = int(self.order)
        size = next_fast_len(shape[axis] + _ringing(low, high, order), real=True)
        return partial(band_pass, low=low, high=high, order=order, size=size, axis=axis)

    @property
    def _cutoffs(self) -> tuple[float | None, float | None]:
        return self.low, self.high

    def _filter(self, x: Array) -> Array:
        """Recordings of one length."""
        from array_api_compat import numpy as xp

        function, out = self._arithmetic(x.shape, x.dtype), np.empty(x.shape, kept_dtype(x.dtype))

        def work(rows: slice) -> None:
            out[rows] = function(x[rows].astype(np.float64), xp)

        if x.size:
            map_blocks(work, len(x), block_length(x))
        return out


def _check_cutoffs(sample_rate: int, low: float | None, high: float | None) -> None:
    if low is None and high is None:
        raise ArgumentError(
            f"`low` or `high` must be a frequency in Hz, got None for both; pass high={sample_rate / 4:g}."
        )
    half, least = sample_rate / 2, sample_rate / SHARPEST
    for name, value, other in (("low", low, high), ("high", high, low)):
        if value is None:
            continue
        check_number(name, value)
        if not least <= value <= half - least:
            without = f"{name}=None for a band without this end"
            remedy = f"pass {f'{name}={sample_rate / 4:g}' if other is None else without}"
            raise ArgumentError(
                f"`{name}` must lie between 0 and half the sampling rate, {least:g} to {half - least:g} Hz, "
                f"got {value!r} at {sample_rate} Hz; {remedy}."
            )
    if low is not None and high is not None and not high - low >= least:
        raise ArgumentError(
            f"`high` must lie above `low`, by {least:g} Hz at least, got low={low!r} and high={high!r}."
        )


@lru_cache(maxsize=64)
def _ringing(low: float | None, high: float | None, order: int) -> int:
    """For how many values a filter rings, by the pole that is nearest to the unit circle."""
    from scipy.signal import butter

    if low is not None and high is not None:
        _, poles, _ = butter(order, (low, high), "bandpass", output="zpk", fs=1)
    else:
        _, poles, _ = butter(order, high or low, "lowpass" if low is None else "highpass", output="zpk", fs=1)
    return math.ceil(math.log(RINGS_OUT) / math.log(max(abs(poles).max(), 0.1)))
