"""Cutout: which pixels are zero, and how they are drawn."""

import numpy as np
import pytest

from preshield import Cutout


def rectangle(erased):
    """First and last zero row and column, ends excluded; what is erased is a rectangle."""
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    box = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert erased.sum() == (box[1] - box[0]) * (box[3] - box[2])
    return box


@pytest.mark.parametrize(
    ("length", "of_rows", "of_columns"),
    [
        # middles 0, 1, 2 and 0, 1, 2, 3: what lies outside of 3 x 4 pixels is cut off
        (1, [(0, 1), (1, 2), (2, 3)], [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (2, [(0, 1), (0, 2), (1, 3)], [(0, 1), (0, 2), (1, 3), (2, 4)]),
        (3, [(0, 2), (0, 3), (1, 3)], [(0, 2), (0, 3), (1, 4), (2, 4)]),
    ],
)
@pytest.mark.parametrize("channels_first", [False, True])
def test_every_middle_is_as_likely_as_any_other(length, of_rows, of_columns, channels_first):
    count = 6000
    x = np.ones((count, 2, 3, 4) if channels_first else (count, 3, 4, 2), np.float32)
    out = Cutout(length, channels_first, rng=0).transform(x)
    erased = (out == 0).all(axis=1 if channels_first else 3)
    assert set(np.unique(out)) == {0, 1}
    found = [rectangle(image) for image in erased]
    expected = {(*rows, *columns) for rows in of_rows for columns in of_columns}
    assert set(found) == expected
    # each of the 12 in 1/12 of 6000 = 500 images; five standard deviations of sqrt(500 * 11 / 12)
    assert all(abs(found.count(box) - 500) < 5 * 21.4 for box in expected)


def test_all_channels_lose_the_same_square_and_each_frame_another():
    x = np.ones((1, 50, 6, 7, 3))
    out = Cutout(3, rng=0).transform(x)
    assert ((out == 0).any(axis=-1) == (out == 0).all(axis=-1)).all()
    assert len({rectangle(frame[..., 0] == 0) for frame in out[0]}) > 10
    first = Cutout(3, True, rng=0).transform(np.ones((1, 3, 50, 6, 7)))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), out)


def test_a_square_as_large_as_the_image_may_leave_nothing():
    out = Cutout(100, rng=0).transform(np.ones((5, 4, 6, 1)))
    assert not out.any()


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1)])
def test_images_of_one_row_or_column(shape):
    out = Cutout(1, rng=0).transform(np.ones((60, *shape, 1)))
    np.testing.assert_array_equal((out == 0).sum(axis=(1, 2, 3)), 1)


def test_the_gradient_is_zero_where_the_image_was_erased():
    x = np.ones((4, 5, 6, 2))
    cutout = Cutout(3)
    with cutout.frozen(3):
        out, grad = cutout.transform(x), cutout.estimate_gradient(x, np.full(x.shape, 7.0))
    np.testing.assert_array_equal(grad, 7 * out)


def test_labels_are_left_alone_and_may_be_missing():
    y = ["a", "b"]
    x, labels = Cutout(1)(np.ones((2, 3, 3, 1)), y)
    assert labels is y
    assert (x == 0).sum() == 2


def test_integers_stay_integers():
    x = np.full((3, 8, 8, 3), 200, np.uint8)
    out = Cutout(2, rng=0).transform(x)
    assert out.dtype == np.uint8
    assert set(np.unique(out)) == {0, 200}
    assert (x == 200).all()


def test_images_without_pixels():
    assert Cutout(2).transform(np.ones((2, 0, 3, 1))).shape == (2, 0, 3, 1)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"length": 0}, ValueError, "`length` must be at least 1, got 0"),
        ({"length": 2.5}, TypeError, "`length` must be an integer, got 2.5"),
        (
            {"length": 2, "channels_first": "no"},
            TypeError,
            "`channels_first` must be True or False, got 'no'",
        ),
        ({"length": 2, "rng": -1}, ValueError, "`rng` must be at least 0"),
    ],
)
def test_bad_parameters(kwargs, error, message):
    with pytest.raises(error, match=message):
        Cutout(**kwargs)
