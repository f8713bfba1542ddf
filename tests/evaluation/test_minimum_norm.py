"""Smallest perturbations, on models whose boundary is known."""

import functools

import numpy as np
import pytest

from preshield import GaussianAugmentation
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.minimum_norm import for_most_draws, minimum_norm_attack, pull_towards
from preshield.evaluation.oracle import Oracle
from tests.evaluation.analytic import WithJacobian

NORMS = ["l2", "linf", "l1"]
ORDER = {"l2": 2, "linf": np.inf, "l1": 1}
DUAL = {"l2": 2, "linf": 1, "l1": np.inf}
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((4, 6))
X = (0.4 + 0.2 * RNG.random((8, 6))).astype(np.float32)


def linear(weights=WEIGHTS, factor=1.0, xp=np, unit=1.0):
    """Scores of classes, without a product of matrices, whose rounding depends on the number of rows."""
    weights = factor * weights / unit

    def scores(x):
        return (x[:, None, :] * weights).sum(axis=2) - unit * weights.sum(axis=1) / 2

    def jacobian(x):
        return np.broadcast_to(weights, (len(x), *weights.shape))

    return WithJacobian(scores, jacobian, weights.shape[1:], len(weights), xp)


def curved(factor=1.0):
    """Four classes, with boundaries bent by waves."""

    def scores(x):
        return factor * ((x[:, None, :] * WEIGHTS).sum(axis=2) + np.sin(9 * x[:, :4]))

    def jacobian(x):
        waves = np.zeros((len(x), 4, 6))
        waves[:, range(4), range(4)] = 9 * np.cos(9 * x[:, :4])
        return factor * (WEIGHTS + waves)

    return WithJacobian(scores, jacobian, (6,), 4)


@functools.cache
def of_curved(norm, budget):
    """A search that several tests compare theirs with."""
    return minimum_norm_attack(behind(curved()), norm=norm, budget=budget)


@functools.cache
def of_linear(norm):
    return minimum_norm_attack(behind(linear()), norm=norm, budget=60).norms


def behind(classifier, x=X, y=None, defence=None, numbers=None, clip_values=(0.0, 1.0), **options):
    y = classifier.predict(x).argmax(axis=1) if y is None else y
    numbers = np.arange(len(x)) if numbers is None else numbers
    sizes = {"nb_classes": classifier.nb_classes, "input_shape": classifier.input_shape}
    model = DefendedModel(classifier, defence, clip_values=clip_values, **sizes, **options)
    return Oracle(model, model.array(x), y, numbers, (0,))


def lengths(found, x, norm):
    return np.linalg.norm(np.asarray(found.x, np.float64) - x, ORDER[norm], axis=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_distance_to_the_nearest_of_the_boundaries_of_a_linear_model(norm, classes):
    weights = WEIGHTS[:classes]
    oracle = behind(linear(weights))
    found = minimum_norm_attack(oracle, norm=norm, budget=60)
    scores, y = (X[:, None] * weights).sum(axis=2) - weights.sum(axis=1) / 2, oracle.y
    margins = scores[range(8), y][:, None] - scores
    slopes = np.linalg.norm(weights[y][:, None] - weights, DUAL[norm], axis=2)
    distances = np.divide(margins, slopes, out=np.full_like(margins, np.inf), where=slopes > 0)
    assert distances.min(axis=1).max() < 0.4  # within the range, so that it does not matter
    assert (found.norms >= distances.min(axis=1) * (1 - 1e-5)).all()
    np.testing.assert_allclose(found.norms, distances.min(axis=1), rtol=0.004)
    assert (oracle.margin(found.x, np.arange(8)) < 0).all()
    np.testing.assert_allclose(lengths(found, X, norm), found.norms, rtol=1e-5)


@pytest.mark.parametrize(
    # From (1, 0.1), by 1.3 down the slope (-3, 4) / 1: the second component has room for -0.1, thus 0.4.
    ("norm", "distance"),
    [("l2", np.hypot(0.1, 0.3)), ("linf", 0.3), ("l1", 0.1 + 0.3)],
)
def test_the_range_is_respected(norm, distance):
    weights = np.array([[0.0, 0.0], [3.0, 4.0]])
    model = WithJacobian(
        lambda x: (x[:, None] * weights).sum(axis=2) - [0, 2.1],
        lambda x: np.broadcast_to(weights, (len(x), 2, 2)),
        (2,),
        2,
    )
    x = np.array([[1.0, 0.1]], np.float32)  # with a margin of 1.3 = 4 * 0.1 + 3 * 0.3
    found = minimum_norm_attack(behind(model, x), norm=norm, budget=100)
    np.testing.assert_allclose(found.norms, distance, rtol=0.005)
    assert found.x.min() >= 0


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 23, 103])
@pytest.mark.parametrize("norm", NORMS)
def test_the_budget_is_what_is_spent(budget, norm):
    y = curved().predict(X).argmax(axis=1)
    y[3] = (y[3] + 1) % 4
    oracle, done = behind(curved(), y=y), []
    found = minimum_norm_attack(oracle, norm=norm, budget=budget, on_step=done.append)
    np.testing.assert_array_equal(oracle.backward, [budget if i != 3 else 1 for i in range(8)])
    np.testing.assert_array_equal(oracle.forward, oracle.backward)
    assert found.norms[3] == 0
    np.testing.assert_array_equal(found.x[3], X[3])
    assert done == sorted(done)
    assert done[-1] == 1


