"""Frames of videos."""

from collections.abc import Mapping

import numpy as np

from .._core.checks import check_integer, check_number
from .._core.errors import ArgumentError
from .._core.typing import Array, ClipValues
from .figures import wrapped
from .images import heading, scaled_images, sheet_axes, show_image

__all__ = ["frame_strip"]


def frame_strip(
    clips: Array | Mapping[str, Array],
    *,
    frames: int = 8,
    rate: float | None = None,
    clip_values: ClipValues = (0.0, 1.0),
    axes: Array | None = None,
) -> Array:
    """Draw frames of a video, evenly spaced from the first to the last.

    Parameters
    ----------
    clips : ndarray, shape (F, H, W, C), or dict of str to ndarray
        A video, or several of the same number of frames, one below the other.
    frames : int, default 8
        How many frames; all, if the video has fewer.
    rate : float, optional
        Frames per second; with it, frames are named by their time.
    clip_values : tuple, default (0, 1)
        The values shown as black and white.
    axes : ndarray of Axes, shape (clips, frames), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (clips, frames)

    Raises
    ------
    ValueError
        If a clip is no video, or the clips differ in their number of frames.

    Examples
    --------
    >>> axes = frame_strip(np.zeros((30, 8, 8, 3)), frames=3, rate=25)
    >>> [ax.get_title() for ax in axes[0]]
    ['0.00 s', '0.56 s', '1.16 s']
    """
    frames = check_integer("frames", frames, minimum=1)
    if rate is not None:
        check_number("rate", rate, minimum=1e-12)
    named = clips if isinstance(clips, Mapping) else {"": clips}
    shown = {name: scaled_images("clips", clip, clip_values, "(F, H, W, C)") for name, clip in named.items()}
    lengths = {len(clip) for clip in shown.values()}
    if len(lengths) != 1:
        raise ArgumentError(
            "`clips` must hold at least one video, all of one number of frames, got "
            f"{', '.join(map(str, sorted(lengths))) or 'none'}."
        )
    places = np.unique(np.linspace(0, lengths.pop() - 1, num=frames).round().astype(int))
    shape = next(iter(shown.values())).shape[1:]
    grid = sheet_axes(axes, shape, len(shown), len(places), header=0.3, footer=0.03)
    for place, ax in zip(places, grid[0], strict=True):
        heading(ax, f"frame {place}" if rate is None else f"{place / rate:.2f} s")
    for (name, clip), row in zip(shown.items(), grid, strict=True):
        for place, ax in zip(places, row, strict=True):
            show_image(ax, clip[place])
        row[0].set_ylabel(wrapped(name, 16), fontsize=7)
    return grid
