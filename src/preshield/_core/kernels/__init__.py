"""Numba kernels: compiled on first use, cached on disk, free of the global interpreter lock.

Each kernel is single-threaded; `preshield._core.threads` spreads a batch over threads.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.dispatcher import Dispatcher

__all__ = ["fused", "kernel", "ordered", "reduction"]

_told: list[str] = []

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` on its first call."""
    return _compiled(function)


def fused(function: F) -> F:
    """Compile `function` on its first call, products and sums in one instruction, their order as written."""
    return _compiled(function, fastmath={"contract"})


def ordered(function: F) -> F:
    """Compile `function` on its first call, free to compare in any order and to take NaN for any number."""
    return _compiled(function, fastmath={"reassoc", "nnan", "nsz"})


def reduction(function: F) -> F:
    """Compile `function` on its first call, free to add up in any order, as vector instructions do."""
    return _compiled(function, fastmath={"reassoc", "nsz"})


def _compiled(function: F, **options: Any) -> F:
    compiled: F = numba.njit(nogil=True, error_model="numpy", **options)(function)
    if isinstance(compiled, Dispatcher):  # not with NUMBA_DISABLE_JIT=1
        try:
            compiled._cache = _Cache(function)
        except Exception as error:  # noqa: BLE001 - such as RuntimeError: no folder can be written to
            _compile_without_cache(repr(error))
    return compiled


def _read_only(usual: Any) -> Any:
    class ReadOnly(usual):  # type: ignore[misc]
        def ensure_cache_path(self) -> None:
            if not Path(self.get_cache_path()).is_dir():
                raise FileNotFoundError(self.get_cache_path())

    return ReadOnly


class _Places(CompileResultCacheImpl):  # type: ignore[misc]
    """Where Numba keeps kernels: where it can write, else where it can read what an image came with."""

    _locator_classes = (
        *CompileResultCacheImpl._locator_classes,
        *map(_read_only, CompileResultCacheImpl._locator_classes),
    )


class _Cache(FunctionCache):  # type: ignore[misc]
    """What Numba keeps on disk, unless it is damaged or cannot be written: then a kernel is compiled anew."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Read a compiled kernel."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - whatever unpickling a damaged file raises
            _compile_without_cache(repr(error))
            with suppress(Exception):
                self.flush()  # the next process finds an empty one, and not the same damage
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled kernel."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001 - a full disk, among others
            _compile_without_cache(repr(error))


def _compile_without_cache(reason: str) -> None:
    """Tell the first reason to those who look for it."""
    if not _told:
        _told.append(reason)
        logging.getLogger("preshield").debug("Kernels are compiled without a cache on disk: %s", reason)
