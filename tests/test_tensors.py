"""Tensors of torch, TensorFlow and JAX: kept as they are, with gradients, eager and traced."""

import sys

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    PixelDeflection,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
)
from preshield._core.tensors import framework, to_numpy
from tests.cases import images

X = images()
W = np.random.default_rng(1).random(X.shape, dtype=np.float32)


class Bits(FeatureSqueezing):
    """Through NumPy in graphs, too, since it has a hook of its own."""

    def _transform(self, x, draw):
        return super()._transform(x, draw)


CHAIN = Chain([SpatialSmoothing(3, gradient="exact"), Bits((0, 1), 2, gradient="soft")])
OUT, PULLED = CHAIN.transform(X), CHAIN.estimate_gradient(X, W)
# Copies of samples, without noise: the product of the result with w is the product of x with the gradient
# if, and only if, the backward pass saw the copies that the forward pass drew.
COPIES = GaussianAugmentation(0.0, ratio=3.0)
# A stage that cannot take a batch of zeros, before labels that change.
PICKY = Chain([PixelDeflection((0, 1), activation_map=lambda x: x.mean(-1) / x.max()), LabelSmoothing(0.8)])
CODE = ThermometerEncoding((0, 1), 4)


def weights(n):
    return np.random.default_rng(2).random((n, *X.shape[1:]), dtype=np.float32)


def test_numpy_is_what_no_framework_claims():
    for x in (X, X.tolist(), 1.0, None, "text"):
        assert framework(x) == "numpy"


# torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_torch_values_and_gradients(torch):
    x = torch.tensor(X, requires_grad=True)
    out = CHAIN.transform(x)
    (out * torch.tensor(W)).sum().backward()
    assert framework(x) == "torch"
    np.testing.assert_array_equal(out.detach(), OUT)
    np.testing.assert_array_equal(x.grad, PULLED)


def test_torch_gradient_of_what_follows_and_what_precedes(torch):
    """The defence in the middle of a graph: d/dx of sum(T(3x)**2) is 3 * T'(3x) * 2T(3x)."""
    x = torch.tensor(X / 3, requires_grad=True)
    (CHAIN.transform(3 * x) ** 2).sum().backward()
    inside = np.float32(3) * np.float32(X / 3)
    expected = 3 * CHAIN.estimate_gradient(inside, 2 * CHAIN.transform(inside))
    np.testing.assert_allclose(x.grad, expected, rtol=1e-5)


