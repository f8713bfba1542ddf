import random

import numpy as np
import pytest

from preshield import (
    GaussianAugmentation,
)

pytest.importorskip("art")

from preshield.evaluation.estimator import DefendedClassifier

from preshield.evaluation.attacks import Attacker, _numpy_seed
from preshield.evaluation.classifiers import PredictOnly
from preshield.evaluation.report import Threat
from tests.evaluation.analytic import Forger, Gain, Identity, Masking, linear, threshold

SHAPE = (8, 8, 3)
SIZE = 192
RNG = np.random.default_rng(0)
LEVELS = np.array([0.3, 0.45, 0.55, 0.7])
X = (LEVELS[:, None, None, None] + RNG.uniform(-0.2, 0.2, (4, *SHAPE))).astype(np.float32)
Y = np.array([0, 0, 1, 1])
DISTANCE = np.abs(X.mean(axis=(1, 2, 3)) - 0.5)  # in every value: L-infinity


def attacker(kind="l2-minimum", eps=None, budget=30, factories=None, seed=0):
    return Attacker(Threat(kind, eps, (0.0, 1.0)), budget, factories, seed)


def model(defence=None, classifier=None, **options):
    return DefendedClassifier(
        threshold(slope=10.0) if classifier is None else classifier,
        defence,
        clip_values=(0.0, 1.0),
        nb_classes=2,
        input_shape=SHAPE,
        **options,
    )


def wrong(x):
    return (x.mean(axis=(1, 2, 3)) > 0.5) != Y


def l2(a, b):
    return np.sqrt(((a.astype(float) - b) ** 2).sum(axis=(1, 2, 3)))


# White box


def test_smallest_perturbation():
    found = attacker().white_box([model()], X, Y)
    np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), rtol=0.01)
    np.testing.assert_allclose(l2(found.x, X), found.norms, rtol=1e-4)
    assert wrong(found.x).all()


@pytest.mark.parametrize("budget", [1, 2, 30])
def test_bounded_attacks_succeed_exactly_where_they_can(budget):
    for kind, scale in (("linf", 1), ("l2", np.sqrt(SIZE))):
        found = attacker(kind, 0.1 * scale, budget).white_box([model()], X, Y)
        np.testing.assert_array_equal(wrong(found.x), DISTANCE < 0.1)
        change = np.abs(found.x - X).max(axis=(1, 2, 3)) if kind == "linf" else l2(found.x, X)
        assert (change <= 0.1 * scale * (1 + 1e-5)).all()
        np.testing.assert_allclose(found.norms, change, rtol=1e-4)
        assert found.x.min() >= 0
        assert found.x.max() <= 1


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_eps_zero_moves_nothing(kind):
    classifier = threshold()
    found = attacker(kind, 0.0).white_box([model(classifier=classifier)], X, Y)
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.norms, 0)
    assert classifier.differentiated == 0
    moved = attacker(kind, 0.0).black_box(model(), X, Y)
    np.testing.assert_array_equal(moved.x, X)


@pytest.mark.parametrize("kind", ["linf", "l2-minimum"])
def test_samples_that_are_wrong_are_left_alone(kind):
    classifier = threshold(slope=10.0)
    mostly_wrong = np.array([1, 1, 1, 1])
    found = attacker(kind, 0.3, budget=3).white_box([model(classifier=classifier)], X, mostly_wrong)
    np.testing.assert_array_equal(found.x[:2], X[:2])
    np.testing.assert_array_equal(found.norms[:2], 0)
    assert (found.norms[2:] > 0).all()
    assert classifier.differentiated <= 2 * 4
    everything = attacker(kind, 0.3).white_box([model()], X, 1 - Y)
    np.testing.assert_array_equal(everything.x, X)


def test_the_best_gradient_counts_for_each_sample():
    """The first model points the wrong way, the second hides its gradient, the third is honest."""
    models = [model(defence) for defence in (Forger(), Masking(), Identity())]
    for order in ([0, 1, 2], [2, 1, 0]):
        found = attacker("linf", 0.25).white_box([models[i] for i in order], X, Y)
        assert wrong(found.x).all()
        found = attacker().white_box([models[i] for i in order], X, Y)
        np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), rtol=0.01)


def test_global_generators_are_given_back():
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    first = attacker("linf", 0.05, seed=3).white_box([model()], X, Y).x
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    np.random.seed(99)
    np.testing.assert_array_equal(first, attacker("linf", 0.05, seed=3).white_box([model()], X, Y).x)


def test_the_generator_of_torch_is_given_back():
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    with _numpy_seed(3):
        torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


# Attacks of the user


