import os
import subprocess
import sys
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from preshield import FeatureSqueezing, MajorityVote
from preshield._core.errors import ArgumentError
from preshield.evaluation.classifiers import (
    PredictOnly,
    are_probabilities,
    as_classifier,
    has_gradients,
    predictor,
    unchanged,
)
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy
from preshield.evaluation.perturbations import host, scaled
from preshield.neural.torch_module import own_type
from tests.evaluation.analytic import Identity, linear, softmax

RNG = np.random.default_rng(0)
X = RNG.random((2, 4), dtype=np.float32)
WEIGHTS = RNG.standard_normal((4, 3)).astype(np.float32)
BIAS = np.array([0.1, -0.2, 0.0], dtype=np.float32)
Y = np.eye(3, dtype=np.float32)[[0, 2]]


def scores(x):
    return x @ WEIGHTS + BIAS


def torch_linear(ending=None, outputs=3):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(4, outputs)
    with torch.no_grad():
        layer.weight[:] = torch.from_numpy(WEIGHTS.T[:outputs].copy())
        layer.bias[:] = torch.from_numpy(BIAS[:outputs].copy())
    return layer if ending is None else torch.nn.Sequential(layer, ending)


def keras_linear(activation=None, outputs=3):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, activation=activation)])
    model.set_weights([WEIGHTS[:, :outputs], BIAS[:outputs]])
    return model


def loss_gradient(classifier, x, y):
    """Of the cross-entropy, as attacks ask for it."""
    model = DefendedModel(
        classifier, clip_values=(0, 1), nb_classes=y.shape[1], input_shape=classifier.input_shape
    )
    found = model.look(classifier.array(x), y.argmax(axis=1), cross_entropy, None, np.arange(len(x)), (0,))
    return host(scaled(found.gradient, found.factors))


def class_gradient(classifier, x):
    gradients = []
    for one_hot in np.eye(classifier.nb_classes):
        scores, pull = classifier.forward(classifier.array(x))
        gradients.append(host(pull(np.broadcast_to(one_hot, scores.shape))))
    return np.stack(gradients, axis=1)


