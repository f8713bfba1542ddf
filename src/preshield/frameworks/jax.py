"""Arrays of JAX, eager, and traced by `jit` and `grad`."""

import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from .._core.checks import check_array_labels, check_gradient_shape
from .._core.errors import ArgumentError
from .._core.passes import Pass, numbers_of
from .._core.tensors import cast, filled, framework, is_bfloat16, like, on_device, to_numpy, traced
from .._core.typing import Arithmetic, Defence, Seed, Shape
from .callback import TWICE, Callback, warn_of_copies
from .native import Source, checked_index, floating, relabelled, seed_of, source_of

__all__ = ["begin", "call", "pull_back"]


def call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    """Apply `defence` to an array, and to its labels."""
    is_traced = traced("jax", x, y, index)
    is_far = not is_traced and on_device(x)
    if is_traced or is_far:
        if (function := defence._natively(_shape(x), np.dtype(x.dtype))) is not None:
            return _call_natively(defence, function, x, y, index, is_traced=is_traced)
        if is_far:
            warn_of_copies(defence, x.sharding)
    if is_traced:
        return _call_traced(defence, x, y, index)
    begun = Pass.begin(defence, to_numpy(x), y=y, index=index, once=True, runs=True)
    return like(x, begun.output()), begun.labels(y)


def pull_back(defence: Defence, x: Any, grad: Any, index: Any) -> Any:
    """Vector-Jacobian product at a batch, by JAX; None if NumPy computes it."""
    is_traced = traced("jax", x, grad, index)
    if not is_traced and not on_device(x):
        return None
    if not is_traced and defence._natively(x.shape, np.dtype(x.dtype)) is None:
        return warn_of_copies(defence, x.sharding)
    x, grad = (floating(jax.numpy.asarray(array), jax.numpy) for array in (x, grad))
    x = cast(x, "float32") if is_bfloat16(x) else x
    out, pull = jax.vjp(lambda x: call(defence, x, None, index)[0], x)
    check_gradient_shape(grad.shape, out.shape)
    pulled = jax.vmap(pull, 1, 1) if grad.ndim > out.ndim else pull
    return pulled(grad.astype(out.dtype))[0].astype(grad.dtype)


def begin(defence: Defence, x: Any, seeds: Seed) -> tuple[Any, Callable[[Any], Any]] | None:
    """Passes of a batch on an accelerator, end to end, and the way back; None if NumPy computes them."""
    if (function := defence._natively(_shape(x), np.dtype(x.dtype))) is None:
        warn_of_copies(defence, x.sharding)
        return None
    count, words, rows = len(x), defence._seed_words, filled(len(seeds) * len(x))
    entry = jax.numpy.take(x, rows % count, axis=0)
    if words:  # a seed for each sample, and its number
        numbers = seeds[:, words:].reshape(-1, 1)
        seeds = np.concatenate([np.repeat(seeds[:, :words], count, axis=0), numbers], axis=1)[rows]
    source = source_of(words, seeds, None, entry, jax.numpy, _table)
    out, pull = jax.vjp(lambda x: _whole(function)(x, None, source)[0], entry)
    asked = int(rows[-1]) + 1

    def back(grad: Any) -> Any:
        return pull(jax.numpy.zeros_like(out).at[:asked].set(grad))[0][:asked]

    return out[:asked], back


def _whole(function: Arithmetic) -> Any:
    """Arithmetic as one program of a batch, labels and the source of draws, if pickle takes its parts.

    Outside of `jax.jit`, JAX would compile each of hundreds of operations by itself.
    """
    try:
        program = _program(_pickled(function))
    except (AttributeError, TypeError, pickle.PicklingError):  # of a function within a function
        return lambda x, y, source: function(x, jax.numpy, y, source)
    return lambda x, y, source: program(x, y, *_words(source))


def _pickled(function: Arithmetic) -> bytes:
    """What tells arithmetic apart: functions of modules, numbers, words, and defences but for their use."""
    return pickle.dumps(function)


def _words(source: Source | None) -> tuple[Any, Any]:
    return (None, None) if source is None else (jax.numpy.asarray(source.words, np.int32), source.numbers)


@lru_cache(maxsize=128)
def _program(pickled: bytes) -> Any:
    """One for all equal arithmetic, which JAX compiles once for a shape."""
    function = pickle.loads(pickled)  # noqa: S301 - our own, from just above

    def run(x: Any, y: Any, words: Any, numbers: Any) -> tuple[Any, Any]:
        return function(x, jax.numpy, y, None if words is None else Source(words, numbers, _table))  # type: ignore[no-any-return]

    return jax.jit(run)


