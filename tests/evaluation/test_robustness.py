from dataclasses import replace

import numpy as np
import pytest

from preshield.evaluation.defended_model import DefendedModel
from preshield.evaluation.minimum_norm import Adversarials
from preshield.evaluation.robustness import (
    AttackedModel,
    RobustnessRow,
    attack,
    compare,
    robustness_table,
    strongest,
)


class Threshold:
    """Class 1 where the only feature exceeds `level`."""

    def __init__(self, level):
        self.level = level

    def logits(self, x):
        return np.concatenate([np.zeros_like(x), x - self.level], axis=1)

    def margin_and_gradient(self, x, y):
        sign = np.where(y == 1, 1, -1).astype(np.float32)
        return sign * (x[:, 0] - self.level), sign[:, None]


X = np.array([[0.9], [0.8], [0.45], [0.1]], dtype=np.float32)
Y = np.array([1, 1, 1, 0])


def test_attack_and_compare_by_hand():
    undefended = attack(DefendedModel(Threshold(0.5)), X, Y)
    defended = attack(DefendedModel(Threshold(0.25)), X, Y)
    np.testing.assert_array_equal(undefended.right, [True, True, False, True])
    np.testing.assert_allclose(undefended.adversarials.norms, [0.4, 0.3, 0, 0.4], atol=0.003)
    np.testing.assert_allclose(defended.adversarials.norms, [0.65, 0.55, 0.2, 0.15], atol=0.003)
    row = compare("lower level", defended, undefended)
    assert row.defence == "lower level"
    assert row.clean == 1
    assert row.oblivious == 0.75  # at 0.5, 0.5 and 0.45 it says 1; at 0.5 too, which is wrong
    assert row.adaptive == 0
    assert row.perturbation == pytest.approx(0.55 / 0.4, abs=0.02)  # medians over all but the third
    own = compare("none", undefended, undefended)
    assert (own.clean, own.oblivious, own.adaptive, own.perturbation) == (0.75, 0, 0, 1)


def test_failed_attacks_and_no_common_samples_have_no_ratio():
    undefended = attack(DefendedModel(Threshold(0.5)), X, Y)
    failed = attack(DefendedModel(Threshold(0.5)), X, Y, max_steps=1)
    row = compare("strong", failed, undefended)
    assert row.perturbation is None
    assert row.adaptive == 0.75
    nobody = replace(undefended, right=np.zeros(4, dtype=bool))
    assert compare("nobody", nobody, undefended).perturbation is None


def test_strongest_keeps_the_smaller_norm_of_each_sample():
    def attempt(x, norms):
        found = Adversarials(np.array(x)[:, None], np.array(norms))
        return AttackedModel(None, X[:2], Y[:2], np.array([True, True]), found)

    best = strongest([attempt([1.0, 2.0], [0.5, np.inf]), attempt([3.0, 4.0], [0.7, 0.1])])
    np.testing.assert_array_equal(best.adversarials.norms, [0.5, 0.1])
    np.testing.assert_array_equal(best.adversarials.x, [[1.0], [4.0]])


def test_table_by_hand():
    rows = [
        RobustnessRow("none", 0.864, 0.0, 0.0, 1.0),
        RobustnessRow("JPEG, quality 50", 0.8, 0.755, 0.012, 1.6),
        RobustnessRow("wall", 1.0, 1.0, 1.0, None),
    ]
    assert robustness_table(rows) == (
        "| Defence          | Clean | Oblivious | Adaptive | Perturbation |\n"
        "| :--------------- | ----: | --------: | -------: | -----------: |\n"
        "| none             |  0.86 |      0.00 |     0.00 |         1.0x |\n"
        "| JPEG, quality 50 |  0.80 |      0.76 |     0.01 |         1.6x |\n"
        "| wall             |  1.00 |      1.00 |     1.00 |            - |\n"
    )
