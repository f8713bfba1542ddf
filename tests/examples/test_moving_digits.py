"""The clips of the notebook on video are what they say, and training and test clips share nothing."""

import numpy as np
import pytest

for package in ("skimage", "sklearn"):
    pytest.importorskip(package)

from sklearn.datasets import load_digits  # noqa: E402

from examples.tasks import moving_digits  # noqa: E402

NAMES = ("x_train", "y_train", "x_test", "y_test")


def task_over(monkeypatch, levels, **sizes):
    """Clips over photographs of one level of grey each."""
    flat = {str(k): np.full((70, 91, 3), level, np.uint8) for k, level in enumerate(levels)}
    monkeypatch.setattr(moving_digits, "bundled_photographs", lambda: flat)
    return moving_digits.make(0, **sizes)


def enlarged(image):
    """The image at twice its size, by the definition: values at the quarter points between the centres."""
    centres, points = np.arange(8), np.arange(16) / 2 - 0.25
    lines = np.stack([np.interp(points, centres, line) for line in image])
    return np.stack([np.interp(points, centres, line) for line in lines.T], axis=1)


DIGITS = load_digits()
IMAGES = np.stack([enlarged(image / 16) for image in DIGITS.images]).astype(np.float32)
TOTALS = IMAGES.sum(axis=(1, 2))


def recognised(clip):
    """The number of the one image that a clip over black shows, and its corner in each frame."""
    frames = clip[..., 0]
    np.testing.assert_array_equal(clip, np.repeat(frames[..., None], 3, axis=-1))
    for number in np.flatnonzero(np.isclose(TOTALS, frames[0].sum(), rtol=1e-4)):
        path = np.array([corner(frame) - corner(IMAGES[number]) for frame in frames])
        if path.min() < 0 or path.max() > 16:
            continue
        drawn = np.zeros_like(frames)
        for frame, (top, left) in zip(drawn, path, strict=True):
            frame[top : top + 16, left : left + 16] = IMAGES[number]
        if np.allclose(frames, drawn, atol=1e-6):
            return number, path
    raise AssertionError("no image of a digit")


def corner(frame):
    """First row and first column with ink."""
    return np.array([np.flatnonzero(frame.any(axis=1 - axis))[0] for axis in (0, 1)])


def test_shapes_and_range():
    task = moving_digits.make(3, train=40, test=12)
    for x, y, count in ((task.x_train, task.y_train, 40), (task.x_test, task.y_test, 12)):
        assert x.shape == (count, 8, 32, 32, 3)
        assert x.dtype == np.float32
        assert y.shape == (count,)
        assert x.min() >= 0
        assert 0.9 < x.max() <= 1
    assert np.ptp(task.x_train[..., 0] - task.x_train[..., 2]) > 0.1  # the photographs have colours


def test_the_seed_alone_decides():
    np.random.seed(1)
    first, same, other = (moving_digits.make(seed, train=40, test=12) for seed in (3, 3, 4))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(first, name), getattr(same, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_one_digit_moves_through_each_clip(monkeypatch):
    task = task_over(monkeypatch, [0] * 10, train=150, test=1)
    starts, directions = [], []
    for clip, label in zip(task.x_train, task.y_train, strict=True):
        number, path = recognised(clip)
        assert DIGITS.target[number] == label
        steps = np.diff(path, axis=0)
        speed = np.abs(steps).max(axis=0)
        assert set(speed) <= {1, 2}
        assert ((np.abs(steps) == speed).sum(axis=0) >= 6).all()  # but where it bounces
        starts.append(path[0])
        directions.append(tuple(np.sign(steps.sum(axis=0))))
    assert set(np.ravel(starts)) == set(range(17))
    assert {(-1, -1), (-1, 1), (1, -1), (1, 1)} <= set(directions)


def test_no_image_of_a_digit_is_in_both_sets(monkeypatch):
    task = task_over(monkeypatch, [0] * 10, train=300, test=360)
    train = [recognised(clip)[0] for clip in task.x_train]
    test = [recognised(clip)[0] for clip in task.x_test]
    assert max(train) < 1437
    assert sorted(test) == list(range(1437, 1797))  # each once
    assert len(set(train)) == len(train)
    np.testing.assert_array_equal(task.y_test, DIGITS.target[test])


def test_no_photograph_is_in_both_sets(monkeypatch):
    levels = range(20, 220, 20)
    task = task_over(monkeypatch, levels, train=100, test=60)
    dimmed = np.float32([level / 255 / 2 for level in levels])
    for x, expected in ((task.x_train, dimmed[:7]), (task.x_test, dimmed[7:])):
        behind = x.min(axis=(1, 2, 3, 4))  # white ink brightens
        np.testing.assert_allclose(np.unique(behind), expected, rtol=1e-6)


def test_the_photograph_stands_still():
    task = moving_digits.make(0, train=30, test=1)
    for clip in task.x_train:
        behind = clip.min(axis=0)  # where the ink has moved away, the photograph shows
        assert ((clip == behind).mean(axis=(1, 2, 3)) > 0.7).all()


def test_classifier_gives_logits_that_depend_on_the_seed():
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    x = moving_digits.make(0, train=3, test=1).x_train
    first, same, other = (np.asarray(moving_digits.classifier(seed)(x)) for seed in (0, 0, 1))
    assert first.shape == (3, 10)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other, rtol=1e-2)
    assert (first < 0).any()
    assert not np.allclose(first.sum(axis=1), 1)
