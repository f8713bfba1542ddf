"""What an attacker does to samples: every gradient, several attacks, queries, noise, a single step."""

import importlib
import random
from importlib.util import find_spec

import numpy as np
import pytest

from preshield import GaussianAugmentation
from preshield._core.draws import Draws
from preshield.evaluation.attacks import Attacker, _numpy_seed
from preshield.evaluation.classifiers import PredictOnly
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.report import Threat
from tests.evaluation.analytic import Forger, Gain, Identity, Masking, linear, linear_closed_form, threshold

SHAPE = (8, 8, 3)
SIZE = 192
RNG = np.random.default_rng(0)
LEVELS = np.array([0.3, 0.45, 0.55, 0.7])
X = (LEVELS[:, None, None, None] + RNG.uniform(-0.2, 0.2, (4, *SHAPE))).astype(np.float32)
Y = np.array([0, 0, 1, 1])
NUMBERS = np.arange(4)
DISTANCE = np.abs(X.mean(axis=(1, 2, 3)) - 0.5)  # in every value: L-infinity

NEEDS_ART = pytest.mark.skipif(
    find_spec("art") is None, reason="an attack of ART is handed a classifier of ART"
)


def attacker(kind="l2-minimum", eps=None, budget=30, factories=None, seed=0):
    return Attacker(Threat(kind, eps, (0.0, 1.0)), budget, factories, seed)


def model(defence=None, classifier=None, shape=SHAPE, **options):
    return DefendedModel(
        threshold(slope=10.0) if classifier is None else classifier,
        defence,
        clip_values=(0.0, 1.0),
        nb_classes=2,
        input_shape=shape,
        **options,
    )


def white_box(by, models=None, x=X, y=Y, numbers=NUMBERS, **options):
    return by.white_box([model()] if models is None else models, x, y, numbers, **options)


def black_box(by, of=None, radii=None, x=X, y=Y, **options):
    radii = by.threat.eps if radii is None else radii
    of = model() if of is None else of
    return by.black_box(of, x, y, NUMBERS, np.broadcast_to(radii, len(x)), **options)


def wrong(x):
    return (x.mean(axis=(1, 2, 3)) > 0.5) != Y


def l2(a, b):
    return np.sqrt(((a.astype(float) - b) ** 2).sum(axis=(1, 2, 3)))


# White box


@pytest.mark.parametrize(
    ("kind", "size"), [("l2-minimum", SIZE**0.5), ("linf-minimum", 1), ("l1-minimum", SIZE)]
)
def test_smallest_perturbation(kind, size):
    found = white_box(attacker(kind))
    np.testing.assert_allclose(found.norms, DISTANCE * size, rtol=0.01)
    order = {"l2": 2, "linf": np.inf, "l1": 1}[kind.removesuffix("-minimum")]
    lengths = np.linalg.norm((found.x.astype(float) - X).reshape(4, -1), order, axis=1)
    np.testing.assert_allclose(lengths, found.norms, rtol=1e-4)
    assert wrong(found.x).all()


@pytest.mark.parametrize("budget", [1, 2, 30])
def test_bounded_attacks_succeed_exactly_where_they_can(budget):
    for kind, scale in (("linf", 1), ("l2", np.sqrt(SIZE))):
        found = white_box(attacker(kind, 0.1 * scale, budget))
        np.testing.assert_array_equal(wrong(found.x), DISTANCE < 0.1)
        change = np.abs(found.x - X).max(axis=(1, 2, 3)) if kind == "linf" else l2(found.x, X)
        assert (change <= 0.1 * scale * (1 + 1e-5)).all()
        np.testing.assert_allclose(found.norms, change, rtol=1e-4)
        assert found.x.min() >= 0
        assert found.x.max() <= 1


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_eps_zero_moves_nothing(kind):
    classifier = threshold()
    found = white_box(attacker(kind, 0.0), [model(classifier=classifier)])
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.norms, 0)
    assert classifier.differentiated == 0
    moved = black_box(attacker(kind, 0.0))
    np.testing.assert_array_equal(moved.x, X)


