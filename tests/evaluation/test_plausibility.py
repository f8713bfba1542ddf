"""When a classifier is said to guess."""

from math import comb

import numpy as np
import pytest

from preshield import Preprocessor, evaluate
from preshield.evaluation.plausibility import near_chance


def at_most(right, count, share):
    return sum(comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right + 1))


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("count", [1, 5, 20, 60, 250])
def test_both_errors_are_rare(count, classes):
    """Probabilities summed over all outcomes: a poor model is hardly accused, a guess on many samples is."""
    chance = 1 / classes
    fires = [near_chance(right, count, classes) for right in range(count + 1)]
    cumulated = np.array([at_most(right, count, chance + (1 - chance) / 4) for right in range(count + 1)])
    of_poor = np.diff(cumulated, prepend=0)
    assert of_poor[fires].sum() <= 0.01
    assert fires == sorted(fires, reverse=True)  # fewer right ones are no less suspicious
    of_guess = np.diff([at_most(right, count, chance) for right in range(count + 1)], prepend=0)
    if count == 250:
        assert of_guess[fires].sum() > 0.9
    if count == 1:
        assert not any(fires)


@pytest.mark.parametrize("shift", [0, 1])
def test_labels_beside_the_order_of_the_model_are_told_before_the_attack(shift):
    x = np.random.default_rng(0).random((40, 5), dtype=np.float32)
    asked = []

    def classifier(x):
        asked.append(len(x))
        return x

    y = (x.argmax(axis=1) + shift) % 5
    options = {"columns": ["black-box"], "budget": 1, "verbose": False, "clip_values": (0, 1)}
    if not shift:
        evaluate(classifier, x, y, **options)
        return
    with pytest.raises(UserWarning, match=r"right on 0 of 40 samples without any attack, .* with 5 classes"):
        evaluate(classifier, x, y, **options)
    assert sum(asked) < 2 * len(x)


def test_a_classifier_that_needs_its_defence():
    """It is as bad as chance without, as one that was trained behind it may be: some row is right."""
    x = np.random.default_rng(0).random((40, 4), dtype=np.float32)

    class Turned(Preprocessor):
        domains = ("features",)

        def _transform(self, x, draw):
            return np.roll(x, 1, axis=1)

    options = {"columns": ["black-box"], "budget": 1, "verbose": False, "clip_values": (0, 1)}
    evaluate(lambda x: x, x, (x.argmax(axis=1) + 1) % 4, Turned(), **options)
    with pytest.raises(UserWarning, match=r"right on 0 of 40 .* with 4 classes, and so is each row. Check"):
        evaluate(lambda x: x, x, (x.argmax(axis=1) + 2) % 4, Turned(), **options)


def test_rejected_samples_say_nothing():
    x = np.random.default_rng(0).random((60, 2), dtype=np.float32)

    def classifier(x):
        return np.where(x[:, 0] > 0.2, -1, x[:, 1] > 0.5)

    y = (x[:, 1] > 0.5).astype(int)
    evaluate(classifier, x, y, columns=["black-box"], budget=1, verbose=False)