def check_gradients(classifier):
    expected = (softmax(scores(X)) - Y) @ WEIGHTS.T
    np.testing.assert_allclose(loss_gradient(classifier, X, Y), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("probabilities", [False, True])
def test_torch(probabilities):
    torch = pytest.importorskip("torch")
    model = torch_linear(torch.nn.Softmax(dim=1) if probabilities else None)
    model.train()
    classifier = as_classifier(model, X)
    assert model.training
    assert classifier.nb_classes == 3
    assert classifier.input_shape == (4,)
    assert classifier.of_probabilities == probabilities
    assert has_gradients(classifier)
    np.testing.assert_allclose(
        classifier.predict(X), softmax(scores(X)) if probabilities else scores(X), rtol=1e-4
    )
    check_gradients(classifier)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_keras(activation):
    classifier = as_classifier(keras_linear(activation), X)
    assert classifier.nb_classes == 3
    assert classifier.of_probabilities == (activation is not None)
    np.testing.assert_allclose(
        classifier.predict(X), softmax(scores(X)) if activation else scores(X), rtol=1e-4
    )
    check_gradients(classifier)


@pytest.mark.parametrize(("scale", "probabilities"), [(8, False), (8, True), (200, False)])
@pytest.mark.parametrize("linear_model", [torch_linear, keras_linear])
def test_the_gradient_does_not_vanish_where_a_model_is_sure(linear_model, scale, probabilities):
    """Where 1 - p of the label is less than single precision can tell from 1, or from 0."""
    ending = "softmax" if probabilities else None
    if linear_model is torch_linear and probabilities:
        ending = pytest.importorskip("torch").nn.Softmax(dim=1)
    model = linear_model(ending)
    classifier = as_classifier(model, X)
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    y = np.eye(3, dtype=np.float32)[[0]]
    logits = scores(x.astype(np.float64))
    assert logits[0, 0] - logits[0, 1:].max() > 4 * scale
    towards = np.append(0, softmax(logits[:, 1:]))[None] - y
    gradient = loss_gradient(classifier, x, y)
    expected = towards @ WEIGHTS.T
    np.testing.assert_allclose(
        gradient / np.linalg.norm(gradient), expected / np.linalg.norm(expected), atol=1e-5
    )


def test_gradients_of_keras_are_those_of_the_model_as_it_is():
    """For batches of every size, in evaluation mode, and with the weights of the moment."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x = RNG.random((5, 8, 8, 3), dtype=np.float32)
    y = np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0]]
    classifier = as_classifier(model, x[:2])

    def expected(count):
        samples = tf.constant(x[:count])
        with tf.GradientTape() as tape:
            tape.watch(samples)
            loss = tf.nn.softmax_cross_entropy_with_logits(y[:count], model(samples, training=False))
        return tape.gradient(loss, samples).numpy()

    for count in (5, 3, 1):
        found = loss_gradient(classifier, x[:count], y[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(count), rtol=1e-4, atol=1e-6)
    before = loss_gradient(classifier, x, y)
    model.layers[-1].set_weights([-weights for weights in model.layers[-1].get_weights()])
    after = loss_gradient(classifier, x, y)
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    np.testing.assert_allclose(after, expected(5), rtol=1e-4, atol=1e-6)


def test_an_adapter_stays_as_it_is():
    classifier = linear(WEIGHTS, BIAS)
    assert as_classifier(classifier, X) is classifier
    assert has_gradients(classifier)


# Each kind: the derivative against finite differences, from one pass


def curved_torch():
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch_linear(), torch.nn.Tanh())


def curved_script():
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        return torch.jit.script(curved_torch())


def curved_keras():
    return keras_linear("tanh")


def curved_jax():
    jnp = pytest.importorskip("jax.numpy")
    return lambda x: {"logits": jnp.tanh(jnp.asarray(x) @ WEIGHTS + BIAS)}


def compiled_jax():
    return pytest.importorskip("jax").jit(curved_jax())


KINDS = [curved_torch, curved_script, curved_keras, curved_jax, compiled_jax]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_derivatives_of_every_kind(kind, count):
    classifier = as_classifier(kind(), X)
    assert has_gradients(classifier)
    rng = np.random.default_rng(count)
    x, step = rng.random((count, 4)).astype(np.float32), rng.standard_normal((count, 4)).astype(np.float32)
    upstream = rng.uniform(-1, 1, (count, 3))
    outputs, pull = classifier.forward(classifier.array(x))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, np.tanh(scores(x)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(classifier.predict(classifier.array(x)), outputs, rtol=1e-6)
    gradient = pull(upstream)
    assert type(gradient) is type(classifier.array(x))
    ahead, behind = (np.tanh(scores(x.astype(np.float64) + h * step)) for h in (1e-5, -1e-5))
    expected = (upstream * (ahead - behind)).sum(axis=1) / 2e-5
    np.testing.assert_allclose((host(gradient) * step).sum(axis=1), expected, rtol=1e-3, atol=1e-5)


def test_scores_and_gradient_come_from_one_pass():
    torch = pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    jnp = pytest.importorskip("jax.numpy")
    calls = []

    class Module(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x @ torch.from_numpy(WEIGHTS)

    class Layer(keras.layers.Layer):
        def call(self, x):
            tf = sys.modules["tensorflow"]
            with tf.control_dependencies([tf.py_function(lambda: calls.append(0), [], [])]):
                return tf.matmul(x, WEIGHTS)

    def function(x):
        calls.append(len(x))
        return jnp.asarray(x) @ WEIGHTS

    for model in (Module(), keras.Sequential([keras.Input((4,)), Layer()]), function):
        classifier = as_classifier(model, X)
        calls.clear()
        loss_gradient(classifier, X, Y)
        assert len(calls) == 1


def test_weights_of_a_torch_module_get_no_gradients():
    torch = pytest.importorskip("torch")
    model = curved_torch()
    model[0].bias.requires_grad_(False)
    with torch.no_grad():
        loss_gradient(as_classifier(model, X), X, Y)
    assert [p.grad for p in model.parameters()] == [None, None]
    assert [p.requires_grad for p in model.parameters()] == [True, False]


def test_a_function_that_leaves_jax():
    """It predicts with the help of NumPy, or answers with labels, or stops its gradient: no gradients."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    for function in (
        lambda x: jnp.asarray(np.asarray(x) @ WEIGHTS),
        lambda x: (jnp.asarray(x) @ WEIGHTS).argmax(axis=1),
        lambda x: jax.lax.stop_gradient(jnp.asarray(x) @ WEIGHTS),
        jax.jit(lambda x: jax.lax.stop_gradient(x) @ WEIGHTS),
    ):
        classifier = as_classifier(function, X)
        assert not has_gradients(classifier)
        assert len(classifier.predict(X)) == 2