@pytest.mark.parametrize("kind", ["linf", "l2-minimum"])
def test_samples_that_are_wrong_are_left_alone(kind):
    mostly_wrong = np.array([1, 1, 1, 1])
    found = white_box(attacker(kind, 0.3, budget=3), y=mostly_wrong)
    np.testing.assert_array_equal(found.x[:2], X[:2])
    np.testing.assert_array_equal(found.norms[:2], 0)
    assert (found.norms[2:] > 0).all()
    np.testing.assert_array_equal(found.backward[:2], 1)
    assert (found.backward <= 3).all()
    everything = white_box(attacker(kind, 0.3), y=1 - Y)
    np.testing.assert_array_equal(everything.x, X)


@pytest.mark.parametrize("kind", ["linf", "l2", "l2-minimum", "linf-minimum"])
def test_neither_samples_nor_labels_are_written_to(kind):
    x, y = X.copy(), Y.copy()
    for part in (x, y):
        part.flags.writeable = False
    eps = None if kind.endswith("minimum") else 0.05
    made = white_box(attacker(kind, eps, 8), [model(), model(Forger())], x=x, y=y)
    assert not np.shares_memory(made.x, x)
    black_box(attacker(kind, eps, 4), x=x, y=y, radii=0.05)


@pytest.mark.parametrize(("kind", "eps"), [("linf", 0.08), ("l2", 1.1), ("l2-minimum", None)])
def test_what_is_drawn_for_a_sample_does_not_depend_on_the_batch(kind, eps):
    """Behind noise, so that everything that can be drawn is drawn."""
    by, noise = attacker(kind, eps, 6), GaussianAugmentation(0.1, augmentation=False)
    weights = np.full((SIZE, 2), 10 / SIZE) * [0, 1]
    classifier = linear_closed_form(weights, [0, -5], SHAPE)  # of the same bits in any batch
    models = [model(noise, classifier, draws=2), model(Forger(), classifier, draws=2)]
    whole = white_box(by, models)
    for some in ([0], [3, 1]):
        part = white_box(by, models, x=X[some], y=Y[some], numbers=NUMBERS[some])
        np.testing.assert_array_equal(part.x, whole.x[some])
        np.testing.assert_array_equal(part.norms, whole.norms[some])
        np.testing.assert_array_equal(part.forward, whole.forward[some])


@pytest.mark.parametrize("kind", ["linf", "l2", "l2-minimum"])
def test_tensors_are_not_written_to_while_they_are_read(kind):
    """Behind noise the best point is looked at again, and may beat itself; torch refuses overlaps."""
    torch = pytest.importorskip("torch")
    weights = np.full((SIZE, 2), 10 / SIZE) * [0, 1]
    noise = GaussianAugmentation(0.3, augmentation=False)
    in_torch = linear_closed_form(weights, [0, -5], SHAPE, like=torch.tensor)
    in_numpy = linear_closed_form(weights, [0, -5], SHAPE)
    eps = None if kind.endswith("minimum") else {"linf": 0.01, "l2": 0.01 * SIZE**0.5}[kind]
    found, expected = (
        white_box(attacker(kind, eps, 12), [model(noise, of, draws=2)]) for of in (in_torch, in_numpy)
    )
    np.testing.assert_allclose(found.x, expected.x, atol=1e-5)


@pytest.mark.parametrize(("kind", "eps"), [("linf", 0.06), ("l2-minimum", None)])
def test_a_forward_pass_for_each_gradient(kind, eps):
    classifier = threshold(slope=10.0)
    found = white_box(attacker(kind, eps, 40), [model(classifier=classifier)])
    open_ = DISTANCE > 0.06 if eps else np.full(4, True)
    assert (found.backward <= 40).all()
    np.testing.assert_array_equal(found.backward[open_], 40)
    assert (found.forward <= 1.1 * found.backward + 2).all()
    assert found.backward.sum() == classifier.differentiated
    progress = []
    white_box(attacker(kind, eps, 10), progress=progress.append)
    assert progress == sorted(progress)
    assert progress[-1] == 1


def test_each_draw_is_a_pass():
    gain = Gain(0.0)
    found = white_box(attacker("linf", 1e-6, 5), [model(gain, draws=3)])
    assert sum(kind == "backward" for kind, _ in gain.used) == 3 * 5
    np.testing.assert_array_equal(found.backward, 3 * 5)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
