import numpy as np
import pytest

from preshield import FeatureSqueezing, GaussianAugmentation, MajorityVote, curve, evaluate

pytest.importorskip("art")

from preshield.evaluation.report import Curve
from tests.evaluation.analytic import Gain, Identity, threshold

SHAPE = (4, 4, 3)
Y = np.arange(10) % 2
OFFSETS = np.linspace(0.05, 0.45, 10)  # of the mean, from the boundary
X = (0.5 + np.where(Y, 1, -1) * OFFSETS)[:, None, None, None] * np.ones(SHAPE, np.float32)


def drawn(defences, parameter, values, **options):
    options = {"budget": 30, "verbose": False} | options
    return curve(threshold(SHAPE, slope=10), X, Y, defences, parameter, values, **options)


@pytest.mark.parametrize("threat", ["linf", "l2", "l2-minimum"])
def test_eps_against_the_distances(threat):
    values = [0, 0.1, 0.22, 0.5]
    scale = 1 if threat == "linf" else 48**0.5
    options = {} if threat == "linf" else {"threat": threat}  # the default
    found = drawn([Identity()], "eps", [scale * value for value in values], **options)
    assert isinstance(found, Curve)
    assert (found.parameter, found.column) == ("eps", "worst case")
    assert found.values == tuple(scale * value for value in values)
    expected = tuple(float((value < OFFSETS).mean()) for value in values)
    assert found.accuracy == {"none": expected, "Identity": expected}


def test_more_is_never_better_for_the_defender():
    found = drawn([FeatureSqueezing((0, 1), 4)], "eps", np.linspace(0, 4, 9), threat="l2-minimum")
    for accuracy in found.accuracy.values():
        assert list(accuracy) == sorted(accuracy, reverse=True)
        assert accuracy[0] == 1
        assert accuracy[-1] == 0


def test_budget():
    """Steps grow by a fifth: how far n of them go is known."""
    found = drawn({}, "budget", [1, 12, 30], threat="l2-minimum")
    assert found.values == (1, 12, 30)
    few, some, many = found.accuracy["none"]
    assert few == 1
    assert many == 0
    assert few >= some >= many


def test_draws():
    found = drawn([Gain(0.1)], "eot", [1, 2], threat="linf", eps=0.2)
    assert found.parameter == "eot"
    assert set(found.accuracy) == {"none", "Gain"}
    assert found.accuracy["none"] == (float((OFFSETS > 0.2).mean()),) * 2
    assert all(0 <= value <= 1 for value in found.accuracy["Gain"])


@pytest.mark.parametrize(
    ("parameter", "values", "options"),
    [
        ("eot", [1, 3], {"columns": ["noise", "oblivious", "transfer", "adaptive"]}),
        ("eot", [2, 1], {"threat": "linf", "eps": 0.2}),
        ("budget", [4, 8], {"eot": 2}),
        ("eps", [0.1, 0.3], {"eot": 2, "threat": "linf"}),
    ],
)
def test_the_figures_are_those_of_single_evaluations(parameter, values, options):
    options = {"columns": ["oblivious", "adaptive"], "budget": 8} | options
    options["surrogate"] = threshold(SHAPE, level=0.45)
    found = drawn([Gain(0.2), Identity()], parameter, values, **options)
    for place, value in enumerate(values):
        single = options | {parameter: value, "verbose": False}
        report = evaluate(threshold(SHAPE, slope=10), X, Y, [Gain(0.2), Identity()], **single)
        assert {name: accuracy[place] for name, accuracy in found.accuracy.items()} == {
            row.name: row.worst_case for row in report.rows
        }


def test_a_classifier_that_draws_is_attacked_anew_for_each_number_of_draws():
    noise = GaussianAugmentation(0.3, augmentation=False, apply_predict=True)
    options = {"threat": "linf", "eps": 0.2, "columns": ["oblivious"], "budget": 6, "verbose": False}

    def asked(run, *arguments, **more):
        model = threshold(SHAPE, slope=10)
        run(MajorityVote(model, [None, noise, noise]), X, Y, {}, *arguments, **options, **more)
        return model.differentiated

    assert asked(curve, "eot", [1, 3]) == asked(evaluate, eot=1) + asked(evaluate, eot=3) > 0


def test_nothing_is_attacked_that_nobody_sees():
    def asked(parameter, values, **options):
        model = threshold(SHAPE, slope=10)
        curve(model, X, Y, {}, parameter, values, verbose=False, **options)
        return model.differentiated

    once = threshold(SHAPE, slope=10)  # without the adaptive column there are no diagnostics
    evaluate(once, X, Y, {}, columns=["oblivious"], budget=5, verbose=False)
    assert asked("budget", [5]) == once.differentiated > 0
    assert asked("eot", [1, 2, 4], budget=5) == once.differentiated  # the undefended classifier draws nothing
    assert asked("budget", [5, 5]) == 2 * once.differentiated


def test_refusals():
    with pytest.raises(ValueError, match="`parameter` must be one of 'eps', 'budget', 'eot', got 'steps'"):
        drawn({}, "steps", [1])
    with pytest.raises(ValueError, match="`values` must hold at least one value, got none"):
        drawn({}, "eps", [])
    with pytest.raises(ValueError, match="`eps` must be at least 0, got -1"):
        drawn({}, "eps", [-1])
    with pytest.raises(ValueError, match="`budget` must be at least 1, got 0"):
        drawn({}, "budget", [0])
    with pytest.raises(ValueError, match="`eps` must be at least 0, got -1"):
        drawn({}, "eps", [1, -1], threat="l2-minimum")
    with pytest.raises(TypeError, match="unexpected keyword argument 'draws'"):
        drawn({}, "budget", [1], draws=2)
    with pytest.raises(TypeError, match="`verbose` must be"):
        drawn({}, "budget", [1], verbose=None)


class Impatient(Identity):
    """Interrupt the work at a given pass."""

    def __init__(self, passes):
        self.passes = passes

    def _transform(self, x, draw):
        self.passes[0] -= 1
        if self.passes[0] == 0:
            raise KeyboardInterrupt
        return x


def test_an_interrupt_ends_the_curve_with_the_values_that_are_finished():
    options = {"threat": "l2-minimum", "columns": []}
    passes = [10**9]
    drawn([Impatient(passes)], "budget", [1], **options)
    each = 10**9 - passes[0]
    found = drawn([Impatient([2 * each + each // 2])], "budget", [1, 2, 3, 4], **options)
    assert found.values == (1, 2)
    assert [len(accuracy) for accuracy in found.accuracy.values()] == [2, 2]
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        drawn([Impatient([each // 2])], "budget", [1, 2], **options)
