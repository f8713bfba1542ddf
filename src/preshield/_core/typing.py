"""Aliases."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..preprocessor import Preprocessor

__all__ = ["Arithmetic", "Array", "ClipValues", "Defence", "Dtype", "Rng", "Seed", "Shape"]

Arithmetic: TypeAlias = Callable[..., Any]  # of a batch, its namespace and, if need be, draw and labels
Array: TypeAlias = NDArray[Any]
ClipValues: TypeAlias = tuple[Any, Any]  # (minimum, maximum): numbers, or arrays that broadcast
Defence: TypeAlias = "Preprocessor"  # by name: what a defence is made of does not import it
Dtype: TypeAlias = np.dtype[Any]
Rng: TypeAlias = int | np.random.Generator | None
Seed: TypeAlias = NDArray[np.uint32]  # the words from which the draws of one call are made
Shape: TypeAlias = tuple[int, ...]