def test_torch_gradcheck(torch):
    """torch's own finite differences agree with the exact gradient."""
    x = torch.tensor(np.random.default_rng(3).random((2, 5, 4, 2)), requires_grad=True)
    for defence in (
        SpatialSmoothing(3, gradient="exact"),
        SpatialSmoothing(2, clip_values=(0.3, 0.7), gradient="exact"),
    ):
        assert torch.autograd.gradcheck(defence.transform, (x,), eps=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_floating_types_are_kept(torch, dtype):
    x = torch.tensor(X).to(getattr(torch, dtype)).requires_grad_()
    out = CHAIN.transform(x)
    out.sum().backward()
    assert out.dtype == x.dtype == x.grad.dtype
    expected = CHAIN.transform(x.detach().double().numpy())
    np.testing.assert_allclose(out.detach().double(), expected, atol=2e-3)
    single = torch.float32 if dtype == "float64" else x.dtype  # ART's JPEG casts doubles
    assert JpegCompression((0, 1)).transform(x).dtype == single
    assert Chain([JpegCompression((0, 1))]).transform(x).dtype == single


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_torch_integers(torch, dtype):
    x = torch.tensor(np.rint(X)).to(getattr(torch, dtype))
    assert SpatialSmoothing(3).transform(x).dtype == x.dtype
    assert FeatureSqueezing((0, 1)).transform(x).dtype == torch.float32


def test_torch_tensors_may_be_views_without_gradient_or_empty(torch):
    x = torch.tensor(X).permute(0, 2, 1, 3)
    np.testing.assert_array_equal(CHAIN.transform(x), CHAIN.transform(X.transpose(0, 2, 1, 3)))
    with torch.no_grad():
        assert not CHAIN.transform(x.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        np.testing.assert_array_equal(CHAIN.transform(torch.tensor(X)), OUT)
    assert CHAIN.transform(x[:0]).shape == (0, 5, 6, 3)
    assert CODE.transform(torch.tensor(X)).shape == (3, 6, 5, 12)


def test_torch_result_is_writeable_and_no_view(torch):
    x = torch.tensor(X)
    for defence in (CHAIN, GaussianAugmentation(0.0, False), FeatureSqueezing((0, 1), 64)):
        out = defence.transform(x)
        out += 1
        np.testing.assert_array_equal(x, X)


class Mirror(Preprocessor):
    """Flip left and right: a view with negative strides, which torch does not know."""

    def _transform(self, x, draw):
        return x[:, :, ::-1]

    def _gradient(self, x, grad, draw):
        return grad[:, :, ::-1]


def test_torch_result_of_a_flip(torch):
    x = torch.tensor(X, requires_grad=True)
    out = Mirror().transform(x)
    (out * torch.tensor(W)).sum().backward()
    np.testing.assert_array_equal(out.detach(), X[:, :, ::-1])
    np.testing.assert_array_equal(x.grad, W[:, :, ::-1])


def test_torch_input_changed_before_backward_is_an_error(torch):
    x = torch.tensor(X, requires_grad=True)
    inside = 1 * x
    out = CHAIN.transform(inside)
    with torch.no_grad():
        inside += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_torch_gradient_is_taken_at_the_batch_that_was_given(torch):
    """Not at the copy of it over which the defence wrote its result."""

    class Square(Preprocessor):
        domains = ("features",)
        takes = "copy"

        def _transform(self, x, draw):
            x = x if x.flags.writeable else x.copy()
            np.square(x, out=x)
            return x

        def _gradient(self, x, grad, draw):
            return 2 * x * grad

    x = torch.tensor([[1.0, 3.0]], requires_grad=True)
    out = Square().transform(x)
    out.sum().backward()
    assert (out.tolist(), x.grad.tolist(), x.tolist()) == ([[1, 9]], [[2, 6]], [[1, 3]])


def test_torch_backward_sees_the_draw_of_forward(torch):
    x = torch.tensor(X, requires_grad=True)
    out = COPIES.transform(x)
    COPIES.transform(x)  # another pass in between
    product = (out * torch.tensor(weights(len(out)))).sum()
    product.backward()
    assert float((x.grad * x.detach()).sum()) == pytest.approx(product.item(), rel=1e-5)


def test_torch_labels(torch):
    x, y = torch.tensor(X), torch.eye(3)
    out, labels = COPIES(x, y)
    assert (len(out), len(labels)) == (12, 12)
    first = out.reshape(12, -1)[:, 1:]
    nearest = torch.cdist(first, x.reshape(3, -1)[:, 1:]).argmin(dim=1)
    np.testing.assert_array_equal(labels.argmax(dim=1), nearest)
    same, smooth = LabelSmoothing(0.8)(x, y)
    assert same is x
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)
    assert CHAIN(x, y)[1] is y


def test_torch_gradient_by_hand(torch):
    for x, grad in ((torch.tensor(X), torch.tensor(W)), (X, torch.tensor(W)), (torch.tensor(X), W)):
        pulled = CHAIN.estimate_gradient(x, grad)
        assert isinstance(pulled, torch.Tensor)
        np.testing.assert_array_equal(pulled, PULLED)


def test_torch_bad_input(torch):
    with pytest.raises(ValueError, match="got 1 NaN and 0 infinite"):
        CHAIN.transform(torch.full((1, 2, 2, 1), float("nan"))[:, :1, :1])
    with pytest.raises(ValueError, match=r"`x` must be a 4-D image batch"):
        CHAIN.transform(torch.zeros(3, 3))


def test_torch_module(torch):
    """The defence as a layer, its gradient reaching the layers before it."""
    before, after = torch.nn.Conv2d(3, 3, 1), torch.nn.Flatten()
    median = SpatialSmoothing(3, channels_first=True)
    out = after(median.transform(before(torch.rand(2, 3, 6, 5))))
    out.sum().backward()
    assert before.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at it
def test_torch_compile(torch):
    """A compiled function calls the defence between its graphs."""
    w = torch.tensor(W)
    step = torch.compile(lambda x: (CHAIN.transform(3 * x) * w).sum(), backend="eager")
    inside = np.float32(3) * np.float32(X / 3)
    for _ in range(2):
        x = torch.tensor(X / 3, requires_grad=True)
        step(x).backward()
        np.testing.assert_allclose(x.grad, 3 * CHAIN.estimate_gradient(inside, W), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_compiler_stays_out_where_it_gave_up_on_the_caller(torch):
    """As after too many programs of one function: it then tries each function that this one calls."""
    from torch._dynamo import eval_frame

    from preshield.frameworks.torch import call

    eval_frame.skip_code(call.__code__)
    try:
        step = torch.compile(lambda x: CHAIN.transform(3 * x).sum(), backend="eager")
        x = torch.tensor(X / 3, requires_grad=True)
        step(x).backward()
    finally:
        torch._C._dynamo.eval_frame.reset_code(call.__code__)
    expected = 3 * CHAIN.estimate_gradient(np.float32(3) * np.float32(X / 3), np.ones_like(W))
    np.testing.assert_allclose(x.grad, expected, rtol=1e-5)


def test_torch_device(torch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    x = torch.tensor(X, device="cuda", requires_grad=True)
    out, labels = COPIES(x, torch.eye(3, device="cuda"))
    out.sum().backward()
    assert out.device == labels.device == x.grad.device == x.device


# TensorFlow


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(params=["eager", "traced"])
def run_tf(request, tf):
    return tf.function if request.param == "traced" else lambda function: function


def test_tensorflow_values_and_gradients(tf, run_tf):
    @run_tf
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = CHAIN.transform(x)
            product = tf.reduce_sum(out * W)
        return out, tape.gradient(product, x)

    out, grad = step(tf.constant(X))
    assert framework(out) == "tensorflow"
    np.testing.assert_array_equal(out, OUT)
    np.testing.assert_array_equal(grad, PULLED)


def test_tensorflow_gradient_of_what_follows_and_what_precedes(tf, run_tf):
    @run_tf
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            product = tf.reduce_sum(CHAIN.transform(3 * x) ** 2)
        return tape.gradient(product, x)

    inside = np.float32(3) * np.float32(X / 3)
    expected = 3 * CHAIN.estimate_gradient(inside, 2 * CHAIN.transform(inside))
    np.testing.assert_allclose(step(tf.constant(X / 3)), expected, rtol=1e-5)


def test_tensorflow_variables(tf, run_tf):
    x = tf.Variable(X)

    @run_tf
    def step():
        with tf.GradientTape() as tape:
            product = tf.reduce_sum(CHAIN.transform(x) * W)
        return tape.gradient(product, x)

    np.testing.assert_array_equal(step(), PULLED)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensorflow_floating_types_are_kept(tf, run_tf, dtype):
    @run_tf
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = CHAIN.transform(x)
        return out, tape.gradient(out, x), JpegCompression((0, 1)).transform(x)

    x = tf.cast(X, dtype)
    out, grad, jpeg = step(x)
    assert out.dtype == grad.dtype == x.dtype
    assert jpeg.dtype == (tf.float32 if dtype == "float64" else x.dtype)
    np.testing.assert_allclose(
        tf.cast(out, "float64"), CHAIN.transform(tf.cast(x, "float64").numpy()), atol=2e-3
    )


def test_tensorflow_integers(tf, run_tf):
    x = tf.cast(np.rint(X), tf.uint8)
    assert run_tf(SpatialSmoothing(3).transform)(x).dtype == tf.uint8
    assert run_tf(FeatureSqueezing((0, 1)).transform)(x).dtype == tf.float32


def test_tensorflow_errors_keep_their_type_in_a_graph(tf):
    """autograph raises errors anew, and turns types that it does not know into one of its own."""

    @tf.function
    def step(x):
        return SpatialSmoothing(0).transform(x)

    with pytest.raises(ValueError, match="`window_size` must be at least 1, got 0"):
        step(X)


def test_tensors_that_are_not_dense_are_refused_with_the_remedy(tf):
    torch = pytest.importorskip("torch")
    bits = FeatureSqueezing((0, 1))
    for x, message in (
        (torch.eye(2).to_sparse(), r"torch.sparse_coo; pass x\.to_dense\(\)"),
        (tf.ragged.constant([[1.0], [1.0, 2.0]]), r"got a RaggedTensor; pass x\.to_tensor\(\)"),
        (tf.sparse.from_dense(np.eye(2)), r"got a SparseTensor; pass tf\.sparse\.to_dense\(x\)"),
    ):
        for kind in (TypeError, ValueError):
            with pytest.raises(kind, match=message):
                bits.transform(x)


@pytest.mark.parametrize("kind", [TypeError, ValueError])
@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 20, 24)])
def test_shapes_are_refused_while_a_graph_is_made(tf, kind, shape):
    """What the graph raises when it runs is an error of the framework's."""
    jax = pytest.importorskip("jax")
    for defence in (SpatialSmoothing(3), Chain([FeatureSqueezing((0, 1)), SpatialSmoothing(3)])):
        traced = tf.function(lambda x, d=defence: d.transform(tf.convert_to_tensor(x)))
        for step in (traced, jax.jit(defence.transform)):
            with pytest.raises(kind, match=r"`x` (must be a 4-D|of shape .* has its ch)"):
                step(np.zeros(shape, np.float32))


