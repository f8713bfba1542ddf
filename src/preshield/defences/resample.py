"""Resampling."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from .._core.arithmetic.resample import resample
from .._core.checks import check_bool, check_integer, check_option, resolve_channels_first
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype, working_dtype
from .._core.recordings import check_time_axis, signals, time_axis
from .._core.resampling import FILTERS, Resampler, resampler
from .._core.threads import each_sample
from .._core.typing import Arithmetic, Array, Dtype, Shape
from .._core.windows import windows
from ..preprocessor import Preprocessor

__all__ = ["Resample"]

Step: TypeAlias = Callable[[Array, Array], None]  # from, into


class Resample(Preprocessor):
    """Resample audio to another rate, and back if wanted [1]_.

    A lower rate loses what lies above half of it, where many a perturbation hides.

    Parameters
    ----------
    sr_original : int
        Sampling rate of the input, in Hz.
    sr_new : int
        Sampling rate to resample to, in Hz.
    channels_first : bool, default False
        Whether audio is `(N, C, length)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    filter : {"sinc_window", "kaiser_best", "kaiser_fast"}, default "sinc_window"
        Low-pass filter, one of resampy's. The rates may differ by a factor of up to 512; of up to 8192 with
        "kaiser_best".
    restore : bool, default False
        Resample back to `sr_original` and to the length of the input, for a model that wants them.
    channel_index : int, optional
        Older name: 1 sets `channels_first`.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of audio, or too short to leave a value.

    Notes
    -----
    Audio `(N, length, C)` or `(N, length)`, each channel on its own, or an object array of samples
    `(length, C)` or `(length,)` of different lengths; of any scale. The result has
    ``length * sr_new // sr_original`` values along time, none of which is clipped: a filter may overshoot.
    The dtype is kept, and integers become `float32`. The gradient is exact. Equal rates change nothing. On
    accelerators and in compiled functions, rates with a long common period, such as 44100 and 44101 Hz, go
    through NumPy.

    The result is resampy's, and a lower rate can make it a little louder: resampy walks through its table of
    filter weights in whole steps, where ``step = 512 * sr_new / sr_original`` ("kaiser_best": 8192) need not
    be whole. From 44.1 to 16 kHz that is 0.3%, and never more than ``step / floor(step)``.

    References
    ----------
    .. [1] Yang, Li, Chen, Song. Characterizing Audio Adversarial Examples Using Temporal Dependency.
       ICLR 2019. arXiv:1809.10875

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Resample
    >>> tone = np.sin(np.arange(16000) / 16000 * 2 * np.pi * 440)[None]
    >>> Resample(16000, 8000).transform(tone).shape
    (1, 8000)
    >>> restored = Resample(16000, 8000, restore=True).transform(tone)
    >>> bool(np.abs(restored - tone)[:, 500:-500].max() < 1e-3)
    True
    """

    domains = ("audio",)
    gradient_kind = "exact"
    changes_shape = True  # unless `restore`
    ragged = True
    paper = "arXiv:1809.10875"
    known_attacks = (
        "Yang et al. 2019 (arXiv:1809.10875), its own paper: little gained, and lost to attacks that know it",
    )

    def __init__(
        self,
        sr_original: int,
        sr_new: int,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        filter: str = "sinc_window",  # noqa: A002
        restore: bool = False,
        channel_index: int | None = None,
    ) -> None:
        check_integer("sr_original", sr_original, 1)
        check_integer("sr_new", sr_new, 1)
        check_option("filter", filter, tuple(FILTERS))
        most = FILTERS[filter]
        if max(sr_original, sr_new) > most * int(min(sr_original, sr_new)):
            raise ArgumentError(
                f"`sr_new` must be {most} times `sr_original` at most, and 1/{most} of it at least, with "
                f"filter={filter!r}; got {sr_new!r} for {sr_original!r}."
            )
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, restore=restore)
        self.sr_original = sr_original
        self.sr_new = sr_new
        self.channels_first = resolve_channels_first(channels_first, channel_index)
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.filter = filter
        self.restore = restore

    def _transform(self, x: Array, draw: None) -> Array:
        if x.dtype == object:
            return self._each(self._forward, x)
        self._check_length(x.shape)
        return self._forward(x)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if x.dtype == object:
            return self._each(self._backward, x, grad)
        self._check_length(x.shape)
        return self._backward(x, grad)

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        return None if self.channels_first else self._resample_parts(parts)

    def _resample_parts(self, parts: Iterator[Array]) -> Iterator[Array]:
        """One recording, whose parts `(length, C)` or `(length,)` overlap in the filters."""
        shape: Shape = ()
        dtype = np.dtype(np.float32)

        def signals() -> Iterator[Array]:
            nonlocal shape, dtype
            for window in windows(parts):
                x = self._checked(window[None])
                shape, dtype = (1, (shape[1] if shape else 0) + x.shape[1], *x.shape[2:]), x.dtype
                yield self._signals(x)

        made = signals()
        lengths = (lambda: self._new_length(shape[1]), lambda: shape[1])
        for step, length in zip(self._resamplers(), lengths, strict=False):
            made = step.apply_to_parts(made, length)
        for signal in made:
            track = np.moveaxis(signal[0], 0, 1).astype(kept_dtype(dtype), copy=False)
            yield track if len(shape) > 2 else track[:, 0]
        self._check_length(shape)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        self._check_length(shape)
        axis = self._time_axis(shape)
        steps = self._steps(shape[axis])
        held = [rates for step, _, n in steps if (rates := step.rates(n)) is not None]
        return partial(resample, steps=held, axis=axis) if len(held) == len(steps) else None

    def _output_shape(self, shape: Shape) -> Shape:
        axis = self._time_axis(shape)
        length = shape[axis] if self.restore else self._new_length(shape[axis])
        return (*shape[:axis], length, *shape[axis + 1 :])

    def _forward(self, x: Array) -> Array:
        """Samples of one length."""
        out = np.empty(self._output_shape(x.shape), kept_dtype(x.dtype))
        length = x.shape[self._time_axis(x.shape)]
        steps = [(step.apply, n) for step, _, n in self._steps(length)]
        self._run_steps(steps, self._signals(x), self._signals(out))
        return out

    def _backward(self, x: Array, grad: Array) -> Array:
        """Gradient of samples of one length."""
        out = np.empty(x.shape, kept_dtype(grad.dtype))
        length = x.shape[self._time_axis(x.shape)]
        steps = [(step.transpose, n) for step, n, _ in reversed(self._steps(length))]
        self._run_steps(steps, self._signals(grad), self._signals(out))
        return out

    def _resamplers(self) -> list[Resampler]:
        """To the new rate, and back if wanted."""
        old, new = int(self.sr_original), int(self.sr_new)
        if old == new:
            return []
        there = resampler(old, new, self.filter)
        return [there, resampler(new, old, self.filter)] if self.restore else [there]

    def _steps(self, length: int) -> list[tuple[Resampler, int, int]]:
        """What is done to signals of this length, each step with the length before and after it."""
        lengths = [length, self._new_length(length), length]
        return list(zip(self._resamplers(), lengths, lengths[1:], strict=False))

    def _run_steps(self, steps: Sequence[tuple[Step, int]], source: Array, out: Array) -> None:
        """Apply steps, each with the length of its result, to signals `(N, C, length)`; write into `out`."""
        for step, length in steps[:-1]:
            between = np.empty((*source.shape[:2], length), working_dtype(source.dtype))
            step(source, between)
            source = between
        if steps:
            steps[-1][0](source, out)
        else:
            out[:] = source

    def _each(self, function: Callable[..., Array], *batches: Array) -> Array:
        """Apply a function for batches to every sample of object arrays."""
        for i, sample in enumerate(batches[0]):
            self._check_length((1, *sample.shape), f"x[{i}][None]")
        return each_sample(function, *batches)

    def _new_length(self, length: int) -> int:
        return length * int(self.sr_new) // int(self.sr_original)

    def _time_axis(self, shape: Shape) -> int:
        return time_axis(shape, channels_first=self.channels_first)

    def _check_length(self, shape: Shape, name: str = "x") -> None:
        axis = self._time_axis(shape)
        if not self._new_length(shape[axis]):
            least = -(-int(self.sr_original) // int(self.sr_new))
            remedy = "pad it"
            if len(shape) == 3 and shape[3 - axis] >= least:
                remedy = f"pass channels_first={not self.channels_first}"
            elif len(shape) == 2 and 1 < shape[1] < least <= shape[0]:
                one = "x.T[None]" if self.channels_first else "x[None]"
                remedy = f"pad it, or pass {one} for one recording with {shape[1]} channels"
            raise ArgumentError(
                f"`{name}` must have at least {least} along time, axis {axis} of {shape}, to be resampled "
                f"from {self.sr_original} to {self.sr_new} Hz, got {shape[axis]}; {remedy}."
            )
        check_time_axis(shape, channels_first=self.channels_first, name=name)

    def _signals(self, x: Array) -> Array:
        return signals(x, channels_first=self.channels_first)
