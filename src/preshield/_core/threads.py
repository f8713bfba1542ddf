"""One way to spread a batch over threads."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .typing import Array

__all__ = ["block_length", "map_blocks", "thread_count"]

BLOCK_BYTES = 1 << 19  # a block and what is made of it stay within the second-level cache


def thread_count() -> int:
    """Threads to use: `PRESHIELD_NUM_THREADS`, else the cores that this process may use."""
    setting = os.environ.get("PRESHIELD_NUM_THREADS", "")
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise ValueError(
                f"The environment variable PRESHIELD_NUM_THREADS must be a positive integer, got {setting!r}."
            )
        return int(setting)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def block_length(x: Array, bytes_per_block: int = BLOCK_BYTES) -> int:
    """How many entries along the first axis of `x` make a block of about `bytes_per_block`."""
    row = x.nbytes // len(x) if x.ndim and len(x) else 1
    return max(1, bytes_per_block // max(1, row))


def map_blocks(
    function: Callable[[slice], None], total: int, block: int, *, progress: str | None = None
) -> None:
    """Call `function` with consecutive slices of `range(total)`, on all threads.

    The threads are started for this call and end with it, so nothing survives a fork, and a call from any
    thread is safe. The function must release the global interpreter lock for most of its time.

    Parameters
    ----------
    function : callable
        Takes a slice of at most `block` entries; writes its result where the caller finds it.
    total, block : int
        Number of entries, and of entries in a slice.
    progress : str, optional
        Shows a progress bar with this caption.
    """
    slices = [slice(i, min(i + block, total)) for i in range(0, total, block)]
    threads = min(thread_count(), len(slices))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(function, slices)
            _exhaust(done, slices, progress)
    else:
        _exhaust(map(function, slices), slices, progress)


def _exhaust(done: Iterator[None], slices: list[slice], progress: str | None) -> None:
    if progress is None:
        for _ in done:
            pass
        return
    from tqdm.auto import tqdm

    with tqdm(total=slices[-1].stop if slices else 0, desc=progress) as bar:
        for rows, _ in zip(slices, done, strict=True):
            bar.update(rows.stop - rows.start)
