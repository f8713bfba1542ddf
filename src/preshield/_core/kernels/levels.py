"""Values to the 256 levels of a byte."""

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["to_bytes"]


@kernel
def to_bytes(out: Array, x: Array, scale: float) -> None:
    """Round `scale * x` to whole numbers and saturate at 255.

    Parameters
    ----------
    out : ndarray of uint8, shape (n,)
        Written.
    x : ndarray, shape (n,)
        Not negative.
    scale : float
        Of the dtype of `x`.
    """
    for i in range(x.shape[0]):
        out[i] = np.uint8(min(np.rint(x[i] * scale), 255.0))
