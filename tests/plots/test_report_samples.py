from dataclasses import replace

import numpy as np
import pytest

from preshield import plots
from tests.plots.helpers import IMAGES, report, shown


def samples(clean, attacked):
    return plots.samples(report(pictures={"clean": clean, "attacked": attacked}))


def test_images_are_shown_as_the_model_receives_them_and_attacked_through_each_defence():
    above, jpeg, median = plots.samples(report(images=True))
    attacked = IMAGES[0] ** 2
    assert [ax.get_title() for ax in above] == ["Original", "Attacked", "Difference"]
    below = ["Attacked,\nthen defended", "Attacked through\nthe defence", "Difference"]
    assert [ax.get_title() for ax in jpeg] == below
    assert [ax.get_title() for ax in median] == [""] * 3
    np.testing.assert_array_equal(shown(above[0]), IMAGES[0])
    np.testing.assert_array_equal(shown(above[1]), attacked)
    for row in (jpeg, median):
        np.testing.assert_allclose(shown(row[0]), attacked / 2)
        np.testing.assert_allclose(shown(row[1]), attacked / 8)
        assert row[2].get_xlabel().startswith(f"L2 {np.linalg.norm(attacked / 4 - IMAGES[0]):.3g}, ×")
    names = ["no defence", "JpegCompression,\nquality=50,\nsubsampling 2", "median"]
    assert [row[0].get_ylabel() for row in (above, jpeg, median)] == names


def test_what_is_predicted_stands_below():
    found = replace(report(images=True), class_names=("a tree frog of Madagascar", "cat"))
    above, jpeg, _ = plots.samples(found)
    assert [ax.get_xlabel() for ax in above[:2]] == ["✓ 7, 0.95", "✗ cat, 0.80"]
    assert [ax.get_xlabel() for ax in jpeg[:2]] == ["✗ cat, 0.80", "✗ a tree frog of Ma…"]


def test_rejected_samples_and_those_without_an_attack_are_named():
    found = report(images=True)
    *_, row = found.rows
    row.pictures["attacked"] = found.pictures["clean"]
    row.pictures["predicted"] = np.array([[-1, 7]])
    assert [ax.get_xlabel() for ax in plots.samples(found)[2]] == [
        "✗ rejected, 0.80",
        "✓ 7",
        "no attack succeeded",
    ]
    row.pictures["predicted"] = np.array([[7, 1]])
    assert plots.samples(found)[2, 2].get_xlabel() == "wrong without an attack"


def test_images_that_attacks_changed_are_shown_first():
    found = report(images=True)
    clean = np.concatenate([IMAGES[:1], IMAGES[1:2] ** 2, IMAGES[1:2]])
    found = replace(found, pictures={"clean": clean, "attacked": clean**2})
    for row in found.rows[1:]:
        row.pictures.update(dict.fromkeys(("attacked", "defended", "received"), clean / 2))
        row.pictures["attacked"] = np.concatenate([clean[:1], clean[1:] / 2])
    grid = plots.samples(found)
    assert grid.shape == (3, 6)
    np.testing.assert_array_equal(shown(grid[0, 0]), clean[1])
    np.testing.assert_array_equal(shown(grid[0, 3]), clean[2])


def test_the_largest_differences_saturate():
    """One value in 200 is black or white: of 10 x 10 x 3, the largest two."""
    clean = np.full((1, 10, 10, 3), 0.5)
    attacked = clean.copy()
    attacked.flat[:3] = 0.6, 0.51, 0.49
    grid = samples(clean, attacked)
    difference = shown(grid[0, 2])
    assert difference.flat[0] == 1
    assert np.count_nonzero(difference != 0.5) == 3
    assert grid[0, 2].get_xlabel().startswith("L2 0.101, ×")


@pytest.mark.parametrize(("norm", "words"), [("l1", "L1 1.2"), ("linf", "L∞ 0.1")])
def test_the_norm_is_that_of_the_threat(norm, words):
    clean = np.full((1, 2, 2, 3), 0.5)
    found = report(pictures={"clean": clean, "attacked": clean + 0.1})
    found = replace(found, threat=replace(found.threat, kind=f"{norm}-minimum"))
    assert plots.samples(found)[0, 2].get_xlabel() == f"{words}, ×5"


def test_images_with_channels_first():
    first = np.moveaxis(IMAGES, -1, 1)
    grid = samples(first, first / 2)
    assert grid.shape == (3, 6)
    np.testing.assert_array_equal(shown(grid[0, 3]), IMAGES[1])


def test_signals():
    clean = np.sin(np.arange(300).reshape(3, 100) / 9)
    grid = samples(clean, clean + 0.01)
    assert grid.shape == (1, 2)  # two of the signals
    ax = grid[0, 1]
    zeros = ax.get_yticks()
    largest = np.abs(clean[1]).max()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), clean[1])
    np.testing.assert_allclose(ax.lines[2].get_ydata() - zeros[2], largest)  # the amplified difference
    np.testing.assert_allclose(ax.lines[4].get_ydata() - zeros[4], (clean[1] + 0.01) / 2)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:3] == ["Before", "Attacked", f"Difference ×{100 * largest:.3g}"]


@pytest.mark.parametrize("axis", [1, 2])
def test_signals_with_an_axis_for_their_only_channel(axis):
    clean = np.sin(np.arange(300).reshape(3, 100) / 9)
    grid = samples(*(np.expand_dims(x, axis) for x in (clean, clean + 0.01)))
    assert grid.shape == (1, 2)
    np.testing.assert_allclose(grid[0, 1].lines[0].get_ydata(), clean[1])
    np.testing.assert_allclose(
        grid[0, 1].lines[4].get_ydata() - grid[0, 1].get_yticks()[4], (clean[1] + 0.01) / 2
    )


def test_signals_of_different_lengths():
    clean = np.empty(2, dtype=object)
    clean[:] = [np.ones(30), np.ones(20)]
    grid = samples(clean, clean * 0.5)
    assert [len(ax.lines[0].get_xdata()) for ax in grid[0]] == [30, 20]


def test_videos():
    clip = np.linspace(0, 1, 10)[None, :, None, None, None] * np.ones((1, 10, 4, 4, 3))
    strips = samples(clip, clip * 0.5)
    assert strips.shape == (5, 8)
    assert [shown(row[-1])[0, 0, 0] for row in strips] == [1, 0.5, 0, 0.25, 0.25]
    assert strips[2, 0].get_ylabel() == "Difference ×1"


def test_samples_fill_a_figure_of_their_own():
    grid = plots.samples(report(images=True))
    assert grid[0, 0].figure.axes == list(grid.flat)


def test_what_the_model_receives_is_shown_where_it_is_a_signal():
    clean = np.sin(np.arange(60).reshape(2, 30) / 9)
    for received in (clean[:, :1], clean.reshape(2, 6, 5)):
        found = report(pictures={"clean": clean, "attacked": clean + 0.01})
        for row in found.rows[1:]:
            row.pictures["defended"] = received
        assert len(plots.samples(found)[0, 0].get_yticks()) == 3


@pytest.mark.parametrize(
    "shape",
    [(0,), (2, 3, 4), (2, 4, 4, 9), (2, 1), (2, 1, 1)],
    ids=["none", "features", "codes", "one", "one, with an axis"],
)
def test_other_samples_are_not_shown(shape):
    assert samples(np.zeros(shape), np.zeros(shape)).shape == (0, 0)
    assert len(plots.report(report(pictures={"clean": np.zeros(shape), "attacked": np.zeros(shape)}))) == 1


def test_a_report_without_samples():
    assert plots.samples(report()).shape == (0, 0)
