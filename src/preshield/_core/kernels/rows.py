"""Vector arithmetic on the rows of batches, for the minimisers."""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel, reduction

__all__ = ["advance", "narrow", "row_dots", "two_loops"]

MARGIN = 0.1  # the next trial stays this fraction of the bracket away from its ends


@reduction
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@kernel
def _add(a: Array, factor: float, b: Array) -> None:
    """Add `factor * b` to `a`."""
    for j in range(a.shape[0]):
        a[j] += factor * b[j]


@kernel
def row_dots(out: Array, a: Array, b: Array, rows: Array) -> None:
    """Set `out[i]` to the inner product of `a[i]` and `b[rows[i]]`."""
    for i in range(rows.shape[0]):
        out[i] = _dot(a[i], b[rows[i]])


@kernel
def advance(out: Array, x: Array, step: Array, direction: Array, rows: Array) -> None:
    """Set `out[i]` to `x + step * direction` for row `rows[i]`."""
    for i in range(rows.shape[0]):
        row = rows[i]
        length, target, start, way = step[row], out[i], x[row], direction[row]
        for j in range(target.shape[0]):
            target[j] = start[j] + length * way[j]


@kernel
def _between(low: Array, high: Array) -> Any:
    """Where the cubic through both ends is least, but away from them; doubled while `high` is infinite."""
    a, value_a, slope_a = low
    b, value_b, slope_b = high
    if not np.isfinite(b):
        return 2 * a
    chord = slope_a + slope_b - 3 * (value_b - value_a) / (b - a)
    root = np.sqrt(max(chord**2 - slope_a * slope_b, 0.0))
    part = 1 - (slope_b + root - chord) / (slope_b - slope_a + 2 * root)
    if not np.isfinite(part):
        part = 0.5
    return a + min(max(part, MARGIN), 1 - MARGIN) * (b - a)


@kernel
def narrow(
    low: Array,
    high: Array,
    step: Array,
    best: Array,
    best_value: Array,
    pending: Array,
    trial_value: Array,
    trial_slope: Array,
    enough: Array,
    flat: Array,
    steep: Array,
) -> tuple[Array, Array]:
    """Take one trial of a line search into account, for each row.

    Parameters
    ----------
    low, high : ndarray of float64, shape (B, 3)
        Ends of the brackets: step, value and slope. Written.
    step : ndarray of float64, shape (B,)
        The step that was tried; becomes the next one to try.
    best, best_value : ndarray of float64, shape (B,)
        The best step so far, and its value. Written.
    pending : ndarray of int, shape (T,)
        Rows that were tried.
    trial_value, trial_slope : ndarray of float64, shape (T,)
        Value and slope along the direction at the trials.
    enough, flat, steep : ndarray of float64, shape (B,)
        A step is acceptable up to the value `enough`, with a slope from `flat` to `steep`.

    Returns
    -------
    better, done : ndarray of bool, shape (T,)
        Which trials are the best of their row so far, and which rows are finished.
    """
    better, done = np.zeros(len(pending), np.bool_), np.zeros(len(pending), np.bool_)
    for i in range(len(pending)):
        row, value, slope = pending[i], trial_value[i], trial_slope[i]
        decreased = value <= enough[row]
        if decreased and value < best_value[row]:
            better[i] = True
            best[row], best_value[row] = step[row], value
        end = high[row] if not decreased or value > low[row, 1] or slope >= 0 else low[row]
        end[0], end[1], end[2] = step[row], value, slope
        done[i] = better[i] and flat[row] <= slope <= steep[row]
        step[row] = step[row] if done[i] else _between(low[row], high[row])
    return better, done


@kernel
def two_loops(direction: Array, steps: Array, changes: Array, inverses: Array, newest_first: Array) -> None:
    """Apply the limited-memory BFGS approximation of the inverse Hessian to each row, in place.

    Parameters
    ----------
    direction : ndarray of float64, shape (B, n)
        The negative gradient; becomes the direction.
    steps, changes : ndarray of float64, shape (history, B, n)
        Steps taken, and the changes of the gradient along them.
    inverses : ndarray of float64, shape (history, B)
        One over their inner products; 0 for a pair that counts for nothing.
    newest_first : ndarray of int, shape (pairs,)
        Places of the stored pairs.
    """
    pairs = newest_first.shape[0]
    weights = np.empty(pairs)
    for b in range(direction.shape[0]):
        d = direction[b]
        for k in range(pairs):
            place = newest_first[k]
            weights[k] = inverses[place, b] * _dot(steps[place, b], d)
            _add(d, -weights[k], changes[place, b])
        newest = newest_first[0]
        if inverses[newest, b] > 0:
            size = inverses[newest, b] * _dot(changes[newest, b], changes[newest, b])
            for j in range(d.shape[0]):
                d[j] /= size
        for back in range(pairs):
            k = pairs - 1 - back
            place = newest_first[k]
            _add(d, weights[k] - inverses[place, b] * _dot(changes[place, b], d), steps[place, b])
