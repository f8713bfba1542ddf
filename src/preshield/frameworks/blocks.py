"""A batch in blocks of samples: one seed for all, each sample drawn by its number, the bits of one call."""

import math
from typing import Any

import numpy as np

from .._core.checks import check_output_shape
from .._core.errors import ArgumentError
from .._core.layout import as_array
from .._core.passes import Pass, numbers_of, own
from .._core.samples import leaves
from .._core.tensors import framework
from .._core.typing import Array, Defence, Dtype, Seed, Shape
from .native import seed_of

__all__ = ["backward", "check_blocks", "forward", "seed_and_numbers", "transform_into"]

BLOCK_BYTES = 1 << 24


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
    begun = Pass.begin(defence, x, seed, y=y[0] if y else None, once=True, runs=True)
    out = begun.output()
    check_output_shape(defence, out.shape, defence._output_shape(begun.x.shape))
    return out


def backward(defence: Defence, x: Any, grad: Any, seed: Seed) -> Array:
    """The gradient before a block."""
    return own(Pass.begin(defence, x, seed).pull_back(grad), grad)


def transform_into(defence: Defence, x: Any, out: Any, index: Any = None) -> Any:
    """Apply `defence` block by block to an array that may be on disk, into another one.

    Parameters
    ----------
    defence : Preprocessor
        Keeps the number of samples.
    x, out : array_like
        They have `shape` and `dtype`, and are read and written in slices of the first axis.
    index : int or array_like of int, optional
        Numbers of the samples.

    Returns
    -------
    array_like
        `out`.
    """
    for name, array in (("x", x), ("out", out)):
        if (kind := framework(array)) != "numpy":
            remedy = "write transform(x).store(out)" if kind == "dask" else "leave it out"
            raise ArgumentError(
                f"`out` is for arrays in memory and on disk, got `{name}` of {kind}; {remedy}."
            )
    if defence.domains == ("labels",):
        raise ArgumentError(f"`out` must be left out for {defence!r}, which does not change the data.")
    x = x if hasattr(x, "dtype") and hasattr(x, "shape") else as_array(x)
    check_blocks(defence, x, "take one batch at a time, and its labels: defence(x[i:j], y[i:j])")
    shape = tuple(x.shape)
    _check_target(x, out, defence._output_shape(shape), defence._output_dtype(np.dtype(x.dtype)))
    seed, numbers = seed_and_numbers(defence, shape, index)
    numbers = np.arange(shape[0], dtype=np.uint32) if numbers is None else numbers
    rows = _rows(x, out)
    for start in range(0, shape[0], rows):
        block = slice(start, min(start + rows, shape[0]))
        words = np.concatenate([seed, numbers[block]]) if len(seed) else seed
        out[block] = forward(defence, np.asarray(x[block]), words)
    return out


def _check_target(x: Any, out: Any, shape: Shape, dtype: Dtype) -> None:
    given = tuple(getattr(out, "shape", ())), getattr(out, "dtype", type(out).__name__)
    if not hasattr(out, "__setitem__") or given[0] != shape or np.dtype(given[1]).newbyteorder("=") != dtype:
        raise ArgumentError(
            f"`out` must be an array of the shape {shape} and the dtype {dtype} of the result, got "
            f"{given[0]} and {given[1]}."
        )
    if isinstance(x, np.ndarray) and isinstance(out, np.ndarray) and np.may_share_memory(x, out):
        places = [(a.ctypes.data, a.shape, a.strides, a.dtype) for a in (x, out)]
        if places[0] != places[1]:
            raise ArgumentError(
                "`out` must be `x` itself or have memory of its own, got another view of the same memory; "
                "pass numpy.empty_like(x)."
            )


def _rows(x: Any, out: Any) -> int:
    """Samples in a block: whole chunks of the output, which are compressed one by one."""
    of_sample = max(np.dtype(a.dtype).itemsize * math.prod(a.shape[1:]) for a in (x, out))
    rows: int = max(1, BLOCK_BYTES // max(1, of_sample))
    pieces = (getattr(out, "shards", None), getattr(out, "chunks", None), getattr(x, "chunks", None))
    step = next((int(lengths[0]) for lengths in pieces if lengths), 1)
    return max(step, rows // step * step)
