"""CutMix: rectangles, partners, labels by area."""

import numpy as np
import pytest
from scipy import stats

from preshield import CutMix


class Given:
    """A generator whose draws were worked out beforehand."""

    xp = np

    def __init__(self, stays, partners, rows, columns, chosen):
        self.stays, self.partners, self.chosen = stays, partners, chosen
        self.middles = [rows, columns]

    def shares(self, alpha, parts, x):
        return np.array([1 - self.stays, self.stays])[:parts]

    def order(self):
        return np.array(self.partners)

    def integers(self, low, high, count):
        return np.array(self.middles.pop(0))

    def random(self, count, dtype):
        return np.array(self.chosen, dtype)


def test_by_hand():
    # 0.75 of 8 x 6 pixels stay: a rectangle is half as high and half as wide, 4 x 3
    given = Given(0.75, [1, 2, 0], rows=[3, 0, 4], columns=[2, 5, 3], chosen=[0.1, 0.1, 0.9])
    cut_mix = CutMix(3, probability=0.5)
    x = np.empty((3, 8, 6, 1))
    x[:] = np.arange(3).reshape(3, 1, 1, 1)
    draw = cut_mix._draw(x, given)
    expected = x.copy()
    expected[0, 1:5, 1:4] = 1  # rows 3 - 2 to 3 + 2, columns 2 - 1 to 2 + 2
    expected[1, 0:2, 4:6] = 2  # half of it lies above, and a third to the right
    np.testing.assert_array_equal(cut_mix._transform(x, draw), expected)
    labels = cut_mix._transform_labels(np.array([0, 1, 2]), draw)
    np.testing.assert_allclose(labels, [[0.75, 0.25, 0], [0, 44 / 48, 4 / 48], [0, 0, 1]], rtol=1e-6)
    grad = np.ones(x.shape)
    grad[0], grad[1] = 10, 100
    pulled = cut_mix._gradient(x, grad, draw)
    expected = grad.copy()
    expected[0, 1:5, 1:4] = 0
    expected[1, 0:2, 4:6] = 0
    expected[1, 1:5, 1:4] += 10
    expected[2, 0:2, 4:6] += 100
    np.testing.assert_array_equal(pulled, expected)


@pytest.mark.parametrize("shape", [(40, 9, 13, 2), (40, 3, 9, 13, 2)])
@pytest.mark.parametrize("channels_first", [False, True])
def test_labels_follow_the_pixels(shape, channels_first):
    x = np.broadcast_to(np.arange(40).reshape(-1, *[1] * (len(shape) - 1)), shape)
    x = np.moveaxis(x, -1, 1) if channels_first else x
    cut_mix, y = CutMix(40, probability=0.8, channels_first=channels_first, rng=2), np.eye(40)
    for _ in range(5):
        out, labels = cut_mix(x, y)
        values = out.reshape(40, -1)
        for i in range(40):
            share = [(values[i] == j).mean() for j in range(40)]
            np.testing.assert_allclose(labels[i], share, atol=1e-12)


def test_all_frames_and_channels_of_a_video_get_the_same_rectangle():
    x = np.broadcast_to(np.arange(20).reshape(20, 1, 1, 1, 1), (20, 4, 8, 8, 3))
    out, _ = CutMix(20, probability=1.0, rng=0)(x, np.eye(20))
    assert (out == out[:, :1, :, :, :1]).all()


def test_odd_rectangles_keep_their_size():
    draw = CutMix(1)._draw(np.zeros((1, 10, 14, 1)), Given(0.75, [0], [4], [6], [0.0]))
    assert draw.boxes.slices(0) == (slice(2, 7), slice(3, 10))  # 5 x 7, half of 10 x 14 on each side
    assert draw.boxes.areas() / draw.pixels == [0.25]


def test_draws_have_their_distributions():
    cut_mix = CutMix(2, alpha=0.6, probability=0.3, rng=0)
    x = np.broadcast_to(np.uint8(0), (100, 1000, 1000, 1))
    stays, chosen = [], 0
    for _ in range(200):
        boxes = cut_mix._begin(x, cut_mix._next_seed()).boxes
        chosen += (boxes.areas() > 0).sum()
        whole = (boxes.bottom - boxes.top).max() / 1000
        stays.append(1 - whole**2)
    assert stats.kstest(stays, stats.beta(0.6, 0.6).cdf).pvalue > 1e-3
    # of 20000, with five standard deviations of sqrt(20000 * 0.3 * 0.7)
    assert abs(chosen - 6000) < 5 * 65 + 200  # some rectangles are too small to be seen


@pytest.mark.parametrize(("probability", "changed"), [(0.0, False), (1.0, True)])
def test_probability(probability, changed):
    x = np.random.default_rng(0).random((30, 16, 16, 3))
    out, labels = CutMix(3, probability=probability, rng=4)(x, np.eye(3)[np.arange(30) % 3])
    assert (out != x).any() == changed
    assert (labels.max(axis=1) < 1).any() == changed


def test_labels_are_needed():
    with pytest.raises(ValueError, match="`y` must be given: CutMix mixes labels along with the samples"):
        CutMix(3).transform(np.zeros((2, 4, 4, 1)))


def test_integer_labels_are_not_truncated():
    labels = CutMix(2, probability=1.0, rng=0)(np.zeros((2, 8, 8, 1)), np.eye(2, dtype=int))[1]
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert labels.dtype == np.float32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be at least 1, got 0"),
        ({"num_classes": 2, "alpha": -1}, "`alpha` must be above 0, got -1"),
        ({"num_classes": 2, "probability": 1.5}, "`probability` must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CutMix(**kwargs)
