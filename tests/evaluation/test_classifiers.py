import sys
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("art")

from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier, TensorFlowV2Classifier

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


def check_gradients(classifier):
    """Of the cross-entropy, up to a common factor: some average over the batch, some add."""
    expected = (softmax(scores(X)) - Y) @ WEIGHTS.T
    gradient = classifier.loss_gradient(X, Y)
    factor = np.abs(gradient).sum() / np.abs(expected).sum()
    np.testing.assert_allclose(gradient, factor * expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("probabilities", [False, True])
def test_torch(probabilities):
    torch = pytest.importorskip("torch")
    model = torch_linear(torch.nn.Softmax(dim=1) if probabilities else None)
    model.train()
    classifier = as_classifier(model, X, (0, 1))
    assert model.training
    assert isinstance(classifier, PyTorchClassifier)
    assert classifier.nb_classes == 3
    assert classifier.input_shape == (4,)
    assert has_gradients(classifier)
    np.testing.assert_allclose(
        classifier.predict(X), softmax(scores(X)) if probabilities else scores(X), rtol=1e-4
    )
    check_gradients(classifier)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_keras(activation):
    classifier = as_classifier(keras_linear(activation), X, (0, 1))
    assert isinstance(classifier, TensorFlowV2Classifier)
    assert classifier.nb_classes == 3
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
    classifier = as_classifier(model, X, (0, 1))
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    y = np.eye(3, dtype=np.float32)[[0]]
    logits = scores(x.astype(np.float64))
    assert logits[0, 0] - logits[0, 1:].max() > 4 * scale
    towards = np.append(0, softmax(logits[:, 1:]))[None] - y
    gradient = classifier.loss_gradient(x, y)
    expected = towards @ WEIGHTS.T
    np.testing.assert_allclose(
        gradient / np.linalg.norm(gradient), expected / np.linalg.norm(expected), atol=1e-5
    )


def test_gradients_of_keras_are_those_of_art():
    """For batches of every size, and from any types that attacks of ART pass."""
    keras = pytest.importorskip("keras")
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
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    expected = TensorFlowV2Classifier(model, 3, (8, 8, 3), loss_object=loss, clip_values=(0, 1))
    classifier = as_classifier(model, x[:2], (0, 1))
    for count in (5, 3, 1):
        wanted = expected.loss_gradient(x[:count], y[:count])
        found = classifier.loss_gradient(x[:count], y[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        classifier.loss_gradient(x.astype(np.float64), y > 0),
        expected.loss_gradient(x, y),
        rtol=1e-5,
        atol=1e-7,
    )
    # the weights that the model has now, and not those that it had
    before = classifier.loss_gradient(x, y)
    model.layers[-1].set_weights([-weights for weights in model.layers[-1].get_weights()])
    after = classifier.loss_gradient(x, y)
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    np.testing.assert_allclose(after, expected.loss_gradient(x, y), rtol=1e-5, atol=1e-7)
    # what ART itself does: of a tensor, and with dropout
    tensor = sys.modules["tensorflow"].convert_to_tensor(x)
    np.testing.assert_allclose(classifier.loss_gradient(tensor, y).numpy(), after, rtol=1e-5, atol=1e-7)
    dropped = classifier.loss_gradient(x, y, training_mode=True)
    assert np.abs(dropped - after).max() > 0.01 * np.abs(after).max()


def test_art_as_it_is():
    for classifier in (linear(WEIGHTS, BIAS), BlackBoxClassifier(scores, (4,), 3)):
        assert as_classifier(classifier, X, (0, 1)) is classifier
    assert has_gradients(linear(WEIGHTS, BIAS))
    assert not has_gradients(classifier)


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
    classifier = as_classifier(model, X, (0, 1))
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
    with pytest.raises(TypeError, match=r"`classifier` must be an ART classifier, .* got builtins\.int"):
        as_classifier(3, X, (0, 1))
    for model in (torch_linear(outputs=1), keras_linear(outputs=1), lambda x: x[:, :1]):
        with pytest.raises(ValueError, match=r"shape \(2, K\) with K >= 2, got shape \(2, 1\); give a bin"):
            as_classifier(model, X, (0, 1))
    with pytest.raises(ValueError, match=r"`classifier` takes samples of shape \(4,\), got \(5,\): "):
        as_classifier(keras_linear(), np.zeros((2, 5), np.float32), (0, 1))
    with pytest.raises(ValueError, match=r"got shape \(1,\)"):
        as_classifier(lambda x: x[:1, 0], X, (0, 1))


def test_keras_on_another_backend_is_refused(monkeypatch):
    keras = pytest.importorskip("keras")
    model = keras_linear()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"Keras model on the 'jax' backend; .* KERAS_BACKEND=tensorflow"):
        as_classifier(model, X, (0, 1))


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
    wrapped = as_classifier(model, X, (0, 1))
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
    classifier = as_classifier(model, X, (0, 1))
    with torch.no_grad():
        by_hand = model(torch.from_numpy(X).to(own)).float().numpy()
    found = classifier.predict(X)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, by_hand)
    for x in (X, X.astype(np.float64), X.astype(np.float16)):
        with torch.no_grad():
            by_hand = model(torch.from_numpy(x).to(own)).float().numpy()
        np.testing.assert_array_equal(np.float32(predictor(model)(x)), by_hand)
    for gradient in (classifier.loss_gradient(X, Y), classifier.class_gradient(X)):
        assert gradient.dtype == np.float32
    np.testing.assert_allclose(
        classifier.class_gradient(X), np.broadcast_to(WEIGHTS.T, (2, 3, 4)), rtol=UNIT_ROUNDOFF[kind]
    )
    assert set(seen) == {own}
    assert next(model.parameters()).dtype == own


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("scale", [1, 8, 24])
def test_the_gradient_passes_half_precision(kind, scale):
    """At the larger scales the slope of the loss is 1e-13, and the least number of float16 6e-8."""
    model = in_type(torch_linear(), kind)
    classifier = as_classifier(model, X, (0, 1))
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    x = np.concatenate([x, X[:1]])  # a sure sample beside an unsure one
    y = np.eye(3, dtype=np.float32)[[0, 2]]
    logits = scores(x.astype(np.float64))
    towards = np.stack([np.append(0, softmax(logits[:1, 1:])), np.append(softmax(logits[1:, :2]), 0)]) - y
    expected = towards @ WEIGHTS.T  # directions
    gradient = classifier.loss_gradient(x, y)
    for found, wanted in zip(gradient, expected, strict=True):
        cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert cosine > 1 - 1e-3
    if scale == 1:  # where float32 is a reference
        reference = as_classifier(torch_linear(), X, (0, 1)).loss_gradient(x, y)
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
    classifier = as_classifier(model, X, (0, 1))
    expected = (softmax(scores(X)) - Y) @ WEIGHTS.T
    gradient = classifier.loss_gradient(X, Y)
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
    classifier = as_classifier(script, X, (0, 1))
    assert script.training
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=0.02, atol=0.02)
    assert np.isfinite(classifier.loss_gradient(X, Y)).all()
    np.testing.assert_allclose(predictor(frozen)(X), scores(X), rtol=1e-5)
    np.testing.assert_allclose(as_classifier(frozen, X, (0, 1)).predict(X), scores(X), rtol=1e-5)


