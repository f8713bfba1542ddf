"""The scores among what a model returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.tensors import framework, to_numpy
from .._core.typing import Array

__all__ = ["numbers_of", "scores_of"]

NAMES = ("logits", "scores", "out")  # of Hugging Face and torchvision; the first that there is


def scores_of(outputs: Any, name: str = "model") -> Any:
    """The scores among what a model returns, as part of the same graph.

    Parameters
    ----------
    outputs : object
        A tensor or an array, which is returned as it is. Of a mapping or another object, the entry or
        attribute called "logits", "scores" or "out", or the only entry. Of a tuple, the first element, unless
        all are numbers; of a list too if it has two axes or more, because a list of vectors is one row for
        each sample.
    name : str
        What the message calls the model.

    Returns
    -------
    object
        A tensor or an array, or what NumPy may make one of: numbers, or lists of rows.

    Raises
    ------
    ArgumentError
        If several entries of a mapping could be meant.
    """
    while not _is_array(outputs):
        found = _named(outputs)
        if found is None and isinstance(outputs, Mapping):
            if len(outputs) != 1:
                entries = ", ".join(map(repr, outputs)) or "none"
                raise ArgumentError(
                    f"`{name}` must return scores, or a mapping with one entry or with one of the entries "
                    f"{', '.join(map(repr, NAMES))}, got the entries {entries}; wrap it in a model that "
                    "returns the scores."
                )
            (found,) = outputs.values()
        if found is None and isinstance(outputs, tuple) and any(_holds(value, 1) for value in outputs):
            found = outputs[0]
        if found is None and isinstance(outputs, list) and outputs and _holds(outputs[0], 2):
            found = outputs[0]
        if found is None:
            break
        outputs = found
    return outputs


def numbers_of(outputs: Any, name: str = "model") -> Array:
    """The scores among what a model returns, as an array; half precision becomes `float32`."""
    scores = scores_of(outputs, name)
    if isinstance(scores, tuple | list):  # rows, which may be tensors with gradients
        scores = [to_numpy(row) for row in scores]
    array = to_numpy(scores)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _is_array(value: Any) -> bool:
    return framework(value) != "numpy" or hasattr(value, "__array__")


def _holds(value: Any, axes: int) -> bool:
    """Whether a value is an array with so many axes or more, or what scores are found in."""
    if _is_array(value):
        return len(getattr(value, "shape", ())) >= axes
    return isinstance(value, Mapping) or _named(value) is not None


def _named(outputs: Any) -> Any:
    """The entry or attribute of the first name that there is; None if there is none."""
    if _is_array(outputs):
        return None
    for name in NAMES:
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if found is not None:
            return found
    return None
