"""Defences inside TensorFlow's own compiler, which cannot call NumPy: what the kernels compute."""

import numpy as np
import pytest

from preshield import GaussianAugmentation, GaussianBlur
from tests.cases import ALL, images

tf = pytest.importorskip("tensorflow")


def is_native(case):
    defence = case.make()
    steady = not (defence._seed_words or defence._changes_labels)
    return steady and defence._natively(case.sample.shape, case.sample.dtype) is not None


FIRST: dict[str, object] = {}
for case in filter(is_native, ALL):
    FIRST.setdefault(case.defence.__name__, case)


def graphs(step):
    """Names of the operations of a traced function."""
    return {
        op.type for op in step.get_concrete_function(tf.TensorSpec((None, 6, 5, 3))).graph.get_operations()
    }


@pytest.mark.parametrize("case", FIRST.values(), ids=str)
def test_xla_computes_what_numpy_computes(case):
    defence, x = case.make(), case.sample.astype(np.float32)

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((None, *x.shape[1:]), tf.float32)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = defence.transform(x)
            loss = tf.reduce_sum(out * out)
        return out, tape.gradient(loss, x)

    out, slope = step(tf.constant(x))
    expected = defence.transform(x)
    assert out.dtype == expected.dtype
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(out, expected, atol=1e-6 * scale, rtol=1e-5)
    np.testing.assert_allclose(
        slope, defence.estimate_gradient(x, 2 * expected), atol=1e-4 * scale, rtol=1e-3
    )


def test_second_derivatives_of_a_blur_under_xla():
    """The Hessian of sum(blur(x)**2) times v is 2 blur'(blur(v)), as a blur is linear."""
    blur, x, v = GaussianBlur(3), images(), np.random.default_rng(0).random(images().shape, np.float32)

    @tf.function(jit_compile=True)
    def product(x, v):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(blur.transform(x) ** 2)
            along = tf.reduce_sum(inner.gradient(loss, x) * v)
        return outer.gradient(along, x)

    expected = 2 * blur.estimate_gradient(x, blur.transform(v))
    np.testing.assert_allclose(product(tf.constant(x), tf.constant(v)), expected, rtol=1e-4, atol=1e-5)


def test_numpy_is_called_where_it_is_faster_and_refused_under_xla():
    blur = GaussianBlur(3)
    compiled = tf.function(blur.transform, jit_compile=True)
    within = tf.function(tf.function(blur.transform), jit_compile=True)
    for step in (compiled, within):
        assert "PyFunc" not in graphs(step)
    noise = GaussianAugmentation(0.1, augmentation=False, apply_fit=False, apply_predict=True)
    assert "PyFunc" in graphs(tf.function(blur.transform))
    with pytest.raises(RuntimeError, match=r"GaussianAugmentation\(.* runs in NumPy here, .* Leave out jit_"):
        graphs(tf.function(noise.transform, jit_compile=True))


def test_index_is_checked_under_xla():
    step = tf.function(lambda x: GaussianBlur(3).transform(x, index=[0, 1]), jit_compile=True)
    with pytest.raises(ValueError, match="`index`"):
        step(tf.constant(images()))