def test_tensorflow_shapes_known_and_unknown(tf):
    """What does not depend on an unknown axis is known while the graph is made."""
    seen = []

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 5, 3), tf.float32)])
    def code(x):
        out = CODE.transform(x)
        seen.append(out.shape.as_list())
        return out

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def anything(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = CODE.transform(x)
        return out, tape.gradient(out, x)

    @tf.function(input_signature=[tf.TensorSpec((3, 6, 5, 3), tf.float32)])
    def copies(x):
        seen.append(COPIES.transform(x).shape.as_list())

    np.testing.assert_array_equal(code(X), CODE.transform(X))
    np.testing.assert_array_equal(code(X[:1]), CODE.transform(X[:1]))
    np.testing.assert_array_equal(anything(X)[0], CODE.transform(X))
    assert anything(X[:0])[1].shape == (0, 6, 5, 3)
    copies(X)
    assert seen == [[None, 6, 5, 12], [12, 6, 5, 3]]


def test_tensorflow_backward_sees_the_draw_of_forward(tf, run_tf):
    @run_tf
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = COPIES.transform(x)
            product = tf.reduce_sum(out * weights(12))
        return out, product, tape.gradient(product, x)

    draws = []
    for _ in range(4):
        out, product, grad = step(tf.constant(X))
        assert float(tf.reduce_sum(grad * X)) == pytest.approx(float(product), rel=1e-5)
        draws.append(out.numpy().tobytes())
    assert len(set(draws)) > 1  # the graph draws anew at each run


def test_tensorflow_labels(tf, run_tf):
    @run_tf
    def step(x, y):
        out, copied = COPIES(x, y)
        return out, copied, LabelSmoothing(0.8)(x, y), CHAIN(x, y)[1]

    out, labels, (same, smooth), kept = step(tf.constant(X), tf.eye(3))
    assert labels.shape == (12, 3)
    distance = np.abs(out.numpy()[:, None] - X[None]).reshape(12, 3, -1).max(axis=2)
    np.testing.assert_array_equal(np.argmax(labels, axis=1), distance.argmin(axis=1))
    np.testing.assert_array_equal(same, X)
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)
    np.testing.assert_array_equal(kept, np.eye(3))