@pytest.mark.parametrize("kind", ["linf", "l2-minimum"])
def test_the_best_gradient_counts_for_each_sample(order, kind):
    """The first model points the wrong way, the second hides its gradient, the third is honest."""
    models = [model((Forger(), Masking(), Identity())[place]) for place in order]
    found = white_box(attacker(kind, 0.25 if kind == "linf" else None), models)
    assert wrong(found.x).all()
    if kind == "l2-minimum":
        np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), rtol=0.01)


@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 6, 100])
@pytest.mark.parametrize("kind", ["linf", "l2-minimum"])
def test_several_gradients_share_what_they_have_together(kind, budget, models):
    shares = [
        attacker(kind, 0.1 if kind == "linf" else None, budget).budget_of(k, models) for k in range(models)
    ]
    assert sum(shares) == models * budget
    assert min(shares) >= 1
    assert shares == sorted(shares, reverse=True)


def test_within_a_bound_a_further_gradient_is_tried_on_what_is_left():
    classifiers = [threshold(slope=10.0), threshold(slope=10.0)]
    models = [model(classifier=classifier) for classifier in classifiers]
    found = white_box(attacker("linf", 0.1, 6), models)
    np.testing.assert_array_equal(wrong(found.x), DISTANCE < 0.1)
    assert classifiers[1].differentiated == 2 * 2  # two samples, a quarter of the budget
    np.testing.assert_array_equal(found.backward[DISTANCE > 0.1], 2 * 6)


@NEEDS_ART
def test_global_generators_are_given_back():
    importlib.import_module("preshield.evaluation.art_bridge")  # ART draws when it is imported
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    first = white_box(attacker("linf", 0.05, factories={"b": Jitter}, seed=3)).x
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    np.random.seed(99)
    again = white_box(attacker("linf", 0.05, factories={"b": Jitter}, seed=3)).x
    np.testing.assert_array_equal(first, again)
    assert (first != white_box(attacker("linf", 0.05, factories={"b": Jitter}, seed=4)).x).any()


def test_the_generator_of_torch_is_given_back():
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    with _numpy_seed(3):
        torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


# Attacks of the user


class Jitter:
    """Move every value at random, by what NumPy's global generator draws."""

    def __init__(self, classifier):
        self.classifier = classifier

    def generate(self, x, y):
        return x + np.random.uniform(-0.1, 0.1, x.shape).astype(np.float32)


class Brightness:
    """Move every value away from the class by `step`, whatever the bound."""

    def __init__(self, classifier, step=0.25):
        self.classifier, self.step = classifier, step

    def generate(self, x, y):
        assert y.shape == (len(x), 2)
        return x + self.step * np.where(y[:, 1] == 1, -1, 1)[:, None, None, None]


def brightness(step):
    return lambda classifier: Brightness(classifier, step)


@NEEDS_ART
def test_a_users_attack_is_brought_back_to_the_bound():
    for kind, eps in (("linf", 0.1), ("l2", 0.1 * np.sqrt(SIZE))):
        found = white_box(attacker(kind, eps, factories={"b": Brightness}))
        assert (found.norms <= eps * (1 + 1e-5)).all()
        assert (found.norms > eps / 2).all()
        np.testing.assert_array_equal(wrong(found.x), DISTANCE < 0.1)
        assert found.x.min() >= 0
        assert found.x.max() <= 1


@NEEDS_ART
def test_a_users_attack_is_pulled_back_to_the_boundary():
    found = white_box(attacker(factories={"b": Brightness}))
    np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), rtol=0.02)
    short = white_box(attacker(factories={"b": brightness(0.1)}))
    np.testing.assert_array_equal(np.isfinite(short.norms), DISTANCE < 0.1)


@NEEDS_ART
def test_the_best_of_several_attacks_counts():
    factories = {"short": brightness(0.1), "wrong way": brightness(-0.25), "long": brightness(0.25)}
    for kind, eps in (("linf", 0.25), ("l2-minimum", None)):
        found = white_box(attacker(kind, eps, factories=factories))
        assert wrong(found.x).all()


