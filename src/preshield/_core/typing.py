"""Aliases."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "ClipValues", "Dtype", "Rng", "Seed", "Shape"]

Array: TypeAlias = NDArray[Any]
ClipValues: TypeAlias = tuple[Any, Any]  # (minimum, maximum): numbers, or arrays that broadcast
Dtype: TypeAlias = np.dtype[Any]
Rng: TypeAlias = int | np.random.Generator | None
Seed: TypeAlias = NDArray[np.uint32]  # the words from which the draws of one call are made
Shape: TypeAlias = tuple[int, ...]
