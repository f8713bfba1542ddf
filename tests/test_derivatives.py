"""Second derivatives, forward mode, Jacobians, recomputation, recorded programs: right, or refused in words.

All that frameworks see of a backward pass is a result of NumPy. What they make of it by themselves is zero.
"""

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
)


class HostJpeg(JpegCompression):
    """Through NumPy in every framework: the arithmetic for others is that of another `_transform`."""

    def _transform(self, x, draw):
        return super()._transform(x, draw)


X = np.random.default_rng(0).random((2, 4, 4, 3), dtype=np.float32)
PASSED_ON = [
    HostJpeg((0, 1)),
    SpatialSmoothing(3),
    GaussianAugmentation(0.1, augmentation=False, rng=0),
    Chain([HostJpeg((0, 1)), FeatureSqueezing((0, 1), 4)]),
]
COMPUTED = [
    GaussianBlur(3),
    SpatialSmoothing(3, gradient="exact"),
    ThermometerEncoding((0, 1), num_space=4),
    Chain([GaussianBlur(3), HostJpeg((0, 1))]),
]
WITHOUT_TWIN = [  # in the framework itself, which would have all derivatives
    HostJpeg((0, 1), gradient="soft"),
    Chain([GaussianBlur(3), HostJpeg((0, 1))]),
]
REFUSED = "has neither second nor forward-mode derivatives"
NAME = str


def noise():
    return GaussianAugmentation(0.1, augmentation=False, rng=0)


def penalty_slope(defence):
    """d/dw of the squared norm of d/dx sum((w d(x))**2), for a defence taken for the identity, at w = 2.

    The inner gradient is 2 w**2 d(x), so the penalty is 4 w**4 |d(x)|**2, and its slope 16 w**3 |d(x)|**2.
    """
    with defence.frozen(0):
        return 16 * 2.0**3 * (defence.transform(X).astype(float) ** 2).sum()


# torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("defence", PASSED_ON, ids=NAME)
def test_torch_gradient_penalty(torch, defence):
    w, x = torch.tensor(2.0, requires_grad=True), torch.tensor(X, requires_grad=True)
    with defence.frozen(0):
        loss = ((w * defence.transform(x)) ** 2).sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    (grad**2).sum().backward()
    assert w.grad.item() == pytest.approx(penalty_slope(defence), rel=1e-5)


@pytest.mark.parametrize("defence", COMPUTED, ids=NAME)
def test_torch_refuses_a_gradient_penalty(torch, defence):
    w, x = torch.tensor(2.0, requires_grad=True), torch.tensor(X, requires_grad=True)
    loss = ((w * defence.transform(x)) ** 2).sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        (grad**2).sum().backward()


@pytest.mark.parametrize("function", ["hvp", "vhp", "hessian"])
def test_torch_second_derivatives(torch, function):
    """Of sum(d(x)**2): twice the vector where the defence is taken for the identity, no zeros elsewhere."""
    x = torch.tensor(X[:1, :2, :2])
    more = () if function == "hessian" else (torch.ones_like(x),)

    def second(defence):
        result = getattr(torch.autograd.functional, function)(
            lambda x: (defence.transform(x) ** 2).sum(), x, *more
        )
        return result if function == "hessian" else result[1]

    expected = 2 * (torch.eye(12).reshape(2 * x.shape) if function == "hessian" else more[0])
    np.testing.assert_array_equal(second(HostJpeg((0, 1))), expected)
    with pytest.raises(RuntimeError, match=REFUSED):
        second(GaussianBlur(3))


