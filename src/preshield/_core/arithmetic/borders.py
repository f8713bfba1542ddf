"""Neighbours along an axis, and mirrored or repeated ones outside."""

from typing import Any

__all__ = ["extended", "interleaved", "padded", "shifted"]


def shifted(x: Any, start: int, length: int, axis: int) -> Any:
    """So many entries along an axis, from `start` on."""
    return x[(slice(None),) * axis + (slice(start, start + length), ...)]


def padded(x: Any, before: int, after: int, axis: int, xp: Any, *, repeat_edge: bool) -> Any:
    """Continue an array along an axis as mirrors at its ends would, as far as wanted.

    Parameters
    ----------
    x : array
        With at least one entry along the axis.
    before, after : int
        How many entries to add.
    axis : int
        Which; not negative.
    xp : namespace
        That of `x`.
    repeat_edge : bool
        ``b a | a b c d | d c``, else ``c b | a b c d | c b``, where a single entry is repeated.
    """
    while before or after:
        # All there is between two mirrors ends at two mirrors again: what is left is added in the next turn.
        length = x.shape[axis]
        skipped = 0 if repeat_edge or length == 1 else 1
        low, high = (min(wanted, length - skipped) for wanted in (before, after))
        parts = [xp.flip(shifted(x, skipped, low, axis), axis=axis)] if low else []
        parts.append(x)
        if high:
            parts.append(xp.flip(shifted(x, length - skipped - high, high, axis), axis=axis))
        x, before, after = xp.concat(parts, axis=axis), before - low, after - high
    return x


def extended(x: Any, after: int, axis: int, xp: Any) -> Any:
    """Continue an array along an axis with its last entry."""
    if not after:
        return x
    axis %= x.ndim
    last = shifted(x, x.shape[axis] - 1, 1, axis)
    more = xp.broadcast_to(last, (*x.shape[:axis], after, *x.shape[axis + 1 :]))
    return xp.concat([x, more], axis=axis)


def interleaved(even: Any, odd: Any, axis: int, length: int, xp: Any) -> Any:
    """The entries of two arrays in turn along an axis, so many of them."""
    both = xp.stack([even, odd], axis=axis + 1)
    lines = xp.reshape(both, (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :]))
    return shifted(lines, 0, length, axis)
