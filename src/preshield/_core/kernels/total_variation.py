"""Masked distance plus total variation of planes, and its subgradient."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["total_variation"]

TINY = 1e-12  # a norm below this one counts as zero


@kernel
def _add_powers(total: Array, d: Array, norm: int) -> None:
    """Add `|d|**norm` to `total`, entry by entry."""
    if norm == 1:
        for j in range(d.shape[0]):
            total[j] += abs(d[j])
    elif norm == 2:
        for j in range(d.shape[0]):
            total[j] += d[j] * d[j]
    else:
        for j in range(d.shape[0]):
            total[j] += abs(d[j]) ** norm


@kernel
def _slopes(d: Array, weights: Array, norm: int) -> None:
    """Turn differences into `weights * sign(d) * |d|**(norm - 1)`, in place."""
    if norm == 1:
        for j in range(d.shape[0]):
            d[j] = weights[j] * np.sign(d[j])
    elif norm == 2:
        for j in range(d.shape[0]):
            d[j] = weights[j] * d[j]
    else:
        for j in range(d.shape[0]):
            d[j] = weights[j] * np.sign(d[j]) * abs(d[j]) ** (norm - 1)


@kernel
def _norms_and_weights(total: Array, norm: int, scale: float) -> float:
    """Sum of the norms whose powers are in `total`, which becomes what `_slopes` multiplies with."""
    value = 0.0
    for j in range(total.shape[0]):
        size = total[j] ** (1.0 / norm)
        value += size
        total[j] = scale / size ** (norm - 1) if size > TINY else 0.0
    return value


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
    across = np.empty(width)
    columns = np.empty(width - 1)
    rows = np.empty(1)
    constant = np.empty(width)
    for p in range(planes):
        columns[:] = 0.0
        distance = 0.0
        for r in range(height):
            line, target, chosen = z[p, r], x[p, r], mask[p, r]
            for j in range(width):
                delta = line[j] - target[j] if chosen[j] else 0.0
                distance += delta * delta
            right = line[1:]
            difference = across[: width - 1]
            for j in range(width - 1):
                difference[j] = right[j] - line[j]
            _add_powers(columns, difference, norm)
        distance = np.sqrt(distance)
        total = _norms_and_weights(columns, norm, scale)

        grad[p] = 0.0
        for r in range(height):
            line, out = z[p, r], grad[p, r]
            right, out_right = line[1:], out[1:]
            difference = across[: width - 1]
            for j in range(width - 1):
                difference[j] = right[j] - line[j]
            _slopes(difference, columns, norm)
            for j in range(width - 1):
                out[j] -= difference[j]
            for j in range(width - 1):
                out_right[j] += difference[j]
            if r + 1 < height:
                below, out_below = z[p, r + 1], grad[p, r + 1]
                for j in range(width):
                    across[j] = below[j] - line[j]
                power = 0.0
                if norm == 1:
                    for j in range(width):
                        power += abs(across[j])
                elif norm == 2:
                    for j in range(width):
                        power += across[j] * across[j]
                else:
                    for j in range(width):
                        power += abs(across[j]) ** norm
                rows[0] = power
                total += _norms_and_weights(rows, norm, scale)
                constant[:] = rows[0]
                _slopes(across, constant, norm)
                for j in range(width):
                    out[j] -= across[j]
                for j in range(width):
                    out_below[j] += across[j]
        value[p] = distance + scale * total

        if distance > TINY:
            for r in range(height):
                line, target, chosen, out = z[p, r], x[p, r], mask[p, r], grad[p, r]
                for j in range(width):
                    out[j] += (line[j] - target[j]) / distance if chosen[j] else 0.0
        else:
            pull = 0.0
            for r in range(height):
                for j in range(width):
                    pull += grad[p, r, j] ** 2 if mask[p, r, j] else 0.0
            kept = max(0.0, 1.0 - 1.0 / np.sqrt(pull)) if pull > 0.0 else 0.0
            for r in range(height):
                for j in range(width):
                    if mask[p, r, j]:
                        grad[p, r, j] *= kept