def test_a_model_stays_on_its_device():
    """ART moves modules to a device of its own choice; this one may not be moved."""
    torch = pytest.importorskip("torch")

    class Fixed(torch.nn.Linear):
        def _apply(self, fn, recurse=True):
            raise AssertionError("moved")

    classifier = as_classifier(Fixed(4, 3), X, (0, 1))
    assert classifier.loss_gradient(X, Y).shape == X.shape


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_a_model_on_a_gpu(kind):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = in_type(torch_linear(), kind).to(f"cuda:{torch.cuda.device_count() - 1}")
    classifier = as_classifier(model, X, (0, 1))
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(predictor(model)(X), scores(X), rtol=0.02, atol=0.02)
    assert classifier.loss_gradient(X, Y).dtype == np.float32
    assert next(model.parameters()).device.index == torch.cuda.device_count() - 1


@pytest.mark.parametrize("kind", [*HALVES, "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("scale", [1, 8])
def test_keras_models_of_every_policy(kind, scale):
    keras = pytest.importorskip("keras")
    layer = keras.layers.Dense(3, dtype=kind)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.set_weights([WEIGHTS, BIAS])
    classifier = as_classifier(model, X, (0, 1))
    found = classifier.predict(X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scores(X), rtol=0.02, atol=0.02)
    np.testing.assert_array_equal(np.float32(predictor(model)(X)), found)
    x = np.float32(scale) * (WEIGHTS[:, 0] - WEIGHTS[:, 1:].mean(axis=1))[None]
    towards = np.append(0, softmax(scores(x)[:, 1:]))[None] - np.eye(3)[[0]]
    gradient = classifier.loss_gradient(x, np.eye(3, dtype=np.float32)[[0]])
    assert gradient.dtype == np.float32
    (found,), (wanted,) = gradient, towards @ WEIGHTS.T
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 1 - 1e-3


def test_a_classifier_of_art_around_half_precision_is_refused():
    torch = pytest.importorskip("torch")
    for kind in (*HALVES, "float64"):
        art = PyTorchClassifier(in_type(torch_linear(), kind), torch.nn.CrossEntropyLoss(), (4,), 3)
        match = rf"`surrogate` is a PyTorchClassifier of ART around a model in torch\.{kind}, and got float32"
        with pytest.raises(ValueError, match=match + ".*pass the torch module itself, or module.float"):
            as_classifier(art, X, (0, 1), "surrogate")

    class Casting(torch.nn.Module):  # works, whatever its parameters are
        def __init__(self):
            super().__init__()
            self.inner = torch_linear().double()

        def forward(self, x):
            return self.inner(x.double())

    art = PyTorchClassifier(Casting(), torch.nn.CrossEntropyLoss(), (4,), 3)
    assert as_classifier(art, X, (0, 1)) is art
    for kind in ("float16", "float64"):  # predictions alone are had, in types that NumPy has
        art = PyTorchClassifier(in_type(torch_linear(), kind), torch.nn.CrossEntropyLoss(), (4,), 3)
        np.testing.assert_allclose(predictor(art)(X.astype(np.float64)), scores(X), rtol=0.02, atol=0.02)


def test_loss_of_each_sample():
    pytest.importorskip("torch")
    classifier = as_classifier(torch_linear(), X, (0, 1))
    expected = -np.log(softmax(scores(X))[[0, 1], [0, 2]])
    np.testing.assert_allclose(classifier.compute_loss(X, Y), expected, rtol=1e-4)


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

    classifier = as_classifier(model, X, (0, 1))
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)
    check_gradients(classifier)
    for callable_ in (of_tensors, lambda x: form(scores(x)), SimpleNamespace(predict=of_tensors)):
        np.testing.assert_allclose(as_classifier(callable_, X, (0, 1)).predict(X), scores(X), rtol=1e-4)
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
        classifier = as_classifier(model, X, (0, 1))
        np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)
        np.testing.assert_allclose(predictor(model)(X), scores(X), rtol=1e-4)
        check_gradients(classifier)
        np.testing.assert_allclose(
            classifier.class_gradient(X), np.broadcast_to(WEIGHTS.T, (2, 3, 4)), rtol=1e-5
        )


