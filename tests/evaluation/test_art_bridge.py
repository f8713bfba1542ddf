"""Attacks of ART on defended models of any kind."""

import numpy as np
import pytest

from preshield import FeatureSqueezing, GaussianAugmentation, MajorityVote
from preshield.evaluation.classifiers import PredictOnly, as_classifier
from preshield.evaluation.defended import DefendedModel
from tests.evaluation.analytic import Gain, linear, softmax, threshold
from tests.evaluation.test_voting import SAMPLES, SHAPE, UNIT
from tests.evaluation.test_voting import Y as LABELS

pytest.importorskip("art")

from art.attacks.evasion import (
    AutoAttack,
    AutoProjectedGradientDescent,
    DeepFool,
    FastGradientMethod,
    FeatureAdversariesNumpy,
    HopSkipJump,
    ProjectedGradientDescent,
)
from art.estimators.classification import BlackBoxClassifier

from preshield.evaluation.art_bridge import DefendedClassifier, bridge

WEIGHTS = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
BIAS = np.array([0.1, -0.2, 0.0])
X = np.array([[0.9, 0.3], [0.2, 0.2], [0.4, 0.8]], dtype=np.float32)
ONE_HOT = np.eye(3, dtype=np.float32)[[2, 0, 1]]
NUMBERS = np.array([7, 3, 40])


def model(defence=None, classifier=None, **options):
    classifier = linear(WEIGHTS, BIAS) if classifier is None else classifier
    options = {"clip_values": (0.0, 1.0), "nb_classes": 3, "input_shape": (2,)} | options
    return DefendedModel(classifier, defence, **options)


def scores(x):
    return x @ WEIGHTS + BIAS


def in_numpy(defence=None, classifier=None, **options):
    return DefendedClassifier(model(defence, classifier, **options), numbers=NUMBERS, seed=5)


def in_torch(defence=None, classifier=None, **options):
    pytest.importorskip("torch")
    return bridge(model(defence, classifier, **options), numbers=NUMBERS, seed=5)


@pytest.fixture(params=[in_numpy, in_torch])
def bridged(request):
    return request.param


