"""Tensors of TensorFlow, eager, and traced by `tf.function`."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf

from .._core.checks import check_array_labels
from .._core.errors import ArgumentError
from .._core.passes import Pass, numbers_of
from .._core.tensors import traced
from .._core.typing import Arithmetic, Defence, Dtype
from .callback import RECOMPUTED, TWICE, Callback, is_passed_on
from .tensorflow_namespace import namespace

__all__ = ["call"]

UNKNOWN = (128, 129)  # tried for axes of unknown length; so many classes suit nearly every `max_value`
COMPILED = (
    "{} runs in NumPy here, which XLA cannot call. Leave out jit_compile=True, or defend outside of the "
    "compiled function."
)
FORWARD = (
    "{} has no forward-mode derivative inside tf.function, where TensorFlow takes that of a custom gradient "
    "for zero. Use tf.GradientTape, or leave the defence out of the compiled function."
)


# AutoGraph would convert what runs in NumPy as well, and log a warning for what it cannot convert.
@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    """Apply `defence` to a tensor, and to its labels."""
    for kind, remedy in ((tf.RaggedTensor, "x.to_tensor()"), (tf.SparseTensor, "tf.sparse.to_dense(x)")):
        if isinstance(x, kind):
            raise ArgumentError(f"`x` must be a dense tensor, got a {kind.__name__}; pass {remedy}.")
    x = tf.convert_to_tensor(x)
    if defence._draws_afresh and _is_recomputed():
        raise RuntimeError(RECOMPUTED.format(defence))
    if (function := _natively(defence, x)) is not None:
        if index is not None and not tf.is_symbolic_tensor(index) and x.shape[0] is not None:
            numbers_of(defence, tuple(x.shape), index)
        return function(x, namespace)[0], y
    enter = _call_traced if traced("tensorflow", x, y) else _call_eager
    return enter(defence, x, y, index)


def _is_recomputed() -> bool:
    """Whether the backward pass of `tf.recompute_grad` is what calls."""
    return any(frame.f_code.co_name == "inner_recompute_grad" for frame in _callers())


def _is_compiled() -> bool:
    """Whether XLA compiles what is traced, which its graph does not know yet."""
    return any(
        frame.f_code.co_filename.endswith("polymorphic_function.py")
        and getattr(frame.f_locals.get("self"), "_jit_compile", False)
        for frame in _callers()
    )


def _callers() -> Iterator[FrameType]:
    frame = sys._getframe().f_back
    while frame is not None:
        yield frame
        frame = frame.f_back


def _natively(defence: Defence, x: Any) -> Arithmetic | None:
    """What computes a batch in TensorFlow: on an accelerator, and where XLA compiles, which cannot call back.

    Elsewhere the kernels are faster. Nothing is drawn, and the shape of a sample must be known.
    """
    drawn_or_labels = defence._seed_words or defence._changes_labels
    if drawn_or_labels or x.shape.rank is None or None in x.shape[1:]:
        return None
    if tf.executing_eagerly():
        if tf.DeviceSpec.from_string(x.device).device_type in (None, "CPU"):
            return None
    elif not _is_compiled() and all(d.device_type == "CPU" for d in tf.config.list_logical_devices()):
        return None
    return defence._natively((1, *x.shape[1:]), np.dtype(x.dtype.as_numpy_dtype))


def _call_eager(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    begun = Pass.begin(defence, x.numpy(), y=y, index=index, runs=True, kept=True)
    # Not in the function below, which may not use the variables of models that the defence runs.
    out, dtype = tf.convert_to_tensor(begun.output()), begun.x.dtype

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def defend(x: Any) -> Any:
        def back(grad: Any) -> Any:
            if tf.is_symbolic_tensor(grad):  # a Jacobian, whose rows are computed in a graph
                pulled = tf.numpy_function(lambda g: begun.pull_back(g).astype(dtype), [grad], x.dtype)
                pulled.set_shape(x.shape)
            else:
                given = grad.numpy()
                computed = begun.pull_back(given)
                if is_passed_on(computed, given):
                    return tf.cast(grad, x.dtype)
                pulled = tf.convert_to_tensor(computed.astype(dtype, copy=False))

            def again(_: Any) -> Any:
                raise RuntimeError(TWICE.format(defence))

            return tf.custom_gradient(lambda *_: (tf.identity(pulled), again))(grad, x)

        return tf.identity(out), back

    return defend(x), begun.labels(y)


def _call_traced(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    from tensorflow.python.eager.forwardprop_util import pack_tangents

    if _is_compiled():
        raise RuntimeError(COMPILED.format(defence))
    if pack_tangents([x]).tangents:  # a forward accumulator follows it
        raise RuntimeError(FORWARD.format(defence))
    known = x.shape.is_fully_defined()
    if known:  # an error of the graph would be one of TensorFlow's
        defence._check_shape(tuple(x.shape))
    dtype = tf.as_dtype(defence._output_dtype(np.dtype(x.dtype.as_numpy_dtype)))
    if index is not None and not tf.is_symbolic_tensor(index) and known:
        index = numbers_of(defence, tuple(x.shape), index)  # refused here, not by an error of the graph
    numpy = Callback(defence)
    seed = tf.constant(np.zeros(0, dtype=np.uint32))
    if defence._seed_words:
        operands = [tf.shape(x)] if index is None else [tf.shape(x), tf.convert_to_tensor(index)]
        seed = tf.numpy_function(numpy.seed, operands, tf.uint32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def defend(x: Any, seed: Any) -> Any:
        out = tf.numpy_function(numpy.forward, [x, seed], dtype)
        if x.shape.rank is not None:
            out.set_shape(_static_shape(defence, x.shape))

        return out, lambda grad: (pull(x, seed, grad), None)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def pull(x: Any, seed: Any, grad: Any) -> Any:
        x, seed, grad = map(tf.identity, (x, seed, grad))  # in this graph, where second derivatives find them
        pulled = tf.numpy_function(numpy.backward, [x, seed, grad], x.dtype)
        pulled.set_shape(x.shape)

        def again(back: Any) -> Any:
            if not back.shape.is_compatible_with(grad.shape):
                raise RuntimeError(TWICE.format(defence))
            factor = tf.numpy_function(numpy.again, [x, seed, grad], grad.dtype)
            factor.set_shape(())
            return tf.zeros_like(x), None, factor * tf.cast(back, grad.dtype)

        return pulled, again

    out = x if defence.domains == ("labels",) else defend(x, seed)
    if y is None or not defence._changes_labels:
        return out, y
    check_array_labels(y, "tf.function")
    y = tf.convert_to_tensor(y)
    dtype, shape = _label_spec(numpy, y, x)
    labels = tf.numpy_function(numpy.relabel, [y, x, seed], tf.as_dtype(dtype))
    labels.set_shape(shape)
    return out, labels


def _static_shape(defence: Defence, shape: Any) -> list[int | None]:
    """Shape of the output where it does not depend on axes of unknown length, which are tried at two."""
    one, two = (defence._output_shape(tuple(n or length for n in shape)) for length in (1 << 20, 1 << 21))
    return [a if a == b else None for a, b in zip(one, two, strict=True)]


def _label_spec(numpy: Callback, y: Any, x: Any) -> tuple[Dtype, list[int | None] | None]:
    """Dtype of the labels, and their shape: None where it depends on an axis of unknown length or a rank."""
    ranks = {"image": 4, "video": 5}
    of_x = [None] * ranks.get(numpy.defence.domains[0], 2) if x.shape.rank is None else x.shape.as_list()
    of_y = [None] * 2 if y.shape.rank is None else y.shape.as_list()
    if of_x and of_y:
        of_x[0] = of_y[0] = of_x[0] or of_y[0]  # a label for each sample
    one, two = (
        numpy.relabelled(
            tuple(n or length for n in of_y),
            y.dtype.as_numpy_dtype,
            tuple(n or length for n in of_x),
            x.dtype.as_numpy_dtype,
        )
        for length in UNKNOWN
    )
    if y.shape.rank is None:
        return one.dtype, None
    return one.dtype, [a if a == b else None for a, b in zip(one.shape, two.shape, strict=True)]
