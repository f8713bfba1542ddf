import numpy as np
import pytest

from preshield import plots
from tests.plots.helpers import IMAGES, report, shown


def samples(clean, attacked):
    return plots.samples(report(pictures={"clean": clean, "attacked": attacked}))


def test_images_are_shown_as_the_model_receives_them_and_attacked_through_each_defence():
    above, below = plots.samples(report(images=True))
    attacked = IMAGES[0] ** 2
    titles = ["Before", "Attacked", "Difference", "JpegCompression,\nquality=50,\nsubsampling 2", "median"]
    assert [ax.get_title() for ax in above] == titles
    np.testing.assert_array_equal(shown(above[0]), IMAGES[0])
    np.testing.assert_array_equal(shown(above[1]), attacked)
    np.testing.assert_array_equal(shown(above[3]), attacked / 2)
    np.testing.assert_array_equal(shown(below[3]), attacked / 4)
    assert above[0].get_xlabel() == "7"
    assert below[4].get_xlabel() == f"L2 {np.linalg.norm(attacked / 4 - IMAGES[0]):.3g}"
    assert not any(ax.axison for ax in below[:3])
    assert [text.get_text() for text in below[2].texts] == ["Attacked through\nthe defence:"]


def test_images_with_channels_first():
    first = np.moveaxis(IMAGES, -1, 1)
    grid = samples(first, first / 2)
    assert grid.shape == (4, 5)
    np.testing.assert_array_equal(shown(grid[1, 0]), IMAGES[1])


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
