"""Numba kernels: compiled on first use, cached on disk, free of the global interpreter lock.

Each kernel is single-threaded; `preshield._core.threads` spreads a batch over threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["fused", "kernel", "ordered", "reduction"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` on its first call."""
    compiled: F = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


def fused(function: F) -> F:
    """Compile `function` on its first call, products and sums in one instruction, their order as written."""
    options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
    compiled: F = numba.njit(**options)(function)
    return compiled


def ordered(function: F) -> F:
    """Compile `function` on its first call, free to compare in any order and to take NaN for any number."""
    options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "nnan", "nsz"}}
    compiled: F = numba.njit(**options)(function)
    return compiled


def reduction(function: F) -> F:
    """Compile `function` on its first call, free to add up in any order, as vector instructions do."""
    options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz"}}
    compiled: F = numba.njit(**options)(function)
    return compiled
