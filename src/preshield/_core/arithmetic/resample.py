"""Band-limited resampling, a few periods at a time, by a matrix that is made where the arrays are."""

from collections.abc import Sequence
from math import pi
from typing import Any, NamedTuple

from .borders import shifted
from .namespace import clipped, counted, moved, product

__all__ = ["Rates", "resample"]


class Rates(NamedTuple):
    """From one rate to another, with a filter of resampy's."""

    up: int  # outputs
    down: int  # that many inputs apart
    periods: int  # of so many outputs that are computed together
    wing: int  # inputs on each side of an output
    entries: int  # of the table of the filter, between two zero crossings
    last: int  # entry of the table
    step: int  # entries from one input to the next
    rolloff: float
    taper: Sequence[float]  # coefficients of a polynomial, the highest first
    length: int  # of the result
    runs: Sequence[tuple[int, int, bool]]  # of outputs on an input: from, to, whether they count as before it


def resample(x: Any, xp: Any, steps: Sequence[Rates], axis: int) -> Any:
    """Resample along an axis.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    steps : sequence of Rates
        One after the other.
    axis : int
        Of time.
    """
    x = 1 * moved(x, axis, -1, xp)
    for rates in steps:
        x = _resampled(x, xp, rates)
    return moved(x, -1, axis, xp)


def _resampled(x: Any, xp: Any, rates: Rates) -> Any:
    """Products of runs of inputs with one matrix, whose rows are inputs and whose columns are outputs."""
    *lead, length = x.shape
    hop, new = rates.periods * rates.down, rates.periods * rates.up
    count, more = -(-rates.length // new), -(-2 * rates.wing // hop)
    needed = (count + more) * hop - rates.wing
    x = shifted(x, 0, min(length, needed), len(lead))
    parts = [_zeros(x, rates.wing, xp), x, _zeros(x, max(0, needed - length), xp)]
    hops = xp.reshape(xp.concat(parts, axis=-1), (*lead, count + more, hop))

    def multiplied(weights: Any) -> Any:
        total = 0
        for i in range(more + 1):
            part = shifted(hops, i, count, len(lead))
            total = total + product(part, shifted(weights, i * hop, hop, 0), xp)
        return total

    inputs = xp.expand_dims(counted((more + 1) * hop, x, xp), axis=1) - rates.wing
    outputs = counted(new, x, xp) * rates.down
    out = multiplied(_weights(inputs - outputs // rates.up, outputs % rates.up, x, xp, rates))
    if rates.runs:
        periods = rates.runs[-1][1]
        out = xp.reshape(out, (*lead, count * rates.periods, rates.up))[..., :periods, :]
        first = counted(rates.periods, x, xp) * rates.down
        early = multiplied(_weights(inputs - first + 1, 0 * first + rates.up, x, xp, rates))
        either = out[..., 0], xp.reshape(early, (*lead, count * rates.periods))
        column = xp.concat([either[is_early][..., a:b] for a, b, is_early in rates.runs], axis=-1)
        out = xp.concat([xp.expand_dims(column, axis=-1), out[..., 1:]], axis=-1)
    return xp.reshape(out, (*lead, out.shape[-1] * out.shape[-2]))[..., : rates.length]


def _zeros(x: Any, count: int, xp: Any) -> Any:
    return xp.broadcast_to(xp.zeros_like(x[..., :1]), (*x.shape[:-1], count))


def _weights(taps: Any, rest: Any, x: Any, xp: Any, rates: Rates) -> Any:
    """Weights of inputs `taps` after the last one before an output, which lies `rest / up` behind that one.

    As in `kernels/polyphase.py`, they are read off the table by linear interpolation. The table is computed.
    """
    longest, before = max(rates.up, rates.down), taps <= 0
    place = xp.where(before, rest, rates.up - rest) * rates.entries
    at = place // longest + xp.where(before, -taps, taps - 1) * rates.step
    inside = at <= rates.last + 1 - rates.step
    at = xp.where(inside, at, 0 * at)
    weight = xp.astype(place % longest, x.dtype) / longest
    value, after = _entry(at, x, xp, rates), _entry(at + 1, x, xp, rates)
    value = value + weight * (after - value)
    return xp.where(inside, value, xp.zeros_like(value)) * min(1, rates.up / rates.down)


def _entry(at: Any, x: Any, xp: Any, rates: Rates) -> Any:
    """Entries of the table: a sinc with a taper."""
    number = xp.astype(at, x.dtype)
    angle = clipped(number * (pi * rates.rolloff / rates.entries), 1e-9, 1e9, xp)  # not 0
    square = 2 * (number / rates.last) ** 2 - 1
    taper = 0 * square
    for coefficient in rates.taper:
        taper = taper * square + coefficient
    return rates.rolloff * xp.sin(angle) / angle * taper
