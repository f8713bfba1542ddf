"""Labels of classification as one row of probabilities for each sample."""

from typing import Any

import numpy as np

from .arithmetic.namespace import counted
from .checks import check_values
from .errors import ArgumentError
from .layout import kept_dtype
from .typing import Array, Shape

__all__ = ["class_rows", "class_rows_anywhere"]


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
    if num_classes is not None and y.ndim == 1:
        return _one_hot(y, int(num_classes))
    _check_rows(y.shape, num_classes)
    return y


def class_rows_anywhere(y: Any, xp: Any, num_classes: int | None) -> tuple[Any, Any]:
    """The same of labels in any namespace, in the type in which to compute, and the type to return.

    Values are not looked at: of a number that is no class, the row is NaN.
    """
    real = xp.isdtype(y.dtype, "real floating")
    working = xp.float64 if y.dtype == xp.float64 else xp.float32
    if num_classes is None or y.ndim != 1:
        _check_rows(tuple(y.shape), num_classes)
        rows = xp.astype(y, working, copy=False)
    else:
        y = y if real or y.dtype == xp.int64 else xp.astype(y, xp.int32)
        marks = y[:, None] == xp.astype(counted(int(num_classes), y, xp), y.dtype)[None, :]
        rows = xp.where(xp.any(marks, axis=1, keepdims=True), xp.astype(marks, working), xp.nan)
    return rows, y.dtype if real else xp.float32


def _check_rows(shape: Shape, num_classes: int | None) -> None:
    if len(shape) != 2 or shape[1] != (num_classes or shape[1]):
        hint = "" if num_classes else "; class indices (N,) need `num_classes`"
        raise ArgumentError(f"`y` must have shape (N, {num_classes or 'classes'}), got {shape}{hint}.")


def _one_hot(y: Array, classes: int) -> Array:
    """Class indices `(N,)` as `(N, classes)`."""
    indices = y.astype(np.int64)
    if (indices != y).any() or (indices < 0).any() or (indices >= classes).any():
        raise ArgumentError(
            f"`y` must hold class indices from 0 to {classes - 1}, got values from {y.min()} to {y.max()}."
        )
    return np.equal(indices[:, None], np.arange(classes)).astype(kept_dtype(y.dtype))
