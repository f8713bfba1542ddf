"""Labels of classification as one row of probabilities for each sample."""

import numpy as np

from .checks import check_values
from .errors import ArgumentError
from .layout import kept_dtype
from .typing import Array

__all__ = ["class_rows"]


def class_rows(y: Array, num_classes: int | None) -> Array:
    """Labels `(N, classes)` as they are, class indices `(N,)` as one-hot rows.

    Parameters
    ----------
    y : ndarray
        One-hot, multi-hot or soft labels, or class indices.
    num_classes : int or None
        Number of classes; None if it follows from the labels, which then cannot be indices.
    """
    check_values("y", y)
    num_classes = None if num_classes is None else int(num_classes)
    if y.ndim == 1 and num_classes is not None:
        return _one_hot(y, num_classes)
    if y.ndim != 2 or y.shape[1] != (num_classes or y.shape[1]):
        hint = "" if num_classes else "; class indices (N,) need `num_classes`"
        raise ArgumentError(f"`y` must have shape (N, {num_classes or 'classes'}), got {y.shape}{hint}.")
    return y


def _one_hot(y: Array, classes: int) -> Array:
    """Class indices `(N,)` as `(N, classes)`."""
    indices = y.astype(np.int64)
    if (indices != y).any() or (indices < 0).any() or (indices >= classes).any():
        raise ArgumentError(
            f"`y` must hold class indices from 0 to {classes - 1}, got values from {y.min()} to {y.max()}."
        )
    return np.equal(indices[:, None], np.arange(classes)).astype(kept_dtype(y.dtype))