def test_a_sure_function_of_jax_has_gradients():
    """They are 0 in floating point; that is for the diagnostics to say."""
    jnp = pytest.importorskip("jax.numpy")
    classifier = as_classifier(lambda x: jnp.exp(-1e6 * (jnp.asarray(x) @ np.abs(WEIGHTS) + 1)), X)
    assert has_gradients(classifier)
    assert not classifier.forward(X)[1](Y).any()


def test_functions_of_jax_see_few_sizes():
    """JAX compiles for each of them."""
    jnp = pytest.importorskip("jax.numpy")
    sizes = []

    def function(x):
        sizes.append(len(x))
        return jnp.asarray(x) @ WEIGHTS

    classifier = as_classifier(function, X)
    sizes.clear()
    x = RNG.random((40, 4), dtype=np.float32)
    for count in (1, 2, 7, 16, 17, 30, 40):
        outputs, pull = classifier.forward(x[:count])
        np.testing.assert_allclose(outputs, x[:count] @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(pull(np.ones((count, 3))), [WEIGHTS.sum(axis=1)] * count, rtol=1e-5)
    assert set(sizes) == {16, 32, 64}


KERAS = """
import numpy as np
import keras
from preshield import GaussianAugmentation, as_keras_layer
from preshield.evaluation.classifiers import as_classifier, has_gradients
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import margin
from preshield.evaluation.perturbations import host
rng = np.random.default_rng(0)
x, weights = rng.random((3, 4), dtype=np.float32), rng.standard_normal((4, 3)).astype(np.float32)
calls = []
class Layer(keras.layers.Dense):
    def call(self, x):
        calls.append(0)
        return keras.ops.tanh(super().call(x))
model = keras.Sequential([keras.Input((4,)), Layer(3, use_bias=False)])
model.set_weights([weights])
classifier = as_classifier(model, x)
assert has_gradients(classifier)
assert classifier.nb_classes == 3
assert not classifier.channels_first
upstream = rng.uniform(-1, 1, (3, 3))
calls.clear()
scores, pull = classifier.forward(classifier.array(x))
assert len(calls) <= 1  # a compiled model has been traced before
np.testing.assert_allclose(scores, np.tanh(x @ weights), rtol=1e-4)
expected = (upstream * (1 - np.tanh(x @ weights) ** 2)) @ weights.T
np.testing.assert_allclose(host(pull(upstream)), expected, rtol=1e-3, atol=1e-5)
model.set_weights([-weights])  # those of the moment
np.testing.assert_allclose(classifier.predict(classifier.array(x)), -scores, rtol=1e-4)
stopped = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(keras.ops.stop_gradient), model])
assert not has_gradients(as_classifier(stopped, x))
noise = GaussianAugmentation(0.5, augmentation=False, apply_predict=True, rng=3)
noisy = keras.Sequential([keras.Input((4,)), as_keras_layer(noise), model])
defended = DefendedModel(
    as_classifier(noisy, x), draws=3, clip_values=(0, 1), nb_classes=3, input_shape=(4,)
)
assert defended.draws == 3
numbers, y, x = np.array([7, 3, 40]), np.array([0, 1, 2]), defended.array(x)
whole = defended.look(x, y, margin, None, numbers, (1,))
some = defended.look(x[1:], y[1:], margin, None, numbers[1:], (1,))
np.testing.assert_allclose(some.scores, whole.scores[1:], rtol=1e-5)
np.testing.assert_allclose(defended.scores(x, numbers, (1,)), whole.scores, rtol=1e-5)
assert (defended.scores(x, numbers + 1, (1,)) != whole.scores).all()
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_on_other_backends(backend):
    pytest.importorskip("keras")
    pytest.importorskip(backend)
    env = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", KERAS], check=True, env=env, timeout=120)


class Estimator:
    def predict(self, x):
        return scores(x).argmax(axis=1)


class Probabilistic(Estimator):
    def predict_proba(self, x):
        return softmax(scores(x))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (scores, scores(X)),
        (Estimator(), scores(X).argmax(axis=1)),
        (Probabilistic(), softmax(scores(X))),
        (lambda x: scores(x).tolist(), scores(X)),
        (lambda x: np.full(len(x), -1), [-1, -1]),
    ],
    ids=["scores", "labels", "probabilities", "lists", "rejected"],
)
def test_predictions_alone(model, expected):
    classifier = as_classifier(model, X)
    assert not has_gradients(classifier)
    np.testing.assert_allclose(classifier.predict(X), expected, rtol=1e-6)


def test_predictions_come_in_batches():
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return scores(x)

    x = RNG.random((7, 4), dtype=np.float32)
    np.testing.assert_allclose(PredictOnly(counted, (4,)).predict(x, batch_size=3), scores(x), rtol=1e-6)
    assert sizes == [3, 3, 1]


def test_refusals():
    with pytest.raises(TypeError, match=r"`classifier` must be a torch module, .* got builtins\.int"):
        as_classifier(3, X)
    for model in (torch_linear(outputs=1), keras_linear(outputs=1), lambda x: x[:, :1]):
        with pytest.raises(ValueError, match=r"shape \(2, K\) with K >= 2, got shape \(2, 1\); give a bin"):
            as_classifier(model, X)
    with pytest.raises(ValueError, match=r"`classifier` takes samples of shape \(4,\), got \(5,\): "):
        as_classifier(keras_linear(), np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match=r"got shape \(1,\)"):
        as_classifier(lambda x: x[:1, 0], X)


def test_what_probabilities_are():
    assert are_probabilities(softmax(scores(X)))
    assert not are_probabilities(scores(X))
    assert not are_probabilities(np.array([0, 1]))
    assert not are_probabilities(np.array([[1.5, -0.5]]))
    assert not are_probabilities(np.array([[0.5, 0.6]]))


def test_training_flags_are_given_back():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(), torch.nn.BatchNorm1d(3))
    model.train()
    model[2].eval()
    wrapped = as_classifier(model, X)
    for given in (model, wrapped):

        def broken(given=given):
            with unchanged(given, None, scores):
                model.eval()
                raise ZeroDivisionError("on purpose")

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            broken()
        assert [m.training for m in model.modules()] == [True, True, True, False]


def test_a_defence_is_no_classifier_with_gradients():
    assert not has_gradients(Identity())


# Floating types

HALVES = ["float16", "bfloat16"]
UNIT_ROUNDOFF = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 2**-24}


def in_type(model, kind):
    torch = pytest.importorskip("torch")
    return model.to(getattr(torch, kind))


@pytest.mark.parametrize("kind", [*HALVES, "float64"])
def test_a_torch_model_is_given_its_own_floating_type(kind):
    torch = pytest.importorskip("torch")
    model = in_type(torch_linear(), kind)
    own = getattr(torch, kind)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    classifier = as_classifier(model, X)
    with torch.no_grad():
        by_hand = model(torch.from_numpy(X).to(own)).float().numpy()
    found = classifier.predict(X)
    assert found.dtype == (np.float64 if kind == "float64" else np.float32)
    np.testing.assert_array_equal(np.float32(found), by_hand)
    for x in (X, X.astype(np.float64), X.astype(np.float16)):
        with torch.no_grad():
            by_hand = model(torch.from_numpy(x).to(own)).float().numpy()
        np.testing.assert_array_equal(np.float32(predictor(model)(x)), by_hand)
    for gradient in (loss_gradient(classifier, X, Y), class_gradient(classifier, X)):
        assert gradient.dtype == found.dtype
    np.testing.assert_allclose(
        class_gradient(classifier, X), np.broadcast_to(WEIGHTS.T, (2, 3, 4)), rtol=UNIT_ROUNDOFF[kind]
    )
    assert set(seen) == {own}
    assert next(model.parameters()).dtype == own


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("scale", [1, 8, 24])
def test_the_gradient_passes_half_precision(kind, scale):
    """At the larger scales the slope of the loss is 1e-13, and the least number of float16 6e-8."""
    model = in_type(torch_linear(), kind)
    classifier = as_classifier(model, X)
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    x = np.concatenate([x, X[:1]])  # a sure sample beside an unsure one
    y = np.eye(3, dtype=np.float32)[[0, 2]]
    logits = scores(x.astype(np.float64))
    towards = np.stack([np.append(0, softmax(logits[:1, 1:])), np.append(softmax(logits[1:, :2]), 0)]) - y
    expected = towards @ WEIGHTS.T  # directions
    gradient = loss_gradient(classifier, x, y)
    for found, wanted in zip(gradient, expected, strict=True):
        cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert cosine > 1 - 1e-3
    if scale == 1:  # where float32 is a reference
        reference = loss_gradient(as_classifier(torch_linear(), X), x, y)
        np.testing.assert_allclose(gradient, reference, atol=0.03 * np.abs(reference).max())


@pytest.mark.parametrize("kind", HALVES)
def test_probabilities_in_half_precision(kind):
    """Rounding leaves sums of 1000 probabilities off by more than single precision does."""
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(2 * RNG.standard_normal((50, 1000)))
    rounded = torch.softmax(logits, dim=1).to(getattr(torch, kind)).float().numpy()
    assert np.abs(rounded.sum(axis=1) - 1).max() > 1e-4
    assert are_probabilities(rounded)
    assert not are_probabilities(rounded * np.float32(1.01))
    almost = np.array([[0.4, 0.6007]], dtype=np.float32)  # not of half precision, and no distribution
    assert not are_probabilities(almost)
    model = in_type(torch_linear(torch.nn.Softmax(dim=1)), kind)
    classifier = as_classifier(model, X)
    expected = (softmax(scores(X)) - Y) @ WEIGHTS.T
    gradient = loss_gradient(classifier, X, Y)
    factor = np.abs(gradient).sum() / np.abs(expected).sum()
    np.testing.assert_allclose(gradient, factor * expected, atol=0.03 * np.abs(gradient).max())


def test_own_type():
    """The first floating parameter, else the first floating buffer, else float32."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def of(module):
        return own_type(module)[0]

    assert of(nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2))) == torch.float16
    assert of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half())) == torch.float32
    assert of(nn.ReLU()) == torch.float32
    assert own_type(nn.ReLU())[1].type == "cpu"

    class Held(nn.Module):
        def __init__(self, *buffers):
            super().__init__()
            for i, buffer in enumerate(buffers):
                self.register_buffer(f"b{i}", buffer)

    whole, double = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.float64)
    assert of(Held(whole)) == torch.float32
    assert of(Held(whole, double)) == torch.float64
    assert of(Held(torch.zeros(2, dtype=torch.float8_e4m3fn), double)) == torch.float64
    assert of(nn.Sequential(Held(double), nn.Linear(2, 2).bfloat16())) == torch.bfloat16
    assert own_type(Held(whole.to("meta")))[1].type == "meta"


