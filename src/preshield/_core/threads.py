"""One way to spread a batch over threads."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from .environment import number_from
from .layout import object_array
from .progress import progress_bar
from .typing import Array

__all__ = [
    "WORTH_A_THREAD",
    "block_length",
    "each_sample",
    "map_blocks",
    "map_parts",
    "thread_count",
    "threads_within",
]

RUNS = 4  # for each thread, so that none is left with most of the work
MOST_THREADS = 256
WORTH_A_THREAD = 1 << 24  # bytes to look at or to copy: less is done before another thread has woken up
MOST_BYTES = 1 << 26  # that the threads of a call hold together, beside its input and its output
BLOCK_BYTES = 1 << 19  # a block and what is made of it stay within the second-level cache


def thread_count() -> int:
    """Threads to use: `PRESHIELD_NUM_THREADS`, else the cores that this process may use."""
    setting = number_from("PRESHIELD_NUM_THREADS")
    if setting:
        return setting
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_within(held: float) -> int:
    """Threads to use if each holds so many bytes: at least one, and together no more than `MOST_BYTES`."""
    return max(1, min(thread_count(), int(MOST_BYTES / max(1.0, held))))


def block_length(x: Array, bytes_per_block: int = BLOCK_BYTES) -> int:
    """How many entries along the first axis of `x` make a block of about `bytes_per_block`."""
    row = x.nbytes // len(x) if x.ndim and len(x) else 1
    return max(1, bytes_per_block // max(1, row))


def map_blocks(
    function: Callable[[slice], None],
    total: int,
    block: int,
    *,
    threads: int | None = None,
    progress: str | None = None,
) -> None:
    """Call `function` with consecutive slices of `range(total)`, on several threads.

    The calling thread works too, so a call makes progress whatever the pool is busy with, and calls from
    many threads are safe. A forked process starts a pool of its own.

    Parameters
    ----------
    function : callable
        Takes a slice of at most `block` entries; writes its result where the caller finds it. It must
        release the global interpreter lock for most of its time.
    total, block : int
        Number of entries, and of entries in a slice.
    threads : int, optional
        How many may work; as many as `thread_count` says if omitted.
    progress : str, optional
        Shows a progress bar with this caption.
    """
    if total <= block and progress is None:  # what follows would take longer than a small batch
        if total:
            function(slice(0, total))
        return
    slices = [slice(i, min(i + block, total)) for i in range(0, total, block)]
    threads = min(threads or thread_count(), len(slices))
    # A thread takes neighbouring blocks: two threads in one huge page wait for each other.
    run = max(1, len(slices) // (RUNS * threads)) if threads else 1
    pending = iter([slices[i : i + run] for i in range(0, len(slices), run)])
    bar, lock = _bar(total, progress), threading.Lock()

    def stop() -> None:
        """Nobody takes another block."""
        with lock:
            for _ in pending:
                pass

    def drain() -> None:
        while True:
            with lock:
                blocks = next(pending, None)
            if blocks is None:
                return
            try:
                for rows in blocks:
                    function(rows)  # noqa: F821 - until all have returned
                    if bar is not None:
                        with lock:
                            bar.update(rows.stop - rows.start)
            except BaseException:
                stop()
                raise

    helpers: list[Future[None]] = []
    try:
        helpers.extend(_submit(drain) for _ in range(threads - 1))  # keeps those before an interrupt
        drain()
    except BaseException:
        stop()
        raise
    finally:
        errors = [helper.exception() for helper in helpers if not helper.cancel()]
        # With the caller's arrays: a helper that has yet to end, or waits cancelled, still has `drain`.
        del function
        if bar is not None:
            bar.close()
    for error in errors:
        if error is not None:
            raise error


def map_parts(
    function: Callable[[tuple[slice, ...]], None],
    x: Array,
    axis: int = 1,
    *,
    sample_bytes: int | None = None,
    progress: str | None = None,
) -> None:
    """Call `function` with slices that make a part of a batch, on several threads.

    Parameters
    ----------
    function : callable
        Takes slices of the first axis, and of those up to `axis` if a sample is large, for a part of about
        `BLOCK_BYTES`.
    x : ndarray
        The batch.
    axis : int, default 1
        Along which a large sample is cut, if there is such an axis.
    sample_bytes : int, optional
        How large a sample counts, if what is made of it is larger than the sample.
    progress : str, optional
        Shows a progress bar with this caption.
    """
    length = x.shape[axis] if x.ndim > axis and len(x) else 1
    size = x[:1].nbytes if sample_bytes is None else sample_bytes
    pieces = min(size // BLOCK_BYTES, length)
    if pieces <= 1:
        block = max(1, BLOCK_BYTES // max(1, size))
        map_blocks(lambda rows: function((rows,)), len(x), block, progress=progress)
        return

    def work(numbers: slice) -> None:
        for number in range(numbers.start, numbers.stop):
            sample, piece = divmod(number, pieces)
            ends = (length * place // pieces for place in (piece, piece + 1))
            function((slice(sample, sample + 1), *[slice(None)] * (axis - 1), slice(*ends)))

    map_blocks(work, len(x) * pieces, 1, progress=progress)


def each_sample(function: Callable[..., Array], *batches: Array) -> Array:
    """Apply a function for batches to every sample of object arrays, on several threads."""
    results: list[Array] = [np.empty(0)] * len(batches[0])

    def work(numbers: slice) -> None:
        for i in range(numbers.start, numbers.stop):
            results[i] = function(*(batch[i][None] for batch in batches))[0]

    map_blocks(work, len(results), 1)
    return object_array(results)


def _submit(function: Callable[[], None]) -> "Future[None]":
    """Have the pool call a function, if it gets to it before the result is cancelled."""
    future: Future[None] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - for the caller, who asks for it
                future.set_exception(error)
            else:
                future.set_result(None)

    try:
        _pool().submit(run)
    except RuntimeError:  # no thread can be started; one of those that there are may come to it
        return future
    except BaseException:
        # An interrupt while a thread starts leaves it unknown to the pool, which would not tell it to end
        # when the process does. Shutting down ends all of them, once their work is done.
        pool = _pool()
        _pool.cache_clear()
        pool.shutdown(wait=False)
        raise
    return future


def _bar(total: int, progress: str | None) -> Any:
    return None if progress is None else progress_bar(total=total, desc=progress)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for the life of this process; they are started as they are needed."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="preshield")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
