"""A batch in blocks of samples: one seed for all, each sample drawn by its number, the bits of one call."""

from typing import Any

import numpy as np

from .._core.checks import check_output_shape
from .._core.errors import ArgumentError
from .._core.passes import Pass, numbers_of, own
from .._core.samples import leaves
from .._core.typing import Array, Defence, Seed, Shape
from .native import seed_of

__all__ = ["check_blocks", "forward", "seed_and_numbers"]


def check_blocks(defence: Defence, x: Any, remedy: str) -> None:
    """Refuse a batch, before its values are known, and a defence for which its blocks are no batches.

    Parameters
    ----------
    defence : Preprocessor
        Who takes it.
    x : array_like
        Has a shape and a dtype.
    remedy : str
        What else to do with labels and samples.
    """
    shape = tuple(x.shape)
    defence._check_shape(shape, np.dtype(x.dtype))
    counts = defence._states_shape and defence._output_shape(shape)[:1] != shape[:1]
    if not (defence.mixes_samples or counts) and (defence._takes_index or not defence._seed_words):
        return
    if defence.mixes_samples:
        why = "makes a sample of several"
    elif counts:
        why = "changes the number of samples"
        if any("augmentation" in leaf.params for leaf in leaves(defence)):
            remedy += ", or pass augmentation=False"
    else:
        why, remedy = "draws in its own methods", "draw in `_draw(x, rng)`, which knows the samples by number"
    raise ArgumentError(f"`x` must be one batch in memory for {defence!r}, which {why}; {remedy}.")


def seed_and_numbers(defence: Defence, shape: Shape, index: Any) -> tuple[Seed, Array | None]:
    """The seed of a call, and the numbers of its samples; None if they are counted from 0."""
    numbers = None if index is None else numbers_of(defence, shape, index)
    words = seed_of(defence, shape[0], addressed=index is not None)
    seed, frozen = np.split(words, [defence._seed_words])
    return seed, frozen if numbers is None and len(frozen) else numbers


def forward(defence: Defence, x: Any, *y_and_seed: Any) -> Array:
    """A block after the defence, whose labels come before the seed if its methods are told them."""
    *y, seed = y_and_seed
    begun = Pass.begin(defence, x, seed, y=y[0] if y else None, runs=True)
    out = begun.output()
    check_output_shape(defence, out.shape, defence._output_shape(begun.x.shape))
    return out


def backward(defence: Defence, x: Any, grad: Any, seed: Seed) -> Array:
    """The gradient before a block."""
    return own(Pass.begin(defence, x, seed).pull_back(grad), grad)
