import numpy as np
import pytest

from preshield import plots
from tests.plots.helpers import IMAGES, shown


def test_frames_are_evenly_spaced():
    clip = np.linspace(0, 1, 11)[:, None, None, None] * np.ones((11, 2, 2, 3))
    axes = plots.frame_strip({"clean": clip, "attacked": 1 - clip}, frames=3, rate=5)
    assert [[shown(ax)[0, 0, 0] for ax in row] for row in axes] == [[0, 0.5, 1], [1, 0.5, 0]]
    assert [ax.get_title() for ax in axes[0]] == ["0.00 s", "1.00 s", "2.00 s"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["clean", "attacked"]
    assert plots.frame_strip(clip, frames=50).shape == (1, 11)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.frame_strip(IMAGES[0]), "must have the shape \\(F, H, W, C\\)"),
        (lambda: plots.frame_strip({"a": IMAGES, "b": IMAGES[:1]}), "one number of frames, got 1, 2"),
        (lambda: plots.frame_strip({}), "at least one video.*got none"),
        (lambda: plots.frame_strip(IMAGES, frames=0), "`frames` must be at least 1"),
    ],
)
def test_frame_strips_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