def test_tensorflow_labels_of_unknown_length(tf):
    spec = [tf.TensorSpec((None, 6, 5, 3), tf.float32), tf.TensorSpec((None,), tf.int32)]
    step = tf.function(LabelSmoothing(0.8, num_classes=3), input_signature=spec)
    np.testing.assert_allclose(step(X, [2, 0, 1])[1], 0.1 + 0.7 * np.eye(3)[[2, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("of_x", [(3, 6, 5, 3), (None, 6, 5, 3), (None, None, None, 3), None], ids=str)
@pytest.mark.parametrize("of_y", [(3, 3), (None, 3), (None, None), None], ids=str)
def test_tensorflow_labels_of_every_signature(tf, of_x, of_y):
    """Nothing is refused for what the graph does not know, and what it knows is kept."""
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec(of_x, tf.float32), tf.TensorSpec(of_y, tf.float32)])
    def step(x, y):
        results = [
            defence(x, y)[1] for defence in (COPIES, LabelSmoothing(0.4), Chain([COPIES, CODE, PICKY]))
        ]
        shapes.extend(labels.shape for labels in results)
        return results

    copied, smooth, both = step(X, np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(copied[:3], np.eye(3))
    np.testing.assert_allclose(smooth, 0.3 + 0.1 * np.eye(3), rtol=1e-6)
    np.testing.assert_allclose(both[:3], 0.1 + 0.7 * np.eye(3), rtol=1e-6)
    if of_y is None:
        assert [shape.rank for shape in shapes] == [None] * 3
    else:
        n = 3 if of_y[0] or (of_x and of_x[0]) else None
        assert [shape.as_list() for shape in shapes] == [[k and n and k * n, of_y[1]] for k in (4, 1, 4)]


def test_tensorflow_labels_alone_traced(tf):
    """The batch is a constant of the graph, the labels are its argument."""
    y = tf.eye(3)
    np.testing.assert_allclose(tf.function(lambda y: LabelSmoothing(0.8)(X, y)[1])(y), 0.1 + 0.7 * np.eye(3))
    assert tf.function(lambda y: COPIES(X, y)[1])(y).shape == (12, 3)


def test_tensorflow_number_of_labels(tf, run_tf):
    spec = tf.TensorSpec((None, 3), tf.float32)
    step = run_tf(lambda x, y: LabelSmoothing()(x, y)[1])
    with pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError), match="one label for each of the 3 samples"
    ):
        step(tf.constant(X), tf.eye(3)[:1])
    late = tf.function(lambda y: LabelSmoothing()(tf.constant(X), y)[1], input_signature=[spec])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one label for each of the 3 samples"):
        late(tf.eye(3)[:1])