def test_tensors_of_other_frameworks():
    tf = pytest.importorskip("tensorflow")
    jnp = pytest.importorskip("jax.numpy")
    for convert in (tf.constant, jnp.asarray):
        for kind in ("float32", "bfloat16"):

            def model(x, convert=convert, kind=kind):
                return {"logits": convert(scores(x), kind)}

            found = as_classifier(model, X, (0, 1)).predict(X)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, scores(X), rtol=0.01)


def test_rows_and_labels_within_what_a_function_returns():
    torch = pytest.importorskip("torch")
    weights = torch.from_numpy(WEIGHTS).requires_grad_()

    def predicted(function):
        return as_classifier(function, X, (0, 1)).predict(X)

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
        (lambda s: s[:, :, None] * s[:1, None, :2], r"shape \(2, K\) with K >= 2, got shape \(2, 3, 2\)\."),
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
            as_classifier(model, X, (0, 1), "surrogate")
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
        lambda: as_classifier(model, X, (0, 1)),
        lambda: MajorityVote(model).votes(X[:, :, None, None]),
    ):
        with pytest.raises(ArgumentError, match=match):
            call()


def test_later_predictions_are_checked_too():
    classifier = as_classifier(lambda x: scores(x) if len(x) == 2 else scores(x)[:, 0], X, (0, 1))
    with pytest.raises(ArgumentError, match="`classifier` must return class indices"):
        classifier.predict(np.repeat(X, 2, axis=0))