def test_without_a_defence_it_is_the_classifier(bridged):
    classifier = bridged()
    assert classifier.input_shape == (2,)
    assert classifier.nb_classes == 3
    np.testing.assert_allclose(classifier.predict(X), scores(X), rtol=1e-6)
    expected = (softmax(scores(X)) - ONE_HOT) @ WEIGHTS.T
    found = classifier.loss_gradient(X, ONE_HOT)
    factor = 3 if bridged is in_torch else 1  # there, ART averages over the batch
    np.testing.assert_allclose(factor * found, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(classifier.class_gradient(X)[0], WEIGHTS.T)
    np.testing.assert_allclose(classifier.class_gradient(X, 1)[:, 0], [WEIGHTS[:, 1]] * 3)
    labels = np.array([2, 0, 1])
    np.testing.assert_allclose(classifier.class_gradient(X, labels)[:, 0], WEIGHTS[:, labels].T)
    losses = -np.log(softmax(scores(X)))[range(3), [2, 0, 1]]
    np.testing.assert_allclose(classifier.compute_loss(X, ONE_HOT, reduction="none"), losses, rtol=1e-4)
    np.testing.assert_allclose(
        classifier.compute_loss(X, ONE_HOT, reduction="mean"), losses.mean(), rtol=1e-4
    )


def test_gradients_through_a_defence(bridged):
    """The identity in place of the rounding, at the rounded point."""
    classifier = bridged(FeatureSqueezing((0, 1), 1))
    seen = np.round(X)
    np.testing.assert_allclose(classifier.predict(X), scores(seen), rtol=1e-6)
    expected = (softmax(scores(seen)) - ONE_HOT) @ WEIGHTS.T
    found = classifier.loss_gradient(X, ONE_HOT)
    np.testing.assert_allclose(found * (3 if bridged is in_torch else 1), expected, rtol=1e-3, atol=1e-5)


def test_averages_over_the_draws_that_both_passes_share(bridged):
    gain = Gain()
    classifier = bridged(gain, draws=4)
    found = classifier.class_gradient(X)
    draws = [draw for _, draw in gain.used]
    assert len(set(draws)) == 4
    assert {draw for kind, draw in gain.used if kind == "backward"} == set(draws)
    np.testing.assert_allclose(
        found, np.broadcast_to(np.mean(list(set(draws))) * WEIGHTS.T, (3, 3, 2)), rtol=1e-4
    )


def test_draws_are_addressed(bridged):
    noise = GaussianAugmentation(0.3, augmentation=False, apply_predict=True)
    first, again = bridged(noise, draws=2), bridged(noise, draws=2)
    found = first.predict(X)
    np.testing.assert_array_equal(found, again.predict(X))
    assert (found != first.predict(X)).all()  # each call draws anew
    third = DefendedClassifier(first_model := model(noise, draws=2), numbers=NUMBERS[:2], seed=5)
    np.testing.assert_allclose(found[:2], third.predict(X[:2]), rtol=1e-6)
    fourth = DefendedClassifier(first_model, seed=5)
    assert (found != fourth.predict(X)).all()  # numbers from 0 on


def test_labels_and_rejections(bridged):
    blind = PredictOnly(lambda x: np.where(x[:, 1] > 0.5, -1, (x[:, 0] > 0.5).astype(int)), (2,))
    classifier = bridged(classifier=blind, nb_classes=2)
    np.testing.assert_array_equal(classifier.predict(X), [[0, 1], [1, 0], [0, 0]])
    counted = DefendedClassifier(model(classifier=blind, nb_classes=2), rejected_as=1)
    np.testing.assert_array_equal(counted.predict(X)[2], [0, 1])
    with pytest.raises(TypeError, match="PredictOnly has no gradients; choose `attacks` that need none"):
        classifier.loss_gradient(X, ONE_HOT[:, :2])


def test_refusals(bridged, tmp_path):
    classifier = bridged()
    with pytest.raises(TypeError, match="is for attacks; train the classifier itself"):
        classifier.fit(X, ONE_HOT)
    with pytest.raises(TypeError, match="is for attacks; save the classifier itself"):
        classifier.save("name", tmp_path)
    with pytest.raises(TypeError, match=r"Activations are known of torch modules .* got Analytic"):
        classifier.get_activations(X, 0)


def test_without_torch(monkeypatch):
    monkeypatch.setattr("preshield.evaluation.art_bridge.find_spec", lambda name: None)
    assert type(bridge(model())) is DefendedClassifier


# Attacks

SIZE = (8, 8, 3)
TASK = {"nb_classes": 2, "input_shape": SIZE, "draws": 4}

ATTACKS = {
    "PGD": lambda m: ProjectedGradientDescent(m, eps=0.3, eps_step=0.1, max_iter=5, verbose=False),
    "PGD, L2": lambda m: ProjectedGradientDescent(m, norm=2, eps=4, max_iter=5, eps_step=1, verbose=False),
    "FGM": lambda m: FastGradientMethod(m, eps=0.3),
    "DeepFool": lambda m: DeepFool(m, max_iter=10, nb_grads=2, verbose=False),
    "HopSkipJump": lambda m: HopSkipJump(m, max_iter=2, max_eval=50, init_eval=5, verbose=False),
    "APGD": lambda m: AutoProjectedGradientDescent(m, eps=0.3, max_iter=5, nb_random_init=1, verbose=False),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("kind", ["NumPy", "torch"])
def test_attacks_of_art(attack, stochastic, kind):
    """Each takes the mean across 0.5, or up to it."""
    noise = GaussianAugmentation(0.02, augmentation=False, apply_predict=True)
    defended = model(
        noise if stochastic else FeatureSqueezing((0, 1), 6), threshold(SIZE, slope=20.0), **TASK
    )
    if kind == "torch":
        pytest.importorskip("torch")
    classifier = bridge(defended) if kind == "torch" else DefendedClassifier(defended)
    x = np.concatenate([np.full((2, *SIZE), level, np.float32) for level in (0.35, 0.65)])
    x += np.random.default_rng(0).uniform(-0.1, 0.1, x.shape).astype(np.float32)
    y = np.array([0, 0, 1, 1])
    np.random.seed(0)
    moved = attack(classifier).generate(x, np.eye(2, dtype=np.float32)[y])
    beyond = (moved.mean(axis=(1, 2, 3)) - 0.5) * np.array([1, 1, -1, -1])
    assert (beyond > -0.005).all()  # from -0.15


def of_torch(weights):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(64, 4, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.from_numpy(weights.T.copy())
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def of_keras(weights):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4, "softmax", use_bias=False)]
    )
    network.set_weights([weights])
    return network


def of_numpy(weights):
    return linear(weights, np.zeros(4), (8, 8, 1))


@pytest.mark.parametrize("kind", [of_torch, of_keras, of_numpy])
def test_auto_attack_of_art(kind):
    """Through each loss that it knows; a linear model is as far from wrong as its weights say."""
    pytest.importorskip("torch")
    pytest.importorskip("multiprocess")
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 4)).astype(np.float32)
    shape = (1, 8, 8) if kind is of_torch else (8, 8, 1)
    x = rng.uniform(0.3, 0.7, (12, *shape)).astype(np.float32)
    logits = x.reshape(12, -1) @ weights
    y = logits.argmax(axis=1)
    lacking = logits[range(12), y][:, None] - logits
    away = np.abs(weights[:, y].T[:, :, None] - weights).sum(axis=1)  # of a step of 1 in each value
    distance = np.where(np.arange(4) == y[:, None], np.inf, lacking / np.maximum(away, 1e-9)).min(axis=1)
    eps = float(np.sort(distance)[5:7].mean())
    defended = model(classifier=as_classifier(kind(weights), x), nb_classes=4, input_shape=shape)
    one_hot = np.eye(4, dtype=np.float32)[y]
    for loss in ("cross_entropy", "difference_logits_ratio", None):
        attack = AutoProjectedGradientDescent(
            bridge(defended),
            eps=eps,
            eps_step=eps / 2,
            max_iter=10,
            nb_random_init=1,
            loss_type=loss,
            verbose=False,
        )
        moved = attack.generate(x, one_hot)
        assert np.abs(moved - x).max() < eps + 1e-6
        right = (moved.reshape(12, -1) @ weights).argmax(axis=1) == y
        assert not right[distance < 0.9 * eps].any()
        assert right[distance > eps].all()
    attacks = [attack]
    moved = AutoAttack(bridge(defended), eps=eps, eps_step=eps / 2, attacks=attacks).generate(x, one_hot)
    right = (moved.reshape(12, -1) @ weights).argmax(axis=1) == y
    assert not right[distance < 0.9 * eps].any()


