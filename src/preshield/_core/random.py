"""Seeds, one for each call of a stochastic defence: a key, from which `draws.py` makes everything.

A stream of seeds belongs to the process in which it was made. A copy that a fork or pickle takes to another
process mixes in what tells that process, or that copy, from its siblings; else they would repeat each other.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .processes import LINEAGE, MAIN, loader_seed, parent_pid, process, rank
from .typing import Rng, Seed, Shape

__all__ = ["FROZEN", "SEED_WORDS", "SeedSource", "SeedStream", "distinct", "expand_seed"]

SEED_WORDS = 2  # of 32 bits, the key of the generator
OF_LOADER, OF_FORK, OF_PICKLE = range(1, 4)  # kinds of keys


class SeedStream:
    """Fresh seeds, one for each call of a defence.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        None takes each seed from NumPy's global state, which `numpy.random.seed` governs; an integer
        numbers its seeds; a generator is drawn from.
    everywhere : bool, default False
        Whether the seeds are the same in every process and rank.
    """

    def __init__(self, rng: Rng, *, everywhere: bool = False) -> None:
        self._rng = rng if rng is None or isinstance(rng, np.random.Generator) else int(rng)
        self._calls = 0  # of an integer
        self._everywhere = everywhere
        self._home = process()
        self._forks = len(LINEAGE.forks)
        self._pickled = 0  # times
        self._journey: Shape = ()  # of a pickled copy: its number among those of the stream it came from
        self._sender: int | None = None  # identifier of the process that pickled it

    def next(self, *, addressed: bool = False) -> Seed:
        """The next seed; of an integer, and `addressed` by sample, the first one, whatever the process."""
        addressed = addressed and isinstance(self._rng, int)
        key = () if self._everywhere or addressed else self._key()  # before NumPy's state moves on
        if self._rng is None:
            words = np.random.randint(0, 2**32, size=SEED_WORDS, dtype=np.uint32)
        elif isinstance(self._rng, np.random.Generator):
            words = self._rng.integers(0, 2**32, size=SEED_WORDS, dtype=np.uint32)
        else:
            return _words([self._rng], (0 if addressed else self._count(), *key))
        return _words(words.tolist(), key) if key else words

    @property
    def is_fixed(self) -> bool:
        """Whether samples that are addressed have one seed forever."""
        return isinstance(self._rng, int)

    def _count(self) -> int:
        with LINEAGE.lock:
            self._calls += 1
            return self._calls - 1

    @property
    def position(self) -> Any:
        """Where it is, as JSON can hold it; None for NumPy's global state."""
        if isinstance(self._rng, np.random.Generator):
            return _plain(self._rng.bit_generator.state)
        return None if self._rng is None else self._calls

    def move_to(self, position: Any) -> None:
        """Go on from a position; NumPy's global state is left where it is."""
        if isinstance(self._rng, np.random.Generator):
            self._rng.bit_generator.state = position
        elif self._rng is not None:
            self._calls = int(position)

    def _key(self) -> Shape:
        """What tells this copy from its siblings; nothing at home and in the main process."""
        copy, number = self._key_of_copy(), rank()
        return (number, *copy) if number or copy else ()

    def _key_of_copy(self) -> Shape:
        if self._rng is None:
            # What has been seeded since the fork is the caller's: a task that begins with `numpy.random.seed`
            # draws the same in whatever worker it runs.
            return (OF_FORK, *process()) if LINEAGE.numpy_state_is_inherited() else ()
        here = process()
        if here in (self._home, MAIN):
            return ()
        loader = loader_seed()
        if loader is not None:
            return (OF_LOADER, *process(parent=True), loader & 0xFFFFFFFF, loader >> 32)
        if not self._journey or len(LINEAGE.forks) != self._forks:  # forked since it was made or unpickled
            return (OF_FORK, *here, *self._journey)
        if self._sender == parent_pid():  # the task of a pool draws the same in whatever worker it runs
            return (OF_PICKLE, *self._journey)
        return (OF_PICKLE, *here, *self._journey)

    def __getstate__(self) -> dict[str, Any]:
        if self._rng is None:  # nothing is copied
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


