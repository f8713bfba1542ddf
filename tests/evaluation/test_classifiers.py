import sys

import numpy as np
import pytest

pytest.importorskip("art")

from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier, TensorFlowV2Classifier

from preshield.evaluation.classifiers import (
    PredictOnly,
    are_probabilities,
    as_classifier,
    has_gradients,
    unchanged,
)
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
