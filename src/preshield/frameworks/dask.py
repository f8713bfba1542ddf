"""Arrays of Dask: the result is lazy, block by block, and has the bits of one call.

The seed is drawn when the graph is made, and each block draws at the numbers of its samples. So neither the
chunks, the scheduler nor what is computed of the result make a difference.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from .._core.checks import check_array_labels, check_gradient_shape, check_labels
from .._core.errors import ArgumentError
from .._core.layout import kept_dtype
from .._core.tensors import framework, to_numpy
from .._core.typing import Array, Defence, Dtype, Seed, Shape
from .blocks import backward, check_blocks, forward, seed_and_numbers
from .callback import Callback
from .native import relabelled

__all__ = ["call", "pull_back"]

IN_MEMORY = "take one batch at a time into memory: defence(x[i:j].compute(), y[i:j].compute())"


def call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    """Apply `defence` to an array, and to its labels."""
    if defence.domains == ("labels",):
        _check_known("y", y)
        check_labels(y, x)
        return x, _labels(defence, y, y, *seed_and_numbers(defence, y.shape, index))
    if framework(x) != "dask":
        raise ArgumentError(
            f"`y` must be in memory where `x` is, got an array of Dask's with a {type(x).__name__}; pass "
            "y.compute(), or dask.array.from_array(x)."
        )
    _check("x", x)
    check_blocks(defence, x, IN_MEMORY)
    relabels = y is not None and defence._changes_labels
    both = relabels and defence._wants_labels
    if both and framework(y) != "dask":  # one method makes the data and the labels of both
        check_array_labels(y, "a graph of Dask's")
        y = da.from_array(to_numpy(y))
    if relabels and framework(y) == "dask":
        _check_known("y", y)
        check_labels(y, x)
    shape, dtype = tuple(x.shape), np.dtype(x.dtype)
    seed, numbers = seed_and_numbers(defence, shape, index)
    given = (_chunked_as(x, y),) if both else ()
    kind = defence._output_shape(shape), defence._output_dtype(dtype)
    out = _blockwise(forward, defence, seed, numbers, *kind, x, *given)
    if not relabels:
        return out, y
    if framework(y) != "dask":
        return out, relabelled(defence, x, dtype, seed, numbers, y)
    return out, _labels(defence, x, y, seed, numbers)


def _labels(defence: Defence, x: Any, y: Any, seed: Seed, numbers: Array | None) -> Any:
    dtype = np.dtype(x.dtype)
    # Labels depend on the shape and the dtype of the data alone, unless a class says otherwise.
    data = x if defence._wants_labels else da.zeros(x.shape, chunks=x.chunks, dtype=dtype)
    one = Callback(defence).relabelled((1, *y.shape[1:]), y.dtype, (1, *x.shape[1:]), dtype)
    shape = (len(y), *one.shape[1:])
    return _blockwise(_relabel, defence, seed, numbers, shape, one.dtype, data, _chunked_as(x, y))


def _relabel(defence: Defence, x: Any, y: Any, seed: Seed) -> Any:
    return Callback(defence).relabel(y, x, seed)


def pull_back(defence: Defence, x: Any, grad: Any, index: Any) -> Any:
    """Vector-Jacobian product at an array."""
    x, grad = (a if framework(a) == "dask" else da.asarray(to_numpy(a)) for a in (x, grad))
    _check("x", x)
    _check("grad", grad)
    check_blocks(defence, x, IN_MEMORY)
    shape = tuple(x.shape)
    if np.dtype(grad.dtype).kind not in "buif":
        raise ArgumentError(f"`grad` must hold real numbers, got dtype {grad.dtype}.")
    if defence._states_shape:
        check_gradient_shape(tuple(grad.shape), defence._output_shape(shape))
    seed, numbers = seed_and_numbers(defence, shape, index)
    with_classes = grad.ndim > len(defence._output_shape(shape))
    classes = grad.shape[1:2] if with_classes else ()
    out_shape = (shape[0], *classes, *shape[1:])
    dtype = kept_dtype(np.dtype(grad.dtype))
    return _blockwise(backward, defence, seed, numbers, out_shape, dtype, x, _chunked_as(x, grad))


def _check_known(name: str, array: Any) -> None:
    if any(np.isnan(length) for length in array.shape):
        raise ArgumentError(
            f"`{name}` must have a known shape, got {array.shape}; call {name}.compute_chunk_sizes() first."
        )


def _check(name: str, array: Any) -> None:
    """Refuse blocks that hold a part of a sample."""
    _check_known(name, array)
    split = [axis for axis in range(1, array.ndim) if array.numblocks[axis] > 1]
    if split:
        axes = ", ".join(["0: 'auto'", *(f"{axis}: -1" for axis in split)])
        raise ArgumentError(
            f"`{name}` must be split along its first axis alone, that of the samples, got "
            f"{array.numblocks} blocks; pass {name}.rechunk({{{axes}}})."
        )


def _chunked_as(x: Any, other: Any) -> Any:
    """Another array of the same samples, in blocks of the same ones."""
    return other.rechunk({0: x.chunks[0], **dict.fromkeys(range(1, other.ndim), -1)})


def _kept(defence: Defence) -> Defence:
    """A copy for the graph, which parameters that are set before it is computed do not reach."""
    twin = copy.copy(defence)
    if defence._stages:
        vars(twin)["defences"] = [_kept(stage) for stage in defence._stages]
    return twin


def _blockwise(
    function: Callable[..., Any],
    defence: Defence,
    seed: Seed,
    numbers: Array | None,
    shape: Shape,
    dtype: Dtype,
    *arrays: Any,
) -> Any:
    """A function of a defence, blocks and their seeds; further arrays are chunked as the first one."""
    first = arrays[0]
    if len(seed):
        of_first = first.chunks[:1]
        if numbers is None:
            numbered = da.arange(len(first), chunks=of_first, dtype=np.uint32)
        else:
            numbered = da.from_array(numbers, chunks=of_first)
        arrays = (*arrays, numbered)
    symbols = iter(range(1, 1 + len(shape) + sum(array.ndim for array in arrays)))
    axes = [(0, *(next(symbols) for _ in array.shape[1:])) for array in arrays]
    added = {next(symbols): length for length in shape[1:]}
    operands = (operand for pair in zip(arrays, axes, strict=True) for operand in pair)
    return da.blockwise(
        _of_blocks,
        (0, *added),
        *operands,
        function=partial(function, _kept(defence)),
        seed=seed,
        new_axes=added,
        dtype=dtype,
        meta=np.empty((0,) * len(shape), dtype),
        token=f"preshield-{type(defence).__name__}",
    )


def _of_blocks(*blocks: Any, function: Callable[..., Any], seed: Seed) -> Any:
    """Call it; axes of one chunk that the result does not have in common come as lists of one block."""
    arrays = []
    for block in blocks:
        while isinstance(block, list):
            (block,) = block
        arrays.append(block)
    if len(seed):
        seed = np.concatenate([seed, arrays.pop()])
    return function(*arrays, seed)
