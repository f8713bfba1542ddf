import numpy as np
import pytest
from numpy.testing import assert_allclose

from preshield.evaluation.roc import RocCurve, roc


def test_by_hand():
    found = roc(clean=[0.2, 0.6, 0.9], attacked=[0.1, 0.2])
    assert found.thresholds == (-np.inf, 0.1, 0.2, 0.6, 0.9)
    assert_allclose(found.fpr, [0, 0, 1 / 3, 2 / 3, 1])
    assert found.tpr == (0, 0.5, 1, 1, 1)
    assert found.auc == pytest.approx((6 - 0.5) / 6)  # of six pairs, one is a tie


@pytest.mark.parametrize("distinct", [3, 1000])
def test_auc_is_the_share_of_pairs_in_order(distinct):
    rng = np.random.default_rng(distinct)
    clean, attacked = rng.integers(0, distinct, 40), rng.integers(0, distinct, 30) // 2
    pairs = attacked[:, None] - clean
    assert roc(clean, attacked).auc == pytest.approx(((pairs < 0) + 0.5 * (pairs == 0)).mean())


def test_a_detector_that_never_and_one_that_always_errs():
    assert roc([0.5, 1], [0.1]).auc == 1
    assert roc([0.1], [0.5, 1]).auc == 0
    assert roc([1, 2, 3], [1, 2, 3]).auc == 0.5
    assert roc([1], [2]) == RocCurve((0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (-np.inf, 1, 2))


@pytest.mark.parametrize(
    ("clean", "attacked", "error", "message"),
    [
        ([], [1], ValueError, r"`clean` must hold one score for each sample, shape \(N,\), got \(0,\)"),
        (
            [1],
            [[1]],
            ValueError,
            r"`attacked` must hold one score for each sample, shape \(N,\), got \(1, 1\)",
        ),
        ([1], [np.nan], ValueError, "`attacked` must be finite, got 1 NaN"),
        (["a"], [1], TypeError, "`clean` must hold real numbers"),
    ],
)
def test_scores_are_checked(clean, attacked, error, message):
    with pytest.raises(error, match=message):
        roc(clean, attacked)
