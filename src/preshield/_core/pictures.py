"""Pictures of Pillow in any mode, as networks take them: upright, of 8 bits, without transparency."""

import sys
from typing import Any

import numpy as np

from .errors import ArgumentError
from .typing import Array

__all__ = ["BACKGROUND", "centred", "is_picture", "plain", "values_of"]

BACKGROUND = "white"  # of what is transparent
GREY = ("1", "L", "LA", "La")
LEVELS = 255


def is_picture(value: Any) -> bool:
    """Whether it is an image of Pillow, which is not imported to find out."""
    images = sys.modules.get("PIL.Image")
    return images is not None and isinstance(value, images.Image)


def plain(picture: Any) -> Any:
    """A picture in the mode "L" or "RGB", turned upright as its EXIF data say.

    Parameters
    ----------
    picture : PIL.Image.Image
        In any mode of 8 bits, or of 16 bits of grey, which are scaled. The first frame of an animation
        counts, and what is transparent lies on white.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ArgumentError
        If its values have no known range: 32 bits, or floating numbers.
    """
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):  # which convert() would saturate
        levels = np.rint(np.asarray(picture) / 65535.0 * LEVELS)
        return Image.fromarray(levels.astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ArgumentError(
            f"it is a picture of mode {picture.mode!r}, whose range is not known; save it with 8 or 16 bits"
        )
    mode = "L" if picture.mode in GREY else "RGB"
    if picture.has_transparency_data:
        top = picture.convert("RGBA")
        picture = Image.new("RGBA", top.size, BACKGROUND)
        picture.alpha_composite(top)
    return picture if picture.mode == mode else picture.convert(mode)


def values_of(picture: Any, channels: int, *, channels_first: bool) -> Array:
    """Values of a picture in [0, 1].

    Parameters
    ----------
    picture : PIL.Image.Image
        In the mode "L" or "RGB".
    channels : {1, 3}
        Grey is repeated for three channels; colours become their luma in one.
    channels_first : bool
        Where the channels go.

    Returns
    -------
    ndarray of float32, shape (C, H, W) or (H, W, C)
    """
    levels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32)
    x = levels.reshape(picture.height, picture.width, channels) / np.float32(LEVELS)
    return np.ascontiguousarray(np.moveaxis(x, -1, 0)) if channels_first else x


def centred(picture: Any, size: int) -> Any:
    """The square of `size` pixels in the middle of a picture whose shorter side was resized to that."""
    from PIL import Image

    width, height = picture.size
    shorter = min(width, height)
    if shorter != size:
        width, height = (max(size, round(side * size / shorter)) for side in (width, height))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))
