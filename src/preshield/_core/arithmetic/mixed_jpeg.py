"""JPEG at several qualities, one for each block."""

from collections.abc import Sequence
from typing import Any

from .jpeg import BLOCK, jpeg

__all__ = ["mixed_jpeg"]


def mixed_jpeg(x: Any, xp: Any, choice: Any, tables: Sequence[Any], axis: int, **options: Any) -> Any:
    """Compress images or videos at each quality, decompress them, and choose among the results by blocks.

    Parameters
    ----------
    x : array
        Floating numbers.
    xp : namespace
        That of `x`.
    choice : array of int, shape (N, frames, rows of blocks, blocks in a row)
        For each block of 8 x 8 pixels, the number of one of the tables.
    tables : sequence of sequence of nested lists
        Those of `jpeg` for each quality.
    axis : int
        Of the channels.
    **options
        Of `jpeg`.
    """
    height, width = [n for side, n in enumerate(x.shape) if side != axis][-2:]
    samples, frames, down, across = choice.shape
    grown = xp.broadcast_to(choice[:, :, :, None, :, None], (samples, frames, down, BLOCK, across, BLOCK))
    grown = xp.reshape(grown, (samples, frames, down * BLOCK, across * BLOCK))[:, :, :height, :width]
    pixels = xp.expand_dims(grown if x.ndim == 5 else grown[:, 0, ...], axis=axis)
    out = jpeg(x, xp, tables[0], axis=axis, **options)
    for number, table in enumerate(tables[1:], 1):
        out = xp.where(pixels == number, jpeg(x, xp, table, axis=axis, **options), out)
    return out
