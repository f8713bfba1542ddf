"""Seeds, and the generators that are made from them.

A stochastic defence takes a few words of entropy for each call, its *seed*. Everything that it draws in
that call is regenerated from them, so that a backward pass, another thread or a traced graph sees the
same draw.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import numpy as np

from .typing import Rng, Seed

__all__ = ["FROZEN", "SEED_WORDS", "SeedStream", "block_generator", "draw_seed", "expand_seed", "generator"]

SEED_WORDS = 4


class SeedStream:
    """Fresh seeds, one for each call of a defence.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        None takes each seed from NumPy's global state, which `numpy.random.seed` governs; an integer
        starts a stream of its own; a generator is drawn from.
    """

    def __init__(self, rng: Rng) -> None:
        if rng is not None and not isinstance(rng, np.random.Generator):
            rng = np.random.default_rng(int(rng))
        self._generator = rng

    def next(self) -> Seed:
        """The next seed."""
        if self._generator is None:
            return np.random.randint(0, 2**32, size=SEED_WORDS, dtype=np.uint32)
        return draw_seed(self._generator)


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
