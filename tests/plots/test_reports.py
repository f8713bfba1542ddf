import numpy as np
import pytest

from preshield import plots
from preshield.evaluation.report import Curve, RobustnessReport, Threat
from tests.plots.helpers import IMAGES, report, shown


def test_a_report_is_accuracies_and_curves_and_samples():
    curves = [Curve("eps", (0, 1), {"none": (1.0, 0.0)}, "adaptive")] * 3
    axes = plots.report(report(images=True, curves=curves))
    assert axes[0].get_xlabel() == "Accuracy"
    assert [ax.get_ylabel() for ax in axes[1:4]] == ["Accuracy (adaptive)"] * 3
    above, _, below = axes[4:].reshape(3, 3)
    np.testing.assert_array_equal(shown(above[0]), IMAGES[0])
    np.testing.assert_allclose(shown(below[1]), IMAGES[0] ** 2 / 8)
    assert axes[0].figure.axes == list(axes)


def drawn(ax):
    return [np.asarray(image.get_array()) for image in ax.images] + [line.get_ydata() for line in ax.lines]


@pytest.mark.parametrize("shape", [(2, 9, 4, 4, 3), (2, 50)], ids=["videos", "signals"])
def test_samples_of_other_kinds_stand_below_too(shape):
    found = report(pictures={"clean": np.ones(shape), "attacked": np.zeros(shape)})
    below, alone = plots.report(found)[1:], plots.samples(found).ravel()
    assert all(ax.has_data() for ax in below)
    np.testing.assert_equal([drawn(ax) for ax in below], [drawn(ax) for ax in alone])


def test_a_report_without_rows():
    empty = RobustnessReport(Threat("linf", 0.1, (0.0, 1.0)), (), (), (), {}, {})
    with pytest.raises(ValueError, match="`report` must have at least one row"):
        plots.report(empty)