@pytest.mark.parametrize("norm", NORMS)
def test_two_gradients_are_enough_on_a_line(norm):
    """The second looks where the first says that the boundary is."""
    oracle = behind(linear(WEIGHTS[:2]))
    found = minimum_norm_attack(oracle, norm=norm, budget=2)
    slope = WEIGHTS[1] - WEIGHTS[0]
    distances = np.abs((X - 0.5) @ slope) / np.linalg.norm(slope, DUAL[norm])
    assert (oracle.margin(found.x, np.arange(8)) < 0).all()
    np.testing.assert_allclose(found.norms, distances, rtol=0.06)


@pytest.mark.parametrize("norm", NORMS)
def test_more_budget_finds_nearer_points(norm):
    few, some, many = (of_curved(norm, budget).norms for budget in (10, 100, 300))
    assert some.mean() < few.mean()
    assert (many <= some).all()  # it begins with the same walks
    assert (many < some).any()


@pytest.mark.parametrize("norm", NORMS)
def test_a_class_that_the_gradient_at_the_sample_points_beyond(norm):
    """To the right there is a class from 3 on; upwards one from 2 to 8, which at 0 seems to begin at 11.5."""

    def scores(x):
        right, up = x.T
        upper = np.select([up < 1.5, up < 8], [0.7 * up - 8.05, up - 2], 0.7 * up - 25)
        return np.stack([0 * up, right - 3, upper], axis=1)

    def jacobian(x):
        slopes = np.zeros((len(x), 3, 2))
        slopes[:, 1, 0] = 1
        slopes[:, 2, 1] = np.select([x[:, 1] < 1.5, x[:, 1] < 8], [0.7, 1], 0.7)
        return slopes

    model, x = WithJacobian(scores, jacobian, (2,), 3), np.zeros((1, 2), np.float32)
    found = minimum_norm_attack(behind(model, x, clip_values=(-20.0, 20.0)), norm=norm, budget=100)
    np.testing.assert_allclose(found.norms, 2, rtol=0.001)


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_does_not_depend_on_the_others(norm):
    whole = of_curved(norm, 130)
    y = curved().predict(X).argmax(axis=1)
    for part in ([5, 2], [0, 1, 3, 4, 6, 7]):
        found = minimum_norm_attack(
            behind(curved(), X[part], y[part], numbers=np.array(part)), norm=norm, budget=130
        )
        np.testing.assert_array_equal(found.x, whole.x[part])
        np.testing.assert_array_equal(found.norms, whole.norms[part])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_the_scale_of_the_logits_does_not_matter(norm, factor):
    expected = of_curved(norm, 130)
    found = minimum_norm_attack(behind(curved(factor)), norm=norm, budget=130)
    np.testing.assert_array_equal(found.x, expected.x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0)])
