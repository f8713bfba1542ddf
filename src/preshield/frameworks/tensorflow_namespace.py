"""What the arithmetic of defences uses of the array API standard, in TensorFlow, which lacks a namespace."""

from types import SimpleNamespace
from typing import Any

import tensorflow as tf

__all__ = ["namespace"]


def _argmax(x: Any, axis: int, keepdims: bool = False) -> Any:
    found = tf.argmax(x, axis, tf.int32)
    return tf.expand_dims(found, axis) if keepdims else found


def _broadcast_to(x: Any, shape: Any) -> Any:
    return tf.broadcast_to(x, [tf.shape(x)[i] if n is None else n for i, n in enumerate(shape)])


namespace = SimpleNamespace(
    **{name: getattr(tf, name) for name in ("abs", "atan", "bool", "concat", "exp", "expand_dims", "floor")},
    **{name: getattr(tf, name) for name in ("float32", "float64", "int32", "matmul", "maximum", "minimum")},
    **{
        name: getattr(tf, name)
        for name in ("ones_like", "round", "sin", "sqrt", "stack", "where", "zeros_like")
    },
    arange=lambda stop, dtype=None: tf.range(stop, dtype=dtype),
    argmax=_argmax,
    argmin=lambda x, axis, keepdims=False: _argmax(-x, axis, keepdims),
    argsort=lambda x, axis=-1, stable=True: tf.argsort(x, axis, stable=True),
    asarray=lambda x, dtype=None: tf.cast(x, dtype or x.dtype),
    astype=lambda x, dtype, copy=True: tf.cast(x, dtype),
    bitwise_right_shift=tf.bitwise.right_shift,
    broadcast_to=_broadcast_to,
    fft=SimpleNamespace(irfft=lambda x, n: tf.signal.irfft(x, [n]), rfft=lambda x, n: tf.signal.rfft(x, [n])),
    flip=lambda x, axis: tf.reverse(x, [axis % len(x.shape)]),
    full=lambda shape, value, dtype: tf.fill(shape, tf.constant(value, dtype)),
    full_like=lambda x, value: tf.zeros_like(x) + tf.constant(value, x.dtype),
    isfinite=tf.math.is_finite,
    log=tf.math.log,
    max=lambda x, axis=None, keepdims=False: tf.reduce_max(x, axis, keepdims),
    mean=lambda x, axis=None, keepdims=False: tf.reduce_mean(x, axis, keepdims),
    moveaxis=tf.experimental.numpy.moveaxis,
    permute_dims=tf.transpose,
    reshape=lambda x, shape: tf.reshape(x, [-1 if n is None else n for n in shape]),
    sum=lambda x, axis=None, keepdims=False: tf.reduce_sum(x, axis, keepdims),
    take=lambda x, indices, axis=0: tf.gather(x, indices, axis=axis),
    take_along_axis=tf.experimental.numpy.take_along_axis,
)
