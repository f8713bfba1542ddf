"""Shares of a Dirichlet distribution."""

from math import sqrt
from typing import Any

from .namespace import counted

__all__ = ["dirichlet"]

TRIES = 16


def dirichlet(rng: Any, xp: Any, alpha: float, parts: int, dtype: Any) -> Any:
    """Shares of a symmetric Dirichlet distribution, the same for all samples.

    Gamma variates [1]_ over their sum. Of some tries the first one that is accepted counts; that none is has
    a probability below 1e-20. Logarithms keep apart the small variates of a small `alpha`.

    Parameters
    ----------
    rng : Draws or NativeDraws
        Drawn from.
    xp : namespace
        Of what it draws.
    alpha : float
        Concentration.
    parts : int
        How many shares.
    dtype : dtype of `xp`
        Of the shares.

    Returns
    -------
    array, shape (parts,)

    References
    ----------
    .. [1] Marsaglia, Tsang. A Simple Method for Generating Gamma Variables. ACM TOMS 26(3), 2000.
       doi:10.1145/358407.358414
    """
    rng = rng.reserve(2 * parts * (TRIES + 1)).renumbered(1)
    scale = alpha + (1 if alpha < 1 else 0) - 1 / 3
    normal = xp.asarray(rng.standard_normal((1, parts, TRIES))[0, ...], dtype=dtype)
    cube = (1 + normal / sqrt(9 * scale)) ** 3
    log_cube = xp.log(xp.where(cube > 0, cube, xp.ones_like(cube)))
    below = normal * normal / 2 + scale * (1 - cube + log_cube)
    accepted = (cube > 0) & (_log_uniform(rng, xp, (1, parts, TRIES), dtype) < below)
    first = xp.argmax(xp.asarray(accepted, dtype=xp.int32), axis=-1, keepdims=True)
    chosen = xp.asarray(counted(TRIES, first, xp) == first, dtype=dtype)
    logs = xp.sum(chosen * log_cube, axis=-1)
    if alpha < 1:
        logs = logs + _log_uniform(rng, xp, (1, parts), dtype) / alpha
    sizes = xp.exp(logs - xp.max(logs))
    return sizes / xp.sum(sizes)


def _log_uniform(rng: Any, xp: Any, size: tuple[int, ...], dtype: Any) -> Any:
    """Logarithms of uniform numbers above 0 and up to 1."""
    return xp.log(xp.asarray(1 - rng.random(size, "float32")[0, ...], dtype=dtype))
