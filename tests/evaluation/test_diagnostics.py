"""Each check is provoked on purpose, and all are silent where everything is honest."""

from dataclasses import replace

import numpy as np
import pytest

from preshield import Chain, FeatureSqueezing, TotalVarMin

pytest.importorskip("art")

from preshield.evaluation.estimator import DefendedClassifier

from preshield import evaluate
from preshield.evaluation.attacks import Attacker
from preshield.evaluation.diagnostics import Evidence, diagnose
from preshield.evaluation.report import Column, RobustnessRow, Threat
from tests.evaluation.analytic import (
    Analytic,
    Forger,
    Gain,
    Identity,
    Masking,
    NoGradient,
    Optimising,
    Secretive,
    linear,
    softmax,
    threshold,
)

CHANGES = "results change between runs"
OPTIMISES = "optimises at test time"
SOFTMAX = "softmax instead of logits"
BLACK_BOX = "black-box beats white-box"
NOISE = "noise beats the attack"
SINGLE_STEP = "a single step beats the iterative attack"
UNBOUNDED = "an unbounded attack does not reach zero"
MORE_STEPS = "more iterations still help"
FEW_DRAWS = "too few draws"
GRADIENTS = "zero or non-finite gradients"
DIFFERENCES = "gradient far from finite differences"

SHAPE = (4, 4, 3)
SIZE = 48
RNG = np.random.default_rng(0)
Y = np.arange(24) % 2
LEVELS = np.where(Y, 0.5, 0) + RNG.uniform(0.15, 0.35, 24)
X = (LEVELS[:, None, None, None] + RNG.uniform(-0.1, 0.1, (24, *SHAPE))).astype(np.float32)
EPS = {"l2-minimum": None, "linf": 0.4, "l2": 0.4 * SIZE**0.5}
EACH_THREAT = pytest.mark.parametrize("threat", EPS)


def fired(defence, threat, *, classifier=None, x=X, budget=30, **options):
    """Names of the checks that fired for a defence; those of the undefended classifier are returned too."""
    defences = {} if defence is None else {"it": defence}
    classifier = threshold(SHAPE, slope=10) if classifier is None else classifier
    options = {"eps": EPS[threat], "eot": 4} | options
    report = evaluate(
        classifier, x, Y[: len(x)], defences, threat=threat, budget=budget, verbose=False, **options
    )
    rows = {row.name: {d.check for d in report.diagnostics if d.row == row.name} for row in report.rows}
    for diagnostic in report.diagnostics:
        assert diagnostic.message
        assert " et al. 20" in diagnostic.source
        assert str(diagnostic) in str(report)
    return rows["none"], rows.get("it", set())


@EACH_THREAT
@pytest.mark.parametrize(
    "defence",
    [
        Identity(),
        FeatureSqueezing((0, 1), 6),
        FeatureSqueezing((0, 1), 6, gradient="soft"),
        Chain([Identity(), FeatureSqueezing((0, 1), 6)]),
        Gain(0.05),
    ],
    ids=["identity", "squeeze", "soft", "chain", "gain"],
)
def test_silent_where_everything_is_honest(defence, threat):
    assert fired(defence, threat) == (set(), set())


@EACH_THREAT
def test_masked_gradients(threat):
    none, it = fired(Masking(), threat)
    assert none == set()
    assert {GRADIENTS, BLACK_BOX, UNBOUNDED} <= it
    assert len(it) >= 3


@EACH_THREAT
def test_masked_gradients_of_a_photograph_classifier(threat, task, torch_model):
    """A real network, with and without the mask."""
    from tests.evaluation.conftest import channels_first

    report = evaluate(
        torch_model,
        channels_first(task.x_test[::4]),
        task.y_test[::4],
        {"it": Masking()},
        threat=threat,
        eps={"l2-minimum": None, "linf": 0.1, "l2": 3.0}[threat],
        budget=15,
        verbose=False,
    )
    checks = {row: {d.check for d in report.diagnostics if d.row == row} for row in ("none", "it")}
    assert checks["none"] == set()
    assert len(checks["it"]) >= 3
    assert GRADIENTS in checks["it"]


@EACH_THREAT
def test_gradients_that_are_not_finite(threat):
    none, it = fired(NoGradient(), threat)
    assert none == set()
    assert GRADIENTS in it


def test_one_gradient_that_leads_somewhere_is_enough():
    class Either(Masking):
        gradients = ("nothing", "honest")

        def __init__(self, gradient="nothing"):
            self.gradient = gradient

        def _gradient(self, x, grad, draw):
            return grad if self.gradient == "honest" else np.zeros_like(grad)

    assert fired(Either(), "linf") == (set(), set())


@EACH_THREAT
def test_gradients_that_point_the_other_way(threat):
    none, it = fired(Forger(), threat)
    assert none == set()
    assert DIFFERENCES in it
    assert BLACK_BOX in it
    assert GRADIENTS not in it