def test_tensorflow_dataset(tf):
    batches = tf.data.Dataset.from_tensor_slices(X).batch(2).map(CHAIN.transform, num_parallel_calls=2)
    np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), OUT)


def test_tensorflow_does_not_convert_what_runs_in_numpy(tf, caplog):
    """AutoGraph logged a warning for each function that it could not convert."""
    x = tf.random.uniform((2, 8, 8, 3), seed=0)
    defence = JpegCompression((0, 1))
    tf.get_logger().addHandler(caplog.handler)
    try:
        traced = tf.function(defence.transform)(x)
        mapped = tf.map_fn(lambda image: defence.transform(image[None])[0], x)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    np.testing.assert_array_equal(traced, mapped)
    assert "AutoGraph" not in caplog.text


def test_tensorflow_bad_input(tf):
    nan = tf.fill((1, 2, 2, 1), np.nan)
    with pytest.raises(ValueError, match="got 4 NaN and 0 infinite"):
        CHAIN.transform(nan)
    with pytest.raises(tf.errors.InvalidArgumentError, match="got 4 NaN and 0 infinite"):
        tf.function(CHAIN.transform)(nan)


def test_tensorflow_gradient_by_hand(tf):
    pulled = CHAIN.estimate_gradient(tf.constant(X), tf.constant(W))
    assert tf.is_tensor(pulled)
    np.testing.assert_array_equal(pulled, PULLED)


# JAX


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


@pytest.fixture(params=["eager", "traced"])
def run_jax(request, jax):
    return jax.jit if request.param == "traced" else lambda function: function


def test_jax_values_and_gradients(jax, run_jax):
    x = jax.numpy.asarray(X)
    out = run_jax(CHAIN.transform)(x)
    grad = run_jax(jax.grad(lambda x: (CHAIN.transform(x) * W).sum()))(x)
    assert framework(out) == "jax"
    assert out.device == x.device
    np.testing.assert_array_equal(out, OUT)
    np.testing.assert_array_equal(grad, PULLED)


def test_jax_gradient_of_what_follows_and_what_precedes(jax, run_jax):
    inside = np.float32(3) * np.float32(X / 3)
    expected = 3 * CHAIN.estimate_gradient(inside, 2 * CHAIN.transform(inside))
    grad = run_jax(jax.grad(lambda x: (CHAIN.transform(3 * x) ** 2).sum()))(jax.numpy.asarray(X / 3))
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_jax_floating_types_are_kept(jax, run_jax, dtype):
    x = jax.numpy.asarray(X, dtype=dtype)
    out = run_jax(CHAIN.transform)(x)
    grad = run_jax(jax.grad(lambda x: CHAIN.transform(x).sum()))(x)
    assert out.dtype == grad.dtype == x.dtype
    expected = CHAIN.transform(np.asarray(x, dtype=np.float64))
    np.testing.assert_allclose(np.asarray(out, dtype=np.float64), expected, atol=2e-3)
    assert run_jax(JpegCompression((0, 1)).transform)(x).dtype == x.dtype


def test_jax_double_precision(jax, run_jax):
    with jax.enable_x64(True):
        x = jax.numpy.asarray(X, dtype=np.float64)
        out = run_jax(CHAIN.transform)(x)
        assert out.dtype == np.float64
        np.testing.assert_array_equal(out, CHAIN.transform(X.astype(np.float64)))


def test_jax_integers(jax, run_jax):
    x = jax.numpy.asarray(np.rint(X), dtype=np.uint8)
    assert run_jax(SpatialSmoothing(3).transform)(x).dtype == np.uint8
    assert run_jax(FeatureSqueezing((0, 1)).transform)(x).dtype == np.float32


