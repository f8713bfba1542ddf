"""Seeds, and the generators that are made from them.

A stochastic defence takes a few words of entropy for each call, its *seed*. Everything that it draws in
that call is regenerated from them, so that a backward pass, another thread or a traced graph sees the
same draw.
"""

import numpy as np

from .typing import Rng, Seed

__all__ = ["SEED_WORDS", "SeedStream", "block_generator", "draw_seed", "expand_seed", "generator"]

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