def test_noise():
    """With two features every fourth draw of the noise goes the right way; the gradient never does."""
    x = np.clip(LEVELS, 0, 1)[:, None] * np.ones(2)
    none, it = fired(Forger(), "linf", classifier=threshold((2,), slope=10), x=x.astype(np.float32))
    assert none == set()
    assert NOISE in it


class Rugged(Identity):
    """Honest where every value is a multiple of 1/16, and nowhere else."""

    def _gradient(self, x, grad, draw):
        on_grid = (x * 16 == np.round(x * 16)).all(axis=tuple(range(1, x.ndim)), keepdims=True)
        return np.where(on_grid, grad, -grad)


@EACH_THREAT
def test_single_step(threat):
    none, it = fired(Rugged(), threat, x=np.round(X * 16) / np.float32(16))
    assert none == set()
    assert SINGLE_STEP in it


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_changing_results(threat):
    none, it = fired(Secretive(), threat)
    assert none == set()
    assert CHANGES in it


def test_a_classifier_that_draws():
    rng = np.random.default_rng(0)
    none, _ = fired(None, "linf", classifier=lambda x: rng.random((len(x), 2)))
    assert none == {CHANGES}


def test_a_declared_draw_is_none():
    assert CHANGES not in fired(Gain(0.5), "linf")[1]


def test_optimisers():
    assert fired(Optimising(), "linf")[1] == {OPTIMISES}
    x = np.repeat(np.repeat(X, 2, axis=1), 2, axis=2)
    classifier = threshold(x.shape[1:], slope=10)
    defences = {"alone": TotalVarMin(max_iter=2), "staged": Chain([Identity(), TotalVarMin(max_iter=2)])}
    report = evaluate(
        classifier, x, Y, defences, threat="linf", eps=0.4, budget=3, verbose=False, columns=["adaptive"]
    )
    assert {d.row for d in report.diagnostics if d.check == OPTIMISES} == set(defences)


@EACH_THREAT
def test_softmax(threat):
    logits = threshold(SHAPE, slope=4)

    def jacobian(x):
        p = softmax(logits.scores(x))
        inner = np.einsum("nk,kj->nkj", p, np.eye(2)) - p[:, :, None] * p[:, None]
        return np.einsum("nkj,nj...->nk...", inner, logits.jacobian(x))

    probabilities = Analytic(lambda x: softmax(logits.scores(x)), jacobian, SHAPE, 2)
    none, it = fired(Identity(), threat, classifier=probabilities)
    assert none == {SOFTMAX}
    assert it == set()  # said once, of the classifier


def test_more_steps():
    """One step covers too little of the way, two enough; thirty leave nothing to gain."""
    x = np.full((12, *SHAPE), 0.55, np.float32)
    x[::2] = 0.45
    assert MORE_STEPS in fired(None, "l2-minimum", x=x, budget=1)[0]
    assert fired(None, "l2-minimum", x=x)[0] == set()


# The checks that compare figures, with figures by hand

NONE = np.zeros(8)


def evidence(columns, threat="linf", eps=0.4, defence=None, **changes):
    """Eight samples of class 1 with the outcomes and the norms that are given for each column."""
    level = 0.7
    x = np.full((8, *SHAPE), level, np.float32)
    made = {
        name: Column(np.atleast_2d(outcomes).astype(np.int8), np.asarray(norms, float), "", 0.0)
        for name, (outcomes, norms) in {"clean": (np.ones(8), NONE), **columns}.items()
    }
    row = RobustnessRow("it", None, made, 0.0)
    model = DefendedClassifier(
        threshold(SHAPE, slope=10),
        defence,
        clip_values=(0.0, 1.0),
        nb_classes=2,
        input_shape=SHAPE,
    )
    attacker = Attacker(Threat(threat, eps, (0.0, 1.0)), 20, None, 0)
    whole = Evidence(row, [model], attacker, x, np.ones(8, int), np.arange(8), True, True)
    return {d.check: d for d in diagnose(replace(whole, **changes))}


DISTANCE = 0.2 * SIZE**0.5
BROKEN, KEPT = np.zeros(8), np.ones(8)
HALF = np.arange(8) % 2


def test_black_box_counts_the_samples_that_only_it_broke():
    columns = {"adaptive": (HALF, NONE + 0.4), "black-box": (BROKEN, NONE + 0.4)}
    found = evidence(columns)
    assert found[BLACK_BOX].message.startswith("the black-box attack broke 50% of the samples")
    found = evidence({"adaptive": (HALF, NONE + 0.4), "transfer": (BROKEN, NONE), "black-box": (HALF, NONE)})
    assert found[BLACK_BOX].message.startswith("the transfer attack broke 50%")
    assert BLACK_BOX not in evidence({"adaptive": (HALF, NONE), "black-box": (HALF, NONE)})
    assert BLACK_BOX not in evidence({"adaptive": (BROKEN, NONE), "oblivious": (HALF, NONE)})