@pytest.mark.parametrize("kind", ["float32", *HALVES, "float64"])
def test_modules_of_torchscript(kind):
    torch = pytest.importorskip("torch")
    model = in_type(torch_linear(torch.nn.Dropout(0.5)), kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        script = torch.jit.script(model)
        frozen = torch.jit.freeze(torch.jit.script(in_type(torch_linear(), "float32").eval()))
    script.train()
    classifier = as_classifier(script, X)
    assert script.training
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=0.02, atol=0.02)
    assert np.isfinite(loss_gradient(classifier, X, Y)).all()
    np.testing.assert_allclose(predictor(frozen)(X), scores(X), rtol=1e-5)
    np.testing.assert_allclose(as_classifier(frozen, X).predict(X), scores(X), rtol=1e-5)


def test_a_model_stays_on_its_device():
    """ART moves modules to a device of its own choice; this one may not be moved."""
    torch = pytest.importorskip("torch")

    class Fixed(torch.nn.Linear):
        def _apply(self, fn, recurse=True):
            raise AssertionError("moved")

    classifier = as_classifier(Fixed(4, 3), X)
    assert loss_gradient(classifier, X, Y).shape == X.shape


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_a_model_on_a_gpu(kind):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = in_type(torch_linear(), kind).to(f"cuda:{torch.cuda.device_count() - 1}")
    classifier = as_classifier(model, X)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(predictor(model)(X), scores(X), rtol=0.02, atol=0.02)
    assert classifier.array(X).device == next(model.parameters()).device
    assert loss_gradient(classifier, X, Y).shape == X.shape
    assert next(model.parameters()).device.index == torch.cuda.device_count() - 1


