"""Arithmetic on batches of perturbations, in double precision: a tiny gradient has a norm too."""

import numpy as np

from .._core.typing import Array

__all__ = ["between", "directions", "norms", "scaled", "unit", "within"]


def norms(x: Array) -> Array:
    """L2 norm of each sample."""
    found: Array = np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)
    return found


def scaled(x: Array, factors: Array) -> Array:
    """Multiply each sample by its own number."""
    product: Array = x * np.asarray(factors, dtype=np.float64).reshape(-1, *[1] * (x.ndim - 1))
    return product


def unit(x: Array) -> Array:
    """Samples of L2 norm 1; those of norm 0 stay."""
    lengths = norms(x)
    return scaled(x, 1 / np.where(lengths > 0, lengths, 1))


def between(start: Array, end: Array, fractions: Array) -> Array:
    """The point at its own fraction of each line, in the type of `start`."""
    point: Array = (start + scaled(end - start, fractions)).astype(start.dtype)
    return point


def within(x: Array, moved: Array, norm: str, eps: float) -> Array:
    """Bring perturbations that exceed a bound in the norm "linf" or "l2" back to it."""
    if norm == "linf":
        return np.clip(moved, x - np.float32(eps), x + np.float32(eps))
    return between(x, moved, np.minimum(1, eps / norms(moved - x).clip(1e-30)))


def directions(gradient: Array, rng: np.random.Generator) -> Array:
    """Gradients of L2 norm 1; random directions in place of gradients that lead nowhere."""
    useless = ~np.isfinite(gradient).all(axis=tuple(range(1, gradient.ndim))) | (norms(gradient) == 0)
    if useless.any():
        gradient = gradient.copy()
        gradient[useless] = rng.standard_normal((int(useless.sum()), *gradient.shape[1:]))
    return unit(gradient)
