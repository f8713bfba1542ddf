"""Threefry2x32 of 20 rounds (Salmon et al. 2011), and what is made of its words.

The words of a sample come in pairs: pair `p` of sample `s` is the counter `(p, s)` after the rounds, under
the key of the call. Additions, exclusive ors and rotations of 32 bits are all that is needed, so that every
framework and device makes the same bits; LLVM makes vector instructions of them. A normal is the sum of two
entries of a table, one for each half of a word. All entries are multiples of 2**-20 below 4, so the sum is
exact in `float32`, whatever adds it up; elementary functions would differ in their last bits.
"""

from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from ..typing import Array, Seed
from . import kernel

__all__ = ["add_normals", "fill_normals", "fill_words", "quantiles", "threefry"]

WORDS = 2048  # made at once: they stay in the first-level cache
SHARES, OUTER = 1 << 16, 64  # of the table, and of these at each end
PARITY = np.uint32(0x1BD11BDA)


@cache
def quantiles() -> Array:
    """The table of normals: 65536 equally likely values, as `float32`.

    They are quantiles in the middle of equal shares of the normal distribution and, where the middle falls
    short, at the ends, the means of a share; scaled so that a sum of two has variance 1, and rounded to
    multiples of 2**-20.
    """
    normal, half = NormalDist(), SHARES // 2
    upper = np.array([normal.inv_cdf((half + i + 0.5) / SHARES) for i in range(half)])
    ends = [normal.pdf(normal.inv_cdf(1 - i / SHARES)) for i in range(OUTER, 0, -1)]
    upper[-OUTER:] = -SHARES * np.diff([*ends, 0.0])  # a mean over a share, from the density at its ends
    upper /= np.sqrt(2 * np.mean(upper**2))
    steps = np.rint(upper * 2**20)
    return (np.concatenate([-steps[::-1], steps]) * 2.0**-20).astype(np.float32)


@kernel
def _round(a: Any, b: Any, turn: int) -> Any:
    """One round, with this rotation."""
    a = np.uint32(a + b)
    turned = np.uint32(np.uint32(b << np.uint32(turn)) | np.uint32(b >> np.uint32(32 - turn)))
    return a, np.uint32(a ^ turned)


@kernel
def _four_rounds(a: Any, b: Any, first: int, second: int, third: int, fourth: int) -> Any:
    a, b = _round(a, b, first)
    a, b = _round(a, b, second)
    a, b = _round(a, b, third)
    return _round(a, b, fourth)


@kernel
def threefry(key: Any, other_key: Any, counter: Any, other_counter: Any) -> Any:
    """The two random words at a counter."""
    third_key = np.uint32(key ^ other_key ^ PARITY)
    a, b = np.uint32(counter + key), np.uint32(other_counter + other_key)
    a, b = _four_rounds(a, b, 13, 15, 26, 6)
    a, b = np.uint32(a + other_key), np.uint32(b + third_key + np.uint32(1))
    a, b = _four_rounds(a, b, 17, 29, 16, 24)
    a, b = np.uint32(a + third_key), np.uint32(b + key + np.uint32(2))
    a, b = _four_rounds(a, b, 13, 15, 26, 6)
    a, b = np.uint32(a + key), np.uint32(b + other_key + np.uint32(3))
    a, b = _four_rounds(a, b, 17, 29, 16, 24)
    a, b = np.uint32(a + other_key), np.uint32(b + third_key + np.uint32(4))
    a, b = _four_rounds(a, b, 13, 15, 26, 6)
    return np.uint32(a + third_key), np.uint32(b + key + np.uint32(5))


@kernel
def _words(out: Array, key: Seed, sample: Any, place: int) -> None:
    """Write the words of a sample from a place on."""
    here, there, size = key[0], key[1], out.size
    odd = place % 2
    if odd and size:
        out[0] = threefry(here, there, np.uint32(place // 2), sample)[1]
    first = place // 2 + odd
    for k in range((size - odd) // 2):
        j = odd + 2 * k
        out[j], out[j + 1] = threefry(here, there, np.uint32(first + k), sample)
    if size > odd and (size - odd) % 2:
        out[size - 1] = threefry(here, there, np.uint32(first + (size - odd) // 2), sample)[0]


@kernel
def fill_words(out: Array, key: Seed, index: Array, start: int, of_sample: int, first: int) -> None:
    """Write random words, numbered through all samples.

    Parameters
    ----------
    out : ndarray of uint32, shape (M,)
        Values `start` to `start + M` of the batch.
    key : ndarray of uint32, shape (2,)
        The seed of the call.
    index : ndarray of uint32, shape (N,)
        Numbers of the samples.
    start : int
        Number of the first value.
    of_sample : int
        How many values a sample has.
    first : int
        Number of a sample's word for its first value.
    """
    done = 0
    while done < out.size:
        sample, place = (start + done) // of_sample, (start + done) % of_sample
        length = min(out.size - done, of_sample - place)
        _words(out[done : done + length], key, index[sample], first + place)
        done += length


@kernel
def fill_normals(
    out: Array, table: Array, key: Seed, index: Array, start: int, of_sample: int, first: int
) -> None:
    """Write normals with mean 0 and variance 1, one for each word.

    Parameters
    ----------
    out : ndarray of float32, shape (M,)
        As in `fill_words`, which has the other parameters.
    table : ndarray of float32, shape (65536,)
        `quantiles()`.
    """
    words, done = np.empty(WORDS, np.uint32), 0
    while done < out.size:
        length = min(out.size - done, WORDS)
        fill_words(words[:length], key, index, start + done, of_sample, first)
        for k in range(length):
            word = words[k]
            out[done + k] = table[word >> np.uint32(16)] + table[word & np.uint32(0xFFFF)]
        done += length


@kernel
def add_normals(
    out: Array,
    x: Array,
    sigma: Any,
    table: Array,
    key: Seed,
    index: Array,
    start: int,
    of_sample: int,
    first: int,
) -> None:
    """Write `x` plus normals of this standard deviation, one for each word.

    Parameters
    ----------
    out : ndarray of float32, shape (M,)
        As in `fill_words`.
    x : ndarray, shape (M,)
        To which they are added.
    sigma : float32
        The standard deviation.
    table, key, index, start, of_sample, first
        As in `fill_normals`.
    """
    words, done = np.empty(WORDS, np.uint32), 0
    while done < out.size:
        length = min(out.size - done, WORDS)
        fill_words(words[:length], key, index, start + done, of_sample, first)
        for k in range(length):
            word = words[k]
            normal = table[word >> np.uint32(16)] + table[word & np.uint32(0xFFFF)]
            out[done + k] = x[done + k] + sigma * normal
        done += length