class Brightness:
    """Move every value away from the class by `step`, whatever the bound."""

    def __init__(self, classifier, step=0.25):
        self.classifier, self.step = classifier, step

    def generate(self, x, y):
        assert y.shape == (len(x), 2)
        return x + self.step * np.where(y[:, 1] == 1, -1, 1)[:, None, None, None]


def brightness(step):
    return lambda classifier: Brightness(classifier, step)


def test_a_users_attack_is_brought_back_to_the_bound():
    for kind, eps in (("linf", 0.1), ("l2", 0.1 * np.sqrt(SIZE))):
        found = attacker(kind, eps, factories={"b": Brightness}).white_box([model()], X, Y)
        assert (found.norms <= eps * (1 + 1e-5)).all()
        assert (found.norms > eps / 2).all()
        np.testing.assert_array_equal(wrong(found.x), DISTANCE < 0.1)
        assert found.x.min() >= 0
        assert found.x.max() <= 1


def test_a_users_attack_is_pulled_back_to_the_boundary():
    found = attacker(factories={"b": Brightness}).white_box([model()], X, Y)
    np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), rtol=0.02)
    short = attacker(factories={"b": brightness(0.1)}).white_box([model()], X, Y)
    np.testing.assert_array_equal(np.isfinite(short.norms), DISTANCE < 0.1)


def test_the_best_of_several_attacks_counts():
    factories = {"short": brightness(0.1), "wrong way": brightness(-0.25), "long": brightness(0.25)}
    for kind, eps in (("linf", 0.25), ("l2-minimum", None)):
        found = attacker(kind, eps, factories=factories).white_box([model()], X, Y)
        assert wrong(found.x).all()


def test_an_attack_that_returns_nan_has_failed():
    def broken(classifier):
        attack = Brightness(classifier)
        attack.generate = lambda x, y: np.full_like(x, np.nan)
        return attack

    for kind, eps in (("linf", 0.1), ("l2-minimum", None)):
        found = attacker(kind, eps, factories={"broken": broken}).white_box([model()], X, Y)
        np.testing.assert_array_equal(found.x, X)
        assert not wrong(found.x).any()
        np.testing.assert_array_equal(found.norms, 0 if eps else np.inf)


# Black box, noise, single step


def test_black_box():
    seen = attacker("linf", 0.25, budget=50).black_box(model(Masking()), X, Y)
    np.testing.assert_array_equal(wrong(seen.x)[DISTANCE < 0.1], True)
    assert (np.abs(seen.x - X).max(axis=(1, 2, 3)) <= 0.25 + 1e-6).all()
    np.testing.assert_allclose(seen.norms, np.abs(seen.x - X).max(axis=(1, 2, 3)), rtol=1e-5)
    eps = 0.3 * np.sqrt(SIZE)
    bound = attacker("l2-minimum", eps, budget=50)
    nearest = bound.black_box(model(), X, Y)
    assert (nearest.norms[wrong(nearest.x)] < eps).all()
    assert (nearest.norms >= DISTANCE * np.sqrt(SIZE) * (1 - 1e-5)).all()
    np.testing.assert_array_equal(np.isfinite(nearest.norms), wrong(nearest.x))
    assert np.isfinite(nearest.norms).any()


@pytest.mark.parametrize(("draws", "averaged"), [(16, 4), (5, 1), (1, 1)])
def test_each_query_averages_a_quarter_of_the_draws(draws, averaged):
    gain = Gain(0.0)
    attacker("linf", 1e-6, budget=5).black_box(model(gain, draws=draws), X, Y)
    assert len(gain.used) == 4 * 5 * averaged


def test_queries_do_not_end_where_the_draws_were_lucky():
    """One query in four sees noise that makes the two samples near the boundary wrong for nothing."""
    noise, near = GaussianAugmentation(1.0, augmentation=False), DISTANCE < 0.1
    for seed in range(5):
        seen = attacker("linf", 0.25, budget=50).black_box(model(noise, draws=4, seed=seed), X, Y)
        assert wrong(seen.x)[near].all()


@pytest.mark.parametrize("draws", [4, 32])
def test_the_norm_is_that_for_most_draws_and_not_for_all(draws):
    """Of noise with a standard deviation of 0.3 in each direction; all of 64 draws need 0.7 more."""
    noise = GaussianAugmentation(0.3, augmentation=False)
    found = attacker().white_box([model(noise, draws=draws)], X, Y)
    np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), atol=0.3)
    assert (l2(found.x, X) > found.norms + 0.1).all()  # the point itself is wrong on every draw
    bound = attacker("l2-minimum", 0.3 * np.sqrt(SIZE), budget=200)
    queried = bound.black_box(model(noise, draws=draws), X, Y)
    assert (queried.norms > DISTANCE * np.sqrt(SIZE) - 0.3).all()
    assert np.isfinite(queried.norms[DISTANCE < 0.1]).all()


