"""Recordings: where time is, channels as signals, and those of different lengths one by one."""

from collections.abc import Callable

import numpy as np

from .errors import ArgumentError
from .layout import object_array
from .threads import map_blocks
from .typing import Array, Shape

__all__ = ["check_time_axis", "each_recording", "signals", "time_axis"]

MOST_CHANNELS, LEAST_LENGTH = 8, 64  # so few values along time beside so many channels are the other layout


def time_axis(shape: Shape, *, channels_first: bool) -> int:
    """Axis of time of a batch `(N, length)`, `(N, length, C)` or, channels first, `(N, C, length)`."""
    return 2 if len(shape) == 3 and channels_first else 1


def check_time_axis(shape: Shape, *, channels_first: bool, name: str = "x") -> None:
    """Refuse a batch that plainly has time where its channels are expected."""
    axis = time_axis(shape, channels_first=channels_first)
    if len(shape) == 3 and shape[axis] <= MOST_CHANNELS < LEAST_LENGTH <= shape[3 - axis]:
        raise ArgumentError(
            f"`{name}` must have time along axis {axis} with channels_first={channels_first}, got "
            f"{shape}, of {shape[axis]} along time and {shape[3 - axis]} channels; pass "
            f"channels_first={not channels_first}."
        )


def signals(x: Array, *, channels_first: bool) -> Array:
    """View of a batch as `(N, C, length)`."""
    if x.ndim == 2:
        return x[:, None]
    return x if channels_first else np.moveaxis(x, 1, 2)


def each_recording(function: Callable[..., Array], *batches: Array) -> Array:
    """Apply a function for batches to every recording of object arrays, on several threads."""
    results: list[Array] = [np.empty(0)] * len(batches[0])

    def work(numbers: slice) -> None:
        for i in range(numbers.start, numbers.stop):
            results[i] = function(*(batch[i][None] for batch in batches))[0]

    map_blocks(work, len(results), 1)
    return object_array(results)