@pytest.mark.parametrize("kind", [*HALVES, "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("scale", [1, 8])
def test_keras_models_of_every_policy(kind, scale):
    keras = pytest.importorskip("keras")
    layer = keras.layers.Dense(3, dtype=kind)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.set_weights([WEIGHTS, BIAS])
    classifier = as_classifier(model, X)
    found = classifier.predict(X)
    own = np.float64 if kind == "float64" else np.float32
    assert found.dtype == own
    np.testing.assert_allclose(found, scores(X), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(np.float32(predictor(model)(X)), found, rtol=UNIT_ROUNDOFF.get(kind, 2**-8))
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    towards = np.append(0, softmax(scores(x)[:, 1:]))[None] - np.eye(3)[[0]]
    gradient = loss_gradient(classifier, x, np.eye(3, dtype=np.float32)[[0]])
    assert gradient.dtype == own
    (found,), (wanted,) = gradient, towards @ WEIGHTS.T
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 1 - 1e-3


# What models return


class Record(OrderedDict):
    """As the outputs of Hugging Face's models: entries that are attributes too."""

    @property
    def logits(self):
        return self["logits"]


class Fields(NamedTuple):
    loss: object
    logits: object


FORMS = {
    "record": lambda s: Record(loss=s.sum(), logits=s),
    "attribute": lambda s: SimpleNamespace(hidden_states=(), logits=s),
    "named tuple": lambda s: Fields(s.sum(), s),
    "logits": lambda s: {"aux": s[:, :2], "logits": s},
    "scores": lambda s: {"boxes": s[:, :2], "scores": s},
    "out": lambda s: {"out": s, "aux": -s},
    "only entry": lambda s: {"digits": s},
    "tuple": lambda s: (s, -s),
    "list": lambda s: [s, -s],
    "nested": lambda s: ({"logits": s}, None),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_scores_within_what_a_model_returns(form):
    torch = pytest.importorskip("torch")

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch_linear()

        def forward(self, x):
            return form(self.inner(x))

    model = Wrapped()

    def of_tensors(x):  # with gradients, which NumPy refuses
        return form(model.inner(torch.from_numpy(x)))

    classifier = as_classifier(model, X)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)
    check_gradients(classifier)
    for callable_ in (of_tensors, lambda x: form(scores(x)), SimpleNamespace(predict=of_tensors)):
        np.testing.assert_allclose(as_classifier(callable_, X).predict(X), scores(X), rtol=1e-4)
    for any_ in (model, of_tensors):
        assert MajorityVote(any_, [None], min_votes=1).votes(X).shape == (2, 1)


@pytest.mark.parametrize("form", ["logits", "only entry", "tuple", "list"])
def test_scores_within_what_a_keras_model_returns(form):
    keras = pytest.importorskip("keras")
    inputs = keras.Input((4,))
    outputs = FORMS[form](keras.layers.Dense(3)(inputs))
    functional = keras.Model(inputs, outputs)
    functional.set_weights([WEIGHTS, BIAS])

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras_linear()

        def call(self, x):
            return FORMS[form](self.inner(x))

    for model in (functional, Own()):
        classifier = as_classifier(model, X)
        np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)
        np.testing.assert_allclose(predictor(model)(X), scores(X), rtol=1e-4)
        check_gradients(classifier)
        np.testing.assert_allclose(
            class_gradient(classifier, X), np.broadcast_to(WEIGHTS.T, (2, 3, 4)), rtol=1e-5
        )


def test_tensors_of_other_frameworks():
    tf = pytest.importorskip("tensorflow")
    jnp = pytest.importorskip("jax.numpy")
    for convert in (tf.constant, jnp.asarray):
        for kind in ("float32", "bfloat16"):

            def model(x, convert=convert, kind=kind):
                return {"logits": convert(scores(x), kind)}

            found = as_classifier(model, X).predict(X)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, scores(X), rtol=0.01)


def test_rows_and_labels_within_what_a_function_returns():
    torch = pytest.importorskip("torch")
    weights = torch.from_numpy(WEIGHTS).requires_grad_()

    def predicted(function):
        return as_classifier(function, X).predict(X)

    # a list of vectors is one row for each sample, a tuple of them several outputs
    np.testing.assert_allclose(predicted(lambda x: list(scores(x))), scores(X))
    np.testing.assert_allclose(
        predicted(lambda x: [torch.from_numpy(r) @ weights for r in x]), scores(X) - BIAS, rtol=1e-4
    )
    np.testing.assert_array_equal(predicted(lambda x: (np.array([2, -1]), np.array([0.9, 0.1]))), [2, -1])
    np.testing.assert_array_equal(predicted(lambda x: [1, 2]), [1, 2])
    np.testing.assert_array_equal(predicted(lambda x: (1, 2)), [1, 2])


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (
            lambda s: {"a": s, "b": s},
            r"one of the entries 'logits', 'scores', 'out', got the entries 'a', 'b'; w",
        ),
        (lambda s: {}, "got the entries none"),
        (lambda s: s[:, 0], r"got shape \(2,\); give a binary model two columns|class indices"),
        (lambda s: s[:, :1], r"got shape \(2, 1\); give a binary model two columns"),
        (lambda s: s[:, :, None, None], r"got shape \(2, 3, 1, 1\); reshape the scores to \(2, 3\)"),
        (lambda s: s[:, :, None] * s[:1, None, :2], r"got shape \(2, 3, 2\); .* returns scores\.mean\(1\)\."),
        (lambda s: s[:1], r"got shape \(1, 3\)"),
        (lambda s: (s.sum(), s), r"got shape \(\)"),
    ],
)
def test_refused_outputs(returned, match):
    torch = pytest.importorskip("torch")

    class Wrapped(torch.nn.Module):
        def forward(self, x):
            return returned(x[:, :3])

    def function(x):
        return returned(torch.from_numpy(x[:, :3]))

    for model in (Wrapped(), function):
        with pytest.raises(ArgumentError, match=rf"`surrogate` must return .*(?:{match})"):
            as_classifier(model, X, "surrogate")
    with pytest.raises(ArgumentError, match=rf"`predict` must return .*(?:{match})"):
        MajorityVote(function, [None], min_votes=1).votes(X)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda x: ["cat"] * len(x), "class indices from 0 on, or -1 to reject, got array"),
        (lambda x: np.full(len(x), 0.7), r"class indices .* scores need one column for each class"),
        (lambda x: [{"label": "cat", "score": 0.7}] * len(x), "got the entries 'label', 'score'"),
        (lambda x: None, r"got shape \(\)"),
        (lambda x: np.full((len(x), 3), "cat"), "scores that are real numbers, got dtype <U3"),
    ],
)
def test_refused_predictions(model, match):
    for call in (
        lambda: as_classifier(model, X),
        lambda: MajorityVote(model).votes(X[:, :, None, None]),
    ):
        with pytest.raises(ArgumentError, match=match):
            call()


