"""Parts of one recording or video, which come as they are read, as windows that are worth the work."""

from collections.abc import Iterator
from itertools import chain

import numpy as np

from .typing import Array

__all__ = ["windows"]

WINDOW_BYTES = 1 << 23  # which are to leave an encoder of video most of the memory


def windows(parts: Iterator[Array]) -> Iterator[Array]:
    """Join parts along time, as many at a time as a window holds, at least one.

    Parameters
    ----------
    parts : iterator of ndarray
        Each with time as its first axis, alike but for their lengths; at least one.

    Yields
    ------
    ndarray
        The first has one entry along time: what has an entry for each of the whole then fits no window.
    """
    first = next(parts)
    yield first[:1]
    window: list[Array] = []
    held = 0
    for part in chain([first[1:]], parts):
        if not len(part):
            continue
        window.append(part)
        held += part.nbytes
        if held + part.nbytes > WINDOW_BYTES:
            yield np.concatenate(window)
            window, held = [], 0
    if window:
        yield np.concatenate(window)
