"""Which process of a program this is: what tells workers, ranks and copies of a defence apart.

Packages that are not loaded have not started this process.
"""

import os
import sys
from threading import Lock
from typing import Any

import numpy as np

from .typing import Shape

__all__ = ["LINEAGE", "MAIN", "loader_seed", "parent_pid", "process", "rank"]


class _Lineage:
    """The forks that led from the start of the program to this process."""

    def __init__(self) -> None:
        self.forks: list[tuple[int, Shape]] = []  # number in the parent, its identity
        self.children = 0
        self.numpy_state: Any = None  # the parent's at the fork, or what has become of it here
        self.lock = Lock()

    def before_fork(self) -> None:
        self.children += 1
        self.at_fork = np.random.get_state(legacy=False)

    def after_fork(self) -> None:
        self.forks.append((self.children, _identity()))
        self.children = 0
        self.numpy_state = self.at_fork
        self.lock = Lock()  # whoever held it does not live on

    def bare_forks(self) -> Shape:
        """Numbers of the forks that are not those of multiprocessing, which gives its children identities."""
        identities = [*(identity for _, identity in self.forks), _identity()]
        return tuple(number for i, (number, before) in enumerate(self.forks) if identities[i + 1] == before)

    def numpy_state_is_inherited(self) -> bool:
        """Whether NumPy's global state comes from the parent: nothing has seeded it since the fork."""
        if self.numpy_state is None:
            return False
        with self.lock:
            state = np.random.get_state(legacy=False)
            self.numpy_state = state if _follows(state, self.numpy_state) else None
            return self.numpy_state is not None


def _follows(state: Any, start: Any | None, blocks: int = 1 << 14, at_once: int = 1 << 10) -> bool:
    """Whether draws lead from one state of NumPy's to another, ten million words at most."""
    if start is None:
        return False
    if state["bit_generator"] != "MT19937" or start["bit_generator"] != "MT19937":
        return bool(state["bit_generator"] == start["bit_generator"])  # the others cannot be seeded anew
    key, first = state["state"]["key"], start["state"]["key"]
    if (key == first).all():
        return True
    ahead = np.random.MT19937(0)  # the state moves in blocks of 624 words
    ahead.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 0}}
    wanted = ahead.random_raw(624)
    ahead.state = {"bit_generator": "MT19937", "state": {"key": first, "pos": 624}}
    for _ in range(0, blocks, at_once):
        drawn = ahead.random_raw(at_once * 624).reshape(at_once, 624)
        if any((drawn[i] == wanted).all() for i in np.flatnonzero(drawn[:, 0] == wanted[0])):
            return True
    return False


LINEAGE = _Lineage()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LINEAGE.before_fork, after_in_child=LINEAGE.after_fork)


def _identity() -> Shape:
    """The number that multiprocessing gave this process, after those of its ancestors."""
    processes = sys.modules.get("multiprocessing.process")
    return () if processes is None else tuple(getattr(processes.current_process(), "_identity", ()))


def process(*, parent: bool = False) -> Shape:
    """Which process of the program this is, or which one started it through multiprocessing."""
    forks, identity = LINEAGE.bare_forks(), _identity()
    identity = identity[:-1] if parent else identity
    return (len(forks), *forks, len(identity), *identity)


MAIN = (0, 0)


def parent_pid() -> int | None:
    """Identifier of the process that started this one through multiprocessing."""
    processes = sys.modules.get("multiprocessing.process")
    return None if processes is None else getattr(processes.current_process(), "_parent_pid", None)


def loader_seed() -> int | None:
    """In a worker of a torch DataLoader its seed, which is another in each worker and each epoch."""
    get_worker_info = getattr(sys.modules.get("torch.utils.data"), "get_worker_info", None)
    worker = None if get_worker_info is None else get_worker_info()
    return None if worker is None else int(worker.seed)


def rank() -> int:
    """Rank in a distributed program: of torch if it is initialised, else as torchrun sets it."""
    distributed: Any = sys.modules.get("torch.distributed")
    if getattr(distributed, "is_initialized", bool)():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isascii() and rank.isdigit() else 0
