"""Projected gradient descent."""

from collections.abc import Callable

import numpy as np

from .._core.typing import Array
from .perturbations import directions, scaled, within

__all__ = ["projected_gradient_descent"]


def projected_gradient_descent(
    x: Array,
    y: Array,
    margin_and_gradient: Callable[[Array, Array], tuple[Array, Array]],
    *,
    norm: str,
    eps: float,
    clip_values: tuple[float, float] = (0.0, 1.0),
    steps: int = 50,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda done: None,
) -> Array:
    """Look for the perturbation within a bound that a classifier gets most wrong [1]_.

    From a random point within the bound, climb the loss in steps of 2.5 `eps` / `steps`, and back to the
    bound after each. Where the gradient is zero or not finite, the step goes in a random direction.

    Parameters
    ----------
    x : ndarray of float32, shape (N, ...)
        Samples within `clip_values`.
    y : ndarray of int, shape (N,)
        Their true labels.
    margin_and_gradient : callable
        Returns the margin, shape (N,), positive where a sample is classified as `y` and negative elsewhere,
        and the gradient of the loss with respect to the sample.
    norm : {"linf", "l2"}
        Norm of the perturbation.
    eps : float
        Bound of it.
    clip_values : tuple of float
        Smallest and largest value of a perturbed sample.
    steps : int
        Number of steps; a single one starts from the sample itself.
    seed : int
        Seed of the starts and of the random directions.
    on_step : callable
        Called with the fraction of the work that is done.

    Returns
    -------
    ndarray of float32, shape (N, ...)
        Of all points visited, the one with the lowest margin.

    Notes
    -----
    ART's version returns the last point. Through a defence whose gradient is an estimate the margin does not
    fall steadily: of 64 clips behind H.264, ten steps left 72% right at the last point, and 61% at the best.

    References
    ----------
    .. [1] Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
       Attacks. ICLR 2018. arXiv:1706.06083
    """
    rng = np.random.default_rng(seed)

    def back(moved: Array) -> Array:
        return np.clip(within(x, moved, norm, eps), *clip_values).astype(x.dtype)

    point = back(x + _inside(x, norm, eps, rng)) if steps > 1 else x
    best, lowest = x.copy(), np.full(len(x), np.inf)
    for done in range(steps + 1):
        margin, gradient = margin_and_gradient(point, y)
        lower = margin < lowest
        best[lower], lowest[lower] = point[lower], margin[lower]
        on_step((done + 1) / (steps + 1))
        if done < steps:
            direction = directions(gradient, rng)
            step = np.sign(direction) if norm == "linf" else direction
            point = back(point + 2.5 * eps / steps * step)
    return best


def _inside(x: Array, norm: str, eps: float, rng: np.random.Generator) -> Array:
    """A perturbation of each sample, drawn uniformly from the ball."""
    if norm == "linf":
        return rng.uniform(-eps, eps, x.shape)
    radii = eps * rng.random(len(x)) ** (1 / max(x[:1].size, 1))
    return scaled(directions(rng.standard_normal(x.shape), rng), radii)