def expand_seed(seed: int, words: int) -> Seed:
    """As many words as wanted from one integer."""
    return _words([seed], (), words)


def distinct(seeds: Seed, peeked_seed: Callable[[], Seed]) -> Seed:
    """Seeds of the stages of a chain, end to end; one that repeats an earlier one is mixed with its place.

    Two stages with the same integer would otherwise draw the same words. The seed that stages without draws
    have in common, as far as is known, stays.
    """
    keys = [tuple(key) for key in seeds.reshape(-1, SEED_WORDS).tolist()]
    if len(set(keys)) == len(keys):
        return seeds
    for place, key in enumerate(keys):
        if key in keys[:place] and key != tuple(peeked_seed().tolist()):
            keys[place] = tuple(_words(list(key), (place,)).tolist())
    return np.array(keys, dtype=np.uint32).reshape(-1)


def _words(entropy: list[int], key: Shape, words: int = SEED_WORDS) -> Seed:
    mixed = np.random.SeedSequence(entropy, spawn_key=key)
    return mixed.generate_state(words).astype(np.uint32, copy=False)


class _Hold(NamedTuple):
    """With what a defence is frozen."""

    seed: int
    numbers: tuple[int, ...] | None


class _Frozen:
    """Which defences repeat one draw, and in which contexts: those of threads and of asynchronous tasks.

    It is kept apart from the defences, so that a copy of one, made inside the block, is not frozen forever.
    """

    def __init__(self) -> None:
        self._held: ContextVar[Mapping[int, _Hold]] = ContextVar("held", default=MappingProxyType({}))
        self._borrows = ContextVar("borrows", default=False)
        self._everywhere: dict[object, tuple[int, _Hold]] = {}  # what any context holds, by block

    def seed(self, defence: Any) -> int | None:
        """The seed whose draw `defence` repeats in this context, if it does."""
        found = self._found(defence)
        return None if found is None else found.seed

    def numbers(self, defence: Any, count: int) -> Seed:
        """The numbers of `count` samples that `defence` is frozen with; none if it knows no such batch.

        Samples that a model adds behind those that it was given have their places as numbers.
        """
        found = self._found(defence)
        if found is None or found.numbers is None or len(found.numbers) > count:
            return np.zeros(0, dtype=np.uint32)
        return np.array((*found.numbers, *range(len(found.numbers), count)), dtype=np.uint32)

    def _found(self, defence: Any) -> "_Hold | None":
        own = self._held.get().get(id(defence))
        if own is not None or not self._borrows.get():
            return own
        holds = {hold for number, hold in list(self._everywhere.values()) if number == id(defence)}
        if len(holds) > 1:
            raise RuntimeError(
                f"{defence} is frozen with the seeds {sorted(hold.seed for hold in holds)} by several "
                "threads, and a compiled graph does not know which of them runs it; give each thread a copy "
                "of the defence."
            )
        return next(iter(holds), None)

    @contextmanager
    def held(self, defence: Any, seed: int, numbers: Sequence[int] | None = None) -> Iterator[None]:
        """Freeze `defence` in this context; with `numbers`, the draw of a sample depends on its number."""
        block, place, before = object(), id(defence), self._held.get().get(id(defence))
        hold = _Hold(seed, None if numbers is None else tuple(numbers))
        self._everywhere[block] = place, hold
        self._set(place, hold)
        try:
            yield
        finally:
            self._set(place, before)
            del self._everywhere[block]

    def _set(self, place: int, hold: _Hold | None) -> None:
        others = {key: other for key, other in self._held.get().items() if key != place}
        self._held.set(others if hold is None else {**others, place: hold})

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Let this thread, which works for another one, use what any context has frozen."""
        outer = self._borrows.get()
        self._borrows.set(True)
        try:
            yield
        finally:
            self._borrows.set(outer)


FROZEN = _Frozen()


def _plain(state: Any) -> Any:
    """The state of a bit generator, its arrays as lists."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state