def test_later_predictions_are_checked_too():
    classifier = as_classifier(lambda x: scores(x) if len(x) == 2 else scores(x)[:, 0], X)
    with pytest.raises(ArgumentError, match="`classifier` must return class indices"):
        classifier.predict(np.repeat(X, 2, axis=0))


def test_classes_of_scikit_learn():
    """Columns of probabilities that are not the labels 0, ..., K - 1 would be judged by other labels."""
    model = Probabilistic()
    model.classes_ = np.array([1, 2, 3])
    with pytest.raises(ValueError, match=r"`classifier` must have the classes 0, .* LabelEncoder"):
        as_classifier(model, X)


# Errors of models


class BrokenError(ValueError):
    """An error that cannot be made again from its message."""

    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.detail = detail


@pytest.mark.parametrize(
    "error", [BrokenError(3, "of the user"), KeyError("weights"), RuntimeError("out of memory")]
)
def test_errors_of_a_model_are_its_own(error):
    torch = pytest.importorskip("torch")

    def function(x):
        raise error

    class Module(torch.nn.Module):
        def forward(self, x):
            raise error

    for model, given in (
        (function, r"a NumPy array of shape \(2, 4\) and dtype float32"),
        (SimpleNamespace(predict=function), "a NumPy array"),
        (Module().half(), r"a tensor of shape \(2, 4\), torch\.float32, on cpu"),
    ):
        error.__notes__ = []
        with pytest.raises(
            type(error), match=f"Raised by `surrogate` when it was called with {given}"
        ) as caught:
            as_classifier(model, X, "surrogate")
        assert caught.value is error


