"""Seeds, the generators that are made from them, and how processes keep their seeds apart.

A stochastic defence takes a few words of entropy for each call, its *seed*. Everything that it draws in
that call is regenerated from them, so that a backward pass, another thread or a traced graph sees the
same draw.

A stream of seeds belongs to the process in which it was made. A copy that a fork or pickle takes to another
process mixes in what tells that process, or that copy, from its siblings; else they would repeat each other.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

import numpy as np

from .typing import Rng, Seed, Shape

__all__ = [
    "FROZEN",
    "SEED_WORDS",
    "SeedSource",
    "SeedStream",
    "block_generator",
    "draw_seed",
    "expand_seed",
    "generator",
]

SEED_WORDS = 4
OF_LOADER, OF_FORK, OF_PICKLE = range(1, 4)  # kinds of keys


class SeedStream:
    """Fresh seeds, one for each call of a defence.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        None takes each seed from NumPy's global state, which `numpy.random.seed` governs; an integer
        starts a stream of its own; a generator is drawn from.
    everywhere : bool, default False
        Whether the seeds are the same in every process and rank.
    """

    def __init__(self, rng: Rng, *, everywhere: bool = False) -> None:
        if rng is not None and not isinstance(rng, np.random.Generator):
            rng = np.random.default_rng(int(rng))
        self._generator = rng
        self._everywhere = everywhere
        self._home = _process()
        self._forks = len(LINEAGE.forks)
        self._pickled = 0  # times
        self._journey: Shape = ()  # of a pickled copy: its number among those of the stream it came from
        self._sender: int | None = None  # identifier of the process that pickled it

    def next(self) -> Seed:
        """The next seed."""
        key = () if self._everywhere else self._key()  # before NumPy's state moves on
        if self._generator is None:
            words = np.random.randint(0, 2**32, size=SEED_WORDS, dtype=np.uint32)
        else:
            words = draw_seed(self._generator)
        if not key:
            return words
        mixed = np.random.SeedSequence(words.tolist(), spawn_key=key)
        return mixed.generate_state(SEED_WORDS).astype(np.uint32, copy=False)

    @property
    def position(self) -> dict[str, Any] | None:
        """Where it is, as JSON can hold it; None for NumPy's global state."""
        if self._generator is None:
            return None
        position: dict[str, Any] = _plain(self._generator.bit_generator.state)
        return position

    def move_to(self, position: dict[str, Any] | None) -> None:
        """Go on from a position; NumPy's global state is left where it is."""
        if self._generator is not None and position is not None:
            self._generator.bit_generator.state = position

    def _key(self) -> Shape:
        """What tells this copy from its siblings; nothing at home and in the main process."""
        copy, rank = self._key_of_copy(), _rank()
        return (rank, *copy) if rank or copy else ()

    def _key_of_copy(self) -> Shape:
        if self._generator is None:
            # What has been seeded since the fork is the caller's: a task that begins with `numpy.random.seed`
            # draws the same in whatever worker it runs.
            return (OF_FORK, *_process()) if LINEAGE.numpy_state_is_inherited() else ()
        process = _process()
        if process in (self._home, MAIN):
            return ()
        loader = _loader_seed()
        if loader is not None:
            return (OF_LOADER, *_process(parent=True), loader & 0xFFFFFFFF, loader >> 32)
        if not self._journey or len(LINEAGE.forks) != self._forks:  # forked since it was made or unpickled
            return (OF_FORK, *process, *self._journey)
        if self._sender == _parent():  # the task of a pool draws the same in whatever worker it runs
            return (OF_PICKLE, *self._journey)
        return (OF_PICKLE, *process, *self._journey)

    def __getstate__(self) -> dict[str, Any]:
        if self._generator is None:  # nothing is copied
            return vars(self)
        self._pickled += 1
        return {**vars(self), "sender": os.getpid()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        sender = state.pop("sender", None)
        vars(self).update(state)
        if sender not in (None, os.getpid()):  # within a process a copy goes on as the original does
            self._journey = (*self._journey, self._pickled)
            self._sender = sender
            self._forks = len(LINEAGE.forks)


class SeedSource:
    """The parameter `rng` of a defence: assigning it starts a stream, which is at home where that happens.

    Classes written for ART may keep something else under this name.
    """

    def __get__(self, defence: Any, owner: type | None = None) -> Any:
        if defence is None:
            return self
        try:
            return vars(defence)["rng"]
        except KeyError:
            raise AttributeError(f"{type(defence).__name__!r} object has no attribute 'rng'") from None

    def __set__(self, defence: Any, rng: Rng) -> None:
        known = rng is None or isinstance(rng, int | float | np.number | np.random.Generator)
        vars(defence).update(rng=rng, _stream=SeedStream(rng) if known else None)


def draw_seed(rng: np.random.Generator) -> Seed:
    """A seed from a generator."""
    return rng.integers(0, 2**32, size=SEED_WORDS, dtype=np.uint32)


def expand_seed(seed: int, words: int) -> Seed:
    """As many words as wanted from one integer."""
    return np.random.SeedSequence(seed).generate_state(words).astype(np.uint32, copy=False)


def generator(seed: Seed) -> np.random.Generator:
    """The generator of one call."""
    return np.random.default_rng(seed)


def block_generator(seed: Seed, block: int) -> np.random.Generator:
    """The generator of one block of a call, whatever thread it runs on."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(block,))))


class _Frozen:
    """Which defences repeat one draw, and in which threads.

    It is kept apart from the defences, so that a copy of one, made inside the block, is not frozen forever.
    """

    def __init__(self) -> None:
        self._seeds: dict[tuple[int, int], int] = {}  # by defence and thread
        self._borrowers: set[int] = set()

    def seed(self, defence: Any) -> int | None:
        """The seed whose draw `defence` repeats in this thread, if it does."""
        thread = get_ident()
        own = self._seeds.get((id(defence), thread))
        if own is not None or thread not in self._borrowers:
            return own
        seeds = {seed for (number, _), seed in list(self._seeds.items()) if number == id(defence)}
        if len(seeds) > 1:
            raise RuntimeError(
                f"{defence} is frozen with the seeds {sorted(seeds)} by several threads, and a compiled "
                "graph does not know which of them runs it; give each thread a copy of the defence."
            )
        return next(iter(seeds), None)

    @contextmanager
    def held(self, defence: Any, seed: int) -> Iterator[None]:
        """Freeze `defence` in this thread."""
        place = id(defence), get_ident()
        before = self._seeds.get(place)
        self._seeds[place] = seed
        try:
            yield
        finally:
            if before is None:
                del self._seeds[place]
            else:
                self._seeds[place] = before

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Let this thread, which works for another one, use what any thread has frozen."""
        thread = get_ident()
        outer = thread in self._borrowers
        self._borrowers.add(thread)
        try:
            yield
        finally:
            if not outer:
                self._borrowers.discard(thread)


FROZEN = _Frozen()


def _plain(state: Any) -> Any:
    """The state of a bit generator, its arrays as lists."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


# Who this process is. Packages that are not loaded have not started it.


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


def _process(*, parent: bool = False) -> Shape:
    """Which process of the program this is, or which one started it through multiprocessing."""
    forks, identity = LINEAGE.bare_forks(), _identity()
    identity = identity[:-1] if parent else identity
    return (len(forks), *forks, len(identity), *identity)


MAIN = (0, 0)


def _parent() -> int | None:
    """Identifier of the process that started this one through multiprocessing."""
    processes = sys.modules.get("multiprocessing.process")
    return None if processes is None else getattr(processes.current_process(), "_parent_pid", None)


def _loader_seed() -> int | None:
    """In a worker of a torch DataLoader its seed, which is another in each worker and each epoch."""
    get_worker_info = getattr(sys.modules.get("torch.utils.data"), "get_worker_info", None)
    worker = None if get_worker_info is None else get_worker_info()
    return None if worker is None else int(worker.seed)


def _rank() -> int:
    """Rank in a distributed program: of torch if it is initialised, else as torchrun sets it."""
    distributed: Any = sys.modules.get("torch.distributed")
    if getattr(distributed, "is_initialized", bool)():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isascii() and rank.isdigit() else 0