def test_torch_refuses_what_only_depends_on_the_batch(torch):
    """The gradient of a sum does not depend on weights, but on where it is taken."""
    x = torch.tensor(X, requires_grad=True)
    (grad,) = torch.autograd.grad(GaussianBlur(3).transform(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        (grad**2).sum().backward()


def test_torch_first_derivatives_may_keep_a_graph(torch):
    x = torch.tensor(X, requires_grad=True)
    (grad,) = torch.autograd.grad(GaussianBlur(3).transform(x).sum(), x, create_graph=True)
    expected = GaussianBlur(3).estimate_gradient(X, np.ones_like(X))
    np.testing.assert_allclose(grad.detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_torch_refuses_to_be_transformed(torch, transform):
    jpeg = HostJpeg((0, 1))
    with pytest.raises(RuntimeError, match=r"HostJpeg.*transforms of torch\.func cannot enter"):
        getattr(torch.func, transform)(lambda x: jpeg.transform(x[None]).sum())(torch.tensor(X))


@pytest.mark.parametrize("reentrant", [True, False])
def test_torch_checkpoint(torch, reentrant):
    from torch.utils.checkpoint import checkpoint

    def run(defence):
        x = torch.tensor(X, requires_grad=True)
        out = checkpoint(lambda x: defence.transform(x) ** 2 / 2, x, use_reentrant=reentrant)
        out.sum().backward()
        return out.detach(), x.grad

    with pytest.raises(RuntimeError, match=r"draws at random, and a recomputed forward pass would draw anew"):
        run(noise())
    with pytest.raises(RuntimeError, match="would draw anew"):
        run(Chain([HostJpeg((0, 1)), noise()]))
    for defence in (noise(), HostJpeg((0, 1)), Chain([HostJpeg((0, 1)), noise()])):
        with defence.frozen(3):
            out, grad = run(defence)
        np.testing.assert_allclose(grad**2 / 2, out, rtol=1e-5)
    run(HostJpeg((0, 1)))


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")
def test_torch_refuses_to_be_recorded(torch):
    from torch.fx.experimental.proxy_tensor import make_fx

    jpeg, x = HostJpeg((0, 1)), torch.tensor(X)

    class Model(torch.nn.Module):
        def forward(self, x):
            return jpeg.transform(x) + 1

    with pytest.raises(RuntimeError, match=r"which make_fx or torch\.export does not record"):
        make_fx(Model())(x)
    with pytest.raises(RuntimeError, match=r"which torch\.jit\.trace does not record.* would be a constant"):
        torch.jit.trace(Model(), (x,))
    with pytest.raises(RuntimeError, match=r"which make_fx or torch\.export does not record"):
        torch.export.export(Model(), (x,), strict=False)


def test_torch_tensors_that_are_lazily_negated_or_conjugated(torch):
    negated = torch.complex(torch.zeros(X.shape), torch.tensor(-X)).conj().imag
    assert negated.is_neg()
    blur = GaussianBlur(3)
    np.testing.assert_array_equal(blur.transform(negated), blur.transform(X))
    x = torch.tensor(X, requires_grad=True)
    blur.transform(x).backward(negated)
    np.testing.assert_array_equal(x.grad, blur.estimate_gradient(X, X))
    with pytest.raises(TypeError, match="`x` must hold real numbers, got dtype complex64"):
        blur.transform(torch.complex(negated, negated).conj())


# TensorFlow


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(params=["eager", "traced"])
def run_tf(request, tf):
    return tf.function if request.param == "traced" else lambda function: function


def tf_penalty(tf, run_tf, defence, loss):
    """Slope of the gradient penalty of `loss(w, d(x))`, with respect to w = 2 and to x."""
    w = tf.Variable(2.0)

    @run_tf
    def step(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(loss(w, defence.transform(x)))
            norm = tf.reduce_sum(inner.gradient(total, x) ** 2)
        return outer.gradient(norm, [w, x], unconnected_gradients="zero")

    with defence.frozen(0):
        return step(tf.constant(X))


@pytest.mark.parametrize("defence", PASSED_ON, ids=NAME)
def test_tensorflow_gradient_penalty(tf, run_tf, defence):
    slope, _ = tf_penalty(tf, run_tf, defence, lambda w, out: (w * out) ** 2)
    assert float(slope) == pytest.approx(penalty_slope(defence), rel=1e-5)


@pytest.mark.parametrize("defence", COMPUTED, ids=NAME)
def test_tensorflow_refuses_a_gradient_penalty(tf, run_tf, defence):
    with pytest.raises((RuntimeError, tf.errors.UnknownError), match=REFUSED):
        tf_penalty(tf, run_tf, defence, lambda w, out: (w * out) ** 2)
    with pytest.raises((RuntimeError, tf.errors.UnknownError), match=REFUSED):
        tf_penalty(tf, run_tf, defence, lambda w, out: out)  # depends on x alone


@pytest.mark.parametrize("inner", ["tape", "accumulator"])
def test_tensorflow_second_derivatives_around_a_compiled_function(tf, inner):
    """Of sum(d(x)**3), times ones: 6 d(x) where the defence is taken for the identity, no zeros elsewhere."""
    x = tf.constant(X)

    def second(defence, loss=lambda out: out**3):
        compiled = tf.function(lambda x: tf.reduce_sum(loss(defence.transform(x))))

        def slope():
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = compiled(x)
            return tape.gradient(total, x)

        if inner == "accumulator":
            with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
                grad = slope()
            return accumulator.jvp(grad)
        with tf.GradientTape() as outer:
            outer.watch(x)
            grad = slope()
        return outer.gradient(grad, x)

    jpeg = HostJpeg((0, 1))
    np.testing.assert_allclose(second(jpeg), 6 * jpeg.transform(X), rtol=1e-6)
    with pytest.raises(tf.errors.UnknownError, match=REFUSED):
        second(GaussianBlur(3))
    with pytest.raises(tf.errors.UnknownError, match=REFUSED):
        second(GaussianBlur(3), loss=lambda out: out)  # depends on x alone


def test_tensorflow_computes_a_gradient_once(tf):
    class Counting(Preprocessor):
        domains = ("features",)
        gradient_kind = "exact"
        calls = 0

        def _transform(self, x, draw):
            return 3 * x

        def _gradient(self, x, grad, draw):
            self.calls += 1
            return 3 * grad

    defence, x = Counting(), tf.ones((2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = defence.transform(x)
    np.testing.assert_array_equal(tape.gradient(out, x), np.full((2, 3), 3))
    assert defence.calls == 1


def test_tensorflow_forward_mode(tf):
    def forward_of(defence, x):
        with tf.autodiff.ForwardAccumulator(x, 2 * x) as accumulator:
            out = defence.transform(x)
        return accumulator.jvp(out)

    x = tf.constant(X)
    np.testing.assert_array_equal(forward_of(HostJpeg((0, 1)), x), 2 * X)
    with pytest.raises(RuntimeError, match=REFUSED):
        forward_of(GaussianBlur(3), x)
    for defence in (HostJpeg((0, 1)), GaussianBlur(3)):
        with pytest.raises(RuntimeError, match=r"no forward-mode derivative inside tf\.function"):
            tf.function(lambda x, defence=defence: forward_of(defence, x))(x)


@pytest.mark.parametrize("defence", [GaussianBlur(3), HostJpeg((0, 1))], ids=NAME)
@pytest.mark.parametrize("function", ["jacobian", "batch_jacobian"])
def test_tensorflow_jacobians(tf, run_tf, function, defence):
    """Rows of the Jacobian are the gradients of single outputs."""
    x = X[:, :2, :2]

    @run_tf
    def jacobian(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = defence.transform(x)
        return getattr(tape, function)(out, x)

    rows = np.tile(np.eye(12, dtype=np.float32).reshape(1, 12, 2, 2, 3), (2, 1, 1, 1, 1))
    expected = defence.estimate_gradient(x, rows).reshape(2, 12, 12)  # sample, output, input
    found = jacobian(tf.constant(x)).numpy()
    if function == "batch_jacobian":
        np.testing.assert_allclose(found.reshape(2, 12, 12), expected, atol=1e-6)
    else:
        found = found.reshape(2, 12, 2, 12)
        for i in range(2):
            np.testing.assert_allclose(found[i, :, i], expected[i], atol=1e-6)
        assert not found[0, :, 1].any()
        assert not found[1, :, 0].any()


def test_tensorflow_recompute_grad(tf, run_tf):
    def run(defence):
        @run_tf
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = tf.recompute_grad(lambda x: defence.transform(x) ** 2 / 2)(x)
            return out, tape.gradient(out, x)

        return step(tf.constant(X))

    with pytest.raises(RuntimeError, match=r"draws at random, and a recomputed forward pass would draw anew"):
        run(noise())
    for defence in (noise(), HostJpeg((0, 1))):
        with defence.frozen(3):
            out, grad = run(defence)
        np.testing.assert_allclose(grad**2 / 2, out, rtol=1e-5)


# JAX


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


@pytest.fixture(params=["eager", "jit"])
def run_jax(request, jax):
    return jax.jit if request.param == "jit" else lambda function: function


def jax_penalty(jax, run_jax, defence, loss):
    """Slope of the gradient penalty of `loss(w, d(x))`, with respect to w = 2 and to x."""

    def penalty(w, x):
        return (jax.grad(lambda x: loss(w, defence.transform(x)).sum())(x) ** 2).sum()

    with defence.frozen(0):
        return run_jax(jax.grad(penalty, argnums=(0, 1)))(2.0, jax.numpy.asarray(X))


@pytest.mark.parametrize("defence", PASSED_ON, ids=NAME)
def test_jax_gradient_penalty(jax, run_jax, defence):
    slope, _ = jax_penalty(jax, run_jax, defence, lambda w, out: (w * out) ** 2)
    assert float(slope) == pytest.approx(penalty_slope(defence), rel=1e-5)


@pytest.mark.parametrize("defence", WITHOUT_TWIN, ids=NAME)
def test_jax_refuses_a_gradient_penalty(jax, run_jax, defence):
    with pytest.raises(RuntimeError, match=REFUSED):
        jax.block_until_ready(jax_penalty(jax, run_jax, defence, lambda w, out: (w * out) ** 2))
    with pytest.raises(RuntimeError, match=REFUSED):
        jax.block_until_ready(jax_penalty(jax, run_jax, defence, lambda w, out: out))  # depends on x alone


def test_jax_hessian_in_reverse_mode(jax, run_jax):
    """Of sum(d(x)**2): 2 on the diagonal where the defence is taken for the identity, no zeros elsewhere."""
    x = jax.numpy.asarray(X[:1, :2, :2])

    def hessian(defence):
        return run_jax(jax.jacrev(jax.jacrev(lambda x: (defence.transform(x) ** 2).sum())))(x)

    np.testing.assert_array_equal(hessian(HostJpeg((0, 1))), 2 * np.eye(12).reshape(2 * x.shape))
    with pytest.raises(RuntimeError, match=REFUSED):
        jax.block_until_ready(hessian(WITHOUT_TWIN[1]))


def test_jax_third_derivatives(jax, run_jax):
    jpeg = HostJpeg((0, 1))

    def summed(function):
        return lambda x: jax.grad(function)(x).sum()

    third = run_jax(jax.grad(summed(summed(lambda x: (jpeg.transform(x) ** 3).sum()))))
    np.testing.assert_array_equal(third(jax.numpy.asarray(X)), np.full_like(X, 6))


@pytest.mark.filterwarnings("ignore:.*os.fork.*:RuntimeWarning")
def test_jax_refuses_forward_mode_and_recomputation(jax):
    x, jpeg = jax.numpy.asarray(X), HostJpeg((0, 1))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(jpeg.transform, (x,), (x,))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.hessian(lambda x: (jpeg.transform(x) ** 2).sum())(x)
    with pytest.raises(NotImplementedError, match="Effects not supported"):
        jax.grad(jax.checkpoint(lambda x: (noise().transform(x) ** 2).sum()))(x)
