"""Masked distance plus total variation of planes, and its subgradient."""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel, reduction

__all__ = ["total_variation"]

TINY = 1e-12  # a norm below this one counts as zero
BAND = 1 << 16  # pixels of which the differences are held at once


# A function here works on a plane, or on many of its rows: on a short row, the call would cost more than the
# arithmetic.


@kernel
def _differences(down: Array, right: Array, z: Array, first: int) -> None:
    """Write the differences between neighbours, with zeros where a pixel at the border has none.

    Those of some rows, from `first` on: to the rows above and to the one below, and along the rows.
    """
    height, width = z.shape
    for r in range(down.shape[0]):
        row = first + r
        if 0 < row < height:
            for j in range(width):
                down[r, j] = z[row, j] - z[row - 1, j]
        else:
            down[r] = 0.0
    for r in range(right.shape[0]):
        row = first + r
        right[r, 0] = right[r, width] = 0.0
        for j in range(width - 1):
            right[r, j + 1] = z[row, j + 1] - z[row, j]


@kernel
def _power(d: float, norm: int) -> Any:
    if norm == 2:
        return d * d
    return abs(d) if norm == 1 else abs(d) ** norm


@reduction
def _add_up(rows: Array, columns: Array, down: Array, right: Array, norm: int) -> None:
    """Sum `|difference|**norm` over each row of `down`, and add it up over each column of `right`."""
    for r in range(down.shape[0]):
        total = 0.0
        for j in range(down.shape[1]):
            total += _power(down[r, j], norm)
        rows[r] = total
    for r in range(right.shape[0]):
        for j in range(right.shape[1]):
            columns[j] += _power(right[r, j], norm)


@kernel
def _norms_and_weights(total: Array, norm: int, scale: float) -> float:
    """Sum of the norms whose powers are in `total`, which becomes what slopes are multiplied with."""
    value = 0.0
    for j in range(total.shape[0]):
        size = np.sqrt(total[j]) if norm == 2 else total[j] ** (1.0 / norm)
        value += size
        total[j] = scale / size ** (norm - 1) if size > TINY else 0.0
    return value


@kernel
def _differentiate(d: Array, norm: int) -> None:
    """Replace differences by the derivative of `|d|**norm / norm`."""
    flat = d.reshape(d.size)
    if norm == 1:
        for j in range(d.size):
            flat[j] = np.sign(flat[j])
    elif norm > 2:
        for j in range(d.size):
            flat[j] = np.sign(flat[j]) * abs(flat[j]) ** (norm - 1)


@reduction
def _masked_square(z: Array, x: Array, mask: Array) -> float:
    """Sum of `(z - x)**2` over the chosen pixels."""
    total = 0.0
    for r in range(z.shape[0]):
        for j in range(z.shape[1]):
            delta = z[r, j] - x[r, j]
            total += delta * delta * mask[r, j]
    return total


@kernel
def _gradient(
    grad: Array,
    z: Array,
    x: Array,
    mask: Array,
    pull: float,
    rows: Array,
    columns: Array,
    down: Array,
    right: Array,
) -> None:
    """Put the gradient together from slopes and their weights."""
    for r in range(z.shape[0]):
        above, below = rows[r], rows[r + 1]
        for j in range(z.shape[1]):
            vertical = above * down[r, j] - below * down[r + 1, j]
            horizontal = columns[j] * right[r, j] - columns[j + 1] * right[r, j + 1]
            grad[r, j] = vertical + horizontal + pull * (z[r, j] - x[r, j]) * mask[r, j]


@kernel
def _shrink(grad: Array, mask: Array) -> None:
    """Add the subgradient of the distance at its kink that makes the sum least: shorten it by 1."""
    square = 0.0
    for r in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            square += grad[r, j] ** 2 if mask[r, j] else 0.0
    kept = max(0.0, 1.0 - 1.0 / np.sqrt(square)) if square > 0.0 else 0.0
    for r in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            if mask[r, j]:
                grad[r, j] *= kept


@kernel
def total_variation(
    value: Array, grad: Array, z: Array, x: Array, mask: Array, norm: int, scale: float
) -> None:
    """Objective of total variance minimisation and its subgradient of least norm at the start.

    For each plane, `sqrt(sum(mask * (z - x)**2))` plus `scale` times the `norm`-norms of the differences
    between neighbouring rows and between neighbouring columns. Where `z` equals `x` on the mask, the first
    term has a kink; there the gradient is the subgradient of least norm, whose negative descends.

    Parameters
    ----------
    value : ndarray of float64, shape (P,)
        Written.
    grad : ndarray of float64, shape (P, H, W)
        Written.
    z, x : ndarray of float64, shape (P, H, W)
    mask : ndarray of bool, shape (P, H, W)
    norm : int
    scale : float
    """
    planes, height, width = z.shape
    band = min(height, max(1, BAND // width))
    down, right = np.empty((band + 1, width)), np.empty((band, width + 1))
    rows, columns = np.empty(height + 1), np.empty(width + 1)
    for p in range(planes):
        columns[:] = 0.0
        for a in range(0, height, band):
            b = min(a + band, height)
            _differences(down[: b - a + 1], right[: b - a], z[p], a)
            _add_up(rows[a : b + 1], columns, down[: b - a + 1], right[: b - a], norm)
        total = _norms_and_weights(rows, norm, scale) + _norms_and_weights(columns, norm, scale)
        distance = np.sqrt(_masked_square(z[p], x[p], mask[p]))
        value[p] = distance + scale * total
        pull = 1.0 / distance if distance > TINY else 0.0
        for a in range(0, height, band):
            b = min(a + band, height)
            below, beside = down[: b - a + 1], right[: b - a]
            if band < height:  # they are those of the last band
                _differences(below, beside, z[p], a)
            _differentiate(below, norm)
            _differentiate(beside, norm)
            weights = rows[a : b + 1]
            _gradient(grad[p, a:b], z[p, a:b], x[p, a:b], mask[p, a:b], pull, weights, columns, below, beside)
        if distance <= TINY:
            _shrink(grad[p], mask[p])
