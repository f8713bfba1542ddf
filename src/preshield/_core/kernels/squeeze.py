"""Rounding to evenly spaced levels."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["squeeze"]


@kernel
def squeeze(out: Array, x: Array, low: float, span: float, levels: float) -> None:
    """Round each entry of `x` to the nearest of `levels + 1` levels from `low` to `low + span`.

    Ties go to the even level. The position between the levels is multiplied in double precision, so that
    an input in single precision does not cross a tie by rounding.

    Parameters
    ----------
    out, x : ndarray, shape (n,)
        `out` is written.
    low, span : float
        Of the dtype of `x`, in which the position is computed.
    levels : float
        Number of steps from the first level to the last.
    """
    step = np.float64(span) / levels
    origin = np.float64(low)
    for i in range(x.shape[0]):
        position = np.float64((x[i] - low) / span)
        out[i] = np.rint(position * levels) * step + origin
