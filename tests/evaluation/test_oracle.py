"""What an attack asks of a batch: from which addresses it draws, and which samples go together."""

import numpy as np
import pytest

from preshield.evaluation.losses import margin
from preshield.evaluation.oracle import Look, Oracle

X = np.zeros((3, 2), np.float32)
Y = np.array([0, 1, 0])
NUMBERS = np.array([7, 3, 40])


class Recorder:
    """A model that writes down what it was asked, and from which address."""

    clip_values = (0.0, 1.0)
    nb_classes = 2
    stochastic = True
    draws = 1

    def __init__(self):
        self.asked = []

    def look(self, x, y, loss, targets, numbers, seed):
        self.asked.append(("look", numbers.tolist(), seed))
        zeros = np.zeros(len(x))
        return Look(zeros, zeros, np.zeros((len(x), 2)), zeros, np.ones(len(x)), np.zeros_like(x))

    def margin(self, x, y, numbers, seed):
        self.asked.append(("margin", numbers.tolist(), seed))
        return np.zeros(len(x)), np.ones(len(x), np.int64)


@pytest.fixture
def batch():
    return Oracle(Recorder(), X, Y, NUMBERS, (5,))


def attack(oracle, rows):
    """Looks at all rows; between them, of one row two margins and of another one."""
    for _ in range(2):
        oracle.look(oracle.x[rows], rows, margin)
        for row in (0, 0, 1):
            if row in rows:
                oracle.margin(oracle.x[[row]], np.array([row]))


def test_rows_are_in_step_again_after_margins_of_some(batch):
    attack(batch, np.arange(3))
    assert [numbers for kind, numbers, _ in batch.model.asked if kind == "look"] == 2 * [NUMBERS.tolist()]


def test_nothing_is_drawn_twice(batch):
    attack(batch, np.arange(3))
    addresses = [(number, seed) for _, numbers, seed in batch.model.asked for number in numbers]
    assert len(set(addresses)) == len(addresses) == 2 * (3 + 3)


def test_a_sample_draws_the_same_in_whatever_batch(batch):
    attack(batch, np.arange(3))
    for row, number in enumerate(NUMBERS):
        alone = Oracle(Recorder(), X, Y, NUMBERS, (5,))
        attack(alone, np.array([row]))
        together = [(kind, seed) for kind, numbers, seed in batch.model.asked if number in numbers]
        assert [(kind, seed) for kind, _, seed in alone.model.asked] == together


def test_rows_that_were_asked_unequally_often_draw_from_their_own_addresses(batch):
    batch.look(X[:1], np.array([0]), margin)
    batch.look(X, np.arange(3), margin)
    (_, _, first), *others = batch.model.asked
    assert sorted(numbers for _, numbers, _ in others) == [[3, 40], [7]]
    assert [seed for _, numbers, seed in others if numbers == [3, 40]] == [first]
