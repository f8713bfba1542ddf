"""Threefry2x32 of 20 rounds as its paper states it, with integers of Python: the oracle of all draws."""

import numpy as np

TURNS = (13, 15, 26, 6), (17, 29, 16, 24)
WORD = 2**32


def threefry(key, counter):
    """Two words."""
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1]]
    a, b = (counter[0] + keys[0]) % WORD, (counter[1] + keys[1]) % WORD
    for block in range(5):
        for turn in TURNS[block % 2]:
            a = (a + b) % WORD
            b = (b << turn) % WORD | b >> (32 - turn)
            b ^= a
        a = (a + keys[(block + 1) % 3]) % WORD
        b = (b + keys[(block + 2) % 3] + block + 1) % WORD
    return a, b


def words(key, sample, count, first=0):
    """So many words of a sample, from one of them on."""
    key = [int(word) for word in key]
    pairs = [threefry(key, (p, int(sample))) for p in range(first // 2, (first + count + 1) // 2)]
    return np.array(pairs, np.uint64).reshape(-1)[first % 2 :][:count]
