import numpy as np
import pytest

from preshield import plots
from preshield.evaluation.report import Curve
from preshield.evaluation.roc import roc
from tests.plots.helpers import report


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_accuracies():
    found = report()
    ax = plots.accuracies(found)
    lines = {line.get_label(): line.get_xdata() for line in ax.lines}
    np.testing.assert_allclose(lines["worst case"], [0, 0.1, 0.3])
    np.testing.assert_allclose(lines["clean"], [0.9, 0.85, 0.8])
    np.testing.assert_allclose(lines["oblivious"], [np.nan, 0.6, 0.7])
    np.testing.assert_allclose(lines["adaptive"], [0, 0.1, np.nan])
    (spans,) = ax.collections
    np.testing.assert_allclose([s[:, 0] for s in spans.get_segments()], [(0, 0.9), (0.1, 0.85), (0.3, 0.8)])
    assert texts(ax) == ["worst\ncase", "0.00", "0.10", "0.30", "norm\nratio", "1.0×", "2.0×", "3.0×"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["undefended", "JpegCompression,\nquality=50, subsampling 2", "median"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is above
    assert texts(plots.accuracies(report(minimum=False))) == ["worst\ncase", "0.00", "0.10", "0.30"]


def test_curve_draws_each_row(rng):
    accuracy = {f"row {k}": tuple(rng.uniform(size=3)) for k in range(9)}
    ax = plots.curve(Curve("quality", (10, 50, 90), accuracy, "worst case"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("quality", "Accuracy (worst case)")
    assert ax.get_xscale() == "linear"
    assert ax.get_ylim() == (0, 1)
    for line, (name, values) in zip(ax.lines, accuracy.items(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.transpose([(10, 50, 90), values]))
        assert line.get_label() == name
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(accuracy)
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(looks) >= 8  # told apart without colour
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 9


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1, 2, 4, 8, 16, 32, 64), "log"),
        ((0, 0.001, 0.01, 0.1, 1), "symlog"),
        (tuple(np.linspace(0, 2, 101)), "linear"),
        ((10, 25, 50, 75, 90), "linear"),
        ((-1, 0.001, 0.01, 100), "linear"),
        ((0, 1), "linear"),
    ],
)
def test_values_that_crowd_get_a_logarithmic_axis(values, scale):
    ax = plots.curve(Curve("eps", values, {"none": (0.5,) * len(values)}, "adaptive"))
    assert ax.get_xscale() == scale
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), values)


@pytest.mark.parametrize("values", [("none", "JpegCompression"), (True, False), (None, 3), (1, float("inf"))])
def test_values_that_are_no_numbers_stand_side_by_side(values):
    ax = plots.curve(Curve("removed", values, {"chain": (0.5, 0.1)}, "adaptive"))
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1])
    labels = [label.get_text().replace("-\n", "") for label in ax.get_xticklabels()]
    assert labels == list(map(str, values))


def test_empty_curve():
    with pytest.raises(ValueError, match="`curve` must hold values and rows, got 0 and 1"):
        plots.curve(Curve("eps", (), {"none": ()}, "adaptive"))


def test_roc():
    found = roc(clean=[0.2, 0.6, 0.9], attacked=[0.1, 0.2])
    ax = plots.roc(found)
    guess, line = ax.lines
    np.testing.assert_array_equal(guess.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(line.get_xydata(), np.transpose([found.fpr, found.tpr]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["area 0.92"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Clean samples reported", "Attacked samples reported")
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)
    named = plots.roc({"FGSM": found, "PGD": roc([0.5], [0.1])})
    texts = [text.get_text() for text in named.get_legend().get_texts()]
    assert texts == ["FGSM, area 0.92", "PGD, area 1.00"]
    assert len({(line.get_color(), line.get_linestyle()) for line in named.lines}) == 3
    with pytest.raises(ValueError, match="`curves` must hold at least one curve, got none"):
        plots.roc({})
