"""Losses of scores: known answers, and derivatives beside finite differences."""

import numpy as np
import pytest
from scipy.special import log_softmax

from preshield.evaluation import losses

RNG = np.random.default_rng(0)
SCORES, Y = RNG.standard_normal((12, 5)) * 3, np.arange(12) % 5
TARGETS = (Y + 1 + np.arange(12) % 4) % 5


@pytest.mark.parametrize(
    "loss",
    [
        losses.cross_entropy,
        losses.margin,
        losses.targeted_margin,
        losses.logits_ratio,
        losses.targeted_logits_ratio,
    ],
    ids=lambda loss: loss.__name__,
)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_derivatives_meet_finite_differences(loss, classes):
    scores, y = SCORES[:, :classes], Y % classes
    targets = (y + 1) % classes
    _, derivative = loss(scores, y, targets)
    for k in range(classes):
        step = 1e-6 * (np.arange(classes) == k)
        above, below = (loss(scores + sign * step, y, targets)[0] for sign in (1, -1))
        np.testing.assert_allclose(derivative[:, k], (above - below) / 2e-6, atol=1e-6)


def test_cross_entropy_is_that_of_scipy_and_keeps_its_direction():
    values, _ = losses.cross_entropy(SCORES, Y)
    np.testing.assert_allclose(values, -log_softmax(SCORES, axis=1)[np.arange(12), Y], atol=1e-10)
    sure = np.array([[900.0, 0.0, -5.0]])  # of which a softmax in double precision is 1, 0, 0
    _, derivative = losses.cross_entropy(sure, np.array([0]))
    assert derivative[0, 0] < 0 < derivative[0, 2] < derivative[0, 1]


def test_ratio_by_hand():
    scores = np.array([[3.0, 1.0, 0.0, -1.0], [1.0, 5.0, 0.0, 3.0]])
    values, _ = losses.logits_ratio(scores, np.array([0, 0]))
    np.testing.assert_allclose(values, [(1 - 3) / (3 - 0), (5 - 1) / (5 - 1)])
    values, _ = losses.targeted_logits_ratio(scores, np.array([0, 0]), np.array([2, 3]))
    np.testing.assert_allclose(values, [(0 - 3) / (3 - (0 - 1) / 2), (3 - 1) / (5 - (1 + 0) / 2)])


def test_all_others_point_as_a_cross_entropy_whatever_the_scale():
    scores = SCORES / np.ptp(SCORES, axis=1, keepdims=True) * losses.SPAN
    _, expected = losses.cross_entropy(scores, Y)
    for scale in (1e-6, 1.0, 1e6):
        _, derivative = losses.all_others(scale * scores, Y)
        directions = [d / np.abs(d).max(axis=1, keepdims=True) for d in (derivative, expected)]
        np.testing.assert_allclose(*directions, atol=1e-9)