@pytest.mark.parametrize(("fraction", "fires"), [(0.8, True), (0.95, False), (1.5, False)])
def test_black_box_compares_norms_where_the_smallest_is_sought(fraction, fires):
    adaptive = (BROKEN, NONE + DISTANCE)
    columns = {"adaptive": adaptive, "black-box": (BROKEN, NONE + fraction * DISTANCE)}
    assert (BLACK_BOX in evidence(columns, "l2-minimum")) == fires
    columns = {"adaptive": adaptive, "black-box": (KEPT, NONE + fraction * DISTANCE)}
    assert BLACK_BOX not in evidence(columns, "l2-minimum")


def test_rejection_is_no_success():
    columns = {"adaptive": (KEPT, NONE), "black-box": (-KEPT, NONE)}
    found = evidence(columns)
    assert BLACK_BOX not in found


def test_noise_by_hand():
    assert NOISE in evidence({"adaptive": (KEPT, NONE), "noise": (HALF, NONE)})
    assert NOISE not in evidence({"adaptive": (HALF, NONE), "noise": (HALF, NONE)})
    smallest = {"adaptive": (BROKEN, NONE + DISTANCE), "noise": (HALF, NONE)}
    assert NOISE not in evidence(smallest, "l2-minimum")
    assert NOISE in evidence(smallest | {"noise": ((np.arange(8) < 3), NONE)}, "l2-minimum")


def test_more_steps_by_hand():
    """The attack with twice the steps breaks everything."""
    assert MORE_STEPS in evidence({"adaptive": (HALF, NONE + 0.4)})
    assert MORE_STEPS not in evidence({"adaptive": (BROKEN, NONE + 0.4)})
    assert MORE_STEPS in evidence({"adaptive": (BROKEN, NONE + 1.2 * DISTANCE)}, "l2-minimum")
    assert MORE_STEPS not in evidence({"adaptive": (BROKEN, NONE + 1.05 * DISTANCE)}, "l2-minimum")


def test_too_few_draws_by_hand():
    """More than a quarter of the fresh draws are right, of samples that the attack broke."""
    third = (np.arange(8) < 3).astype(int)
    assert FEW_DRAWS in evidence({"adaptive": (third, NONE + DISTANCE)}, "l2-minimum")
    assert FEW_DRAWS not in evidence({"adaptive": (np.arange(8) < 2, NONE + DISTANCE)}, "l2-minimum")
    failed = np.where(third, np.inf, DISTANCE)  # where it failed, it did not claim to have broken anything
    assert FEW_DRAWS not in evidence({"adaptive": (third, failed)}, "l2-minimum")
    assert FEW_DRAWS not in evidence({"adaptive": (third, NONE + 0.4)})


def test_single_step_by_hand():
    assert SINGLE_STEP in evidence({"adaptive": (KEPT, NONE + 0.4)})
    assert SINGLE_STEP not in evidence({"adaptive": (BROKEN, NONE + 0.4)})
    assert SINGLE_STEP not in evidence({"adaptive": (KEPT, NONE + 0.1)}, eps=0.1)
    for norm, fires in ((1.2, True), (1.05, False)):
        columns = {"adaptive": (BROKEN, NONE + norm * DISTANCE)}
        assert (SINGLE_STEP in evidence(columns, "l2-minimum")) == fires
    failed = {"adaptive": (KEPT, NONE + np.inf)}
    assert SINGLE_STEP in evidence(failed, "l2-minimum", eps=2 * DISTANCE)
    assert SINGLE_STEP not in evidence(failed, "l2-minimum", eps=0.5 * DISTANCE)


def test_nothing_to_compare():
    """No gradients, a bound of zero, no sample that is right: what cannot be judged is not."""
    bad = {"adaptive": (KEPT, NONE), "black-box": (BROKEN, NONE), "noise": (BROKEN, NONE)}
    assert evidence(bad, defence=Masking()) != {}
    assert evidence(bad, defence=Masking(), white=False) == {}
    assert evidence(bad, defence=Masking(), eps=0.0) == {}
    empty = {"x": np.zeros((0, *SHAPE), np.float32), "y": np.zeros(0, int), "numbers": np.zeros(0, int)}
    assert set(evidence(bad, defence=Masking(), **empty)) == {BLACK_BOX, NOISE}
    assert set(evidence({"adaptive": (KEPT, NONE)}, white=False, repeated=False)) == {CHANGES}


def test_attacks_of_the_user_are_not_told_to_take_more_steps_or_go_further():
    """They have bounds and steps of their own."""
    from art.attacks.evasion import FastGradientMethod

    def short(classifier):
        return FastGradientMethod(classifier, eps=0.01)

    for threat in EPS:
        none, it = fired(Identity(), threat, attacks=short, columns=["adaptive"])
        assert not {UNBOUNDED, MORE_STEPS} & (none | it)


def test_three_classes():
    weights = np.random.default_rng(1).standard_normal((SIZE, 3))
    classifier = linear(weights, -weights.sum(axis=0) / 2, SHAPE)
    y = classifier.scores(X).argmax(axis=1)
    for threat, eps in EPS.items():
        report = evaluate(classifier, X, y, [Identity()], threat=threat, eps=eps, budget=30, verbose=False)
        assert report.diagnostics == ()
