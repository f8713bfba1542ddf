"""Draws that are addressed: a value is a function of the seed, the number of the sample and the position.

The words of a seed are the key of a counter-based generator [1]_, Threefry2x32 of 20 rounds. The counter is
made of the number of a sample in the data set and of the position within the sample. So neither threads nor
batches matter, and a backward pass or a traced graph makes the same draw again.

.. [1] Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
   doi:10.1145/2063384.2063405
"""

from functools import cached_property
from operator import index
from typing import Any

import numpy as np

from .arithmetic.dirichlet import dirichlet
from .errors import ArgumentError
from .layout import working_dtype
from .random import SEED_WORDS
from .threads import map_blocks
from .typing import Array, Seed, Shape

__all__ = ["Draws", "numbered"]

WORDS = 1 << 32  # of a sample, as many as the counter has room for
WORD = np.uint64(32)  # bits
BLOCK = 1 << 16  # values that a thread draws in one go
OF_THE_BATCH = ("bytes", "permutation", "permuted", "shuffle", "spawn")  # methods that are about all samples
VECTORS = ("dirichlet", "multinomial", "multivariate_hypergeometric", "multivariate_normal")


class Draws:
    """What a pass draws: values of each sample, from its number, and values that the whole batch shares.

    The methods are those of `numpy.random.Generator`, with `size` in full. Its first axis is that of the
    samples, and a row depends on the seed, the number of its sample and the calls before, not on the rest of
    the batch. A single value is `shared`: it depends on the seed alone. So is what other methods of
    `numpy.random.Generator` draw, such as a permutation of the batch; a value for each sample is refused
    there.

    Parameters
    ----------
    key : ndarray of uint32, shape (2,)
        The seed.
    index : ndarray of uint32, shape (N,)
        Numbers of the samples.
    first : int, default 0
        Words of each sample that others have taken.

    Attributes
    ----------
    end : int
        Words of each sample that have been taken, without what rounds up.
    shared : numpy.random.Generator
        Draws what all samples have in common.
    kept : object
        What the forward pass leaves for the backward pass of the same draw; None if there was none.
    """

    xp = np
    kept: Any = None

    def __init__(self, key: Seed, index: Array, first: int = 0) -> None:
        self.key = key
        self.index = index
        self.first = self.end = first
        self._taken = first
        self._closed = False

    @cached_property
    def shared(self) -> np.random.Generator:
        """A generator of NumPy's, from the seed alone."""
        return np.random.default_rng(self.key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copies and pickles
            raise AttributeError(name)
        method = getattr(self.shared, name)
        if name in OF_THE_BATCH or not callable(method):
            return method

        def draw(*args: Any, **kwargs: Any) -> Any:
            values = method(*args, **kwargs)
            if np.ndim(values) > (name in VECTORS) and len(values) == len(self.index):
                raise ArgumentError(
                    f"`rng.{name}` does not know the samples: with `index` it would repeat itself in each "
                    f"batch. Make the values of rng.random(x.shape), or draw from `rng.shared.{name}` what "
                    "all samples share."
                )
            return values

        return draw

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Uniform on [0, 1)."""
        if size is None:
            return self.shared.random(dtype=dtype)
        if np.dtype(dtype) == np.float32:
            return (self._take(size) >> 8).astype(np.float32) * np.float32(2.0**-24)
        pairs = self._take(size, 2)
        return (((pairs[..., 0] >> 5) * 2.0**26 + (pairs[..., 1] >> 6)) * 2.0**-53).astype(dtype, copy=False)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Uniform on [low, high)."""
        return low + np.subtract(high, low) * self.random(_size(size, low, high))

    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        """Uniform over the integers from `low`, or 0 if `high` is left out, to below `high`, or up to it."""
        low, high = (0, low) if high is None else (low, high)
        size = _size(size, low, high)
        if size is None:
            return self.shared.integers(low, high, dtype=dtype, endpoint=endpoint)
        least, end = (np.asarray(bound).astype(np.int64, casting="same_kind") for bound in (low, high))
        span = end - least + bool(endpoint)
        if span.size and (span.min() < 1 or span.max() > 2**32):
            raise ArgumentError(f"`high` must lie 1 to 2**32 above `low`, got {low!r} and {high!r}.")
        # The share of the span at a number of 64 bits, which is made of two words.
        words, span = self._take(size, 2), np.expand_dims(span, -1)
        products = np.multiply(words, span, dtype=np.uint64, casting="unsafe")
        share = (products[..., 0] + (products[..., 1] >> WORD)) >> WORD
        return (share.view(np.int64) + least).astype(dtype, copy=False)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Normal with mean 0 and variance 1, a multiple of 2**-20 and at most 6.21 in magnitude."""
        if size is None:
            return self.shared.standard_normal(dtype=dtype)
        shape, part = self._part(size)
        out = np.empty(shape, np.float32)
        flat, of_sample = out.reshape(-1), int(np.prod(shape[1:]))
        map_blocks(lambda values: part.fill_normals(flat[values], values, of_sample), flat.size, BLOCK)
        return out.astype(dtype, copy=False)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Normal with this mean and standard deviation."""
        if np.any(np.less(scale, 0)):
            raise ArgumentError(f"`scale` must be at least 0, got {scale!r}.")
        return loc + scale * self.standard_normal(_size(size, loc, scale))

    def order(self) -> Array:
        """A random order of the samples."""
        return np.argsort(self._take(len(self.index)).view(np.int32), kind="stable")

    def shares(self, alpha: float, parts: int, x: Array) -> Array:
        """Shares of a Dirichlet distribution, the same for all samples, as precise as `x`."""
        shares: Array = dirichlet(self, np, alpha, parts, working_dtype(x.dtype))
        return shares

    def renumbered(self, samples: int) -> "Draws":
        """Draws for so many samples, numbered from 0 on."""
        return Draws(self.key, np.arange(samples, dtype=np.uint32), self._taken)

    def close(self) -> None:
        """End the time in which values are drawn by size."""
        self._closed = True

    # For kernels: values numbered through all samples, each of which has the same number of them

    def reserve(self, of_sample: int) -> "Draws":
        """The next words of each sample, for a kernel; nobody else gets them."""
        if self._closed:
            raise RuntimeError(
                "Values are drawn in `_draw(x, rng)`, so that the backward pass sees those of the forward "
                "pass; return them from there."
            )
        first, self.end = self._taken, self._taken + of_sample
        self._taken = self.end + of_sample % 2
        if self._taken > WORDS:
            raise ArgumentError(f"`size` must not ask for more than 2**32 words a sample, got {of_sample}.")
        return Draws(self.key, self.index, first)

    def fill_words(self, out: Array, values: slice, of_sample: int) -> None:
        """Write the words of some values."""
        from .kernels.threefry import fill_words

        fill_words(out, self.key, self.index, values.start, of_sample, self.first)

    def fill_normals(self, out: Array, values: slice, of_sample: int) -> None:
        """Write normals for some values, in `float32`; one word makes one."""
        from .kernels.threefry import fill_normals, quantiles

        fill_normals(out, quantiles(), self.key, self.index, values.start, of_sample, self.first)

    def add_normals(self, out: Array, x: Array, sigma: float, values: slice, of_sample: int) -> None:
        """Write values plus normals of this standard deviation to `out`, in `float32`."""
        from .kernels.threefry import add_normals, quantiles

        place = values.start, of_sample, self.first
        add_normals(out, x, np.float32(sigma), quantiles(), self.key, self.index, *place)

    def _take(self, size: Any, words: int = 1) -> Array:
        """Words for an array of this size, so many for each value on an axis of their own."""
        shape, part = self._part(size, words)
        out = np.empty((*shape, words) if words > 1 else shape, np.uint32)
        flat, of_sample = out.reshape(-1), words * int(np.prod(shape[1:]))
        map_blocks(lambda values: part.fill_words(flat[values], values, of_sample), flat.size, BLOCK)
        return out

    def _part(self, size: Any, words: int = 1) -> tuple[Shape, "Draws"]:
        """An array of this size as a shape, and where its words come from."""
        shape = tuple(map(index, size)) if isinstance(size, tuple | list) else (index(size),)
        if shape[:1] != (len(self.index),) or min(shape) < 0:
            raise ArgumentError(
                f"`size` must begin with the number of samples, {len(self.index)}, got {size!r}; draw for "
                "all of them at once, as in rng.random(x.shape), or from `rng.shared` what they share."
            )
        return shape, self.reserve(words * int(np.prod(shape[1:])))


def _size(size: Any, *bounds: Any) -> Any:
    """The size that is asked for: that of the bounds, if nothing is said."""
    return size if size is not None else np.broadcast_shapes(*map(np.shape, bounds)) or None


def numbered(seed: Seed, samples: int, words: int = SEED_WORDS) -> tuple[Seed, Array]:
    """The words of a seed, and the numbers of the samples: those that follow in it, else from 0 on."""
    numbers = seed[words:] if len(seed) > words else np.arange(samples, dtype=np.uint32)
    if len(numbers) != samples:
        raise ArgumentError(
            "`index` must be left out where the number of samples changes on the way, from "
            f"{len(numbers)} to {samples}."
        )
    return seed[:words], numbers
