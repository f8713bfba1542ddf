"""Minimum-norm L2 attack."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._core.typing import Array

__all__ = ["Adversarials", "minimum_norm_attack"]


@dataclass(frozen=True, eq=False)
class Adversarials:
    """What a minimum-norm attack found.

    Attributes
    ----------
    x : ndarray, shape (N, ...)
        The perturbed samples; where the attack failed, the last point that it tried.
    norms : ndarray of float, shape (N,)
        L2 norm of each perturbation: 0 where the sample was wrong from the start, infinite where
        the attack failed.
    """

    x: Array
    norms: Array


def minimum_norm_attack(
    x: Array,
    y: Array,
    margin: Callable[[Array, Array], Array],
    margin_and_gradient: Callable[[Array, Array], tuple[Array, Array]],
    *,
    step: float = 0.05,
    max_steps: int = 200,
    halvings: int = 8,
    on_step: Callable[[float], None] = lambda done: None,
) -> Adversarials:
    """Look for the smallest perturbation that makes the prediction wrong.

    Each sample moves against the gradient of its margin by steps of a fixed L2 length, clipped to
    [0, 1], until its margin is negative. A bisection along the line back to the original then
    looks for the nearest point whose margin is still negative. On a linear model the result is the
    distance to the decision boundary; elsewhere it is an upper bound of it.

    Parameters
    ----------
    x : ndarray of float32, shape (N, ...)
        Samples in [0, 1].
    y : ndarray of int, shape (N,)
        Their true labels.
    margin : callable
        ``margin(x, y)`` is positive where `x` is classified as `y` and negative elsewhere, shape
        (N,).
    margin_and_gradient : callable
        Returns the margin and its gradient with respect to `x`.
    step : float
        L2 length of a step.
    max_steps : int
        Steps after which a sample is given up: the budget is ``step * max_steps``.
    halvings : int
        Steps of the bisection; it is exact to 2 ** -halvings of the distance covered.
    on_step : callable
        Called with the fraction of the work that is done.

    Returns
    -------
    Adversarials
    """
    moved, failed = _walk(x, y, margin_and_gradient, step, max_steps, lambda done: on_step(0.7 * done))
    norms = _norms(moved - x)
    norms[failed] = np.inf
    found = np.flatnonzero((norms > 0) & (norms < np.inf))
    near, far = np.zeros(len(x)), np.ones(len(x))  # the bracket, as fractions of the line
    for index in range(halvings if len(found) else 0):
        middle = (near[found] + far[found]) / 2
        wrong = margin(_between(x[found], moved[found], middle), y[found]) < 0
        far[found] = np.where(wrong, middle, far[found])
        near[found] = np.where(wrong, near[found], middle)
        on_step(0.7 + 0.3 * (index + 1) / halvings)
    return Adversarials(_between(x, moved, far), norms * far)


def _walk(
    x: Array,
    y: Array,
    margin_and_gradient: Callable[[Array, Array], tuple[Array, Array]],
    step: float,
    max_steps: int,
    on_step: Callable[[float], None],
) -> tuple[Array, Array]:
    """Move each sample until it is wrong; return where each is, and the indices that never were."""
    moved, active = x.copy(), np.arange(len(x))
    for left in range(max_steps, -1, -1):
        value, gradient = margin_and_gradient(moved[active], y[active])
        right = value >= 0
        active, gradient = active[right], gradient[right]
        on_step(1 - len(active) / len(x))
        if not left or not len(active):
            break
        length = np.maximum(_norms(gradient), np.finfo(gradient.dtype).tiny)
        moved[active] = np.clip(moved[active] - step * _scale(gradient, 1 / length), 0, 1)
    return moved, active


def _between(start: Array, end: Array, fraction: Array) -> Array:
    point: Array = (start + _scale(end - start, fraction)).astype(start.dtype)
    return point


def _scale(x: Array, factor: Array) -> Array:
    """Multiply each sample by its own number."""
    scaled: Array = x * factor.reshape(-1, *[1] * (x.ndim - 1))
    return scaled


def _norms(x: Array) -> Array:
    norms: Array = np.linalg.norm(x.reshape(len(x), -1), axis=1)
    return norms
