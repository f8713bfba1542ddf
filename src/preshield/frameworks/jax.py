"""Arrays of JAX, eager, and traced by `jit` and `grad`."""

import pickle
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from .._core.checks import check_array_labels
from .._core.passes import Pass, numbers_of
from .._core.tensors import like, to_numpy, traced
from .._core.typing import Arithmetic, Defence, Shape
from .callback import TWICE, Callback, warn_of_copies

__all__ = ["call"]


def call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    """Apply `defence` to an array, and to its labels."""
    is_traced = traced("jax", x, y, index)
    on_device = not is_traced and any(device.platform != "cpu" for device in x.devices())
    if is_traced or on_device:
        if (function := defence._natively(x.shape, np.dtype(x.dtype))) is not None:
            _known(defence, x.shape, index)
            return _whole(function)(x), y
        if on_device:
            warn_of_copies(defence, x.sharding)
    if is_traced:
        return _call_traced(defence, x, y, index)
    begun = Pass.begin(defence, to_numpy(x), y=y, index=index, runs=True)
    return like(x, begun.output()), begun.labels(y)


def _whole(function: Arithmetic) -> Any:
    """The arithmetic as one program, if its parts are functions of modules, numbers and words.

    Outside of `jax.jit`, JAX would compile each of hundreds of operations by itself.
    """
    try:
        return _program(pickle.dumps(function))
    except (AttributeError, TypeError, pickle.PicklingError):  # of a function within a function
        return lambda x: function(x, jax.numpy)


@lru_cache(maxsize=128)
def _program(pickled: bytes) -> Any:
    """One for all equal arithmetic, which JAX compiles once for a shape."""
    function = pickle.loads(pickled)  # noqa: S301 - our own, from just above
    return jax.jit(lambda x: function(x, jax.numpy))


def _known(defence: Defence, shape: Shape, index: Any) -> Any:
    """The numbers of the samples, if they are known now: refused here, not by an error of the graph."""
    return index if index is None or traced("jax", index) else numbers_of(defence, shape, index)


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
