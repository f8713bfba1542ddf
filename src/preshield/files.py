"""Media files: a format is one decoder and one encoder in the tables at the end."""

import io
import secrets
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._core.typing import Array

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Media",
    "check_target",
    "encoder_for",
    "range_of",
    "read_media",
    "read_samples",
    "write_atomically",
]


@dataclass(frozen=True, eq=False)
class Media:
    """The content of a file.

    Attributes
    ----------
    x : ndarray
        A batch.
    single : bool
        Whether the file held one sample, without an axis of samples.
    is_image : bool
        Whether it was an image file.
    clip_values : tuple of float, optional
        The range of the values, if it is known.
    alpha : ndarray of uint8, shape (H, W), optional
        Transparency of an image.
    """

    x: Array
    single: bool
    is_image: bool
    clip_values: tuple[float, float] | None
    alpha: Array | None = None


def read_media(path: Path) -> Media:
    """Read a media file.

    Parameters
    ----------
    path : Path
        Its suffix tells the format; see `DECODERS`.

    Returns
    -------
    Media

    Raises
    ------
    ValueError
        If it cannot be read. Whatever the decoder has to say, the message names the file.
    """
    decode = _by_suffix(path, DECODERS, "read")
    try:
        media: Media = decode(path)
    except Exception as error:
        raise _unreadable(path, error) from error
    return media


def read_samples(path: Path) -> tuple[Array, Array]:
    """Read samples and their labels.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with the arrays ``x`` and ``y``, or ``x_test`` and ``y_test``.

    Returns
    -------
    x : ndarray, shape (N, ...)
        Samples.
    y : ndarray, shape (N,) or (N, K)
        Labels.

    Raises
    ------
    ValueError
        If it cannot be read, an array is missing or holds no numbers, or their lengths differ.
    """
    _by_suffix(path, {".npz": None}, "read")
    try:
        return _read_npz(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def encoder_for(path: Path) -> Callable[[Media], bytes]:
    """Return what encodes `Media` in the format of a file; the formats are in `ENCODERS`.

    Parameters
    ----------
    path : Path
        The file that will be written.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If there is no such format.
    """
    encode: Callable[[Media], bytes] = _by_suffix(path, ENCODERS, "write")
    return encode


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written: a folder, or one in a folder that does not exist.

    Parameters
    ----------
    path : Path
        The file that will be written.

    Raises
    ------
    ValueError
        With the reason.
    """
    if path.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: it is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, through a temporary one in the same folder.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    content : bytes or str
        Text is written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def range_of(x: Array) -> tuple[float, float] | None:
    """Tell the range of the values of an array where its type and values leave little doubt.

    Parameters
    ----------
    x : ndarray
        Samples.

    Returns
    -------
    tuple of float or None
        (0, 255) for `uint8`, (0, 1) for floating numbers within it.
    """
    if x.dtype == np.uint8:
        return 0.0, 255.0
    if x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1:
        return 0.0, 1.0
    return None


def _by_suffix(path: Path, table: dict[str, Any], verb: str) -> Any:
    try:
        return table[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"cannot {verb} {str(path)!r}: the name must end in {', '.join(table)}") from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}")


# Arrays


def _read_npz(path: Path) -> tuple[Array, Array]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # np.load would take it for a pickle, and recommend to load that
            raise ValueError("it is truncated, or no .npz archive")
    with np.load(path, allow_pickle=False) as arrays:
        for names in (("x", "y"), ("x_test", "y_test")):
            if set(names) <= set(arrays.files):
                x, y = (arrays[name] for name in names)
                break
        else:
            found = ", ".join(sorted(arrays.files)) or "nothing"
            raise ValueError(f"it must hold the arrays x and y, or x_test and y_test; it holds {found}")
    for name, array in zip(names, (x, y), strict=True):
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise ValueError(f"{name} must be an array of numbers, got shape {array.shape} of {array.dtype}")
    if len(x) != len(y):
        raise ValueError(f"it must hold one label for each sample, got {len(y)} for {len(x)}")
    return x, y


def _read_npy(path: Path) -> Media:
    x = np.load(path, allow_pickle=False)
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise ValueError("it must hold one array of numbers")
    single = x.ndim == 3
    return Media(x[None] if single else x, single, is_image=False, clip_values=range_of(x))


def _npy(media: Media) -> bytes:
    file = io.BytesIO()
    np.save(file, media.x[0] if media.single and len(media.x) == 1 else media.x)
    return file.getvalue()


# Images


def _read_image(path: Path) -> Media:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16"):  # 16 bits of grey, which convert() would saturate
            x, alpha = np.asarray(image, dtype=np.float32)[..., None] / 65535, None
        else:
            has_alpha = image.has_transparency_data
            grey = image.mode in ("1", "L", "LA", "La")
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if has_alpha else None
            pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32)
            x = (pixels[..., None] if grey else pixels) / 255
    return Media(x[None], single=True, is_image=True, clip_values=(0.0, 1.0), alpha=alpha)


def _png(media: Media) -> bytes:
    image = _image(media)
    if media.alpha is not None:
        from PIL import Image

        image.putalpha(Image.fromarray(media.alpha))
    return _encoded(image, format="PNG")


def _jpeg(media: Media) -> bytes:
    if media.alpha is not None and media.alpha.min() < 255:
        raise ValueError("a JPEG file cannot hold the transparency of the input; write a .png file")
    return _encoded(_image(media), format="JPEG", quality=95, subsampling=0)


def _encoded(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _image(media: Media) -> Any:
    """Make a Pillow image of 8 bits out of a batch of one."""
    from PIL import Image

    x = media.x
    if x.ndim != 4 or len(x) != 1 or x.shape[-1] not in (1, 3):
        raise ValueError(
            "an image file holds one image, (1, H, W, 1) or (1, H, W, 3), and the result has "
            f"shape {x.shape}; write a .npy file"
        )
    if media.clip_values is None:
        raise ValueError(
            "the range of the values is not known, and an image file needs it; "
            "give it as clip_values=(low, high), or write a .npy file"
        )
    low, high = media.clip_values
    pixels = np.rint((np.clip(x[0], low, high) - low) / (high - low) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


# Tables

DECODERS: dict[str, Callable[[Path], Media]] = {
    ".jpeg": _read_image,
    ".jpg": _read_image,
    ".npy": _read_npy,
    ".png": _read_image,
}
ENCODERS: dict[str, Callable[[Media], bytes]] = {
    ".jpeg": _jpeg,
    ".jpg": _jpeg,
    ".npy": _npy,
    ".png": _png,
}
