import numpy as np
import pytest

from preshield import plots
from tests.plots.helpers import IMAGES, shown


def test_difference_is_amplified_about_grey():
    clean = np.full((2, 1, 2, 1), 100.0)
    attacked = clean + np.array([3.0, -4.0, 0.0, 2.0]).reshape(2, 1, 2, 1)
    column = plots.difference_column(clean, attacked, amplify=10, clip_values=(0, 200))
    np.testing.assert_allclose(column.images.ravel(), [0.65, 0.3, 0.5, 0.6])
    assert (column.subtitle, column.labels) == ("×10", ["L2 5", "L2 2"])
    column = plots.difference_column(clean, attacked, clip_values=(0, 200), norm="linf")
    np.testing.assert_allclose(column.images.ravel(), [0.875, 0, 0.5, 0.75])  # the largest reaches the end
    assert (column.subtitle, column.labels) == ("×25", ["L∞ 4", "L∞ 2"])


def test_no_difference_is_grey():
    assert (plots.difference_column(IMAGES, IMAGES).images == 0.5).all()


def test_unsigned_integers_have_negative_differences():
    clean = np.full((1, 1, 1, 1), 9, dtype=np.uint8)
    column = plots.difference_column(clean, clean - 4, amplify=1, clip_values=(0, 10))
    assert column.images.item() == pytest.approx(0.1)
    assert column.labels == ["L2 4"]


def test_before_after_marks_predictions():
    codes = np.repeat(IMAGES, 2, axis=-1) + np.tile([0.1, -0.1], 3)  # two codes for each channel
    axes = plots.before_after(
        IMAGES,
        IMAGES / 2,
        {"median": IMAGES / 4, "code": codes},
        labels=["cat", "dog"],
        predictions={"Attacked": ["dog", "dog"], "median": ["cat", "cat"]},
    )
    assert [ax.get_title() for ax in axes[0]] == ["Before", "Attacked", "Difference", "median", "code"]
    assert [ax.get_xlabel() for ax in axes[0]] == ["cat", "✗ dog", axes[0, 2].get_xlabel(), "✓ cat", ""]
    np.testing.assert_array_equal(shown(axes[1, 3]), IMAGES[1] / 4)
    np.testing.assert_allclose(shown(axes[0, 4]), np.clip(IMAGES[0], 0, 1), atol=1e-12)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.difference_column(IMAGES, IMAGES[:1]), "`clean` and `attacked` must have one shape"),
        (
            lambda: plots.difference_column(IMAGES, IMAGES, norm="l3"),
            "`norm` must be one of 'l2', 'linf', 'l1'",
        ),
        (lambda: plots.difference_column(IMAGES, IMAGES, amplify=-1), "`amplify` must be at least 0"),
        (
            lambda: plots.before_after(IMAGES, IMAGES, IMAGES, predictions={"after": ["x", "y"]}),
            "`predictions` must have titles of columns as keys \\(Before, Attacked, Defended\\), got 'after'",
        ),
    ],
)
def test_comparisons_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