def test_the_unit_of_the_data_does_not_matter(norm, low, high):
    expected = minimum_norm_attack(behind(linear()), norm=norm, budget=50)
    wide = WithJacobian(
        lambda x: linear().scores((x - low) / (high - low)),
        lambda x: linear().jacobian(x) / (high - low),
        (6,),
        4,
    )
    oracle = behind(wide, low + (high - low) * X, clip_values=(low, high))
    found = minimum_norm_attack(oracle, norm=norm, budget=50)
    np.testing.assert_allclose(found.norms, (high - low) * expected.norms, rtol=2e-3)


@pytest.mark.parametrize("useless", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_random_directions_where_there_is_no_gradient(norm, useless):
    blind = WithJacobian(linear().scores, lambda x: np.full((len(x), 4, 6), useless), (6,), 4)
    with np.errstate(invalid="ignore"):
        found = minimum_norm_attack(behind(blind), norm=norm, budget=100)
    oracle = behind(linear())
    best = of_linear(norm)
    reached = np.isfinite(found.norms)
    assert reached.sum() > 4
    assert (found.norms >= best * (1 - 0.004)).all()
    assert (oracle.margin(found.x[reached], np.flatnonzero(reached)) < 0).all()
    assert ((found.x >= 0) & (found.x <= 1)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1e-25, 50.0])
def test_a_gradient_of_the_wrong_size_is_followed(norm, size):
    """As an estimate may be: too short, and the boundary seems far; too long, and it seems near."""
    liar = WithJacobian(linear().scores, lambda x: size * linear().jacobian(x), (6,), 4)
    found = minimum_norm_attack(behind(liar), norm=norm, budget=100)
    best = of_linear(norm)
    assert (found.norms >= best * (1 - 0.004)).all()
    assert (found.norms < 2 * best).all()


@pytest.mark.parametrize("norm", NORMS)
def test_infinite_where_nothing_is_wrong(norm):
    firm = WithJacobian(
        lambda x: np.tile([1.0, 0.0], (len(x), 1)), lambda x: np.ones((len(x), 2, 6)), (6,), 2
    )
    found = minimum_norm_attack(behind(firm, X[:1]), norm=norm, budget=30)
    np.testing.assert_array_equal(found.norms, [np.inf])
    assert ((found.x >= 0) & (found.x <= 1)).all()
    assert (found.x != X[:1]).any()  # the last point that was tried


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_found_elsewhere_is_a_start(norm):
    """Of a region that no gradient at the sample leads to."""

    def scores(x):
        inside = np.abs(x - 0.9).max(axis=1) < 0.1
        return np.stack([np.where(inside, 0.0, 1.0), np.full(len(x), 0.5)], axis=1)

    island = WithJacobian(scores, lambda x: np.zeros((len(x), 2, 6)), (6,), 2)
    y, start = np.zeros(8, int), np.full_like(X, 0.95)
    found = minimum_norm_attack(behind(island, y=y), norm=norm, budget=15, start=start)
    assert (found.norms <= np.linalg.norm(0.95 - X, ORDER[norm], axis=1) * (1 + 1e-6)).all()
    assert (scores(found.x)[:, 0] < 0.5).all()


@pytest.mark.parametrize("framework", ["torch", "jax.numpy"])
@pytest.mark.parametrize("norm", NORMS)
def test_arrays_of_any_framework(norm, framework):
    xp = pytest.importorskip(framework)
    expected = minimum_norm_attack(behind(linear()), norm=norm, budget=10)
    found = minimum_norm_attack(behind(linear(xp=xp)), norm=norm, budget=10)
    assert isinstance(found.x, type(xp.asarray(X)))
    np.testing.assert_allclose(found.norms, expected.norms, rtol=1e-3)


