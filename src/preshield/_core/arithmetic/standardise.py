"""Subtraction of a mean and division by a standard deviation."""

from typing import Any

from .namespace import constant

__all__ = ["standardise"]


def standardise(x: Any, xp: Any, mean: Any, std: Any) -> Any:
    """Standardise an array.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    mean, std : float or nested list
        They broadcast against `x`.
    """
    return (x - constant(mean, x, xp)) / constant(std, x, xp)
