"""Classifiers of ART as they are attacked."""

import numpy as np
import pytest

pytest.importorskip("art")

from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier, TensorFlowV2Classifier

from preshield import FeatureSqueezing, GaussianAugmentation
from preshield.evaluation.classifiers import as_classifier, has_gradients, predictor
from preshield.evaluation.defended import DefendedModel, held
from preshield.evaluation.losses import cross_entropy, margin
from tests.evaluation.analytic import Analytic, in_art, linear, softmax
from tests.evaluation.test_classifiers import (
    BIAS,
    HALVES,
    WEIGHTS,
    X,
    Y,
    in_type,
    keras_linear,
    loss_gradient,
    scores,
    torch_linear,
)

RNG = np.random.default_rng(5)


def in_torch(model=None, cls=PyTorchClassifier, **options):
    torch = pytest.importorskip("torch")
    model = torch_linear() if model is None else model
    return cls(model, torch.nn.CrossEntropyLoss(), (4,), 3, device_type="cpu", **options)


def in_tensorflow(**options):
    return TensorFlowV2Classifier(keras_linear("softmax"), 3, (4,), **options)


def check_derivative(classifier, upstream, x=X):
    """Against finite differences of the predictions."""
    outputs, pull = classifier.forward(classifier.array(x))
    np.testing.assert_allclose(outputs, classifier.predict(classifier.array(x)), rtol=1e-5)
    gradient = np.asarray(pull(upstream))
    step = np.float32(1e-2) * RNG.standard_normal(x.shape).astype(np.float32)
    ahead, behind = (
        np.asarray(classifier.predict(classifier.array(x + h * step)), np.float64) for h in (1, -1)
    )
    np.testing.assert_allclose(
        (gradient * step).sum(axis=1), (upstream * (ahead - behind)).sum(axis=1) / 2, rtol=0.01, atol=1e-4
    )


def smooth():
    """Scores tanh(x @ weights)."""

    def jacobian(x):
        return (1 - np.tanh(x @ WEIGHTS) ** 2)[:, :, None] * WEIGHTS.T

    return Analytic(lambda x: np.tanh(x @ WEIGHTS), jacobian, (4,), 3)


def unlikely():
    """The probabilities of a linear model."""

    def jacobian(x):
        p = softmax(scores(x))
        return p[:, :, None] * (WEIGHTS.T - (p @ WEIGHTS.T)[:, None])

    return Analytic(lambda x: softmax(scores(x)), jacobian, (4,), 3)


DENSE = np.array([[0.3, -1.0, 0.2], [-0.5, 0.9, 1.0]])
SPARSE = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])


@pytest.mark.parametrize("upstream", [DENSE, SPARSE])
@pytest.mark.parametrize("by", ["both", "classes"])
@pytest.mark.parametrize("closed_form", [smooth, unlikely])
def test_class_gradients(closed_form, by, upstream):
    check_derivative(as_classifier(in_art(closed_form(), by=by), X), upstream)


@pytest.mark.parametrize("averages", [False, True])
def test_loss_gradients_alone(averages):
    """Of logits: what a cross-entropy does not have is what the others have more."""
    classifier = as_classifier(in_art(linear(WEIGHTS, BIAS), by="loss", averages=averages), X)
    check_derivative(classifier, SPARSE)
    np.testing.assert_allclose(
        loss_gradient(classifier, X, Y), (softmax(scores(X)) - Y) @ WEIGHTS.T, rtol=1e-3, atol=1e-5
    )


def many(classes=12):
    weights = RNG.standard_normal((4, classes))
    return linear(weights, np.zeros(classes)), weights


def test_many_classes_cost_one_gradient_of_the_loss():
    closed_form, weights = many()
    classifier = in_art(closed_form)
    adapter = as_classifier(classifier, X)
    classifier.asked = ()
    y = np.array([3, 7])
    found = loss_gradient(adapter, X, np.eye(12)[y])
    assert classifier.asked == ("loss",)
    np.testing.assert_allclose(found, (softmax(X @ weights) - np.eye(12)[y]) @ weights.T, rtol=1e-3)
    classifier.asked = ()
    adapter.forward(X)[1](np.eye(12)[[1, 2]] - np.eye(12)[y])
    assert classifier.asked == ("class", "class")


def test_a_sure_model_keeps_its_direction():
    """Its loss has no gradient left in single precision; the margin has."""
    closed_form, weights = many()
    x = np.float32([[4000, -3000, 2000, 1000]])
    rival, label = np.argsort((x @ weights)[0])[-2:]
    adapter = as_classifier(in_art(closed_form), x)
    y = np.eye(12)[[label]]
    assert not adapter.classifier.loss_gradient(x, y).any()
    found, expected = loss_gradient(adapter, x, y)[0], weights[:, rival] - weights[:, label]
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99


def test_predictions_alone():
    box = as_classifier(BlackBoxClassifier(scores, (4,), 3), X)
    assert not has_gradients(box)
    assert box.nb_classes == 3
    np.testing.assert_allclose(box.predict(X), scores(X), rtol=1e-6)
    assert not has_gradients(as_classifier(in_art(smooth(), by="neither"), X))


