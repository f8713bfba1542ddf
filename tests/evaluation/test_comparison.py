"""Reports and rows compared sample by sample, and the figures of each class."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from preshield import FeatureSqueezing, evaluate
from preshield._core.errors import ArgumentError
from preshield.evaluation.comparison import Comparison, PerClass
from preshield.evaluation.report import Column, RobustnessReport, RobustnessRow, Threat
from tests.evaluation.rowwise import RowWise, data


def row(name, *worst, first=0):
    outcomes = np.array(worst, np.int8)
    columns = {"clean": Column(np.ones_like(outcomes), np.zeros(outcomes.shape[1]), "", 0.0)}
    columns["adaptive"] = Column(outcomes, np.ones(outcomes.shape[1]), "", 0.0)
    return RobustnessRow(name, None, columns, 0.0, first=first)


def report(*rows, labels=(0, 1, 1, 2), **settings):
    threat = Threat("linf", 0.1, (0.0, 1.0))
    return RobustnessReport(threat, rows, (), (), settings, {}, labels=np.array(labels))


def test_a_comparison_by_hand():
    # Of ten samples in which they differ, nine are right in the first: two-sided, 2 (1 + 10) / 2**10.
    first, second = np.ones(14, bool), np.r_[np.zeros(9, bool), np.ones(5, bool)]
    first[9] = False
    found = Comparison.of("a", first, "b", second)
    assert (found.first_only, found.second_only) == (9, 1)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 10, 0.5)) == pytest.approx(22 / 1024)
    assert found.accuracy == (13 / 14, 5 / 14)
    assert str(found) == (
        "a 0.93, b 0.36: 9 samples are right in the first alone, 1 in the second alone (McNemar, p = 0.021)."
    )


def test_equal_rows_do_not_differ():
    found = Comparison.of("a", np.array([True, False]), "b", np.array([True, False]))
    assert (found.first_only, found.second_only, found.p_value) == (0, 0, 1.0)


def test_rows_are_compared_in_the_worst_case():
    one, two = row("one", [1, 1, 0, 0]), row("two", [1, 0, 0, 1])
    found = one.compare(two)
    assert (found.names, found.first_only, found.second_only) == (("one", "two"), 1, 1)
    # A sample of a stochastic row is right if more than half of its draws are.
    drawn = row("drawn", [1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1])
    assert drawn.compare(one).first_only == 1
    assert drawn.compare(one).second_only == 1
    rejecting = row("rejecting", [-1, -1, -1, 1])
    assert rejecting.compare(two).first_only == 0  # rejected is not right


def test_reports_are_compared_row_by_row():
    one = report(row("none", [1, 1, 0, 0]), row("a", [1, 1, 1, 1]))
    two = report(row("none", [1, 0, 0, 0]), row("b", [1, 1, 1, 1]))
    found = one.compare(two)
    assert list(found) == ["none"]
    assert (found["none"].first_only, found["none"].second_only) == (1, 0)
    assert str(found).splitlines()[0].split() == (
        ["Defence", "First", "Second", "First", "alone", "Second", "alone", "p", "(McNemar)"]
    )
    assert str(found).splitlines()[1].split() == ["none", "0.50", "0.25", "1", "0", "1"]


def test_what_cannot_be_compared():
    plain = report(row("none", [1, 1, 0, 0]))
    for other, message in (
        (report(row("none", [1, 1, 0, 0]), labels=(0, 1, 1, 1)), "must be about the same 4 samples"),
        (report(row("none", [1, 1, 0, 0]), first=4), "from number 4"),
        (report(row("b", [1, 1, 0, 0])), "must have a row in common with none, got b"),
        (plain.rows[0], "must be a RobustnessReport, got RobustnessRow"),
    ):
        with pytest.raises(ArgumentError, match=f"`other` {message}|`other` .*{message}"):
            plain.compare(other)
    with pytest.raises(ArgumentError, match="must be about the same 4 samples from number 0, got 3"):
        plain.rows[0].compare(row("short", [1, 1, 0]))
    with pytest.raises(ArgumentError, match="must be about the same"):
        plain.rows[0].compare(row("later", [1, 1, 0, 0], first=4))
    with pytest.raises(ArgumentError, match=r'must be a row, such as report\["none"\], got str'):
        plain.rows[0].compare("none")


def test_classes_by_hand():
    shares = {"clean": np.array([1, 1, 1, 0.5]), "worst case": np.zeros(4)}
    found = PerClass.of(np.array([2, 0, 2, 2]), shares)
    assert (found.classes, found.samples) == ((0, 2), (1, 3))
    assert found.accuracy["clean"] == (1.0, pytest.approx(2.5 / 3))
    lines = str(found).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["Class", "Samples", "Clean", "Worst case"]
    assert lines[2].split(maxsplit=3) == ["2", "3", "0.83", "0.00 [0.00, 0.56]"]


def test_classes_of_a_report():
    x, y = data(20)
    options = {"threat": "linf", "eps": 0.1, "budget": 5, "verbose": False}
    found = evaluate(RowWise(), x, y, [FeatureSqueezing((0, 1), 2)], **options)
    table = found.per_class("FeatureSqueezing")
    assert sum(table.samples) == 20
    share = np.average(table.accuracy["worst case"], weights=table.samples)
    assert share == pytest.approx(found["FeatureSqueezing"].worst_case)
    assert found.per_class().accuracy["clean"] == found.per_class(found["none"]).accuracy["clean"]


def test_every_figure_has_its_interval():
    found = report(row("none", [1, 1, 0, 0]))
    assert found["none"].interval == found["none"].columns["adaptive"].interval
    assert "0.50 [0.15, 0.85]" in found.table()
    assert "95% interval (Wilson) of the worst case over 4 samples" in found.to_markdown()
    assert replace(found).compare(found)["none"].p_value == 1
