"""Seeds, and the draws that are made from them.

A stochastic defence takes a *seed* for each call: the words of a key. Every value that it draws is a function
of the key, the number of the sample in the data set and the position within the sample: a counter-based
generator [1]_, Threefry2x32 of 20 rounds, turns the three into random words. So neither threads nor batches
matter, and a backward pass or a traced graph makes the same draw again.

A stream of seeds belongs to the process in which it was made. A copy that a fork or pickle takes to another
process mixes in what tells that process, or that copy, from its siblings; else they would repeat each other.

.. [1] Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
   doi:10.1145/2063384.2063405
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import get_ident
from typing import Any

import numpy as np

from .errors import ArgumentError
from .processes import LINEAGE, MAIN, loader_seed, parent_pid, process, rank
from .threads import map_blocks
from .typing import Array, Rng, Seed, Shape

__all__ = ["Draws", "FROZEN", "SEED_WORDS", "SeedSource", "SeedStream", "expand_seed", "numbered"]

SEED_WORDS = 2  # of 32 bits, the key of the generator
SAMPLES = 1 << 32  # in a data set, and words of a sample: as many as the counter has room for
OF_LOADER, OF_FORK, OF_PICKLE = range(1, 4)  # kinds of keys
WORD = np.uint64(32)  # bits
BLOCK = 1 << 16  # values that a thread draws in one go


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


def numbered(seed: Seed, samples: int, words: int = SEED_WORDS) -> tuple[Seed, Array]:
    """The words of a seed, and the numbers of the samples: those that follow in it, else from 0 on."""
    index = seed[words:] if len(seed) > words else np.arange(samples, dtype=np.uint32)
    if len(index) != samples:
        raise ArgumentError(f"`index` must number the samples of the batch, got {len(index)} for {samples}.")
    return seed[:words], index


def _words(entropy: list[int], key: Shape, words: int = SEED_WORDS) -> Seed:
    mixed = np.random.SeedSequence(entropy, spawn_key=key)
    return mixed.generate_state(words).astype(np.uint32, copy=False)


class Draws:
    """What a pass draws: values of each sample, from its number, and values that the whole batch shares.

    The methods are those of `numpy.random.Generator`, with `size` in full. Its first axis is that of the
    samples, and a row depends on the seed, the number of its sample and the calls before, not on the rest of
    the batch. A single value (`size` left out), and whatever other methods of `numpy.random.Generator`
    draw, such as a permutation of the batch, is `shared`: it depends on the seed alone.

    Parameters
    ----------
    key : ndarray of uint32, shape (2,)
        The seed.
    index : ndarray of uint32, shape (N,)
        Numbers of the samples.

    Attributes
    ----------
    shared : numpy.random.Generator
        Draws what all samples have in common.
    """

    def __init__(self, key: Seed, index: Array) -> None:
        self.key = key
        self.index = index
        self._taken = 0  # words of each sample

    @cached_property
    def shared(self) -> np.random.Generator:
        """A generator of NumPy's, from the seed alone."""
        return np.random.default_rng(self.key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copies and pickles
            raise AttributeError(name)
        return getattr(self.shared, name)

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Uniform on [0, 1)."""
        if size is None:
            return self.shared.random(dtype=dtype)
        if np.dtype(dtype) == np.float32:
            return (self._take(size) >> 8) * np.float32(2.0**-24)
        pairs = self._take(size, 2)
        return ((pairs[..., 0] >> 5) * 2.0**26 + (pairs[..., 1] >> 6)) * 2.0**-53

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Uniform on [low, high)."""
        return low + (high - low) * self.random(size)

    def integers(self, low: Any, high: Any = None, size: Any = None) -> Any:
        """Uniform over the integers from `low`, or 0 if `high` is left out, to below `high`."""
        low, high = (0, low) if high is None else (low, high)
        if size is None:
            return self.shared.integers(low, high)
        span = np.subtract(high, low)
        if span.min() < 1 or span.max() > 2**32:
            raise ArgumentError(f"`high` must lie 1 to 2**32 above `low`, got {low!r} and {high!r}.")
        # The share of the span at a number of 64 bits, which is made of two words.
        words, span = self._take(size, 2).astype(np.uint64), span.astype(np.uint64)
        share = (words[..., 0] * span + (words[..., 1] * span >> WORD)) >> WORD
        return low + share.astype(np.int64)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Normal with mean 0 and variance 1, a multiple of 2**-20 and below 6.2 in magnitude."""
        if size is None:
            return self.shared.standard_normal(dtype=dtype)
        shape, of_sample, first = self._place(size)
        out = np.empty(shape, np.float32)
        flat = out.reshape(-1)
        map_blocks(lambda part: self.fill_normals(flat[part], part, of_sample, first), flat.size, BLOCK)
        return out.astype(dtype, copy=False)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Normal with this mean and standard deviation."""
        return loc + scale * self.standard_normal(size)

    # For kernels: values numbered through all samples, each of which has the same number of them

    def fill_words(self, out: Array, values: slice, of_sample: int, first: int = 0) -> None:
        """Write the words of some values; those of a sample begin at its word `first`."""
        from .kernels.threefry import fill_words

        fill_words(out, self.key, self.index, values.start, of_sample, first)

    def fill_normals(self, out: Array, values: slice, of_sample: int, first: int = 0) -> None:
        """Write normals for some values, in `float32`; one word makes one."""
        from .kernels.threefry import fill_normals, quantiles

        fill_normals(out, quantiles(), self.key, self.index, values.start, of_sample, first)

    def add_normals(self, out: Array, x: Array, sigma: float, values: slice, of_sample: int) -> None:
        """Write values plus normals of this standard deviation to `out`, in `float32`."""
        from .kernels.threefry import add_normals, quantiles

        scale = np.float32(sigma)
        add_normals(out, x, scale, quantiles(), self.key, self.index, values.start, of_sample)

    def _take(self, size: Any, words: int = 1) -> Array:
        """Words for an array of this size, so many for each value on an axis of their own."""
        shape, of_sample, first = self._place(size, words)
        out = np.empty((*shape, words) if words > 1 else shape, np.uint32)
        flat = out.reshape(-1)
        map_blocks(lambda part: self.fill_words(flat[part], part, of_sample, first), flat.size, BLOCK)
        return out

    def _place(self, size: Any, words: int = 1) -> tuple[Shape, int, int]:
        """Shape of an array, words of a sample, and the first of them, which nobody has taken."""
        shape = tuple(map(int, np.atleast_1d(size)))
        if shape[:1] != (len(self.index),):
            raise ArgumentError(
                f"`size` must begin with the number of samples, {len(self.index)}, got {size!r}; for values "
                "that all samples share, draw from `rng.shared`."
            )
        of_sample, first = words * int(np.prod(shape[1:])), self._taken
        self._taken += of_sample + of_sample % 2
        if self._taken > SAMPLES:
            raise ArgumentError(f"`size` must not ask for more than 2**32 words a sample, got {size!r}.")
        return shape, of_sample, first


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
