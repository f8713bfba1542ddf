"""Batches on the workers of an engine that exists: Dask's, or an executor of the standard library."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, wait
from itertools import chain
from typing import Any

from .._core.errors import ArgumentError
from .._core.typing import Array

__all__ = ["check_client", "spread"]

AHEAD = 2  # batches that are handed to a worker at once
MOST_LOSSES = 3  # of all workers that have the work; more are no accident


def check_client(client: Any) -> None:
    """Refuse what is neither a Client of Dask with workers nor an executor."""
    if client is None or isinstance(client, Executor):
        return
    if not _is_dask(client):
        raise ArgumentError(
            "`client` must be a dask.distributed Client or an executor of concurrent.futures, got "
            f"{type(client).__module__}.{type(client).__name__}."
        )
    if client.status != "running":
        raise ArgumentError(f"`client` must be connected to a scheduler, got the status {client.status!r}.")
    if not client.scheduler_info()["workers"]:
        raise ArgumentError(
            "`client` must have at least one worker, got none; start one, or use "
            "dask.distributed.Client(n_workers=2, threads_per_worker=1)."
        )


def spread(
    client: Any, work: Callable[[Array, Array, int], Any], batches: Iterator[tuple[Any, ...]]
) -> Iterator[Any]:
    """Results of `work(*batch)`, in the order in which they are finished.

    Parameters
    ----------
    client : dask.distributed.Client or concurrent.futures.Executor
        Dask sends the batches of a lost worker to another one.
    work : callable
        Is sent to each worker once.
    batches : iterator of tuple
        Arguments.

    Yields
    ------
    object

    Raises
    ------
    ArgumentError
        If the work cannot be sent to another process.
    """
    if _is_dask(client):
        import distributed

        def send() -> Any:
            return client.scatter(work, broadcast=True, hash=False)

        everywhere = send()
        wait_for: Callable[..., Any] = distributed.wait
        workers = sum(client.nthreads().values())

        def submit(batch: tuple[Any, ...]) -> Any:
            return client.submit(_done, everywhere, batch, pure=False)
    else:
        _check_sendable(client, work)
        wait_for, workers = wait, getattr(client, "_max_workers", os.cpu_count() or 1)

        def submit(batch: tuple[Any, ...]) -> Any:
            return client.submit(_done, work, batch)

    pending: dict[Any, tuple[Any, ...]] = {}
    losses = 0
    try:
        for batch in chain(batches, [None]):
            # A few for each worker: all at once would hold all samples in memory.
            while pending and (batch is None or len(pending) >= AHEAD * workers):
                try:
                    finished, _ = wait_for(list(pending), return_when=FIRST_COMPLETED)
                except CancelledError:  # Dask has lost each worker that had the work
                    losses += 1
                    if losses > MOST_LOSSES:
                        raise
                    everywhere = send()
                    for future in [future for future in pending if future.cancelled()]:
                        some = pending.pop(future)
                        pending[submit(some)] = some
                    continue
                for future in finished:
                    del pending[future]
                    yield future.result()
            if batch is not None:
                pending[submit(batch)] = batch
    finally:
        for future in pending:
            future.cancel()


def _check_sendable(client: Executor, work: Any) -> None:
    if not isinstance(client, ProcessPoolExecutor):
        return
    try:
        pickle.dumps(work)
    except Exception as error:
        raise ArgumentError(
            "`client` is a pool of processes, and the classifier or a defence cannot be sent there: "
            f"{error}. Define it in a module, use a dask.distributed Client, which sends functions too, "
            "or a ThreadPoolExecutor."
        ) from error


def _done(work: Callable[..., Any], batch: tuple[Any, ...]) -> Any:
    return work(*batch)


def _is_dask(client: Any) -> bool:
    cls = getattr(sys.modules.get("distributed"), "Client", None)
    return cls is not None and isinstance(client, cls)
