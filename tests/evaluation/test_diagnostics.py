"""Each check is provoked on purpose, and all are silent where everything is honest."""

from dataclasses import replace

import numpy as np
import pytest

from preshield import Chain, FeatureSqueezing, RobustnessReport, TotalVarMin, evaluate
from preshield.evaluation.attacks import Attacker
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.diagnostics import diagnose, examine, window
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
    options = {"eps": EPS.get(threat), "eot": 4} | options
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
    assert fired(defence, threat, x=X[:12], budget=20) == (set(), set())


@EACH_THREAT
def test_masked_gradients(threat):
    none, it = fired(Masking(), threat)
    assert none == set()
    assert {GRADIENTS, BLACK_BOX, DIFFERENCES} <= it  # steps at random find something if they are unbounded
    assert (UNBOUNDED in it) == (threat == "l2-minimum")


def test_masked_gradients_of_a_photograph_classifier(task, torch_model):
    """A real network, with and without the mask."""
    from tests.evaluation.conftest import channels_first

    report = evaluate(
        torch_model,
        channels_first(task.x_test[::4]),
        task.y_test[::4],
        {"it": Masking()},
        threat="linf",
        eps=0.1,
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
    assert {DIFFERENCES, BLACK_BOX, UNBOUNDED} <= it
    assert GRADIENTS not in it


def test_noise():
    """With two features every fourth draw of the noise goes the right way; the gradient never does."""
    x = np.clip(LEVELS, 0, 1)[:, None] * np.ones(2)
    none, it = fired(Forger(), "linf", classifier=threshold((2,), slope=10), x=x.astype(np.float32))
    assert none == set()
    assert NOISE in it


class Crooked:
    """An attack of the user that moves every other value alone."""

    def __init__(self, classifier):
        self.classifier = classifier

    def generate(self, x, y):
        moved = x.copy()
        moved[..., ::2, :] += np.where(y[:, 1] == 1, -1, 1)[:, None, None, None]
        return moved


@EACH_THREAT
def test_single_step(threat):
    """The default attacks take such a step themselves; one of the user's is less direct."""
    pytest.importorskip("art")
    none, it = fired(Identity(), threat, attacks=Crooked, columns=["adaptive"])
    assert SINGLE_STEP in none
    assert SINGLE_STEP in it


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_changing_results(threat):
    none, it = fired(Secretive(), threat)
    assert none == set()
    assert CHANGES in it


@pytest.mark.filterwarnings("ignore:The classifier is right on 8 of 24")
def test_a_classifier_that_draws():
    rng = np.random.default_rng(0)
    none, _ = fired(None, "linf", classifier=lambda x: rng.random((len(x), 2)))
    assert none == {CHANGES}


def test_a_declared_draw_is_none():
    assert CHANGES not in fired(Gain(0.5), "linf")[1]


def test_optimisers():
    assert fired(Optimising(), "linf")[1] == {OPTIMISES}
    x = np.repeat(np.repeat(X[:2], 2, axis=1), 2, axis=2)
    classifier = threshold(x.shape[1:], slope=10)
    defences = {"alone": TotalVarMin(max_iter=2), "staged": Chain([Identity(), TotalVarMin(max_iter=2)])}
    report = evaluate(
        classifier, x, Y[:2], defences, threat="linf", eps=0.4, budget=1, verbose=False, columns=["adaptive"]
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


def curved(x):
    """Class 1 outside of a ball; a single linear step falls short of it."""
    squares = ((x - 0.5).reshape(len(x), -1) ** 2).sum(axis=1) - 1
    return np.stack([-squares, squares], axis=1)


def slopes(x):
    slope = 2 * (x - 0.5)
    return np.stack([-slope, slope], axis=1)


@pytest.mark.parametrize("budget", [2, 40])
def test_a_budget_that_is_too_small(budget):
    """Two gradients are too few for the nearest point of a ball, and forty are enough."""
    directions = np.random.default_rng(1).standard_normal((24, *SHAPE))
    lengths = np.where(Y, 1.3, 0.7) / np.sqrt((directions**2).sum(axis=(1, 2, 3)))
    x = np.clip(0.5 + directions * lengths[:, None, None, None], 0, 1).astype(np.float32)
    ball = Analytic(curved, slopes, SHAPE, 2)
    none, _ = fired(None, "l2-minimum", classifier=ball, x=x[:12], budget=budget, columns=["adaptive"])
    assert (MORE_STEPS in none) == (budget == 2)


class Late(Identity):
    """The gradient leads somewhere after so many gradients alone."""

    def __init__(self, blind=6):
        self.blind = blind
        self.asked = 0

    def _gradient(self, x, grad, draw):
        self.asked += 1
        return grad if self.asked > self.blind else np.zeros_like(grad)


def test_a_single_sample_that_more_gradients_break():
    """Each attack gets another gradient each time; the first one never gets to a good one."""
    assert MORE_STEPS in fired(Late(12), "linf", budget=10, eps=0.36, columns=["adaptive"])[1]
    assert MORE_STEPS not in fired(Late(0), "linf", budget=10, eps=0.36, columns=["adaptive"])[1]


# The checks that compare figures, with figures by hand

NONE = np.zeros(8)
BROKEN, KEPT = np.zeros(8), np.ones(8)
HALF = np.arange(8) % 2
ONE = (np.arange(8) == 3).astype(float)  # of the samples


def row(columns, evidence=None, **options):
    """Eight samples with the outcomes and the norms that are given for each column."""
    made = {
        name: Column(np.atleast_2d(outcomes).astype(np.int8), np.asarray(norms, float), "", 0.0)
        for name, (outcomes, norms) in {"clean": (KEPT, NONE), **columns}.items()
    }
    evidence = {"number": np.arange(8), **(evidence or {})}
    return RobustnessRow("it", None, made, 0.0, evidence=evidence, **options)


def found(columns, evidence=None, threat="linf", eps=0.4, **options):
    threat = Threat(threat, None if threat.endswith("minimum") else eps, (0.0, 1.0))
    return {d.check: d for d in diagnose(row(columns, evidence, **options), threat)}


def test_black_box_counts_the_samples_that_only_it_broke():
    columns = {"adaptive": (HALF, NONE + 0.4), "black-box": (BROKEN, NONE + 0.4)}
    message = found(columns)[BLACK_BOX].message
    assert message.startswith("the black-box attack broke 4 of 8 samples, which the adaptive attack did not")
    columns = {"adaptive": (HALF, NONE + 0.4), "transfer": (BROKEN, NONE), "black-box": (HALF, NONE)}
    assert found(columns)[BLACK_BOX].message.startswith("the transfer attack broke 4 of 8")
    assert BLACK_BOX not in found({"adaptive": (HALF, NONE), "black-box": (HALF, NONE)})
    assert BLACK_BOX not in found({"adaptive": (BROKEN, NONE), "oblivious": (HALF, NONE)})


@pytest.mark.parametrize("name", ["oblivious", "transfer", "shared", "black-box"])
def test_within_a_bound_a_single_sample_is_enough(name):
    """Of however many samples, and without draws, which may be lucky."""
    many = 400
    kept, one = np.ones(many), (np.arange(many) != 7).astype(float)
    columns = {"adaptive": (kept, np.zeros(many)), name: (one, np.zeros(many)), "clean": (kept, kept)}
    assert found(columns)[BLACK_BOX].message.startswith(f"the {name} attack broke 1 of 400 samples")
    drawn = {column: (np.stack([outcomes] * 2), norms) for column, (outcomes, norms) in columns.items()}
    assert BLACK_BOX not in found(drawn)
    columns[name] = (np.arange(many) >= 21, np.zeros(many))  # more than 5%
    drawn = {column: (np.stack([outcomes] * 2), norms) for column, (outcomes, norms) in columns.items()}
    assert BLACK_BOX in found(drawn)


def test_a_sample_that_is_wrong_on_some_draws_is_not_broken():
    adaptive = np.stack([BROKEN, KEPT])
    assert BLACK_BOX not in found({"adaptive": (adaptive, NONE), "black-box": (adaptive, NONE)})
    assert BLACK_BOX in found({"adaptive": (adaptive, NONE), "black-box": (0 * adaptive, NONE)})


@pytest.mark.parametrize(("fraction", "fires"), [(0.8, True), (0.95, False), (1.5, False)])
def test_black_box_compares_norms_where_the_smallest_is_sought(fraction, fires):
    columns = {"adaptive": (BROKEN, NONE + 2), "black-box": (BROKEN, NONE + fraction * 2)}
    assert (BLACK_BOX in found(columns, threat="l2-minimum")) == fires
    columns["black-box"] = (KEPT, NONE + fraction * 2)
    assert BLACK_BOX not in found(columns, threat="l2-minimum")


def test_rejection_is_no_success():
    assert BLACK_BOX not in found({"adaptive": (KEPT, NONE), "black-box": (-KEPT, NONE)})
    assert BLACK_BOX in found({"adaptive": (-KEPT, NONE), "black-box": (BROKEN, NONE)})


def test_noise_by_hand():
    assert NOISE in found({"adaptive": (KEPT, NONE), "noise": (HALF, NONE)})
    assert NOISE not in found({"adaptive": (HALF, NONE), "noise": (HALF, NONE)})
    smallest = {"adaptive": (BROKEN, NONE + 2), "noise": (HALF, NONE)}
    assert NOISE not in found(smallest, threat="l2-minimum")
    assert NOISE in found(smallest | {"noise": ((np.arange(8) < 3), NONE)}, threat="l2-minimum")
    wrong = {"clean": (ONE == 0, NONE), "adaptive": (ONE == 0, NONE), "noise": (1 - ONE, NONE)}
    assert NOISE not in found(wrong)  # without any noise


def test_more_effort_by_hand():
    """One sample more within a bound; the median norm where the smallest is sought."""
    kept = {"adaptive": (KEPT, NONE + 0.4)}
    message = found(kept, {"effort": 1 - ONE})[MORE_STEPS].message
    assert "twice the gradients take the accuracy of 8 samples from 1 to 0.875. Raise budget" in message
    assert MORE_STEPS not in found(kept, {"effort": KEPT})
    assert MORE_STEPS not in found({"adaptive": (1 - ONE, NONE)}, {"effort": KEPT})  # luck of the first
    assert MORE_STEPS not in found({"adaptive": (1 - ONE, NONE)}, {"effort": 1 - ONE})
    smallest = {"adaptive": (BROKEN, NONE + 2)}
    for norm, fires in ((0.94, True), (0.96, False), (1.2, False)):
        evidence = {"effort": NONE + 2 * norm}
        assert (MORE_STEPS in found(smallest, evidence, "l2-minimum")) == fires
    failed = {"adaptive": (KEPT, NONE + np.inf)}
    assert MORE_STEPS in found(failed, {"effort": NONE + 2}, "l2-minimum")
    assert MORE_STEPS not in found(failed, {"effort": NONE + np.inf}, "l2-minimum")


def test_more_effort_of_draws_by_hand():
    """Shares of draws vary by chance: ten points are needed."""
    drawn = {"adaptive": (np.ones((4, 8)), NONE)}
    assert MORE_STEPS not in found(drawn, {"effort": KEPT - 0.09})
    assert "Raise budget until" in found(drawn, {"effort": KEPT - 0.11})[MORE_STEPS].message


def test_samples_that_are_wrong_anyway_are_not_compared():
    """Their evidence is not a number."""
    evidence = {"effort": np.where(ONE, np.nan, 1), "unbounded": np.where(ONE, np.nan, 0)}
    columns = {"clean": (1 - ONE, NONE), "adaptive": (1 - ONE, NONE)}
    assert found(columns, evidence) == {}
    evidence["effort"][0] = 0
    assert "of 7 samples" in found(columns, evidence)[MORE_STEPS].message


def test_too_few_draws_by_hand():
    """More than a quarter of the fresh draws are right, of samples that the attack broke."""
    third = (np.arange(8) < 3).astype(int)
    effort = {"effort": NONE + 2}
    assert FEW_DRAWS in found({"adaptive": (third, NONE + 2)}, effort, "l2-minimum")
    assert FEW_DRAWS not in found({"adaptive": (np.arange(8) < 2, NONE + 2)}, effort, "l2-minimum")
    failed = np.where(third, np.inf, 2)  # where it failed, it did not claim to have broken anything
    assert FEW_DRAWS not in found({"adaptive": (third, failed)}, effort, "l2-minimum")
    assert FEW_DRAWS not in found({"adaptive": (third, NONE + 0.4)}, {"effort": third})


def test_single_step_by_hand():
    evidence = {"single step": ONE}
    assert SINGLE_STEP in found({"adaptive": (KEPT, NONE + 0.4)}, evidence)
    assert SINGLE_STEP not in found({"adaptive": (BROKEN, NONE + 0.4)}, evidence)
    assert SINGLE_STEP not in found({"adaptive": (KEPT, NONE + 0.4)}, {"single step": NONE})
    assert SINGLE_STEP in found({"adaptive": (BROKEN, NONE + 2)}, evidence, "l2-minimum")


@pytest.mark.parametrize(
    ("name", "check", "least"),
    [("unbounded", UNBOUNDED, 1), ("useless", GRADIENTS, 1), ("rising", DIFFERENCES, 5)],
)
def test_shares_of_the_examined_samples(name, check, least):
    kept = {"adaptive": (KEPT, NONE)}
    assert check in found(kept, {name: np.arange(8) < least})
    assert check not in found(kept, {name: np.arange(8) < least - 1})


def test_all_samples_that_no_attack_moves_count_where_the_smallest_is_sought():
    columns = {"adaptive": (ONE, np.where(ONE, np.inf, 2))}
    assert UNBOUNDED in found(columns, {"unbounded": NONE}, "l2-minimum")
    assert UNBOUNDED not in found({"adaptive": (BROKEN, NONE + 2)}, {"unbounded": NONE}, "l2-minimum")
    assert UNBOUNDED not in found(columns, {}, "l2-minimum")  # nobody looked: an attack of the user


def test_nothing_to_compare():
    """No gradients, a bound of zero: what cannot be judged is not."""
    bad = {"adaptive": (KEPT, NONE), "black-box": (BROKEN, NONE), "noise": (BROKEN, NONE)}
    signs = dict.fromkeys(("useless", "rising", "unbounded", "single step", "changed"), KEPT)
    assert set(found(bad, signs)) == {
        BLACK_BOX,
        NOISE,
        GRADIENTS,
        DIFFERENCES,
        UNBOUNDED,
        SINGLE_STEP,
        CHANGES,
    }
    assert set(found(bad, signs, white_box=False)) == {CHANGES}
    assert set(found(bad, signs, eps=0.0)) == {CHANGES}
    assert set(found(bad)) == {BLACK_BOX, NOISE}


# What is looked at

DISTANCE = 0.2 * SIZE**0.5  # of a grey of 0.7 from the boundary


def looked(columns, threat="linf", eps=0.4, defence=None, wrong=(), **changes):
    """Evidence of eight grey samples of class 1, those that are wrong without an attack named."""
    x, y = np.full((8, *SHAPE), 0.7, np.float32), np.ones(8, int)
    clean = np.isin(np.arange(8), wrong, invert=True)
    y[~clean] = 0
    model = DefendedModel(
        threshold(SHAPE, slope=10), defence, clip_values=(0.0, 1.0), nb_classes=2, input_shape=SHAPE
    )
    attacker = Attacker(Threat(threat, None if threat.endswith("minimum") else eps, (0.0, 1.0)), 20, None, 0)
    about = replace(row({"clean": (clean, NONE), **columns}), evidence={}, **changes)
    return examine(about, [model], attacker, x, y, np.arange(100, 108))


def test_only_samples_that_are_right_are_looked_at():
    evidence = looked({"adaptive": (KEPT, NONE)}, wrong=[2, 5])
    np.testing.assert_array_equal(evidence["number"], np.arange(100, 108))
    for name in ("unbounded", "effort", "single step", "useless", "rising", "probabilities"):
        np.testing.assert_array_equal(np.isnan(evidence[name]), np.isin(np.arange(8), [2, 5]))
    assert set(looked({"adaptive": (KEPT, NONE)}, wrong=range(8))) == {"number", "changed"}
    assert set(looked({"adaptive": (KEPT, NONE)}, white_box=False)) == {"number", "changed"}
    assert set(looked({"adaptive": (KEPT, NONE)}, eps=0.0)) == {"number", "changed"}


def test_an_honest_gradient_by_hand():
    evidence = looked({"adaptive": (BROKEN, NONE + 0.4)})
    for name in ("unbounded", "effort", "useless", "rising", "probabilities", "changed"):
        np.testing.assert_array_equal(evidence[name], 0)
    np.testing.assert_array_equal(evidence["single step"], 1)
    np.testing.assert_array_equal(looked({"adaptive": (BROKEN, NONE)}, eps=0.19)["single step"], 0)
    smallest = looked({"adaptive": (BROKEN, NONE + DISTANCE)}, "l2-minimum")
    np.testing.assert_allclose(smallest["effort"], DISTANCE, rtol=0.01)
    np.testing.assert_array_equal(smallest["unbounded"], 0)
    np.testing.assert_array_equal(looked({"adaptive": (KEPT, NONE + np.inf)}, "l2-minimum")["unbounded"], 1)


@pytest.mark.parametrize(("norm", "beaten"), [(1.2, 1), (1.04, 0)])
def test_a_single_step_is_given_less_than_the_attack_needed(norm, beaten):
    evidence = looked({"adaptive": (BROKEN, NONE + norm * DISTANCE)}, "l2-minimum")
    np.testing.assert_array_equal(evidence["single step"], beaten)


@pytest.mark.parametrize(
    ("defence", "useless", "rising"), [(Masking(), 1, 1), (NoGradient(), 1, 1), (Forger(), 0, 1)]
)
def test_gradients_that_lead_nowhere(defence, useless, rising):
    evidence = looked({"adaptive": (KEPT, NONE)}, defence=defence)
    np.testing.assert_array_equal(evidence["useless"], useless)
    np.testing.assert_array_equal(evidence["rising"], rising)
    np.testing.assert_array_equal(evidence["single step"], 0)


@pytest.mark.parametrize("threat", EPS)
def test_the_checks_of_shards_are_those_of_one_run(threat):
    """The samples that are examined lie in several of them, and the last one holds none."""
    x, y = np.concatenate([X, X]), np.concatenate([Y, Y])
    options = {"threat": threat, "eps": EPS[threat], "budget": 3, "eot": 2, "verbose": False}

    def run(a, b):
        classifier = threshold(SHAPE, slope=10)
        defences = {"masked": Masking(), "forged": Forger(), "honest": Identity()}
        return evaluate(classifier, x[a:b], y[a:b], defences, first=a, **options)

    whole = run(0, 48)
    merged = RobustnessReport.merge([run(a, b) for a, b in ((0, 5), (5, 38), (38, 48))])
    assert [(d.row, d.check, d.message) for d in merged.diagnostics] == [
        (d.row, d.check, d.message) for d in whole.diagnostics
    ]
    assert {d.row for d in whole.diagnostics} >= {"masked", "forged"}
    seen = window(whole.threat)
    for row_ in merged.rows:
        np.testing.assert_array_equal(row_.examined, np.arange(seen))
        for name, values in row_.evidence.items():
            np.testing.assert_allclose(values, whole[row_.name].evidence[name], rtol=1e-4)


def test_attacks_of_the_user_are_not_told_to_take_more_steps_or_go_further():
    """They have bounds and steps of their own."""
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod

    def short(classifier):
        return FastGradientMethod(classifier, eps=0.01)

    for threat in ("l2-minimum", "linf"):
        none, it = fired(Identity(), threat, attacks=short, columns=["adaptive"])
        assert not {UNBOUNDED, MORE_STEPS} & (none | it)


def test_three_classes():
    weights = np.random.default_rng(1).standard_normal((SIZE, 3))
    classifier = linear(weights, -weights.sum(axis=0) / 2, SHAPE)
    y = classifier.scores(X).argmax(axis=1)
    for threat, eps in EPS.items():
        report = evaluate(classifier, X, y, [Identity()], threat=threat, eps=eps, budget=30, verbose=False)
        assert report.diagnostics == ()
