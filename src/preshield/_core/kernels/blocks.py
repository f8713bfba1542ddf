"""Blocks of planes, each from one of several planes."""

from ..typing import Array
from . import kernel

__all__ = ["take_blocks"]

SIDE = 8  # pixels


@kernel
def take_blocks(
    out: Array, made: Array, choice: Array, owners: Array, number: int, first: int, step: int
) -> None:
    """Copy the blocks of 8 x 8 pixels for which a number was chosen.

    Parameters
    ----------
    out, made : ndarray, shape (P, h, W * step)
        Written and read, rows of planes from a multiple of 8 on.
    choice : ndarray of int, shape (B, rows of blocks, blocks in a row)
        A number for each block.
    owners : ndarray of int, shape (P,)
        Which choice belongs to each plane.
    number : int
        Whose blocks to copy.
    first : int
        The row of blocks in which `out` begins.
    step : int
        Distance between horizontal neighbours.
    """
    for p in range(out.shape[0]):
        for i in range(out.shape[1]):
            chosen = choice[owners[p], first + i // SIDE]
            for b in range(chosen.shape[0]):
                if chosen[b] == number:
                    start, stop = b * SIDE * step, min((b + 1) * SIDE * step, out.shape[2])
                    for j in range(start, stop):
                        out[p, i, j] = made[p, i, j]
