"""Normal noise, added to samples or to copies of some."""

from collections.abc import Sequence
from typing import Any

from .namespace import constant, stop_gradient, straight_through

__all__ = ["augmented", "noisy"]


def noisy(x: Any, xp: Any, draw: Any, sigma: float, limits: Sequence[Any]) -> Any:
    """Add noise to each sample.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    draw : tuple
        Samples to copy, and draws for the noise.
    sigma : float
        Standard deviation.
    limits : sequence of float or nested list
        Minimum and maximum to which the result is clipped, which broadcast against `x`; empty for none. The
        derivative is that without clipping.
    """
    noise = sigma * draw.noise.standard_normal(x.shape)
    return _clipped(x + xp.astype(noise, x.dtype), xp, limits)


def augmented(x: Any, xp: Any, draw: Any, y: Any, sigma: float, limits: Sequence[Any]) -> tuple[Any, Any]:
    """Append copies with noise, and their labels, with the parameters of `noisy`."""
    x = xp.astype(x, xp.float32, copy=False)
    copies = noisy(xp.take(x, draw.samples, axis=0), xp, draw, sigma, limits)
    out = xp.concat([_clipped(x, xp, limits), copies])
    return out, None if y is None else xp.concat([y, xp.take(y, draw.samples, axis=0)])


def _clipped(x: Any, xp: Any, limits: Sequence[Any]) -> Any:
    if not limits:
        return x
    low, high = (constant(limit, x, xp) for limit in limits)
    return straight_through(xp.minimum(xp.maximum(stop_gradient(x), low), high), x)
