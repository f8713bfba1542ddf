"""Normal noise, added to samples or to copies of some."""

from collections.abc import Sequence
from typing import Any

from .namespace import clipped, stop_gradient, straight_through, taken

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
    copies = noisy(taken(x, draw.samples, xp), xp, draw, sigma, limits)
    out = xp.concat([_clipped(x, xp, limits), copies])
    return out, None if y is None else xp.concat([y, taken(y, draw.samples, xp)])


def _clipped(x: Any, xp: Any, limits: Sequence[Any]) -> Any:
    if not limits:
        return x
    return straight_through(clipped(stop_gradient(x), limits[0], limits[1], xp), x)
