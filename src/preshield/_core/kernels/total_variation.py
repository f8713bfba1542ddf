"""Masked distance plus total variation of planes, and its subgradient."""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel, reduction

__all__ = ["total_variation"]

TINY = 1e-12  # a norm below this one counts as zero


# Rows are named by their index: a view of each would cost more than the arithmetic on a short row.


@reduction
def _row_power(z: Array, p: int, r: int, norm: int) -> float:
    """Sum of `|difference|**norm` between row `r` and the one below."""
    total = 0.0
    if norm == 1:
        for j in range(z.shape[2]):
            total += abs(z[p, r + 1, j] - z[p, r, j])
    elif norm == 2:
        for j in range(z.shape[2]):
            total += (z[p, r + 1, j] - z[p, r, j]) ** 2
    else:
        for j in range(z.shape[2]):
            total += abs(z[p, r + 1, j] - z[p, r, j]) ** norm
    return total


@reduction
def _masked_square(z: Array, x: Array, mask: Array, p: int, r: int) -> float:
    """Sum of `(z - x)**2` over the chosen pixels of row `r`."""
    total = 0.0
    for j in range(z.shape[2]):
        delta = z[p, r, j] - x[p, r, j]
        total += delta * delta * mask[p, r, j]
    return total


@kernel
def _add_column_powers(total: Array, z: Array, p: int, r: int, norm: int) -> None:
    """Add `|difference|**norm` between neighbours in row `r` to `total`."""
    if norm == 1:
        for j in range(total.shape[0]):
            total[j] += abs(z[p, r, j + 1] - z[p, r, j])
    elif norm == 2:
        for j in range(total.shape[0]):
            total[j] += (z[p, r, j + 1] - z[p, r, j]) ** 2
    else:
        for j in range(total.shape[0]):
            total[j] += abs(z[p, r, j + 1] - z[p, r, j]) ** norm


@kernel
def _slope(d: float, norm: int) -> Any:
    """Derivative of `|d|**norm / norm`."""
    if norm == 2:
        return d
    return np.sign(d) if norm == 1 else np.sign(d) * abs(d) ** (norm - 1)


@kernel
def _gradient_row(
    grad: Array,
    z: Array,
    x: Array,
    mask: Array,
    p: int,
    r: int,
    norm: int,
    pull: float,
    columns: Array,
    rows: Array,
) -> None:
    """Write row `r` of the gradient, from the weights of all norms; `rows` has a 0 at either end."""
    up, down = rows[r], rows[r + 1]
    above, below = max(r - 1, 0), min(r + 1, z.shape[1] - 1)
    for j in range(z.shape[2]):
        here = z[p, r, j]
        change = up * _slope(here - z[p, above, j], norm) - down * _slope(z[p, below, j] - here, norm)
        grad[p, r, j] = change + pull * (here - x[p, r, j]) * mask[p, r, j]
    for j in range(columns.shape[0]):
        grad[p, r, j] -= columns[j] * _slope(z[p, r, j + 1] - z[p, r, j], norm)
    for j in range(columns.shape[0]):  # on its own: the compiler cannot vectorise both at once
        grad[p, r, j + 1] += columns[j] * _slope(z[p, r, j + 1] - z[p, r, j], norm)


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
    rows, columns = np.zeros(height + 1), np.empty(max(width - 1, 0))
    for p in range(planes):
        columns[:] = 0.0
        square = 0.0
        for r in range(height):
            square += _masked_square(z, x, mask, p, r)
            _add_column_powers(columns, z, p, r, norm)
            if r + 1 < height:
                rows[r + 1] = _row_power(z, p, r, norm)
        distance = np.sqrt(square)
        total = _norms_and_weights(columns, norm, scale)
        total += _norms_and_weights(rows[1:height], norm, scale)
        value[p] = distance + scale * total
        pull = 1.0 / distance if distance > TINY else 0.0
        for r in range(height):
            _gradient_row(grad, z, x, mask, p, r, norm, pull, columns, rows)
        if distance <= TINY:
            _shrink(grad[p], mask[p])
