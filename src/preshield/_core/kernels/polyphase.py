"""Resampling by a bank of filters: a row of taps for each place that an output can have between inputs."""

from ..typing import Array
from . import kernel, reduction

__all__ = ["apply_filters", "fill_filters", "spread_filters"]


@kernel
def fill_filters(rows: Array, fractions: Array, table: Array, entries: int, scale: float) -> None:
    """Taps for outputs that lie these fractions of a period after an input.

    They are resampy's: read off one wing of a symmetric filter by linear interpolation, with the step from
    tap to tap cut down to whole entries of the table.

    Parameters
    ----------
    rows : ndarray, shape (R, taps)
        Written; the last input that is not after the output meets tap `taps / 2 - 1`.
    fractions : ndarray of float64, shape (R,)
        From 0 to 1, both included.
    table : ndarray of float64
        Right wing of the filter, already multiplied by `scale`.
    entries : int
        Entries of the table from one zero crossing to the next.
    scale : float
        New rate divided by old rate, at most 1.
    """
    step = int(scale * entries)
    middle = rows.shape[1] // 2
    last = table.shape[0] - 1
    for r in range(rows.shape[0]):
        rows[r] = 0
        for wing in range(2):
            distance = scale * fractions[r]
            if wing == 1:
                distance = scale - distance
            place = distance * entries
            offset = int(place)
            weight = place - offset
            for i in range((last + 1 - offset) // step):
                at = offset + i * step
                rise = table[at + 1] - table[at] if at < last else 0.0
                tap = middle - 1 - i if wing == 0 else middle + i
                rows[r, tap] = table[at] + weight * rise


@reduction
def apply_filters(out: Array, segments: Array, rows: Array, which: Array, first: Array) -> None:
    """Each output is the sum of the inputs from its first one on, times its row of taps.

    Parameters
    ----------
    out : ndarray, shape (S, T)
        Written, for S signals.
    segments : ndarray, shape (S, n)
        Inputs, long enough on both sides.
    rows : ndarray, shape (R, taps)
        Filters.
    which, first : ndarray of int64, shape (T,)
        Row of each output, and its first input.
    """
    taps = rows.shape[1]
    for t in range(out.shape[1]):
        row = rows[which[t]]
        start = first[t]
        for s in range(out.shape[0]):
            inputs = segments[s, start : start + taps]
            total = row[0] * inputs[0]
            for j in range(1, taps):
                total += row[j] * inputs[j]
            out[s, t] = total


@kernel
def spread_filters(segments: Array, values: Array, rows: Array, which: Array, first: Array) -> None:
    """The transpose of `apply_filters`: add each value, times its row of taps, to the inputs that made it.

    Parameters
    ----------
    segments : ndarray, shape (S, n)
        Added to.
    values : ndarray, shape (S, T)
        Of the outputs.
    rows, which, first
        As for `apply_filters`.
    """
    taps = rows.shape[1]
    for t in range(values.shape[1]):
        row = rows[which[t]]
        start = first[t]
        for s in range(values.shape[0]):
            value = values[s, t]
            inputs = segments[s, start : start + taps]
            for j in range(taps):
                inputs[j] += value * row[j]
