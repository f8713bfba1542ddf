"""JPEG, in memory: encoded by Pillow, decoded by libjpeg-turbo without the global interpreter lock."""

from io import BytesIO

from .._core.typing import Array

__all__ = ["decode", "encode"]


def encode(pixels: Array, quality: int) -> bytes:
    """Compress one image.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3) or (H, W)
        RGB or greyscale.
    quality : int
        1 to 100.

    Returns
    -------
    bytes
        A baseline JPEG file; colour is stored at half resolution, as is Pillow's default.
    """
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def decode(data: bytes, *, grey: bool = False) -> Array:
    """Decompress one image, with the accurate transform and smooth chroma, as Pillow does.

    Parameters
    ----------
    data : bytes
        A JPEG file.
    grey : bool, default False
        Return luminance alone.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3) or (H, W)
    """
    import simplejpeg

    pixels: Array = simplejpeg.decode_jpeg(
        data, colorspace="GRAY" if grey else "RGB", fastdct=False, fastupsample=False
    )
    return pixels[:, :, 0] if grey else pixels
