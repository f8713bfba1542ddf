"""AutoAttack: the rules of its attacks, known answers, and the packages that others publish with."""

import numpy as np
import pytest

from preshield import evaluate
from preshield._core.errors import ArgumentError
from preshield.evaluation import autoattack as module
from preshield.evaluation.autoattack import apgd, autoattack, fab
from preshield.evaluation.losses import cross_entropy
from preshield.evaluation.search import Search
from tests.evaluation.analytic import Gain, linear_closed_form
from tests.evaluation.test_bounded_attack import SURE, WEIGHTS, Scripted, X, lengths, oracle_of
from tests.vision import vision

BETWEEN = np.array([4.0, 0, 0, 0, 0])  # some samples can be broken, some cannot


class Free(Search):
    """A search without a bound, so that steps can be measured."""

    def back(self, moved):
        return moved


def visited(values):
    oracle = Scripted([1] * 101, values)
    apgd(Free(oracle, "linf", 0.1, 101), cross_entropy, None, 100)
    return np.array(oracle.points)


def test_step_size_halves_at_every_checkpoint_if_the_loss_never_rises():
    points = visited([0.0] * 101)
    first, size = points[0], 0.2
    for checkpoint in (22, 41, 57, 70, 80, 87, 93, 99):  # of 100 steps, by the rule in the paper
        size /= 2  # and the search goes on from the highest point, the first
        step = 0.75 * size + 0.25 * (first - points[checkpoint - 1])
        np.testing.assert_allclose(points[checkpoint + 1] - first, step, atol=1e-5)


def test_step_size_stays_while_the_loss_rises():
    steps = np.diff(visited(list(range(101))))
    np.testing.assert_allclose(steps[0], 0.2, atol=1e-6)
    np.testing.assert_allclose(steps[1:], 0.75 * 0.2 + 0.25 * steps[:-1], atol=1e-5)  # momentum


def test_step_size_halves_if_the_highest_loss_does_not_change():
    points = visited([step % 7 for step in range(101)])  # rises in six of seven steps, to 6 and no further
    for checkpoint, size in ((22, 0.2), (41, 0.1), (57, 0.1), (70, 0.05)):  # never twice in a row
        at = points[6] if checkpoint in (41, 70) else points[checkpoint]
        step = 0.75 * size + 0.25 * (at - points[checkpoint - 1])
        np.testing.assert_allclose(points[checkpoint + 1] - at, step, atol=1e-5)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.4)])
def test_fab_of_a_linear_model_takes_the_shortest_way(norm, eps):
    x = np.float32(0.3) + 0.4 * X
    slope = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    classifier = linear_closed_form(WEIGHTS[:, :2], [3.6, 0])
    gap = 3.6 - x.astype(float) @ slope
    distance = gap / (np.abs(slope).sum() if norm == "linf" else np.linalg.norm(slope))
    oracle = oracle_of(classifier, x)
    search = Search(oracle, norm, eps, 100)
    search.look(oracle.x, cross_entropy, None)
    fab(search, np.ones(len(x), int), 20)
    left = np.isin(np.arange(len(x)), search.rows)
    sure = np.abs(distance / eps - 1) > 0.06  # it oversteps the boundary by 5%
    assert 0 < (distance < eps).sum() < len(x)
    np.testing.assert_array_equal(left[sure], (distance > eps)[sure])
    assert (lengths(search.best - x, norm) <= eps).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_standard_suite_of_a_linear_model(norm, monkeypatch):
    monkeypatch.setattr(module, "QUERIES", 50)
    monkeypatch.setattr(module, "STEPS", 20)
    eps = 0.1 if norm == "linf" else 0.3
    done = []
    oracle = oracle_of(linear_closed_form(WEIGHTS, BETWEEN), X)
    points = autoattack(oracle, norm=norm, eps=eps, on_step=done.append).x
    assert done == sorted(done)
    assert done[-1] == 1
    assert (lengths(points - X, norm) <= eps + 1e-6).all()
    assert points.min() >= 0
    assert points.max() <= 1
    if norm == "linf":  # where the optimum is a corner
        corners = np.stack(
            [np.clip(X + eps * np.sign(WEIGHTS[:, [k]] - WEIGHTS[:, [0]]).T, 0, 1) for k in range(1, 5)]
        )
        scores = corners @ WEIGHTS + BETWEEN
        breakable = (scores.argmax(axis=2) != 0).any(axis=0)
        assert 0 < breakable.sum() < len(X)
        np.testing.assert_array_equal(oracle.margin(points, np.arange(len(X))) < 0, breakable)
    alone = np.array([6, 3])
    part = oracle_of(linear_closed_form(WEIGHTS, BETWEEN), X[alone], numbers=alone)
    np.testing.assert_array_equal(autoattack(part, norm=norm, eps=eps).x, points[alone])