@NEEDS_ART
def test_an_attack_that_returns_nan_has_failed():
    def broken(classifier):
        attack = Brightness(classifier)
        attack.generate = lambda x, y: np.full_like(x, np.nan)
        return attack

    for kind, eps in (("linf", 0.1), ("l2-minimum", None)):
        found = white_box(attacker(kind, eps, factories={"broken": broken}))
        np.testing.assert_array_equal(found.x, X)
        assert not wrong(found.x).any()
        np.testing.assert_array_equal(found.norms, 0 if eps else np.inf)


# Black box, noise, single step


def test_black_box():
    seen = black_box(attacker("linf", 0.25, budget=50), model(Masking()))
    np.testing.assert_array_equal(wrong(seen.x)[DISTANCE < 0.1], True)
    assert (np.abs(seen.x - X).max(axis=(1, 2, 3)) <= 0.25 + 1e-6).all()
    np.testing.assert_allclose(seen.norms, np.abs(seen.x - X).max(axis=(1, 2, 3)), rtol=1e-5)
    assert (seen.forward <= 4 * 50).all()
    np.testing.assert_array_equal(seen.backward, 0)


def test_black_box_looks_for_small_perturbations_within_a_radius_of_each_sample():
    radii = np.array([0.3, 0.01, 0.3, 0.0]) * np.sqrt(SIZE)
    found = black_box(attacker(budget=50), radii=radii)
    np.testing.assert_array_equal(np.isfinite(found.norms), wrong(found.x))
    np.testing.assert_array_equal(wrong(found.x)[[1, 2, 3]], [False, True, False])
    assert (l2(found.x, X) <= radii * (1 + 1e-5)).all()
    assert (found.norms >= DISTANCE * np.sqrt(SIZE) * (1 - 1e-5)).all()


@pytest.mark.parametrize(("draws", "averaged"), [(16, 4), (5, 1), (1, 1)])
def test_each_query_averages_a_quarter_of_the_draws(draws, averaged):
    gain = Gain(0.0)
    found = black_box(attacker("linf", 1e-6, budget=5), model(gain, draws=draws), x=X[:1], y=Y[:1])
    assert len(gain.used) == 4 * 5 * averaged
    np.testing.assert_array_equal(found.forward, 4 * 5 * averaged)


def test_queries_do_not_end_where_the_draws_were_lucky():
    """One query in four sees noise that makes the two samples near the boundary wrong for nothing."""
    noise, near = GaussianAugmentation(1.0, augmentation=False), DISTANCE < 0.1
    for seed in range(3):
        seen = black_box(attacker("linf", 0.25, budget=50, seed=seed), model(noise, draws=4))
        assert wrong(seen.x)[near].all()


@pytest.mark.parametrize("draws", [4, 32])
def test_the_norm_is_that_for_most_draws_and_not_for_all(draws):
    """Of noise with a standard deviation of 0.3 in each direction; all of 64 draws need 0.7 more."""
    noise = GaussianAugmentation(0.3, augmentation=False)
    found = white_box(attacker(), [model(noise, draws=draws)])
    np.testing.assert_allclose(found.norms, DISTANCE * np.sqrt(SIZE), atol=0.3)
    assert (l2(found.x, X) > found.norms + 0.1).all()  # the point itself is wrong on every draw
    queried = black_box(attacker(budget=100), model(noise, draws=draws), 0.3 * np.sqrt(SIZE))
    assert (queried.norms > DISTANCE * np.sqrt(SIZE) - 0.3).all()
    assert np.isfinite(queried.norms[DISTANCE < 0.1]).all()


@NEEDS_ART
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
    white_box(attacker("linf", 0.1, factories={"a": Attack}), [model(classifier=labels)], flat)
    assert seen == [([0, 0], [0, 0]), ([1, 1], [1, 1])]


def noise_of(kind, x, norms, seed=0):
    draws = Draws(np.array([seed, 0], np.uint32), np.arange(len(x), dtype=np.uint32))
    return attacker(kind, 0.1).noise(x, norms, draws)


