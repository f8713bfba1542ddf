"""Numba kernels: compiled on first use, cached on disk, free of the global interpreter lock.

Each kernel is single-threaded; `preshield._core.threads` spreads a batch over threads.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
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


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """An index and the files that it names, each by what it was compiled from and for.

    Numba numbers them: two processes that start together give one number to kernels of different types.
    """

    def save(self, key: Any, data: Any) -> None:
        digest = hashlib.sha256(repr((key, self._source_stamp)).encode()).digest()
        name = self._data_name(int.from_bytes(digest[:8]))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class _Cache(FunctionCache):  # type: ignore[misc]
    """What Numba keeps on disk, unless it is damaged or cannot be written: then a kernel is compiled anew."""

    _impl_class = _Places

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, locator.get_source_stamp())

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