def test_rand_averages_over_twenty_draws(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 3)
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE), X[:2], defence=Gain(0.1))
    model = oracle.model
    autoattack(oracle, norm="linf", eps=0.1, version="rand")
    np.testing.assert_array_equal(oracle.backward, 20 * (1 + 2 * 4))
    assert oracle.model is model


def test_no_bound_no_attack():
    oracle = oracle_of(linear_closed_form(WEIGHTS, SURE), X)
    assert autoattack(oracle, norm="l2", eps=0.0).x is oracle.x


@pytest.mark.parametrize(
    ("wrong", "classes", "message"),
    [
        ({"norm": "l1"}, 5, "`norm`"),
        ({"version": "plus"}, 5, "`version`"),
        ({"eps": np.inf}, 5, "`eps`"),
        ({}, 3, "at least 4 classes, got 3"),
        ({"version": "rand"}, 2, "at least 3 classes, got 2"),
    ],
)
def test_refusals(wrong, classes, message):
    oracle = oracle_of(linear_closed_form(WEIGHTS[:, :classes], SURE[:classes]), X)
    with pytest.raises(ValueError, match=message):
        autoattack(oracle, **{"norm": "linf", "eps": 0.1, **wrong})


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.12)])
def test_agrees_with_the_packages_of_others(norm, eps, monkeypatch):
    torch = pytest.importorskip("torch")
    adv_lib, torchattacks = vision("adv_lib.attacks"), vision("torchattacks")
    from preshield.evaluation.torch_classifier import TorchClassifier

    monkeypatch.setattr(module, "QUERIES", 50)
    monkeypatch.setattr(module, "STEPS", 20)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Flatten(), torch.nn.Linear(36, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)]
        network = torch.nn.Sequential(*layers).eval()
        x = torch.rand(40, 1, 6, 6)
        with torch.no_grad():
            network[3].bias -= network(x).mean(dim=0)
        y = network(x).argmax(dim=1)
        common = {"eps": eps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "seed": 0}
        suite = [
            torchattacks.APGD(network, loss="ce", steps=20, **common),
            torchattacks.APGDT(network, n_classes=5, steps=20, **common),
            torchattacks.FAB(network, n_classes=5, steps=20, multi_targeted=True, **common),
            torchattacks.Square(network, n_queries=50, **common),
        ]
        left = np.arange(40)
        for attack in suite:
            left = left[(network(attack(x[left], y[left])).argmax(dim=1) == y[left]).numpy()]
        order = {"linf": float("inf"), "l2": 2}[norm]
        moved = adv_lib.apgd_targeted(network, x, y, eps, norm=order, n_iter=20)
        other = (network(moved).argmax(dim=1) == y).sum().item()
    classifier = TorchClassifier(network, nb_classes=5, input_shape=(1, 6, 6), of_probabilities=False)
    oracle = oracle_of(classifier, x.numpy(), y.numpy())
    points = autoattack(oracle, norm=norm, eps=eps).x
    ours = (network(points).argmax(dim=1) == y).sum().item()
    assert 0 < ours < 40
    assert abs(ours - len(left)) <= 1
    assert abs(ours - other) <= 1


def test_evaluate_refuses_it_before_any_attack_where_it_is_undefined():
    x = np.full((3, 4), 0.5, np.float32)
    scores = linear_closed_form(np.eye(4)[:, :3], np.zeros(3))
    options = {"attacks": "autoattack", "verbose": False}
    with pytest.raises(ArgumentError, match=r'`attacks="autoattack"` needs 4 classes or more, .* got 3'):
        evaluate(scores, x, [0, 1, 2], {}, threat="linf", eps=0.1, **options)
    with pytest.raises(ArgumentError, match=r'looks for perturbations within a bound; pass threat="linf"'):
        evaluate(scores, x, [0, 1, 2], {}, **options)