def test_classes_of_scikit_learn():
    """Columns of probabilities that are not the labels 0, ..., K - 1 would be judged by other labels."""
    model = Probabilistic()
    model.classes_ = np.array([1, 2, 3])
    with pytest.raises(ValueError, match=r"`classifier` must have the classes 0, .* LabelEncoder"):
        as_classifier(model, X, (0, 1))


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
            as_classifier(model, X, (0, 1), "surrogate")
        assert caught.value is error


def test_errors_of_a_keras_model_are_those_of_keras():
    keras = pytest.importorskip("keras")

    class Model(keras.Model):
        def call(self, x):
            raise KeyError("weights")

    with pytest.raises(
        KeyError, match=r"(?s)weights.*Raised by `classifier` when it was called with a NumPy"
    ):
        as_classifier(Model(), X, (0, 1))


def test_a_shape_that_does_not_fit():
    """What torch says comes through; nobody else can know the cause."""
    pytest.importorskip("torch")
    wrong = np.zeros((2, 5), np.float32)
    with pytest.raises(
        RuntimeError, match=r"(?s)shapes cannot be multiplied.*Raised by .* shape \(2, 5\), torch"
    ):
        as_classifier(torch_linear(), wrong, (0, 1))
    with pytest.raises(ValueError, match=r"(?s)matmul.*Raised by `classifier` .* shape \(2, 5\)"):
        as_classifier(scores, wrong, (0, 1))


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

    classifier = as_classifier(Network(), X, (0, 1))
    assert not has_gradients(classifier)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)


def test_a_keras_model_that_passes_no_gradients():
    keras = pytest.importorskip("keras")

    class Stop(keras.layers.Layer):
        def call(self, x):
            return keras.ops.stop_gradient(x)

    classifier = as_classifier(keras.Sequential([keras.Input((4,)), Stop(), keras_linear()]), X, (0, 1))
    assert not has_gradients(classifier)
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-4)


@pytest.mark.parametrize("answer", [None, "label", 3.0])
def test_a_network_that_returns_no_array_is_refused_in_words(answer):
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def forward(self, x):
            return answer

    for ask in (lambda: as_classifier(Network(), X, (0, 1)), lambda: vote_of(Network())):
        with pytest.raises(
            ValueError, match=r"must return .*one row of scores for each sample.*, got shape \(\)"
        ):
            ask()


def vote_of(model):
    return MajorityVote(model, [FeatureSqueezing((0, 1), 8)], min_votes=1).predict(X)
