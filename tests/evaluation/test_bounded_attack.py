"""The attack within a bound, on models whose best attack is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield.evaluation.bounded_attack import bounded_attack, likeliest_wrong, rounds
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy
from preshield.evaluation.oracle import Look, Oracle
from preshield.evaluation.perturbations import host
from preshield.evaluation.search import Search
from tests.evaluation.analytic import ClosedForm, Gain, linear_closed_form

RNG = np.random.default_rng(0)
SIZE, CLASSES = 12, 5
WEIGHTS = RNG.standard_normal((SIZE, CLASSES))
X = RNG.random((9, SIZE)).astype(np.float32)
SURE = 100 * np.eye(CLASSES)[0]  # of class 0, whatever the sample


def oracle_of(classifier, x, y=None, numbers=None, defence=None, draws=3):
    model = DefendedModel(
        classifier,
        defence,
        draws=draws,
        clip_values=(0.0, 1.0),
        nb_classes=classifier.nb_classes,
        input_shape=x.shape[1:],
    )
    y = np.zeros(len(x), int) if y is None else y
    return Oracle(model, model.array(x), y, np.arange(len(x)) if numbers is None else numbers, (3,))


def lengths(delta, norm):
    return np.linalg.norm(
        np.asarray(delta, np.float64).reshape(len(delta), -1), np.inf if norm == "linf" else 2, 1
    )


def best_margin(x, norm, eps):
    """The lowest margin of class 0 that any perturbation within the bound and the range reaches."""
    margins = []
    for sample in x.astype(np.float64):
        of_sample = []
        for other in range(1, CLASSES):
            slope = WEIGHTS[:, other] - WEIGHTS[:, 0]
            if norm == "linf":
                point = np.clip(sample + eps * np.sign(slope), 0, 1)
            else:  # along the normal, clipped, as far as the bound allows
                low, high = 0.0, 1e3
                for _ in range(100):
                    middle = (low + high) / 2
                    longer = np.linalg.norm(np.clip(sample + middle * slope, 0, 1) - sample) > eps
                    low, high = (low, middle) if longer else (middle, high)
                point = np.clip(sample + low * slope, 0, 1)
            scores = point @ WEIGHTS + SURE
            of_sample.append(scores[0] - scores[other])
        margins.append(min(of_sample))
    return np.array(margins)


def margins_of(points):
    scores = host(points).astype(np.float64) @ WEIGHTS + SURE
    return scores[:, 0] - scores[:, 1:].max(axis=1)


@pytest.mark.parametrize("like", ["numpy", "torch", "jax.numpy"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 0.5)])
def test_optimum_of_a_linear_model_in_every_framework(norm, eps, like):
    xp = pytest.importorskip(like)
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE, like=xp.asarray), X)
    points = bounded_attack(oracle, norm=norm, eps=eps, budget=60).x
    assert type(points) is type(oracle.x)
    best = best_margin(X, norm, eps)
    reach = margins_of(X) - best  # by how much the best attack lowers the margin
    assert (margins_of(points) <= best + (1e-5 if norm == "linf" else 0.01) * reach).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["linf", "l2"]), st.floats(1e-4, 3), st.integers(1, 40), st.integers(0, 99))
def test_points_are_within_bound_and_range(norm, eps, budget, seed):
    x = np.random.default_rng(seed).random((3, 2, 6), np.float32)
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE, (2, 6)), x)
    points = bounded_attack(oracle, norm=norm, eps=eps, budget=budget).x
    # A coordinate below 1 in float32 is rounded by at most 2**-24; x + eps was rounded too.
    rounding = 2**-23 if norm == "linf" else 2**-23 * np.sqrt(SIZE)
    assert (lengths(points - x, norm) <= eps * (1 + 1e-6) + rounding).all()
    assert points.min() >= 0
    assert points.max() <= 1
    assert points.dtype == np.float32


@pytest.mark.parametrize("budget", [1, 2, 7, 100, 260])
@pytest.mark.parametrize("classes", [2, 5])
def test_budget_is_spent_and_not_exceeded(budget, classes):
    oracle = oracle_of(linear_closed_form(WEIGHTS[:, :classes], SURE[:classes]), X[:2])
    done = []
    bounded_attack(oracle, norm="linf", eps=0.1, budget=budget, on_step=done.append)
    np.testing.assert_array_equal(oracle.backward, budget)
    np.testing.assert_array_equal(oracle.forward, budget + 1)
    assert done == sorted(done)
    assert done[-1] == 1


@given(st.integers(1, 5000), st.integers(1, 1000))
def test_rounds_add_up_to_the_budget(budget, wrong_classes):
    found = list(rounds(budget, wrong_classes))
    assert budget == sum(r.untargeted + r.screened * r.screening + r.finalists * r.final for r in found)
    assert all(max(r.screened, r.finalists) <= wrong_classes for r in found)
    assert all(min(r) >= 0 and r.untargeted > 0 for r in found)


def test_one_gradient_is_a_step_to_the_bound():
    oracle = oracle_of(linear_closed_form(WEIGHTS[:, :2], SURE[:2]), X)
    points = bounded_attack(oracle, norm="linf", eps=0.1, budget=1).x
    slope = np.sign(WEIGHTS[:, 1] - WEIGHTS[:, 0])
    np.testing.assert_allclose(points, np.clip(X + 0.1 * slope, 0, 1), atol=1e-6)


def test_a_sample_leaves_when_it_is_wrong():
    x = np.full((3, SIZE), 0.5, np.float32)
    bias = [1, 0] - 0.5 * WEIGHTS[:, :2].sum(axis=0)
    classifier = linear_closed_form(WEIGHTS[:, :2], bias)
    oracle = oracle_of(classifier, x, np.array([0, 1, 0]))  # scores are 1 and 0: the second is wrong
    points = bounded_attack(oracle, norm="linf", eps=0.5, budget=50).x
    np.testing.assert_array_equal(oracle.backward, [2, 1, 2])
    np.testing.assert_array_equal(points[1], 0.5)
    assert (oracle.margin(points, np.arange(3)) < 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sample_does_not_depend_on_its_batch(norm):
    bias = np.array([4.0, 0, 0, 0, 0])
    alone = np.array([7, 2, 5])
    whole = bounded_attack(oracle_of(linear_closed_form(WEIGHTS, bias), X), norm=norm, eps=0.1, budget=120).x
    part = oracle_of(linear_closed_form(WEIGHTS, bias), X[alone], numbers=alone)
    np.testing.assert_array_equal(bounded_attack(part, norm=norm, eps=0.1, budget=120).x, whole[alone])


@pytest.mark.parametrize("useless", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_useless_gradient_is_replaced_by_a_random_direction(norm, useless):
    honest = linear_closed_form(WEIGHTS, SURE)
    classifier = ClosedForm(honest.scores, lambda x, slope: np.full(x.shape, useless), (SIZE,), CLASSES)
    points = bounded_attack(oracle_of(classifier, X), norm=norm, eps=0.1, budget=20).x
    assert (margins_of(points) < margins_of(X)).all()  # the best of twenty random points
    assert np.isfinite(points).all()


def test_input_is_not_written_to():
    x = X.copy()
    bounded_attack(oracle_of(linear_closed_form(WEIGHTS, SURE), x), norm="linf", eps=0.1, budget=5)
    np.testing.assert_array_equal(x, X)


def test_stochastic_defence():
    oracle = oracle_of(linear_closed_form(WEIGHTS, [3.0, 0, 0, 0, 0]), X, defence=Gain(0.1))
    assert oracle.stochastic
    points = bounded_attack(oracle, norm="linf", eps=0.4, budget=20).x
    assert (oracle.backward <= 3 * 20).all()
    assert (oracle.forward <= 1.1 * oracle.backward).all()
    assert (oracle.margin(points, np.arange(len(X))) < 0).mean() > 0.5


class Scripted:
    """An oracle that is stochastic and says what it was told."""

    stochastic, clip_values, nb_classes, y = True, (0.0, 1.0), 2, np.zeros(1, int)
    x = np.full((1, 1), 0.5, np.float32)

    def __init__(self, margins, values=None):
        self.margins, self.values, self.points = list(margins), list(values or margins), []

    def __len__(self):
        return 1

    def look(self, points, rows, loss, targets):
        self.points.append(float(points[0, 0]))
        margin, value = (np.array([part.pop(0)], float) for part in (self.margins, self.values))
        return Look(margin, margin, np.zeros((1, 2)), value, np.ones(1), np.ones((1, 1), np.float32))

    def random(self, rows):
        return np.full((1, 1), 0.75, np.float32)


def test_a_lucky_set_of_draws_does_not_end_an_attack():
    oracle = Scripted([1, -1, 2, -1, -3, 9])
    bounded_attack(oracle, norm="linf", eps=0.2, budget=30)
    assert oracle.margins == [9]  # after two looks in a row that were wrong
    assert oracle.points[2] == oracle.points[1]  # looked at again where it was
    assert oracle.points[4] == oracle.points[3]


def test_best_point_has_the_lowest_mean_margin():
    search = Search(Scripted([3, 1, 2]), "linf", 0.2, 3)
    for value in (0.4, 0.6, 0.5):
        search.look(np.full((1, 1), value, np.float32), cross_entropy, None)
    assert search.best[0, 0] == np.float32(0.6)
    assert search.lowest[0] == 1
    assert search.left == 0


def test_likeliest_wrong_classes():
    scores = np.array([[3.0, 1, 2], [0, 5, 5]])
    np.testing.assert_array_equal(likeliest_wrong(scores, np.array([0, 1])), [[2, 2], [1, 0]])


def test_no_bound_no_attack():
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE), X)
    assert bounded_attack(oracle, norm="l2", eps=0, budget=5).x is oracle.x
    assert not oracle.forward.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "`norm`"),
        ({"eps": -1.0}, "`eps`"),
        ({"eps": np.nan}, "`eps`"),
        ({"budget": 0}, "`budget`"),
    ],
)
def test_refusals(wrong, message):
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE), X)
    with pytest.raises(ValueError, match=message):
        bounded_attack(oracle, **{"norm": "linf", "eps": 0.1, "budget": 5, **wrong})
