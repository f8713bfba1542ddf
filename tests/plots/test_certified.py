import numpy as np
import pytest

from preshield import plots
from preshield.evaluation.report import Column, RobustnessRow
from preshield.evaluation.smoothing_report import SmoothingReport

FOUND = (
    np.array([0, 1, -1, 2]),
    np.array([0.25, 0.5, 0.0, 0.75]),
    np.array([0, 1, 1, 0]),
    np.array([0, 1, 1, 0]),
)
REPORT = SmoothingReport(*FOUND, 0.5, 100, 1000, 0.001)


def test_the_certified_accuracy_falls_where_radii_end():
    ax = plots.certified_accuracy(REPORT)
    (line,) = ax.lines
    radii, accuracies = line.get_xydata().T
    np.testing.assert_allclose(radii, [0, 0.25, 0.5, 0.5, REPORT.largest_radius])
    np.testing.assert_allclose(accuracies, [0.5, 0.5, 0.25, 0, 0])
    assert line.get_drawstyle() == "steps-pre"  # each value up to its radius
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()) == ("L2 radius", "Accuracy", (0, 1))


def test_attacks_stand_beside_the_proof():
    outcomes = np.array([[0, 0, -1, 0]], np.int8)
    column = Column(outcomes, np.array([0.4, 0.6, 0.1, 0.0]), "", 0.0)
    row = RobustnessRow("none", None, {"adaptive": column}, 0.0)
    ax = plots.certified_accuracy({"a": REPORT}, attacked={"a": row, "alone": row})
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["a", "a, attacked", "alone"]
    radii, kept = lines["a, attacked"].get_xydata().T
    np.testing.assert_allclose(kept, np.select([radii < 0.4, radii < 0.6], [0.75, 0.5], 0.25))
    assert lines["a"].get_color() == lines["a, attacked"].get_color() != lines["alone"].get_color()


def test_no_samples():
    for reports in ({}, SmoothingReport(*(part[:0] for part in FOUND), 0.5, 100, 1000, 0.001)):
        with pytest.raises(ValueError, match="`reports` must hold a report"):
            plots.certified_accuracy(reports)
