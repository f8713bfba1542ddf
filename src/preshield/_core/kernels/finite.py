"""Copies that are checked on the way."""

from ..typing import Array
from . import kernel

__all__ = ["copy_floats"]


@kernel
def copy_floats(source: Array, target: Array, magnitude: int) -> int:
    """Copy floats, and return the bits of the largest magnitude.

    Without the sign, the bits of numbers have their order, and infinity and NaN come after all of them.

    Parameters
    ----------
    source, target : ndarray of unsigned integers, shape (n,)
        The bits of floats. `target` is written.
    magnitude : unsigned integer
        All bits but the sign.

    Returns
    -------
    unsigned integer
    """
    largest = magnitude - magnitude  # 0 of this type
    for i in range(source.size):
        target[i] = source[i]
        largest = max(largest, source[i] & magnitude)
    return largest
