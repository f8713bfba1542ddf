"""Band-limited resampling, a few periods at a time, by a matrix that is made where the arrays are."""

from collections.abc import Sequence
from math import pi
from typing import Any, NamedTuple

from .borders import shifted
from .namespace import clipped, computed_once, counted, doubled, moved, product, taken

__all__ = ["Rates", "resample"]

NEAR = 2  # inputs on each side of an output whose weights are large


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
    """Products of runs of inputs with matrices, whose rows are inputs and whose columns are outputs.

    A product adds hundreds of terms one after the other, and rounds each sum. So the few large ones are added
    by themselves, and then to the sum of all others, which is small.
    """
    *lead, length = x.shape
    hop, new = rates.periods * rates.down, rates.periods * rates.up
    count, more = -(-rates.length // new), -(-2 * rates.wing // hop)
    needed = (count + more) * hop - rates.wing
    x = shifted(x, 0, min(length, needed), len(lead))
    parts = [_zeros(x, rates.wing, xp), x, _zeros(x, max(0, needed - length), xp)]
    hops = xp.reshape(xp.concat(parts, axis=-1), (*lead, count + more, hop))
    parts = [shifted(hops, i, count, len(lead)) for i in range(more + 1)]
    parts[-1] = parts[-1][..., : 2 * rates.wing - (more - 1) * hop]
    runs = xp.concat(parts, axis=-1)
    wings = (NEAR, runs[..., rates.wing - NEAR : rates.wing + hop + NEAR]), (rates.wing, runs)
    banks = [(wing, inputs, _bank(x, xp, rates, wing)) for wing, inputs in wings]

    def outputs(last: Any, rest: Any) -> Any:
        """Those that lie `rest / up` behind these inputs of each run."""
        near, far = (
            product(inputs, _matrix(bank, last + wing, rest, inputs.shape[-1], xp, rates), xp)
            for wing, inputs, bank in banks
        )
        return near + far

    at = counted(new, x, xp) * rates.down
    out = outputs(at // rates.up, at % rates.up)
    if rates.runs:
        periods = rates.runs[-1][1]
        out = xp.reshape(out, (*lead, count * rates.periods, rates.up))[..., :periods, :]
        at = counted(rates.periods, x, xp) * rates.down
        early = outputs(at - 1, 0 * at + rates.up)
        either = out[..., 0], xp.reshape(early, (*lead, count * rates.periods))
        column = xp.concat([either[is_early][..., a:b] for a, b, is_early in rates.runs], axis=-1)
        out = xp.concat([xp.expand_dims(column, axis=-1), out[..., 1:]], axis=-1)
    return xp.reshape(out, (*lead, out.shape[-1] * out.shape[-2]))[..., : rates.length]


def _zeros(x: Any, count: int, xp: Any) -> Any:
    return xp.broadcast_to(xp.zeros_like(x[..., :1]), (*x.shape[:-1], count))


def _matrix(bank: Any, last: Any, rest: Any, rows: int, xp: Any, rates: Rates) -> Any:
    """Weights of so many inputs for outputs that lie `rest / up` behind rows `last`."""
    wing = bank.shape[0] // (rates.up + 1) // 2
    tap = xp.expand_dims(counted(rows, bank, xp), axis=1) + (wing - 1) - last
    inside = (tap >= 0) & (tap < 2 * wing)
    place = xp.where(inside, tap, xp.zeros_like(tap)) * (rates.up + 1) + rest
    weights = xp.reshape(taken(bank, xp.reshape(place, (-1,)), xp), place.shape)
    return xp.where(inside, weights, xp.zeros_like(weights))


def _bank(x: Any, xp: Any, rates: Rates, wing: int) -> Any:
    """Weights for each place between two inputs, of the `NEAR` ones on each side or of all others.

    As in `kernels/polyphase.py`, they are read off the table by linear interpolation. The table is computed;
    for the large weights, which are few, in double precision, if there is one.
    """
    dtype, x = x.dtype, doubled(x[..., :0], xp) if wing == NEAR else x
    taps = xp.expand_dims(counted(2 * wing, x, xp), axis=1) - (wing - 1)
    rest = counted(rates.up + 1, x, xp)
    longest, before = max(rates.up, rates.down), taps <= 0
    place = xp.where(before, rest, rates.up - rest) * rates.entries
    at = place // longest + xp.where(before, -taps, taps - 1) * rates.step
    inside = at <= rates.last + 1 - rates.step
    if wing != NEAR:
        inside = inside & ((taps <= -NEAR) | (taps > NEAR))
    at = xp.where(inside, at, 0 * at)
    weight = xp.astype(place % longest, x.dtype) / longest
    value, after = _entry(at, x, xp, rates), _entry(at + 1, x, xp, rates)
    value = value + weight * (after - value)
    value = xp.where(inside, value, xp.zeros_like(value)) * min(1, rates.up / rates.down)
    return computed_once(xp.reshape(xp.astype(value, dtype, copy=False), (-1,)))


def _entry(at: Any, x: Any, xp: Any, rates: Rates) -> Any:
    """Entries of the table: a sinc with a taper."""
    number = computed_once(xp.astype(at, x.dtype))
    angle = clipped(number * (pi * rates.rolloff / rates.entries), 1e-9, 1e9, xp)  # not 0
    square = computed_once(2 * (number / rates.last) ** 2 - 1)
    taper = 0 * square
    for coefficient in rates.taper:
        taper = taper * square + coefficient
    return rates.rolloff * xp.sin(angle) / angle * taper
