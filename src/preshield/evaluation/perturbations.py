"""Arithmetic on batches of perturbations, for arrays of any framework: they stay where they are.

A batch is an array `(N, ...)` of NumPy, torch or JAX. What is one number for each sample is a NumPy array
`(N,)` of float64.
"""

from typing import Any

import array_api_extra as xpx
import numpy as np
from array_api_compat import array_namespace, device

from .._core.tensors import filled, framework, to_numpy
from .._core.typing import Array

__all__ = [
    "at_least",
    "between",
    "chosen",
    "copied",
    "dots",
    "for_each",
    "host",
    "norms",
    "places",
    "put",
    "scaled",
    "take",
    "unit",
    "within",
]


LEAST = 16  # samples from which on matrix products give a row the same bits, whatever their number
SMALL = 1 << 16  # values of a sample that are cheap enough to be repeated for it


def at_least(x: Any, least: int = LEAST) -> Any:
    """A batch of small samples that is not too small for its model, filled up with its last sample.

    Products of matrices with few rows are computed in another order: a sample would have other last bits in a
    small batch, and an attack would go another way.
    """
    count = len(x)
    if count >= least or not count or int(np.prod(x.shape[1:])) > SMALL:
        return x
    return take(x, np.minimum(np.arange(least), count - 1))


def host(x: Any) -> Array:
    """A batch as a NumPy array."""
    return x if isinstance(x, np.ndarray) else to_numpy(x)


def for_each(values: Array, x: Any) -> Any:
    """One number for each sample, as an array that broadcasts against `x`; booleans stay booleans."""
    xp = array_namespace(x)
    values = np.asarray(values)
    dtype = xp.bool if values.dtype == bool else x.dtype
    shape = (-1, *[1] * (x.ndim - 1))
    return xp.reshape(xp.asarray(np.ascontiguousarray(values), dtype=dtype, device=device(x)), shape)


def take(x: Any, rows: Array) -> Any:
    """Some samples, by number."""
    if len(rows) == len(x) and (rows == np.arange(len(x))).all():
        return x
    xp = array_namespace(x)
    return xp.take(x, xp.asarray(rows, device=device(x)), axis=0)


def places(mask: Array, x: Any, samples: Array | None = None) -> Array:
    """Where a mask is true, in ascending order, to `take` from `x`.

    JAX compiles each operation for each size of a batch: of its arrays few numbers of points are taken, the
    last one several times. Points of one sample have the same draws and the same results, so what is done
    with them may be done again. Of several points of one of the `samples` the first is enough.
    """
    found = np.flatnonzero(mask)
    if framework(x) != "jax" or len(found) in (0, len(mask)):
        return found
    if samples is not None:
        found = np.sort(found[np.unique(samples[found], return_index=True)[1]])
    return found[filled(len(found), LEAST)[: len(mask)]]


def copied(x: Any) -> Any:
    """A batch of one's own, to `put` samples into."""
    return array_namespace(x).asarray(x, copy=True)


def put(x: Any, rows: Array, values: Any) -> Any:
    """The batch with some samples replaced; where the framework allows it, `x` itself."""
    if not len(rows):
        return x
    xp = array_namespace(x)
    return xpx.at(x)[xp.asarray(rows, device=device(x))].set(values)


def chosen(mask: Array, x: Any, other: Any) -> Any:
    """Samples of `x` where the mask `(N,)` is true, of `other` elsewhere."""
    return array_namespace(x).where(for_each(mask, x), x, other)


def dots(x: Any, other: Any) -> Array:
    """Inner product of each sample with its counterpart."""
    xp = array_namespace(x)
    return host(xp.sum(_rows(x * other), axis=1)).astype(np.float64)


def norms(x: Any, norm: str = "l2") -> Array:
    """Norm of each sample: "l2", "linf" or "l1"; no power of a tiny or of a large value is lost."""
    xp = array_namespace(x)
    magnitudes = xp.abs(_rows(x))
    largest = xp.max(magnitudes, axis=1, keepdims=True)
    if norm == "linf":
        return host(largest[:, 0]).astype(np.float64)
    if norm == "l1":
        return host(xp.sum(magnitudes, axis=1)).astype(np.float64)
    relative = magnitudes / xp.where(largest > 0, largest, xp.ones_like(largest))
    squares = host(xp.sum(relative * relative, axis=1)).astype(np.float64)
    found: Array = host(largest[:, 0]).astype(np.float64) * np.sqrt(squares)
    return found


def scaled(x: Any, factors: Array) -> Any:
    """Multiply each sample by its own number."""
    return x * for_each(factors, x)


def unit(x: Any) -> Any:
    """Samples of L2 norm 1; those of norm 0 stay."""
    xp = array_namespace(x)
    # In two steps: one factor for both would overflow where a gradient is tiny.
    largest = norms(x, "linf")
    x = x / for_each(np.where(largest > 0, largest, 1), x)
    lengths = norms(x)
    return xp.astype(scaled(x, 1 / np.where(lengths > 0, lengths, 1)), x.dtype)


def between(start: Any, end: Any, fractions: Array) -> Any:
    """The point at its own fraction of each line."""
    return start + scaled(end - start, fractions)


def within(x: Any, moved: Any, norm: str, eps: float) -> Any:
    """Bring perturbations that exceed a bound in the norm "linf" or "l2" back to it."""
    xp = array_namespace(x)
    if norm == "linf":
        return xp.minimum(xp.maximum(moved, x - eps), x + eps)
    lengths = norms(moved - x)
    if (lengths <= eps).all():
        return moved
    return between(x, moved, np.minimum(1, eps / lengths.clip(1e-30)))


def _rows(x: Any) -> Any:
    """The values of each sample in a row, also of no samples."""
    return array_namespace(x).reshape(x, (len(x), int(np.prod(x.shape[1:]))))
