"""What the arithmetic of defences uses of the array API standard, for TensorFlow, which has no such namespace."""

from typing import Any

import tensorflow as tf

bool = tf.bool
int32, int64, float32, float64 = tf.int32, tf.int64, tf.float32, tf.float64
abs, atan, exp, floor, log, maximum, minimum = tf.abs, tf.atan, tf.exp, tf.floor, tf.math.log, tf.maximum, tf.minimum
ones_like, sqrt, stack, where, zeros_like = tf.ones_like, tf.sqrt, tf.stack, tf.where, tf.zeros_like
concat, expand_dims, broadcast_to, moveaxis = tf.concat, tf.expand_dims, tf.broadcast_to, tf.experimental.numpy.moveaxis
round, isfinite, matmul = tf.round, tf.math.is_finite, tf.matmul


def astype(x: Any, dtype: Any, copy: Any = True) -> Any:
    return tf.cast(x, dtype)


def asarray(x: Any, dtype: Any = None, device: Any = None) -> Any:
    return tf.convert_to_tensor(x) if dtype is None else tf.cast(x, dtype)


def full(shape: Any, value: Any, dtype: Any = None, device: Any = None) -> Any:
    return tf.fill(shape, tf.constant(value, dtype))


def full_like(x: Any, value: Any) -> Any:
    return tf.zeros_like(x) + tf.constant(value, x.dtype)


def arange(stop: Any, dtype: Any = None, device: Any = None) -> Any:
    return tf.range(stop, dtype=dtype)


def reshape(x: Any, shape: Any) -> Any:
    return tf.reshape(x, [-1 if n is None else n for n in shape])


def permute_dims(x: Any, axes: Any) -> Any:
    return tf.transpose(x, axes)


def flip(x: Any, axis: int) -> Any:
    return tf.reverse(x, [axis % len(x.shape)])


def sum(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return tf.reduce_sum(x, axis, keepdims)


def mean(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return tf.reduce_mean(x, axis, keepdims)


def max(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return tf.reduce_max(x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return tf.reduce_min(x, axis, keepdims)


def take(x: Any, indices: Any, axis: int = 0) -> Any:
    return tf.gather(x, indices, axis=axis)


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    return tf.experimental.numpy.take_along_axis(x, indices, axis)


def argsort(x: Any, axis: int = -1, stable: Any = True) -> Any:
    return tf.argsort(x, axis, stable=True)


def isdtype(dtype: Any, kind: str) -> Any:
    return {"real floating": dtype.is_floating, "bool": dtype == tf.bool}[kind]
