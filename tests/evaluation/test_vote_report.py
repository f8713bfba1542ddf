"""Votes: how they are counted, and how a report of them is written down."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from preshield.evaluation.vote_report import VoteReport, elect

VOTES = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 1], [2, 1, 0], [2, 2, 2]])
TRUE = np.array([0, 1, 0, 2, 1])

# Counting


@pytest.mark.parametrize(
    ("votes", "by_min_votes"),
    [
        ([5, 5, 5], [5, 5, 5]),
        ([5, 5, 3], [5, 5, -1]),
        ([3, 5, 5], [5, 5, -1]),
        ([1, 2, 3], [-1, -1, -1]),  # three labels with one vote each: none has a majority
        ([2, 2, 4, 4], [-1, -1, -1, -1]),  # two labels with two votes each
        ([2, 2, 4, 3], [2, 2, -1, -1]),
        ([7], [7]),
        ([1, 0], [-1, -1]),
        ([-1, 4, -1], [4, -1, -1]),  # no vote is no label
        ([-1, -1, -1], [-1, -1, -1]),
        ([0, -1, 0], [0, 0, -1]),
    ],
)
def test_counting_by_hand(votes, by_min_votes):
    found = [elect(np.array([votes]), k)[0] for k in range(1, len(votes) + 1)]
    assert found == by_min_votes


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.integers(-1, 3)),
    st.integers(1, 5),
)
def test_counting_like_a_counter(votes, min_votes):
    def one(row):
        ballots = Counter(int(label) for label in row if label >= 0).most_common()
        if not ballots or ballots[0][1] < min_votes or (len(ballots) > 1 and ballots[1][1] == ballots[0][1]):
            return -1
        return ballots[0][0]

    assert elect(votes, min_votes).tolist() == [one(row) for row in votes]


def test_report_as_text():
    text = str(VoteReport(("input", "blurred", "twice"), VOTES, TRUE, 3))
    assert text.splitlines()[:7] == [
        "                Accuracy  Rejected  Accepted",
        "input               0.80      0.00      0.80",
        "blurred             0.40      0.00      0.40",
        "twice               0.20      0.00      0.20",
        "vote, 1 of 3        0.40      0.20      0.50",
        "vote, 2 of 3        0.40      0.20      0.50",
        "vote, 3 of 3 *      0.20      0.60      0.50",
    ]
    assert "`evaluate`" in text
    nothing = VoteReport(("a", "b"), np.array([[0, 1]]), np.array([0]), 2)
    assert "0.00      1.00         -" in str(nothing)


def test_report_in_a_notebook_escapes():
    shown = VoteReport(("<b>", "blurred"), VOTES[:, :2], TRUE, 2)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert shown.count('scope="row"') == 4
    assert "vote, 2 of 2 *" in shown


def test_report_as_json(tmp_path):
    report = VoteReport(("input", "blurred", "twice"), VOTES, TRUE, 2)
    report.to_json(tmp_path / "votes.json")
    for source in (tmp_path / "votes.json", report.to_json()):
        again = VoteReport.from_json(source)
        assert str(again) == str(report)
        np.testing.assert_array_equal(again.votes, VOTES)
    empty = VoteReport(("a", "b"), np.zeros((0, 2), int), np.zeros(0, int), 1)
    assert VoteReport.from_json(empty.to_json()).votes.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            '{"format": 9, "views": [], "votes": [], "y": [], "min_votes": 1}',
            "has format 9; .* reads format 1",
        ),
        ("{}", "must be the JSON of a VoteReport: KeyError"),
        (
            '{"format": 1, "views": ["a"], "votes": [[1, 2]], "y": [1], "min_votes": 1}',
            "JSON of a VoteReport",
        ),
        ("{", "JSON of a VoteReport"),
    ],
)
def test_damaged_json(text, match):
    with pytest.raises(ValueError, match=match):
        VoteReport.from_json(text)
