"""Draws from a seed, addressed by sample and position, as arrays of any namespace.

The words are those of the kernel. They are patterns of 32 bits in `int32`, which every framework adds,
multiplies and shifts alike, without a carry.
"""

from collections.abc import Callable
from math import prod
from typing import Any, Self

import numpy as np

from ..errors import ArgumentError
from .dirichlet import dirichlet
from .namespace import counted

__all__ = ["NativeDraws", "below", "bounds", "product", "signed", "threefry"]

TURNS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA
LOW = 0xFFFF  # half of a word
SIGN = -(1 << 31)
MOST = -SIGN - 1


class NativeDraws:
    """The methods of `Draws` that defences with an arithmetic of their own draw by.

    `_draw` gets one in place of `Draws` and makes the same draw of it, in `float32` and `int32`.

    Parameters
    ----------
    key : sequence of int or array of int32, shape (2,)
        The seed.
    index : array of int32, shape (N,)
        Numbers of the samples.
    xp : namespace
        That of `index`.
    table : callable
        Returns the table of normals as an array where the others are.
    first : int, default 0
        Words of each sample that others have taken; even.
    """

    def __init__(self, key: Any, index: Any, xp: Any, table: Callable[[], Any], first: int = 0) -> None:
        self.key = key
        self.index = index
        self.xp = xp
        self.table = table
        self.first = first
        self._taken = first

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ArgumentError(
            f"`rng.{name}` exists in NumPy alone: return None from `_arithmetic`, or draw by `random`, "
            "`integers` and `standard_normal`."
        )

    def random(self, size: Any, dtype: Any = "float32") -> Any:
        """Uniform on [0, 1), in `float32`."""
        if dtype != "float32":
            raise ArgumentError(f"`dtype` must be 'float32' on devices and in graphs, got {dtype!r}.")
        return self.xp.astype(_right(self._take(size), 8), self.xp.float32) * 2.0**-24

    def integers(self, low: int, high: int, size: Any) -> Any:
        """Uniform over the integers from `low` to below `high`."""
        words, span = self._take(size, 2), high - low
        top, rest = product(words[..., 0], span)
        carried = rest + product(words[..., 1], span)[0]
        wrapped = (carried ^ SIGN) < (rest ^ SIGN)  # as numbers without a sign
        return low + top + self.xp.astype(wrapped, self.xp.int32)

    def standard_normal(self, size: Any) -> Any:
        """Normal with mean 0 and variance 1, in `float32`, exact."""
        words, xp, table = self._take(size), self.xp, self.table()
        flat = xp.reshape(words, (-1,))
        return xp.reshape(xp.take(table, _right(flat, 16)) + xp.take(table, flat & LOW), words.shape)

    def order(self) -> Any:
        """A random order of the samples."""
        return self.xp.argsort(self._take(self.index.shape[0]), stable=True)

    def shares(self, alpha: float, parts: int, x: Any) -> Any:
        """Shares of a Dirichlet distribution, the same for all samples, as precise as `x`."""
        real = self.xp.float64 if x.dtype == self.xp.float64 else self.xp.float32
        return dirichlet(self, self.xp, alpha, parts, real)

    def renumbered(self, samples: int) -> Self:
        """Draws for so many samples, numbered from 0 on."""
        index = counted(samples, self.index, self.xp)
        return type(self)(self.key, index, self.xp, self.table, self._taken)

    def reserve(self, of_sample: int) -> Self:
        """The next words of each sample; nobody else gets them."""
        first, self._taken = self._taken, self._taken + of_sample + of_sample % 2
        return type(self)(self.key, self.index, self.xp, self.table, first)

    def words(self, of_sample: int) -> Any:
        """So many words of each sample, in `int32`, shape (N, of_sample)."""
        pairs = counted(-(-of_sample // 2), self.index, self.xp) + self.first // 2
        made = threefry(self.key[0], self.key[1], pairs[None, :], self.index[:, None])
        both = self.xp.stack(self.xp.broadcast_arrays(*made), axis=-1)
        return self.xp.reshape(both, (self.index.shape[0], 2 * pairs.shape[0]))[:, :of_sample]

    def _take(self, size: Any, words: int = 1) -> Any:
        """Words for an array of this size, so many for each value on an axis of their own."""
        shape = tuple(size) if isinstance(size, tuple | list) else (size,)
        of_sample = words * prod(shape[1:])
        taken = self.reserve(of_sample).words(of_sample)
        return self.xp.reshape(taken, (*shape, words) if words > 1 else shape)


def threefry(key: Any, other_key: Any, counter: Any, other_counter: Any) -> tuple[Any, Any]:
    """The two random words at counters: Threefry2x32 of 20 rounds, on numbers and arrays of `int32`."""
    keys = (key, other_key, key ^ other_key ^ PARITY)
    a, b = counter + key, other_counter + other_key
    for part in range(1, 6):
        for turn in TURNS[(part - 1) % 2]:
            a = a + b
            b = a ^ ((b << turn) | _right(b, 32 - turn))
        a, b = a + keys[part % 3], b + keys[(part + 1) % 3] + part
    return a, b


def bounds(limits: Any) -> Any:
    """Limits of words, numbers or arrays from 0 to 2**32, as `below` takes them, in `int32`."""
    return np.minimum(np.asarray(limits, np.float64) + SIGN, MOST).astype(np.int32)


def below(words: Any, bound: Any) -> Any:
    """Which words, as numbers without a sign, are less than a bound; the largest one is for all of them."""
    return ((words ^ SIGN) < bound) | (bound == MOST)


def signed(word: int) -> int:
    """A word as the number that the same bits are in `int32`."""
    return (int(word) ^ (1 << 31)) + SIGN


def _right(words: Any, bits: int) -> Any:
    """Shift to the right, zeros coming in."""
    return (words >> bits) & ((1 << (32 - bits)) - 1)


def product(words: Any, factor: Any) -> tuple[Any, Any]:
    """Upper and lower half of the products of words and a number below 2**31, or an array of them."""
    above, below = _right(words, 16), words & LOW
    first = below * (factor & LOW)
    second = above * (factor & LOW) + _right(first, 16)
    third = below * (factor >> 16) + (second & LOW)
    return above * (factor >> 16) + _right(second, 16) + _right(third, 16), words * factor
