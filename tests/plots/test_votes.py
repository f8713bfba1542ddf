import numpy as np
import pytest

from preshield import plots
from preshield.evaluation.vote_report import VoteReport

VOTES = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 1], [2, 1, 0], [2, 2, -1]])
REPORT = VoteReport(("input", "blurred", "blurred twice"), VOTES, np.array([0, 1, 0, 2, 2]), 2)


def lines(ax):
    return {line.get_label(): np.squeeze(line.get_xydata()).tolist() for line in ax.lines}


def test_votes():
    ax = plots.votes(REPORT)
    drawn = lines(ax)
    # the fourth sample is a tie; of the other four, the third is wrong; only the first is unanimous
    np.testing.assert_allclose(drawn["vote, by votes needed"], [[0.8, 0.75], [0.2, 1.0]])
    assert drawn["vote in use (2)"] == [0.8, 0.75]
    assert drawn["input"] == [1.0, 1.0]
    assert drawn["blurred"] == [1.0, 0.6]
    assert drawn["blurred twice"] == [0.8, 0.25]
    assert [text.get_text() for text in ax.texts] == ["1, 2", "3"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Coverage", "Accuracy on accepted samples")
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)


def test_labels_of_points_side_by_side_do_not_overlap():
    votes = np.zeros((100, 4), int)
    votes[:10, 0] = -1  # three votes
    votes[10:12, :2] = -1  # two
    votes[12:50, :3] = -1  # one
    ax = plots.votes(VoteReport(tuple("abcd"), votes, np.zeros(100, int), 3))
    assert [text.get_text() for text in ax.texts] == ["1", "2, 3", "4"]
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_vote_that_rejects_everything_is_no_point():
    report = VoteReport(("a", "b"), np.array([[0, 1]]), np.array([0]), 2)
    drawn = lines(plots.votes(report))
    assert drawn["vote, by votes needed"] == []
    assert not [name for name in drawn if name.startswith("vote in use")]
    assert drawn["b"] == [1.0, 0.0]


def test_no_samples():
    with pytest.raises(ValueError, match="`report` must have at least one sample, got none"):
        plots.votes(VoteReport(("a",), np.zeros((0, 1), int), np.zeros(0, int), 1))