def test_auto_attack_of_art_as_it_is():
    """With the four attacks of its own."""
    pytest.importorskip("torch")
    pytest.importorskip("multiprocess")
    weights = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    x = np.random.default_rng(1).uniform(0.3, 0.7, (2, 1, 8, 8)).astype(np.float32)
    y = (x.reshape(2, -1) @ weights).argmax(axis=1)
    defended = model(classifier=as_classifier(of_torch(weights), x), nb_classes=4, input_shape=(1, 8, 8))
    moved = AutoAttack(bridge(defended), eps=0.3).generate(x, np.eye(4, dtype=np.float32)[y])
    assert ((moved.reshape(2, -1) @ weights).argmax(axis=1) != y).all()


def test_activations_of_a_torch_module():
    """Behind the defence, of a layer by its name or number; an attack that matches them runs."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    classifier = in_torch(FeatureSqueezing((0, 1), 1), as_classifier(network, X))
    with torch.no_grad():
        expected = network[1](network[0](torch.round(torch.from_numpy(X)))).numpy()
    for layer in (1, "1"):
        np.testing.assert_allclose(classifier.get_activations(X, layer), expected, rtol=1e-5)
    attack = FeatureAdversariesNumpy(classifier, layer=1, delta=0.1)
    assert np.abs(attack.generate(X[:1], X[1:2], maxiter=2) - X[:1]).max() < 0.11


# Attacks of ART


@pytest.mark.parametrize(
    "attack",
    [
        lambda c: ProjectedGradientDescent(c, eps=0.5, eps_step=0.05, max_iter=15, verbose=False),
        lambda c: DeepFool(c, max_iter=20, epsilon=0.1, nb_grads=2, verbose=False),
    ],
    ids=["PGD", "DeepFool"],
)
def test_gradient_attacks_of_art(attack):
    vote = MajorityVote(threshold(SHAPE, slope=20))
    found = attack(vote.for_art(SAMPLES, UNIT)).generate(SAMPLES)
    assert (vote.predict(SAMPLES) == LABELS).all()
    assert (vote.predict(found) == 1 - LABELS).all()


def test_gradient_of_a_vote_for_art_is_that_of_its_loss():
    """With more classes than two, where the label loses to nobody in particular."""
    weights = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
    x, y = np.array([[0.9, 0.3], [0.2, 0.25], [0.4, 0.8]], np.float32), np.array([2, 1, 1])
    vote = MajorityVote(linear(weights, np.array([0.1, -0.2, 0.0])), [None], min_votes=1)
    classifier, one_hot, step = vote.for_art(x, UNIT), np.eye(3, dtype=np.float32)[y], 0.01
    assert (vote.predict(x) == y).all()
    found = classifier.loss_gradient(x, one_hot)
    for axis in range(2):
        up, down = (x + sign * step * np.eye(2, dtype=np.float32)[axis] for sign in (1, -1))
        rise = [classifier.compute_loss(moved, one_hot, reduction="none") for moved in (up, down)]
        slope = (rise[0] - rise[1]) / (2 * step)
        assert (slope != 0).any()
        np.testing.assert_allclose(found[:, axis] * len(x), slope, rtol=1e-2, atol=1e-4)


def as_art(vote, label, classes):
    """The recipe of the documentation: a rejected sample counts as its own class, so nothing is won by it."""

    def predict(x):
        found = vote.predict(x)
        return np.eye(classes)[np.where(found == -1, label, found)]

    return BlackBoxClassifier(predict, SHAPE, classes, clip_values=UNIT)


def test_decision_attacks_of_art():
    """Against a vote that rejects: each class on its own, and every example gets a wrong label."""
    vote = MajorityVote(threshold(SHAPE, slope=20).scores, min_votes=3)
    np.random.seed(0)
    for label in (0, 1):
        x = SAMPLES[label == LABELS][:2]
        attack = HopSkipJump(as_art(vote, label, 2), max_iter=2, max_eval=100, init_eval=5, verbose=False)
        found = attack.generate(x)
        assert (vote.predict(found) == 1 - label).all()
        assert np.abs(found - x).max() > 0
