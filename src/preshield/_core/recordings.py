"""Recordings: where time is, and channels as signals."""

import numpy as np

from .errors import ArgumentError
from .typing import Array, Shape

__all__ = ["check_time_axis", "signals", "time_axis"]

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