def test_rejections_are_no_successes_of_an_attack_of_art():
    answers = np.array([-1, 0, 1, -1])
    seen = []

    class Attack:
        def __init__(self, classifier):
            self.classifier = classifier

        def generate(self, x, y):
            seen.append((self.classifier.predict(x).argmax(axis=1).tolist(), y.argmax(axis=1).tolist()))
            return x

    labels = PredictOnly(lambda x: answers[np.searchsorted(LEVELS, x[:, 0, 0, 0])], SHAPE)
    flat = np.broadcast_to(LEVELS[:, None, None, None] - 1e-3, X.shape).astype(np.float32)
    attacker("linf", 0.1, factories={"a": Attack}).white_box([model(classifier=labels)], flat, Y)
    assert seen == [([0, 0], [0, 0]), ([1, 1], [1, 1])]


def test_noise_has_the_norms_that_it_is_given():
    x = np.full((3, *SHAPE), 0.5, np.float32)
    norms = np.array([0.0, 0.01, 0.2])
    noisy = attacker("linf", 0.1).noise(x, norms, np.random.default_rng(0))
    np.testing.assert_allclose(
        np.abs(noisy - x).reshape(3, -1), np.repeat(norms[:, None], SIZE, 1), atol=1e-6
    )
    assert abs((noisy[2] > x[2]).mean() - 0.5) < 5 * 0.5 / np.sqrt(SIZE)
    noisy = attacker("l2", 0.1).noise(x, norms, np.random.default_rng(0))
    np.testing.assert_allclose(l2(noisy, x), norms, atol=1e-5)
    assert noisy.dtype == np.float32
    clipped = attacker("l2", 0.1).noise(x, norms + 100, np.random.default_rng(0))
    assert clipped.min() >= 0
    assert clipped.max() <= 1


def test_single_step():
    away = np.where(Y == 1, -1, 1)[:, None, None, None]
    for kind, scale in (("linf", 1), ("l2", 1 / np.sqrt(SIZE))):
        moved = attacker(kind, 0.1).single_step(model(), X, Y, np.array([0.1, 0.01, 0.1, 0]))
        expected = X + scale * np.array([0.1, 0.01, 0.1, 0])[:, None, None, None] * away
        np.testing.assert_allclose(moved, expected.clip(0, 1), atol=1e-6)
        assert moved.dtype == np.float32


def test_single_step_follows_a_gradient_that_single_precision_cannot_invert():
    class Faint(Identity):
        def _gradient(self, x, grad, draw):
            return grad * np.float32(1e-38)

    moved = attacker("l2", 0.1).single_step(model(Faint()), X, Y, np.full(4, 0.1))
    np.testing.assert_allclose(l2(moved, X), 0.1, rtol=1e-3)


def test_unbounded():
    found = attacker("l2", 0.01).unbounded().white_box([model()], X, Y)
    assert wrong(found.x).all()


def test_words():
    assert attacker().white_box_in_words == "minimum-norm attack, up to 30 steps"
    bounded = attacker("linf", 0.1)
    assert bounded.white_box_in_words == "projected gradient descent, 30 steps, random start"
    assert bounded.black_box_in_words == "Square, 120 queries, linf norm 0.1"
    assert attacker(factories={"A": Brightness, "B": Brightness}).white_box_in_words == "A, B"


# Gradients on offer


def test_waveforms_and_clips():
    for shape in ((64,), (3, 8, 8, 3)):
        size = int(np.prod(shape))
        weights = np.stack([np.zeros(size), np.full(size, 10 / size)], axis=1)
        classifier = linear(weights, [0, -5], shape)
        x = np.stack([np.full(shape, level, np.float32) for level in LEVELS])
        defended = DefendedClassifier(
            classifier, Identity(), clip_values=(0.0, 1.0), nb_classes=2, input_shape=shape
        )
        distance = np.abs(LEVELS - 0.5) * np.sqrt(size)
        np.testing.assert_allclose(attacker().white_box([defended], x, Y).norms, distance, rtol=0.01)
        for kind, eps in (("linf", 0.25), ("l2", 0.25 * np.sqrt(size))):
            found = attacker(kind, eps).white_box([defended], x, Y)
            assert ((found.x.reshape(4, -1).mean(axis=1) > 0.5) != Y).all()
            found = attacker(kind, eps).black_box(defended, x, Y)
            assert (found.norms <= eps * (1 + 1e-5)).all()
            assert (found.norms > 0).all()