def test_the_network_of_a_plain_classifier_is_attacked_itself():
    torch = pytest.importorskip("torch")
    adapter = as_classifier(in_torch(), X)
    assert isinstance(adapter.array(X), torch.Tensor)
    check_derivative(adapter, DENSE)
    check_derivative(as_classifier(in_tensorflow(), X), DENSE)


@pytest.mark.parametrize("make", [in_torch, in_tensorflow])
def test_preprocessing_of_art(make):
    squeezing = FeatureSqueezing((0, 1), 8)
    adapter = as_classifier(make(preprocessing=(0.5, 2.0), preprocessing_defences=[squeezing]), X)
    gradient = np.asarray(adapter.forward(X)[1](SPARSE))
    inner = (squeezing.transform(X) - 0.5) / 2
    logits = inner @ WEIGHTS + BIAS
    expected = SPARSE
    if make is in_tensorflow:
        p = softmax(logits)
        expected = p * (SPARSE - (p * SPARSE).sum(axis=1, keepdims=True))
        logits = p
    np.testing.assert_allclose(adapter.predict(X), logits, rtol=1e-4)
    np.testing.assert_allclose(gradient, expected @ WEIGHTS.T / 2, rtol=1e-4, atol=1e-6)


def test_what_a_subclass_changes_counts():
    class Doubled(PyTorchClassifier):
        def class_gradient(self, x, label=None, **kwargs):
            return 2 * super().class_gradient(x, label, **kwargs)

    plain, doubled = (as_classifier(in_torch(cls=cls), X) for cls in (PyTorchClassifier, Doubled))
    gradients = [np.asarray(adapter.forward(adapter.array(X))[1](SPARSE)) for adapter in (plain, doubled)]
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-5)


def test_one_draw_of_its_preprocessing_serves_both_passes():
    """And it depends on the numbers of the samples, not on the batch."""
    torch = pytest.importorskip("torch")
    noise = GaussianAugmentation(0.5, augmentation=False, apply_predict=True)
    network = torch.nn.Sequential(torch_linear(), torch.nn.Tanh())
    adapter = as_classifier(in_torch(network, preprocessing_defences=[noise]), X)
    numbers = np.array([5, 9])
    with held([noise], numbers, (3,)):
        check_derivative(adapter, DENSE)
        both = adapter.predict(X)
    with held([noise], numbers[1:], (3,)):
        np.testing.assert_allclose(adapter.predict(X[1:]), both[1:], rtol=1e-6)
    with held([noise], numbers, (4,)):
        assert (adapter.predict(X) != both).any()


def test_streams_of_its_preprocessing_stay_where_they_are():
    noise, same = (GaussianAugmentation(0.5, augmentation=False, apply_predict=True, rng=3) for _ in range(2))
    classifier = in_torch(preprocessing_defences=[noise])
    classifier.model.train()
    adapter = as_classifier(classifier, X)
    assert classifier.model.training
    model = DefendedModel(adapter, draws=4, clip_values=(0, 1), nb_classes=3, input_shape=(4,))
    assert model.stochastic
    for loss in (cross_entropy, margin):
        model.look(X, np.array([0, 2]), loss, None, np.arange(2), (0,))
    np.testing.assert_array_equal(noise.transform(X), same.transform(X))


def test_postprocessing_is_a_part_of_the_scores():
    from art.defences.postprocessor import ReverseSigmoid

    torch = pytest.importorskip("torch")
    classifier = in_torch(
        torch.nn.Sequential(torch_linear(), torch.nn.Softmax(dim=1)),
        postprocessing_defences=[ReverseSigmoid(beta=0.1, gamma=0.2)],
    )
    adapter = as_classifier(classifier, X)
    np.testing.assert_allclose(adapter.forward(X)[0], classifier.predict(X))
    assert not np.allclose(classifier.predict(X), softmax(scores(X)), rtol=1e-3)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"`surrogate` takes samples of shape \(4,\), got \(5,\)\."):
        as_classifier(in_torch(), np.zeros((2, 5), np.float32), "surrogate")


def test_a_classifier_of_art_around_half_precision_is_refused():
    torch = pytest.importorskip("torch")
    for kind in (*HALVES, "float64"):
        art = PyTorchClassifier(
            in_type(torch_linear(), kind), torch.nn.CrossEntropyLoss(), (4,), 3, device_type="cpu"
        )
        match = rf"`surrogate` is a PyTorchClassifier of ART around a model in torch\.{kind}, and got float32"
        with pytest.raises(ValueError, match=match + ".*pass the torch module itself, or module.float"):
            as_classifier(art, X, "surrogate")

    class Casting(torch.nn.Module):  # works, whatever its parameters are
        def __init__(self):
            super().__init__()
            self.inner = torch_linear().double()

        def forward(self, x):
            return self.inner(x.double())

    art = PyTorchClassifier(Casting(), torch.nn.CrossEntropyLoss(), (4,), 3, device_type="cpu")
    check_derivative(as_classifier(art, X), DENSE)
    for kind in ("float16", "float64"):  # predictions alone are had, in types that NumPy has
        art = PyTorchClassifier(
            in_type(torch_linear(), kind), torch.nn.CrossEntropyLoss(), (4,), 3, device_type="cpu"
        )
        np.testing.assert_allclose(predictor(art)(X.astype(np.float64)), scores(X), rtol=0.02, atol=0.02)
