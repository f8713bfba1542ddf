"""Draws that are addressed: a value is a function of the seed, the number of the sample and the position.

The words of a seed are the key of a counter-based generator [1]_, Threefry2x32 of 20 rounds. The counter is
made of the number of a sample in the data set and of the position within the sample. So neither threads nor
batches matter, and a backward pass or a traced graph makes the same draw again.

.. [1] Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
   doi:10.1145/2063384.2063405
"""

from functools import cached_property
from typing import Any

import numpy as np

from .errors import ArgumentError
from .random import SEED_WORDS
from .threads import map_blocks
from .typing import Array, Seed, Shape

__all__ = ["Draws", "numbered"]

WORDS = 1 << 32  # of a sample, as many as the counter has room for
WORD = np.uint64(32)  # bits
BLOCK = 1 << 16  # values that a thread draws in one go


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
        products = np.multiply(
            self._take(size, 2), np.expand_dims(span, -1), dtype=np.uint64, casting="unsafe"
        )
        share = (products[..., 0] + (products[..., 1] >> WORD)) >> WORD
        return share.view(np.int64) + low

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Normal with mean 0 and variance 1, a multiple of 2**-20 and at most 6.21 in magnitude."""
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
        if self._taken > WORDS:
            raise ArgumentError(f"`size` must not ask for more than 2**32 words a sample, got {size!r}.")
        return shape, of_sample, first


def numbered(seed: Seed, samples: int, words: int = SEED_WORDS) -> tuple[Seed, Array]:
    """The words of a seed, and the numbers of the samples: those that follow in it, else from 0 on."""
    index = seed[words:] if len(seed) > words else np.arange(samples, dtype=np.uint32)
    if len(index) != samples:
        raise ArgumentError(f"`index` must number the samples of the batch, got {len(index)} for {samples}.")
    return seed[:words], index