def test_jax_backward_sees_the_draw_of_forward(jax, run_jax):
    def product(x):
        out = COPIES.transform(x)
        return (out * weights(12)).sum(), out

    step = run_jax(jax.value_and_grad(product, has_aux=True))
    draws = []
    for _ in range(4):
        (value, out), grad = step(jax.numpy.asarray(X))
        assert float((grad * X).sum()) == pytest.approx(float(value), rel=1e-5)
        draws.append(np.asarray(out).tobytes())
    assert len(set(draws)) > 1  # the compiled function draws anew at each run


def test_jax_labels(jax, run_jax):
    def step(x, y):
        return COPIES(x, y), LabelSmoothing(0.8)(x, y), CHAIN(x, y)[1]

    (out, labels), (same, smooth), kept = run_jax(step)(jax.numpy.asarray(X), jax.numpy.eye(3))
    distance = np.abs(np.asarray(out)[:, None] - X[None]).reshape(12, 3, -1).max(axis=2)
    np.testing.assert_array_equal(labels.argmax(axis=1), distance.argmin(axis=1))
    np.testing.assert_array_equal(same, X)
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)
    np.testing.assert_array_equal(kept, np.eye(3))


@pytest.mark.parametrize("of", ["jax", "numpy"])
def test_jax_labels_alone_traced(jax, of):
    """The batch is a constant of the graph, the labels are its argument."""
    x = jax.numpy.asarray(X) if of == "jax" else X
    smooth = jax.jit(lambda y: LabelSmoothing(0.8)(x, y)[1])(jax.numpy.eye(3))
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)
    kept, labels = jax.jit(lambda y: COPIES(x, y))(jax.numpy.eye(3))
    assert (kept.shape, labels.shape) == ((12, 6, 5, 3), (12, 3))


def test_jax_labels_without_data(jax):
    same, smooth = jax.jit(lambda y: LabelSmoothing(0.8)(None, y))(jax.numpy.eye(3))
    assert same is None
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)


def test_jax_labels_after_a_stage_that_cannot_take_zeros(jax, run_jax):
    smooth = run_jax(lambda x, y: PICKY(x, y)[1])(jax.numpy.asarray(X), jax.numpy.eye(3))
    np.testing.assert_allclose(smooth, 0.1 + 0.7 * np.eye(3), rtol=1e-6)


def test_jax_number_of_labels(jax, run_jax):
    for defence in (COPIES, LabelSmoothing()):
        with pytest.raises(ValueError, match="one label for each of the 3 samples, got shape"):
            run_jax(defence)(jax.numpy.asarray(X), jax.numpy.eye(3)[:2])


def test_jax_gradient_with_labels(jax, run_jax):
    def loss(x, y):
        out, y = Chain([LabelSmoothing(0.8), CHAIN])(x, y)
        return (out * W).sum() * y.max()

    grad = run_jax(jax.grad(loss))(jax.numpy.asarray(X), jax.numpy.eye(3))
    np.testing.assert_allclose(grad, 0.8 * PULLED, rtol=1e-5)


def test_jax_bad_input(jax):
    with pytest.raises(ValueError, match="got 1 NaN and 0 infinite"):
        CHAIN.transform(jax.numpy.full((1, 1, 1, 1), np.nan))
    with pytest.raises(Exception, match="got 1 NaN and 0 infinite"):
        jax.block_until_ready(jax.jit(CHAIN.transform)(jax.numpy.full((1, 1, 1, 1), np.nan)))


def test_jax_gradient_by_hand(jax):
    pulled = CHAIN.estimate_gradient(jax.numpy.asarray(X), jax.numpy.asarray(W))
    assert isinstance(pulled, jax.Array)
    np.testing.assert_array_equal(pulled, PULLED)


# All of them


@pytest.mark.parametrize("name", ["torch", "tensorflow", "jax"])
def test_to_numpy(name):
    module = pytest.importorskip(name)
    make = {"torch": "tensor", "tensorflow": "constant"}.get(name)
    tensor = getattr(module, make)(X) if make else module.numpy.asarray(X)
    assert framework(tensor) == name
    np.testing.assert_array_equal(to_numpy(tensor), X)


def test_a_half_imported_framework_is_no_framework(monkeypatch):
    """Another thread may be importing it: the module is there, its contents are not."""
    for name in ("torch", "tensorflow", "jax"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    assert framework(X) == "numpy"
    np.testing.assert_array_equal(CHAIN.transform(X), OUT)