def _shape(x: Any) -> Shape:
    """The shape of a batch, in which a symbolic number of samples counts as 1."""
    if not all(isinstance(length, int) for length in x.shape[1:]):
        raise ArgumentError(
            f"`x` must hold samples of a known shape, got {x.shape}; export the function for a symbolic "
            "number of samples, such as jax.export.symbolic_shape('n, 224, 224, 3')."
        )
    return tuple(length if isinstance(length, int) else 1 for length in x.shape)


def _known(defence: Defence, shape: Shape, index: Any) -> Any:
    """The numbers of the samples, which are refused here, not by an error of the graph; checked, if known."""
    if not traced("jax", index):
        return None if index is None else checked_index(defence, shape, index)
    if isinstance(shape[0], int):
        numbers_of(defence, shape, np.zeros(index.shape, index.dtype))
    return index


def _call_natively(
    defence: Defence, function: Arithmetic, x: Any, y: Any, index: Any, *, is_traced: bool
) -> tuple[Any, Any]:
    numbers, addressed, words = _known(defence, x.shape, index), index is not None, defence._seed_words
    if is_traced and words and not (addressed and defence._has_one_seed):
        # Drawn when the program runs. The words alone come from the host, and the numbers with which an
        # evaluation may have frozen it.
        seed = io_callback(
            lambda: Callback(defence).words(x.shape[0], addressed=addressed),
            jax.ShapeDtypeStruct((words + (0 if addressed else x.shape[0]),), np.int32),
            ordered=False,
        )
    else:
        seed = seed_of(defence, x.shape[0], addressed=addressed)
    if y is not None and defence._changes_labels and framework(y) != "jax":
        if not is_traced:
            source = source_of(words, seed, numbers, x, jax.numpy, _table)
            labels = relabelled(defence, x, np.dtype(x.dtype), seed, index, y)
            return _whole(function)(x, None, source)[0], labels
        check_array_labels(y, "jax.jit")
        y = jax.numpy.asarray(y)
    x = x if defence.domains == ("labels",) else jax.numpy.asarray(x)
    source = source_of(words, seed, numbers, x, jax.numpy, _table)
    if defence._changes_labels:
        return _whole(function)(x, y, source)  # type: ignore[no-any-return]
    return _whole(function)(x, None, source)[0], y


def _table() -> Any:
    from .._core.kernels.threefry import quantiles

    return jax.numpy.asarray(quantiles())


def _call_traced(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    defence._check_shape(x.shape)

    numpy = Callback(defence)

    def call_back(function: Any, shape: Shape, dtype: Any, *operands: Any) -> Any:
        return jax.pure_callback(
            lambda *arrays: np.asarray(function(*map(np.asarray, arrays)), dtype=dtype),
            jax.ShapeDtypeStruct(shape, dtype),
            *operands,
            vmap_method="sequential",
        )

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def defend(x: Any, seed: Any) -> Any:
        dtype = defence._output_dtype(np.dtype(x.dtype))
        return call_back(numpy.forward, defence._output_shape(x.shape), dtype, x, seed)

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def pull(x: Any, seed: Any, grad: Any) -> Any:
        return call_back(numpy.backward, x.shape, x.dtype, x, seed, grad)

    def again(kept: Any, back: Any) -> Any:
        x, seed, grad = jax.lax.stop_gradient(kept)
        if back.shape != grad.shape:
            raise RuntimeError(TWICE.format(defence))
        factor = call_back(numpy.again, (), grad.dtype, x, seed, grad)
        # XLA leaves out what no result depends on.
        return jax.numpy.full_like(x, factor - 1), None, factor * back.astype(grad.dtype)

    defend.defvjp(lambda *at: (defend(*at), at), lambda at, grad: (pull(*at, grad), None))
    pull.defvjp(lambda *at: (pull(*at), at), again)
    index = _known(defence, x.shape, index)
    seed = np.zeros(0, dtype=np.uint32)
    if defence._seed_words:
        operands = () if index is None else (jax.numpy.asarray(index),)
        seed = io_callback(
            lambda *index: numpy.seed(x.shape, *map(np.asarray, index)),
            jax.ShapeDtypeStruct((defence._seed_words + (len(x) if operands else 0),), np.uint32),
            *operands,
            ordered=False,
        )
    out = x if defence.domains == ("labels",) else defend(x, seed)
    if y is None or not defence._changes_labels:
        return out, y
    check_array_labels(y, "jax.jit")
    x, y = jax.lax.stop_gradient((x, jax.numpy.asarray(y)))  # labels have no gradient
    example = numpy.relabelled(y.shape, y.dtype, x.shape, x.dtype)
    return out, call_back(numpy.relabel, example.shape, example.dtype, y, x, seed)