def test_noise_has_the_norms_that_it_is_given():
    x = np.full((3, *SHAPE), 0.5, np.float32)
    norms = np.array([0.0, 0.01, 0.2])
    noisy = noise_of("linf", x, norms)
    np.testing.assert_allclose(
        np.abs(noisy - x).reshape(3, -1), np.repeat(norms[:, None], SIZE, 1), atol=1e-6
    )
    assert abs((noisy[2] > x[2]).mean() - 0.5) < 5 * 0.5 / np.sqrt(SIZE)
    noisy = noise_of("l2", x, norms)
    np.testing.assert_allclose(l2(noisy, x), norms, atol=1e-5)
    assert noisy.dtype == np.float32
    clipped = noise_of("l2", x, norms + 100)
    assert clipped.min() >= 0
    assert clipped.max() <= 1
    assert noise_of("l1", x.astype(np.float64), norms).dtype == np.float64
    np.testing.assert_allclose(
        np.abs(noise_of("l1", x, norms) - x).sum(axis=(1, 2, 3), dtype=float), norms, atol=1e-5
    )
    assert (noise_of("l2", x, norms, seed=1)[2] != noisy[2]).any()


def single_step(by, of, lengths):
    return by.single_step(by.oracle(of, X, Y, NUMBERS), lengths)


def test_single_step():
    away = np.where(Y == 1, -1, 1)[:, None, None, None]
    lengths = np.array([0.1, 0.01, 0.1, 0])
    for kind, scale in (("linf", 1), ("l2", 1 / np.sqrt(SIZE))):
        moved = single_step(attacker(kind, 0.1), model(), lengths)
        expected = X + scale * lengths[:, None, None, None] * away
        np.testing.assert_allclose(moved, expected.clip(0, 1), atol=1e-6)
        assert moved.dtype == np.float32


def test_single_step_follows_a_gradient_that_single_precision_cannot_invert():
    class Faint(Identity):
        def _gradient(self, x, grad, draw):
            return grad * np.float32(1e-38)

    moved = single_step(attacker("l2", 0.1), model(Faint()), np.full(4, 0.1))
    np.testing.assert_allclose(l2(moved, X), 0.1, rtol=1e-3)


def test_a_single_step_without_a_gradient_goes_nowhere():
    class Broken(Identity):
        def _gradient(self, x, grad, draw):
            return np.full_like(grad, np.nan)

    np.testing.assert_array_equal(single_step(attacker("l2", 0.1), model(Broken()), np.full(4, 0.1)), X)


def test_unbounded():
    found = white_box(attacker("l2", 0.01).unbounded())
    assert wrong(found.x).all()


def test_words():
    assert attacker().white_box_in_words == "minimum-norm attack, up to 30 gradients"
    assert attacker().black_box_in_words == "Square, 120 queries, l2 norm twice the oblivious perturbation"
    bounded = attacker("linf", 0.1)
    assert bounded.white_box_in_words == "attack within the bound, up to 30 gradients"
    assert bounded.black_box_in_words == "Square, 120 queries, linf norm 0.1"
    assert attacker(factories={"A": Brightness, "B": Brightness}).white_box_in_words == "A, B"


# Other shapes


@pytest.mark.parametrize("shape", [(64,), (3, 8, 8, 3)], ids=["waveforms", "clips"])
def test_waveforms_and_clips(shape):
    size = int(np.prod(shape))
    weights = np.stack([np.zeros(size), np.full(size, 10 / size)], axis=1)
    x = np.stack([np.full(shape, level, np.float32) for level in LEVELS])
    defended = model(Identity(), linear(weights, [0, -5], shape), shape)
    distance = np.abs(LEVELS - 0.5) * np.sqrt(size)
    np.testing.assert_allclose(white_box(attacker(), [defended], x).norms, distance, rtol=0.01)
    for kind, eps in (("linf", 0.25), ("l2", 0.25 * np.sqrt(size))):
        found = white_box(attacker(kind, eps, 10), [defended], x)
        assert ((found.x.reshape(4, -1).mean(axis=1) > 0.5) != Y).all()
        found = black_box(attacker(kind, eps, 5), defended, x=x)
        assert (found.norms <= eps * (1 + 1e-5)).all()
        assert (found.norms > 0).all()
