"""Smoothing of one-hot labels."""

from ..typing import Array
from . import kernel

__all__ = ["smooth_labels"]


@kernel
def smooth_labels(out: Array, y: Array, high: float, rest: float) -> None:
    """Turn ones into `high` and zeros into `rest`; leave other entries as they are.

    Parameters
    ----------
    out, y : ndarray, shape (n,)
        `out` is written.
    high, rest : float
    """
    for i in range(y.shape[0]):
        value = y[i]
        out[i] = high if value == 1 else (rest if value == 0 else value)
