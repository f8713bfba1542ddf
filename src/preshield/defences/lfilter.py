"""Linear filters of audio."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_limits,
    check_values,
    ignore_device_type,
)
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype, object_array
from .._core.threads import block_length, map_blocks
from .._core.typing import Array, ClipValues, Shape
from .._core.windows import windows
from ..preprocessor import Preprocessor

__all__ = ["LFilter"]

ONE = np.array([1.0])
ONE.flags.writeable = False
MOST_CHANNELS = 8  # a shorter last axis, beside a longer one, is taken for the channels


class LFilter(Preprocessor):
    """Filter audio with a linear filter of finite or infinite impulse response [1]_.

    A low-pass filter removes the high frequencies, where many a perturbation hides.

    Parameters
    ----------
    numerator_coef : array_like, shape (B,), default [1.0]
        Coefficients `b` of the inputs.
    denominator_coef : array_like, shape (A,), default [1.0]
        Coefficients `a` of the outputs; the first is not zero. With a single one the impulse response is
        finite.
    axis : int, default -1
        Axis of time in one sample: -1 or 0 in `(length,)`, -1 or 1 in `(C, length)`, 0 in `(length, C)`.
    initial_cond : array_like, optional
        State of the filter before the first value, as `zi` of `scipy.signal.lfilter`: `(K,)` with
        ``K = max(A, B) - 1``, or in the shape of a sample with `K` in the place of the length.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of audio; if `axis` is that of the channels;
        if the filter is unstable and the result overflows.

    Notes
    -----
    Audio `(N, length)`, `(N, C, length)` or, with ``axis=0``, `(N, length, C)`, or an object array of samples
    of different lengths. The result is that of `scipy.signal.lfilter`, in double precision:
    ``a[0] y[n] = b[0] x[n] + b[1] x[n - 1] + ... - a[1] y[n - 1] - ...``. Shape and dtype are kept; integers
    become `float32`. The gradient is exact, of both kinds of filters: the same filter, backwards in time; it
    is zero where the result was clipped.

    References
    ----------
    .. [1] Rajaratnam, Shah, Kalita. Isolated and Ensemble Audio Preprocessing Methods for Detecting
       Adversarial Examples against Automatic Speech Recognition. ROCLING 2018. arXiv:1809.04397

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import LFilter
    >>> LFilter(np.array([0.5, 0.5])).transform(np.array([[2.0, 4.0, 6.0]]))  # mean of two neighbours
    array([[1., 3., 5.]])
    >>> LFilter([1.0], [1.0, -0.5]).transform(np.array([[1.0, 0.0, 0.0]]))  # half of the last output stays
    array([[1.  , 0.5 , 0.25]])
    """

    domains = ("audio",)
    gradient_kind = "exact"
    ragged = True
    paper = "arXiv:1809.04397"
    known_attacks = (
        (
            "Yakura and Sakuma 2019 (arXiv:1810.11793): examples that are optimised through a band-pass "
            "filter survive it, and playback over the air"
        ),
    )

    def __init__(
        self,
        numerator_coef: Any = ONE,
        denominator_coef: Any = ONE,
        axis: int = -1,
        initial_cond: Any = None,
        clip_values: ClipValues | None = None,
        apply_fit: bool = False,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        device_type: str | None = None,
    ) -> None:
        taps = [
            len(_numbers(name, value, (1,)))
            for name, value in (("numerator_coef", numerator_coef), ("denominator_coef", denominator_coef))
        ]
        if not np.asarray(denominator_coef)[0]:
            raise ArgumentError(
                f"`denominator_coef` must start with a number other than 0, got {denominator_coef!r}; drop "
                "leading zeros."
            )
        check_integer("axis", axis, -2, 1)
        if initial_cond is not None:
            state = _numbers("initial_cond", initial_cond, (1, 2))
            if state.ndim == 1 and len(state) != max(taps) - 1:
                raise ArgumentError(
                    f"`initial_cond` must hold {max(taps) - 1} numbers, one less than there are "
                    f"coefficients, got {len(state)}."
                )
        check_clip_values(clip_values, optional=True)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        ignore_device_type(device_type)
        self.numerator_coef = numerator_coef
        self.denominator_coef = denominator_coef
        self.axis = axis
        self.initial_cond = initial_cond
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose

    def _transform(self, x: Array, draw: None) -> Array:
        if x.dtype == object:
            return object_array([self._forward(sample[None], self.initial_cond)[0] for sample in x])
        return self._forward(x, self.initial_cond)

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        along_time = int(self.axis) in (0, -ndim)
        per_entry = self.clip_values is not None and any(map(np.ndim, self.clip_values))
        if not along_time or per_entry:
            return None
        return self._filter_parts(parts) if self._is_finite else self._filter_on(parts)

    @property
    def _is_finite(self) -> bool:
        """Whether the impulse response is finite."""
        return np.size(self.denominator_coef) == 1

    def _filter_parts(self, parts: Iterator[Array]) -> Iterator[Array]:
        """One recording, whose parts overlap by the taps.

        Nothing less than the taps is filtered unless it is all: its sums would have another order.
        """
        reach, held, done = np.size(self.numerator_coef) - 1, None, 0
        state = self.initial_cond
        for window in windows(parts):
            x = self._checked(window[None])[0]
            held = x if held is None else np.concatenate([held, x])
            if len(held) > reach:
                yield self._forward(held[None], state)[0, done:]
                held, done, state = held[len(held) - reach :], reach, None
        if held is not None and len(held) > done:
            yield self._forward(held[None], state)[0, done:]

    def _filter_on(self, parts: Iterator[Array]) -> Iterator[Array]:
        """One recording, each part of which starts from the state after the one before."""
        from scipy.signal import lfilter

        state, zeros = None, np.zeros(max(np.size(self.numerator_coef), np.size(self.denominator_coef)) - 1)
        for window in windows(parts):
            x = self._checked(window[None])
            if state is None:
                state = self._state(self.initial_cond if self.initial_cond is not None else zeros, x.shape, 1)
            b, a = self._coefficients
            with np.errstate(over="ignore"):
                out, state = lfilter(b, a, x.astype(x.dtype.newbyteorder("="), copy=False), 1, state)
                out = out.astype(kept_dtype(x.dtype), copy=False)
            self._check_stable(out)
            yield self._clipped(out)[0]

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if x.dtype == object:
            pairs = zip(x, grad, strict=True)
            return object_array([self._backward(sample[None], g[None])[0] for sample, g in pairs])
        return self._backward(x, grad)

    def _forward(self, x: Array, state: Any) -> Array:
        """Samples of one length, from a state on."""
        if self.clip_values is not None:
            check_limits(self.clip_values, x.shape)
        return self._clipped(self._filter(x, state))

    def _clipped(self, out: Array) -> Array:
        """Clip in place."""
        if self.clip_values is not None:
            np.clip(out, *self.clip_values, out=out, casting="unsafe")
        return out

    def _backward(self, x: Array, grad: Array) -> Array:
        """Gradient of samples of one length: filtering is multiplication by a triangular Toeplitz matrix."""
        if self.clip_values is not None:
            check_limits(self.clip_values, x.shape)
            low, high = self.clip_values
            out = self._filter(x, self.initial_cond)
            grad = np.where((out >= low) & (out <= high), grad, 0)
        axis = self._time_axis(x.shape)
        return np.flip(self._filter(np.flip(grad, axis), None), axis)

    def _filter(self, x: Array, state: Any) -> Array:
        from scipy.signal import lfilter

        axis = self._time_axis(x.shape)
        b, a = self._coefficients
        start = self._state(state, x.shape, axis)
        out = np.empty(x.shape, kept_dtype(x.dtype))

        def work(rows: slice) -> None:
            block = x[rows].astype(x.dtype.newbyteorder("="), copy=False)
            if start is None:
                out[rows] = lfilter(b, a, block, axis)
            else:
                out[rows], _ = lfilter(b, a, block, axis, start[rows])

        with np.errstate(over="ignore"):
            if x.size:
                map_blocks(work, len(x), block_length(x), progress="Linear filter" if self.verbose else None)
        self._check_stable(out)
        return out

    @property
    def _coefficients(self) -> tuple[Array, Array]:
        numerator, denominator = np.asarray(self.numerator_coef), np.asarray(self.denominator_coef)
        return numerator.astype(np.float64), denominator.astype(np.float64)

    def _time_axis(self, shape: Shape) -> int:
        """Axis of time in a batch."""
        axes, axis = len(shape) - 1, int(self.axis)
        if not -axes <= axis < axes:
            raise ArgumentError(
                f"`axis` must be an axis of a sample of shape {shape[1:]}, got {self.axis}; pass axis=-1."
            )
        if axis == -1 and axes == 2 and shape[2] <= MOST_CHANNELS < shape[1]:
            raise ArgumentError(
                f"`axis` must be that of time, got {self.axis} for samples of shape {shape[1:]}, which seems "
                "to be that of the channels; pass axis=0, or axis=1 if the last axis is time."
            )
        return axis + 1 if axis >= 0 else axis + len(shape)

    def _state(self, state: Any, shape: Shape, axis: int) -> Array | None:
        """State before the first value, for each signal of a batch."""
        if state is None:
            return None
        values = np.asarray(state, dtype=np.float64)
        wanted = list(shape)
        wanted[axis] = max(np.size(self.numerator_coef), np.size(self.denominator_coef)) - 1
        if values.ndim == 1 and len(shape) == 3:
            values = values[:, None] if axis == 1 else values
        try:
            return np.broadcast_to(values, wanted)
        except ValueError:
            raise ArgumentError(
                f"`initial_cond` must have the shape ({wanted[axis]},) or {tuple(wanted[1:])} for samples of "
                f"shape {shape[1:]}, got {np.shape(state)}."
            ) from None

    def _check_stable(self, out: Array) -> None:
        if not np.isfinite(out).all():
            modulus = np.abs(np.roots(self.denominator_coef)).max(initial=0)
            raise ArgumentError(
                "`denominator_coef` must make a stable filter, but the result overflows in "
                f"{out.dtype}: the largest modulus of its roots is {modulus:.4g}, which must be below 1."
            )


def _numbers(name: str, value: Any, axes: tuple[int, ...]) -> Array:
    """Finite numbers with so many axes, at least one of them."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0)
    if array.ndim not in axes or not array.size:
        shape = " or ".join(f"{n}-D" for n in axes)
        raise ArgumentError(f"`{name}` must be a {shape} array of numbers, got {value!r}.")
    check_values(name, array)
    return array
