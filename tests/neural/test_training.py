"""What the training of all models of images shares."""

import numpy as np
import pytest

from preshield.neural.training import shuffled, split, train


def run(losses, patience):
    """Epochs that end with these losses; the state is the number of epochs so far."""
    seen = []

    def epoch():
        seen.append(losses[len(seen)])
        return seen[-1]

    options = {"name": "model", "learning_rate": 0.5, "shown": lambda loss: {}, "verbose": False}
    return train(epoch, lambda: len(seen), epochs=len(losses), patience=patience, **options), len(seen)


@pytest.mark.parametrize(
    ("losses", "patience", "best", "epochs"),
    [([3, 2, 2.5, 2, 1], 2, 2, 4), ([3, 2, 2.5, 2, 1], 3, 5, 5), ([1, 2, 3], None, 3, 3), ([7], 1, 1, 1)],
)
def test_training_stops_early_and_keeps_the_best_state(losses, patience, best, epochs):
    assert run(losses, patience) == (best, epochs)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(loss):
    with pytest.raises(
        FloatingPointError, match=rf"The loss is {loss} in epoch 2: .*`learning_rate`, now 0.5"
    ):
        run([1, loss, 1], None)


def test_steps_are_whole_and_images_are_split_without_overlap():
    rows = list(shuffled(11, 4, np.random.default_rng(0)))
    assert [len(step) for step in rows] == [4, 4]
    assert len({*rows[0], *rows[1]}) == 8
    images = np.arange(10)
    learned, test = split(images, 0.29, np.random.default_rng(0))
    assert len(test) == 2
    np.testing.assert_array_equal(np.sort([*learned, *test]), images)
    assert len(split(images, 0.0, np.random.default_rng(0))[1]) == 0
