"""Labels as rows of probabilities."""

import numpy as np
import pytest

from preshield._core.labels import class_rows


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float64])
def test_indices_become_rows(dtype):
    found = class_rows(np.array([2, 0, 1], dtype), 3)
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert found.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32)


def test_rows_stay():
    rows = np.array([[0.5, 0.5], [1, 1]])
    assert class_rows(rows, None) is rows
    assert class_rows(rows, 2) is rows


@pytest.mark.parametrize(
    ("y", "num_classes", "message"),
    [
        (np.array([0, 3]), 3, "class indices from 0 to 2, got values from 0 to 3"),
        (np.array([-1, 0]), 3, "class indices from 0 to 2, got values from -1 to 0"),
        (np.array([0.5, 1]), 3, "class indices from 0 to 2, got values from 0.5 to 1"),
        (
            np.array([0, 1]),
            None,
            r"\(N, classes\), got \(2,\); class indices \(N,\) need `num_classes`",
        ),
        (np.array(1), 3, r"shape \(N, 3\), got \(\)"),
        (np.ones((2, 2)), 3, r"shape \(N, 3\), got \(2, 2\)"),
        (np.ones((2, 3, 1)), 3, r"shape \(N, 3\), got \(2, 3, 1\)"),
    ],
)
def test_what_is_no_label_is_refused(y, num_classes, message):
    with pytest.raises(ValueError, match=message):
        class_rows(y, num_classes)