def test_errors_of_a_keras_model_are_those_of_keras():
    keras = pytest.importorskip("keras")

    class Model(keras.Model):
        def call(self, x):
            raise KeyError("weights")

    with pytest.raises(
        KeyError, match=r"(?s)weights.*Raised by `classifier` when it was called with a NumPy"
    ):
        as_classifier(Model(), X)


def test_a_shape_that_does_not_fit():
    """What torch says comes through; nobody else can know the cause."""
    pytest.importorskip("torch")
    wrong = np.zeros((2, 5), np.float32)
    with pytest.raises(
        RuntimeError, match=r"(?s)shapes cannot be multiplied.*Raised by .* shape \(2, 5\), torch"
    ):
        as_classifier(torch_linear(), wrong)
    with pytest.raises(ValueError, match=r"(?s)matmul.*Raised by `classifier` .* shape \(2, 5\)"):
        as_classifier(scores, wrong)


# Networks without gradients


@pytest.mark.parametrize("way", ["detached", "not recorded", "NumPy", "input detached"])
def test_a_torch_module_that_passes_no_gradients(way):
    """It predicts, and an attack knows nothing but that."""
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch_linear()

        def forward(self, x):
            if way == "input detached":
                return self.inner(x.detach())
            if way == "not recorded":
                with torch.no_grad():
                    return self.inner(x)
            found = self.inner(x).detach()
            return found.numpy() if way == "NumPy" else found

    classifier = as_classifier(Network(), X)
    assert not has_gradients(classifier)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)


def test_a_keras_model_that_passes_no_gradients():
    keras = pytest.importorskip("keras")

    class Stop(keras.layers.Layer):
        def call(self, x):
            return keras.ops.stop_gradient(x)

    classifier = as_classifier(keras.Sequential([keras.Input((4,)), Stop(), keras_linear()]), X)
    assert not has_gradients(classifier)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)


@pytest.mark.parametrize("answer", [None, "label", 3.0])
def test_a_network_that_returns_no_array_is_refused_in_words(answer):
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def forward(self, x):
            return answer

    for ask in (lambda: as_classifier(Network(), X), lambda: vote_of(Network())):
        with pytest.raises(
            ValueError, match=r"must return .*one row of scores for each sample.*, got shape \(\)"
        ):
            ask()


def vote_of(model):
    return MajorityVote(model, [FeatureSqueezing((0, 1), 8)], min_votes=1).predict(X)
