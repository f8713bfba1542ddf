"""Band-limited resampling with resampy's filters, and its transpose.

The outputs lie at few different places between two inputs: `new rate / gcd(old rate, new rate)` of them. The
taps for each place are worked out once, in a bank; where the bank would be large, block by block instead.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from math import gcd

import numpy as np
from numpy.polynomial import chebyshev

from .arithmetic.resample import Rates
from .layout import working_dtype
from .threads import map_blocks
from .typing import Array, Dtype

__all__ = ["FILTERS", "Resampler", "resampler"]

FILTERS = {"sinc_window": 512, "kaiser_best": 8192, "kaiser_fast": 512}  # entries between zero crossings
BANK_TAPS = 1 << 19  # a larger bank is not kept
BLOCK_TAPS = 1 << 17  # of filters that are worked out for a block of outputs
BLOCK_OUTPUTS = 2048
BLOCK_INPUTS = 4096
MATRIX, MATRIX_OUTPUTS = 1 << 20, 128  # entries of a matrix for arrays of any namespace, and columns wanted
SERIES_DEGREE, SERIES_POINTS = 16, 4001
SEGMENT = 1 << 16  # inputs that a thread looks at in one go


@lru_cache(maxsize=16)
def resampler(old_rate: int, new_rate: int, name: str) -> "Resampler":
    """The `Resampler` for these rates, kept for the next call."""
    return Resampler(old_rate, new_rate, name)


@lru_cache
def filter_series(name: str) -> tuple[float, tuple[float, ...]]:
    """A filter of resampy's in few numbers: the rate of its sinc, and a polynomial for the taper.

    The argument of the polynomial is linear in the square of the distance, -1 in the middle of the filter and
    1 at its end. Its coefficients, the highest first, give the table to 1e-14.
    """
    from resampy.filters import get_filter

    window, entries, _ = get_filter(name)
    at = np.linspace(0, len(window) - 1, SERIES_POINTS).astype(int)
    sinc = window[0] * np.sinc(window[0] * at / entries)
    terms = chebyshev.chebvander(2 * (at / (len(window) - 1)) ** 2 - 1, SERIES_DEGREE)
    series = np.linalg.lstsq(sinc[:, None] * terms, window[at], rcond=None)[0]
    return float(window[0]), tuple(chebyshev.cheb2poly(series)[::-1].tolist())


class Resampler:
    """From one rate to another.

    Parameters
    ----------
    old_rate, new_rate : int
        In the same unit; their ratio is at most the number of entries in `FILTERS`.
    name : str
        Filter, one of `FILTERS`.
    """

    def __init__(self, old_rate: int, new_rate: int, name: str) -> None:
        from resampy.filters import get_filter

        divisor = gcd(old_rate, new_rate)
        self.up, self.down = new_rate // divisor, old_rate // divisor
        # Positions and scale are rounded as resampy rounds them: which input is the last before an output
        # depends on it where the two coincide.
        ratio = float(new_rate) / old_rate
        self.period = 1.0 / ratio
        self.scale = min(1.0, ratio)
        window, self.entries, _ = get_filter(name)
        self.entries = int(self.entries)
        self.table = window * self.scale
        self.name = name
        self.wing = len(window) // int(self.scale * self.entries)
        self.banks: dict[Dtype, Array] = {}

    def length(self, length: int) -> int:
        """How many outputs so many inputs give."""
        return length * self.up // self.down

    def rates(self, length: int) -> Rates | None:
        """What makes so many outputs for arrays of any namespace; None if a period is long."""
        periods = max(1, MATRIX_OUTPUTS // self.up)
        while (rows := periods * self.down + 2 * self.wing) * periods * self.up > MATRIX and periods > 1:
            periods //= 2
        if rows * periods * self.up > MATRIX:
            return None
        step = int(self.scale * self.entries)
        return Rates(
            self.up,
            self.down,
            periods,
            self.wing,
            self.entries,
            len(self.table) - 1,
            step,
            *filter_series(self.name),
            length,
            () if step == self.scale * self.entries else self._runs(length),
        )

    def _runs(self, length: int) -> tuple[tuple[int, int, bool], ...]:
        """Runs of outputs that coincide with an input: from, to, and whether rounding puts them before it.

        Empty if it does so to none. If the step is a whole number of entries, both have the same filter.
        """
        numbers = np.arange(0, length, self.up)
        early = (numbers * self.period).astype(np.int64) < numbers // self.up * self.down
        starts = [0, *(np.flatnonzero(np.diff(early)) + 1).tolist(), len(numbers)]
        runs = tuple((a, b, bool(early[a])) for a, b in pairwise(starts) if b > a)
        return runs if early.any() else ()

    def apply(self, x: Array, out: Array, begin: tuple[int, int] = (0, 0)) -> None:
        """Resample `x` of shape `(N, C, old)` into `out` of shape `(N, C, new)`, of any length.

        Of longer signals both may be a part; `begin` says at which input, and at which output.
        """
        from .kernels.polyphase import apply_filters

        dtype = working_dtype(x.dtype)

        def work(samples: slice, outputs: slice) -> None:
            low, high = self._inputs(slice(outputs.start + begin[1], outputs.stop + begin[1]))
            segments = np.zeros((*x[samples].shape[:2], high - low), dtype)
            inside = slice(max(begin[0], low), min(high, begin[0] + x.shape[2]))
            seen = x[samples, :, inside.start - begin[0] : inside.stop - begin[0]]
            segments[..., inside.start - low : inside.stop - low] = seen
            flat = segments.reshape(-1, high - low)
            for part in self._parts(outputs):
                values = np.empty((len(flat), part.stop - part.start), dtype)
                rows, which, first = self._filters(slice(part.start + begin[1], part.stop + begin[1]), dtype)
                apply_filters(values, flat, rows, which, first - low)
                out[samples, :, part] = values.reshape(*segments.shape[:2], -1)

        self._map(work, out, BLOCK_OUTPUTS, BLOCK_OUTPUTS * self.period)

    def apply_to_parts(self, parts: Iterator[Array], length: Callable[[], int]) -> Iterator[Array]:
        """Resample signals that come in parts `(N, C, n)`; what comes out is `apply` of the whole, in parts.

        `length` says how many outputs the whole has; it is called when there are no more inputs.
        """
        held, begin = next(parts), (0, 0)

        def made(stop: int) -> Array:
            """The outputs from the last ones to before `stop`."""
            out = np.empty((*held.shape[:2], stop - begin[1]), working_dtype(held.dtype))
            self.apply(held, out, begin)
            return out

        for part in parts:
            held = np.concatenate([held, part], axis=2)
            # The outputs before this one have all of their inputs.
            ready = int((begin[0] + held.shape[2] - self.wing - 2) / self.period)
            if ready - begin[1] >= BLOCK_OUTPUTS:
                yield made(ready)
                first = max(begin[0], self._inputs(slice(ready, ready + 1))[0])
                held, begin = held[..., first - begin[0] :], (first, ready)
        if length() > begin[1]:
            yield made(length())

    def transpose(self, grad: Array, out: Array) -> None:
        """The transpose of `apply`: `grad` of shape `(N, C, new)` into `out` of shape `(N, C, old)`."""
        from .kernels.polyphase import spread_filters

        dtype = working_dtype(grad.dtype)

        def work(samples: slice, inputs: slice) -> None:
            start = max(0, int((inputs.start - self.wing - 1) / self.period) - 1)
            stop = min(grad.shape[2], int((inputs.stop + self.wing + 1) / self.period) + 2)
            outputs = slice(start, max(start, stop))
            low, high = self._inputs(outputs)
            low, high = min(low, inputs.start), max(high, inputs.stop)
            segments = np.zeros((*grad[samples].shape[:2], high - low), dtype)
            flat = segments.reshape(-1, high - low)
            for part in self._parts(outputs):
                values = np.ascontiguousarray(grad[samples, :, part], dtype).reshape(len(flat), -1)
                rows, which, first = self._filters(part, dtype)
                spread_filters(flat, values, rows, which, first - low)
            out[samples, :, inputs] = segments[..., inputs.start - low : inputs.stop - low]

        block = max(BLOCK_INPUTS, 8 * self.wing)
        self._map(work, out, block, block)

    def _map(self, work: Callable[[slice, slice], None], out: Array, block: int, reach: float) -> None:
        """Call `work` with slices of the samples and of the last axis of `out`, on all threads."""
        samples, channels, length = out.shape
        if not out.size:
            return
        group = max(1, int(SEGMENT / (channels * (reach + 2 * self.wing))))
        blocks = -(-length // block)

        def task(numbers: slice) -> None:
            for number in range(numbers.start, numbers.stop):
                i, j = divmod(number, blocks)
                work(
                    slice(i * group, min((i + 1) * group, samples)),
                    slice(j * block, min((j + 1) * block, length)),
                )

        map_blocks(task, -(-samples // group) * blocks, 1)

    def _inputs(self, outputs: slice) -> tuple[int, int]:
        """First input that some outputs look at, and the one after the last; outside the signal for some."""
        if outputs.start == outputs.stop:
            return 0, 0
        first, last = int(outputs.start * self.period), int((outputs.stop - 1) * self.period)
        return first - self.wing + 1, last + self.wing + 1

    def _parts(self, outputs: slice) -> Iterator[slice]:
        """Outputs in runs whose filters fit into `BLOCK_TAPS` where there is no bank."""
        most = BLOCK_OUTPUTS if self._has_bank else max(1, BLOCK_TAPS // (2 * self.wing))
        for start in range(outputs.start, outputs.stop, most):
            yield slice(start, min(start + most, outputs.stop))

    def _filters(self, outputs: slice, dtype: Dtype) -> tuple[Array, Array, Array]:
        """Filters, the row for each output, and its first input."""
        numbers = np.arange(outputs.start, outputs.stop)
        positions = numbers * self.period
        whole = positions.astype(np.int64)
        if self._has_bank:
            rows, which = self._bank(dtype), numbers * self.down - whole * self.up
        else:
            rows, which = self._fill(positions - whole, dtype), np.arange(len(numbers))
        return rows, which, whole - self.wing + 1

    @property
    def _has_bank(self) -> bool:
        return (self.up + 1) * 2 * self.wing <= BANK_TAPS

    def _bank(self, dtype: Dtype) -> Array:
        """Filters for all places; the last is that of an output which coincides with the input after."""
        if dtype not in self.banks:
            self.banks[dtype] = self._fill(np.arange(self.up + 1) / self.up, dtype)
        return self.banks[dtype]

    def _fill(self, fractions: Array, dtype: Dtype) -> Array:
        from .kernels.polyphase import fill_filters

        rows = np.empty((len(fractions), 2 * self.wing), dtype)
        fill_filters(rows, fractions, self.table, self.entries, self.scale)
        return rows