def test_behind_a_stochastic_defence_most_draws_decide():
    """With noise of 0.02 in each direction, half of the draws are wrong at the boundary of a linear model."""
    noise = GaussianAugmentation(0.02, augmentation=False)
    oracle = behind(linear(), defence=noise, draws=4)
    found = minimum_norm_attack(oracle, norm="l2", budget=60)
    wrong = found.norms == 0
    np.testing.assert_array_equal(oracle.backward, np.where(wrong, 4, 4 * 60))
    np.testing.assert_allclose(found.norms, of_linear("l2"), atol=0.03)
    judged = for_most_draws(oracle, found, norm="l2")
    lengths, before = (np.linalg.norm(points - X, axis=1) for points in (judged.x, found.x))
    half, nearly_all = (
        (oracle.model.with_draws(64).labels(points, oracle.numbers, (9,)) != oracle.y)[:, ~wrong].mean()
        for points in (found.x, judged.x)
    )
    assert 0.3 < half < 0.7 < nearly_all
    assert (lengths >= before - 1e-6).all()
    assert (lengths > before + 1e-3).any()
    np.testing.assert_allclose(judged.norms, found.norms, atol=0.03)
    assert (judged.norms <= lengths + 1e-6).all()


@pytest.mark.parametrize("budget", [8, 30, 200])
def test_what_lucky_draws_found_is_not_lost_when_others_judge(budget):
    """Predictions that change with every draw: no length makes all of them wrong."""
    oracle = behind(linear(), defence=GaussianAugmentation(1.0, augmentation=False), draws=4)
    found = minimum_norm_attack(oracle, norm="l2", budget=budget)
    assert np.isfinite(for_most_draws(oracle, found, norm="l2").norms[np.isfinite(found.norms)]).all()


def test_without_draws_there_is_nothing_to_judge():
    oracle = behind(linear())
    found = minimum_norm_attack(oracle, norm="l2", budget=5)
    assert for_most_draws(oracle, found, norm="l2") is found


@pytest.mark.parametrize("norm", NORMS)
def test_pull_towards(norm):
    oracle = behind(linear(WEIGHTS[:2]), X[:3])
    slope = WEIGHTS[1 - oracle.y] - WEIGHTS[oracle.y]
    moved = np.clip(X[:3] + slope * np.array([[0.3], [-0.3], [0]]), 0, 1).astype(np.float32)
    before = moved.copy()
    found = pull_towards(oracle, moved, norm=norm, halvings=20)
    margins = [(X[0] - 0.5) @ slope[0], (moved[0] - 0.5) @ slope[0]]
    fraction = margins[0] / (margins[0] - margins[1])  # where the line crosses the boundary
    np.testing.assert_allclose(
        found.norms[0], fraction * np.linalg.norm(moved[0] - X[0], ORDER[norm]), rtol=1e-4
    )
    assert oracle.margin(found.x, np.arange(3))[0] < 0
    np.testing.assert_array_equal(found.norms[1:], np.inf)
    np.testing.assert_array_equal(found.x[1:], moved[1:])
    np.testing.assert_array_equal(moved, before)
    alone = pull_towards(oracle, moved[:1], norm=norm, rows=np.array([0]), halvings=20)
    np.testing.assert_array_equal(alone.x, found.x[:1])


@pytest.mark.parametrize("halvings", [0, 1, 4])
def test_the_bisection_is_as_exact_as_stated(halvings):
    oracle = behind(linear())
    moved = minimum_norm_attack(oracle, norm="l2", budget=3).x
    exact = pull_towards(oracle, moved, norm="l2", halvings=20).norms
    found = pull_towards(oracle, moved, norm="l2", halvings=halvings).norms
    wrong = np.isfinite(exact)
    whole = lengths(pull_towards(oracle, moved, norm="l2", halvings=0), X, "l2")
    assert (found[wrong] >= exact[wrong]).all()
    assert (found[wrong] - exact[wrong] <= whole[wrong] * 2.0**-halvings).all()


def test_what_is_wrong_from_the_start_is_pulled_nowhere():
    oracle = behind(linear(), y=(linear().predict(X).argmax(axis=1) + 1) % 4)
    found = pull_towards(oracle, X, norm="l2")
    np.testing.assert_array_equal(found.norms, 0)
    np.testing.assert_array_equal(oracle.forward, 1)
