"""Copies that are checked on the way."""

from ..typing import Array
from . import kernel

__all__ = ["copy_floats"]


@kernel
def copy_floats(source: Array, target: Array, magnitude: int, infinity: int) -> bool:
    """Copy floats, and tell whether they hold neither NaN nor infinity.

    Without the sign, the bits of numbers have their order, and infinity and NaN come after all of them.

    Parameters
    ----------
    source, target : ndarray of unsigned integers, shape (n,)
        The bits of floats. `target` is written.
    magnitude, infinity : unsigned integer
        All bits but the sign, and those of infinity.

    Returns
    -------
    bool
    """
    largest = infinity - infinity  # 0 of this type
    for i in range(source.size):
        target[i] = source[i]
        largest = max(largest, source[i] & magnitude)
    return bool(largest < infinity)
