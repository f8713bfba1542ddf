"""Media files: a format is a kind of content, a decoder and an encoder, one row of the table at the end."""

import hashlib
import io
import math
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from ._core.limits import Limit, array_header, opened_archive
from ._core.pictures import plain
from ._core.threads import thread_count
from ._core.typing import Array, Dtype, Shape
from .codecs import h264
from .codecs.containers import container_into
from .codecs.errors import coding

__all__ = [
    "FORMATS",
    "Format",
    "Kind",
    "Media",
    "check_target",
    "encoder_for",
    "kind_of",
    "range_of",
    "read_media",
    "read_parts",
    "read_picture",
    "read_samples",
    "write_parts",
]

Kind: TypeAlias = Literal["array", "audio", "image", "video"]
NextPart: TypeAlias = Callable[[bytes], int | None]
PictureCheck: TypeAlias = Callable[[bytes, Any], bool]

OUTPUT_CRF = 10  # at which colour at half resolution is most of what a video loses
CHUNK = 1 << 20  # samples of audio converted in one go
LARGE = 1 << 31  # bytes of an array whose WAV file may need the header for more than 4 GiB
MOST_CHANNELS = 8  # for which FFmpeg has names
HELD_FRAMES = 16  # by a decoder of video, for reference
PIXELS_IN_THREADS = 1 << 25  # of the frames on which its threads work
ROWS = 256  # of an image that are converted in one go
# Bytes of audio and video for each of a file: more than speech with pauses and most films need
AUDIO_GROWTH, VIDEO_GROWTH = 16, 500
# With it FFmpeg's decoders of FLAC and JPEG refuse what they would conceal
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
SEGMENT, CHECKSUM = b"\x18\x53\x80\x67", b"\xbf\x84"  # elements of Matroska
BITS_OF_COLOUR = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples in a pixel of a PNG, by its type of colour
# First row, first column, and the steps between rows and columns, in each pass of an interlaced PNG
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Encodings of WAV files, by FFmpeg's names: format of the decoded samples, and bits of an integer
PCM = {
    "pcm_u8": ("u8", 8),
    "pcm_s16le": ("s16", 16),
    "pcm_s24le": ("s32", 24),
    "pcm_s32le": ("s32", 32),
    "pcm_f32le": ("flt", None),
    "pcm_f64le": ("dbl", None),
}


@dataclass(frozen=True, eq=False)
class Media:
    """The content of a file.

    Attributes
    ----------
    x : ndarray
        An image `(H, W, C)` in [0, 1], audio `(length,)` or `(length, C)` in [-1, 1], a video of uint8
        `(F, H, W, 3)`, or any array.
    kind : {"array", "audio", "image", "video"}
        What it is.
    clip_values : tuple of float, optional
        The range of the values, if it is known.
    rate : int or Fraction, optional
        Samples of audio, or frames, in a second.
    encoding : str, default "pcm_s16le"
        How a WAV file holds audio, one of `PCM`.
    alpha : ndarray of uint8, shape (H, W), optional
        Transparency of an image.
    seconds : Fraction, optional
        How long a video or a recording is as a whole, if its headers say so.
    """

    x: Array
    kind: Kind
    clip_values: tuple[float, float] | None = None
    rate: int | Fraction | None = None
    encoding: str = "pcm_s16le"
    alpha: Array | None = None
    seconds: Fraction | None = None


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes
    ----------
    kind : {"array", "audio", "image", "video"}
        What such a file holds.
    read : callable
        Its decoder.
    write : callable, optional
        Its encoder.
    """

    kind: Kind
    read: Callable[[Path, Limit], Media]
    write: Callable[[Media], bytes] | None = None


def kind_of(path: Path) -> Kind:
    """Tell what a file holds.

    Parameters
    ----------
    path : Path
        Its suffix tells the format; see `FORMATS`.

    Returns
    -------
    {"array", "audio", "image", "video"}

    Raises
    ------
    ValueError
        If there is no such format.
    """
    kind: Kind = _by_suffix(path, FORMATS, "read").kind
    return kind


def read_media(path: Path, limit: Limit | None = None) -> Media:
    """Read a media file.

    Parameters
    ----------
    path : Path
        Its suffix tells the format; see `FORMATS`.
    limit : Limit, optional
        How much it may hold; by default what the environment says.

    Returns
    -------
    Media

    Raises
    ------
    ValueError
        If it cannot be read, is damaged, as far as that can be known, or holds more than the limit. Whatever
        the decoder has to say, the message names the file.
    """
    file_format = _by_suffix(path, FORMATS, "read")
    try:
        media: Media = file_format.read(path, Limit.given(limit))
    except Exception as error:
        raise _unreadable(path, error) from error
    return media


def read_parts(path: Path, limit: Limit | None = None) -> Iterator[Media]:
    """Read a video frame by frame, or audio part by part, so that it need not fit in memory.

    Parameters
    ----------
    path : Path
        Its suffix tells the format; see `FORMATS`.
    limit : Limit, optional
        How large a frame may be, how much a decoder may hold, and how much audio there may be; by default
        what the environment says. The number of frames is not limited.

    Yields
    ------
    Media
        Parts along time: each frame of a video, `x` of shape `(1, H, W, 3)`, or some samples of audio.

    Raises
    ------
    ValueError
        As `read_media`; what the headers do not tell is found when it is read.
    """
    try:
        if kind_of(path) == "audio":
            yield from _parts_of_audio(path, Limit.given(limit))
        else:
            yield from _frames_of_video(path, Limit.given(limit), whole=False)
    except Exception as error:
        raise _unreadable(path, error) from error


def write_parts(file: IO[bytes], path: Path, parts: Iterable[Media]) -> None:
    """Write a video or audio as its parts come: the bytes that `encoder_for` gives for the whole.

    Where nobody knows how long audio will be, the header of a WAV file has room for more than 4 GiB.

    Parameters
    ----------
    file : file object
        Where it goes.
    path : Path
        Its suffix tells the format.
    parts : iterable of Media
        One or more, alike but for their lengths.

    Raises
    ------
    ValueError
        If they have not three channels, or more than eight.
    """
    write = _write_wav if kind_of(path) == "audio" else partial(_write_video, path.suffix.lower()[1:])
    if file.seekable():
        write(file, parts)
        return
    with TemporaryFile(prefix="preshield-") as whole:  # an encoder goes back to write the header
        write(whole, parts)
        whole.seek(0)
        shutil.copyfileobj(whole, file)


def read_picture(source: Path | bytes, limit: Limit | None = None) -> Any:
    """Read a picture as networks take it, in whichever of the formats of `PICTURES` it is.

    Parameters
    ----------
    source : Path or bytes
        A file of any name, or its content.
    limit : Limit, optional
        How much it may hold; by default what the environment says.

    Returns
    -------
    PIL.Image.Image
        In the mode "L" or "RGB": upright, the first frame of an animation, on white where it is transparent.

    Raises
    ------
    ValueError
        If it cannot be read, is damaged, as far as that can be known, or holds more than the limit; without
        its name.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        for start, (module, decoder, is_whole) in PICTURES.items():
            if data.startswith(start):
                made_by = getattr(import_module(module), decoder)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's, of odd metadata: they name no file
                    return _read_picture(made_by, is_whole, data, Limit.given(limit))
        formats = "PNG, JPEG, WebP, GIF or BMP"
        raise ValueError(f"it is no picture in the format {formats}" if data else "it is empty")
    except Exception as error:
        raise ValueError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def read_samples(path: Path, limit: Limit | None = None) -> tuple[Array, Array]:
    """Read samples and their labels.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with the arrays ``x`` and ``y``, or ``x_test`` and ``y_test``.
    limit : Limit, optional
        How much it may hold; by default what the environment says.

    Returns
    -------
    x : ndarray, shape (N, ...)
        Samples.
    y : ndarray, shape (N,) or (N, K)
        Labels.

    Raises
    ------
    ValueError
        If it cannot be read, an array is missing or holds no numbers, their lengths differ, or it holds more
        than the limit.
    """
    _by_suffix(path, {".npz": None}, "read")
    try:
        return _read_npz(path, Limit.given(limit))
    except Exception as error:
        raise _unreadable(path, error) from error


def encoder_for(path: Path, kind: Kind) -> Callable[[Media], bytes]:
    """Return what encodes `Media` in the format of a file; the formats are in `FORMATS`.

    Parameters
    ----------
    path : Path
        The file that will be written.
    kind : {"array", "audio", "image", "video"}
        What is to be written. A `.npy` file can hold all of them, and an image file also an array.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If there is no such format.
    """
    kinds = {kind, "array", "image"} if kind == "array" else {kind, "array"}
    table = {suffix: row.write for suffix, row in FORMATS.items() if row.write and row.kind in kinds}
    encode: Callable[[Media], bytes] = _by_suffix(path, table, "write", f"for {kind} data ")
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


def _by_suffix(path: Path, table: dict[str, Any], verb: str, condition: str = "") -> Any:
    try:
        return table[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"cannot {verb} {str(path)!r}: {condition}the name must end in {', '.join(table)}"
        ) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}")


def _broken(path: Path) -> ValueError:
    return ValueError(f"it is truncated, damaged, or no {path.suffix} file")


# Arrays


def _read_npz(path: Path, limit: Limit) -> tuple[Array, Array]:
    if not zipfile.is_zipfile(path):
        path.stat()
        raise ValueError("it is truncated, or no .npz archive")
    with opened_archive(path) as archive:
        found = sorted(name.removesuffix(".npy") for name in archive.namelist())
        for names in (("x", "y"), ("x_test", "y_test")):
            if set(names) <= set(found):
                break
        else:
            raise ValueError(
                "it must hold the arrays x and y, or x_test and y_test; "
                f"it holds {', '.join(found) or 'nothing'}"
            )
        size = 0
        for name in names:
            with archive.open(f"{name}.npy") as stream:
                shape, dtype = array_header(stream)
            if dtype.kind not in "biuf" or not shape:
                raise ValueError(f"{name} must be an array of numbers, got shape {shape} of {dtype}")
            size += math.prod(shape) * dtype.itemsize
        limit.check_bytes(size, path.stat().st_size)
        arrays = []
        for name in names:
            with archive.open(f"{name}.npy") as stream:
                arrays.append(np.lib.format.read_array(stream, allow_pickle=False))
    x, y = arrays
    if len(x) != len(y):
        raise ValueError(f"it must hold one label for each sample, got {len(y)} for {len(x)}")
    return x, y


def _read_npy(path: Path, limit: Limit) -> Media:
    size = path.stat().st_size
    with path.open("rb") as file:
        shape, dtype = array_header(file)
    if dtype.kind not in "biuf":
        raise ValueError("it must hold one array of numbers")
    limit.check_array(shape, dtype.itemsize, size)
    x = np.load(path, allow_pickle=False)
    return Media(x, "array", range_of(x))


def _npy(media: Media) -> bytes:
    file = io.BytesIO()
    np.save(file, media.x)
    return file.getvalue()


# Images


def _read_png(path: Path, limit: Limit) -> Media:
    # The decoder itself: what Pillow finds in a file by itself may be any of fifty formats.
    from PIL.PngImagePlugin import PngImageFile

    return _read_image(PngImageFile, _is_whole_png, path, limit)


def _read_jpeg(path: Path, limit: Limit) -> Media:
    from PIL.JpegImagePlugin import JpegImageFile

    return _read_image(JpegImageFile, _is_whole_jpeg, path, limit)


def _read_picture(decoder: Any, is_whole: PictureCheck, data: bytes, limit: Limit) -> Any:
    try:
        picture = decoder(io.BytesIO(data))
    except SyntaxError as error:
        raise ValueError("it is truncated or damaged") from error
    with picture:
        limit.check_pixels(*picture.size)
        limit.check_array((picture.height, picture.width, len(picture.getbands())), 1, len(data))
        if not is_whole(data, picture):
            raise ValueError("it is truncated or damaged")
        return plain(picture)


def _read_image(decoder: Callable[[Path], Any], is_whole: PictureCheck, path: Path, limit: Limit) -> Media:
    from PIL import ImageOps

    try:
        image = decoder(path)
    except SyntaxError as error:  # as Pillow says that it is another format
        raise _broken(path) from error
    with image:
        limit.check_pixels(*image.size)
        sixteen = image.mode.startswith("I;16")  # bits of grey, which convert() would saturate
        grey = sixteen or image.mode in ("1", "L", "LA", "La")
        channels = 1 if grey else 3
        limit.check_array((image.height, image.width, channels), 4, path.stat().st_size)
        if not is_whole(path.read_bytes(), image):
            raise _broken(path)
        ImageOps.exif_transpose(image, in_place=True)
        x = np.empty((image.height, image.width, channels), np.float32)
        has_alpha = not sixteen and image.has_transparency_data
        alpha = np.empty(x.shape[:2], np.uint8) if has_alpha else None
        for top in range(0, len(x), ROWS):  # in strips, so that nothing but the result is large
            rows = slice(top, top + ROWS)
            strip = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            if sixteen:
                x[rows, :, 0] = strip
                x[rows] /= 65535
                continue
            if alpha is not None:
                alpha[rows] = np.asarray(strip.convert("RGBA"))[..., 3]
            pixels = np.asarray(strip.convert("L" if grey else "RGB"))
            x[rows] = pixels.reshape(x[rows].shape)
            x[rows] /= 255
    return Media(x, "image", (0.0, 1.0), alpha=alpha)


def _is_whole_png(data: bytes, image: Any) -> bool:
    """Whether a PNG has all of its rows, for which Pillow would add black; bits changed since are refused."""
    with type(image)(io.BytesIO(data)) as again:
        again.verify()  # the checksum of each part
    position, parts = 8, []
    header = struct.unpack_from(">IIBBBBB", data, 16)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += length + 12
    size = _png_size(*header[:4], interlaced=bool(header[6]))
    return len(zlib.decompressobj().decompress(b"".join(parts), size)) >= size


def _png_size(width: int, height: int, depth: int, colour: int, *, interlaced: bool) -> int:
    """Bytes of the rows of a PNG, each with one for its filter."""
    total = 0
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -((top - height) // down), -((left - width) // right)
        if rows > 0 and columns > 0:
            total += rows * (1 + (columns * depth * BITS_OF_COLOUR[colour] + 7) // 8)
    return total


def _is_whole_jpeg(data: bytes, image: Any) -> bool:
    """Whether the data of a JPEG make sense to their end; libjpeg would fill what is missing with grey.

    FFmpeg's decoder can be told to be strict. What it cannot decode is left to Pillow. A format without
    checksums does not tell of every change, and what the last block lacks goes unnoticed.
    """
    import av

    if re.search(b"\xff[\xc9\xca]\0", data):  # arithmetic coding
        return True
    decoder = av.CodecContext.create("mjpeg", "r")
    most = (image.width + 64) * (image.height + 64)  # with the rest of its last blocks
    decoder.options = STRICT | {"max_pixels": str(most)}
    try:
        decoder.decode(av.Packet(data))
    except av.error.PatchWelcomeError:  # another subsampling
        return True
    except av.FFmpegError:
        return False
    return True


def _is_loaded(data: bytes, image: Any) -> bool:
    """Decode it: in other formats Pillow itself refuses what is not whole."""
    image.load()
    return True


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
    with coding(f"Pillow makes no {options['format']} file of an image of size {image.size}"):
        image.save(file, **options)
    return file.getvalue()


def _image(media: Media) -> Any:
    """Make a Pillow image of 8 bits."""
    from PIL import Image

    x = media.x[0] if media.x.ndim == 4 and len(media.x) == 1 else media.x  # a batch of one
    if x.ndim != 3 or x.shape[-1] not in (1, 3):
        raise ValueError(
            "an image file holds one image, (H, W, 1) or (H, W, 3), and the result has "
            f"shape {x.shape}; write a .npy file"
        )
    pixels = _to_bytes(x, media.clip_values)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _to_bytes(x: Array, clip_values: tuple[float, float] | None) -> Array:
    """Values of 8 bits, rounded and saturated."""
    if clip_values is None:
        raise ValueError(
            "the range of the values is not known, and an image file needs it; "
            "give it as clip_values=(low, high), or write a .npy file"
        )
    low, high = clip_values
    return np.rint((np.clip(x, low, high) - low) / (high - low) * 255).astype(np.uint8)


# Audio


class _Growing:
    """Arrays end to end, in memory that grows in place and no further than a limit."""

    def __init__(self, limit: Limit, path: Path, growth: int) -> None:
        self._limit, self._file_size, self._growth = limit, path.stat().st_size, growth
        self._memory = bytearray()
        self._shape: Shape = ()
        self._dtype: Dtype = np.dtype(np.uint8)

    def announce(self, size: int) -> None:
        """Refuse what is announced to take so many bytes."""
        self._limit.check_bytes(size, self._file_size, self._growth)

    def append(self, x: Array) -> None:
        """Add an array whose rows are like those of the first."""
        if not self._memory:
            self._shape, self._dtype = x.shape[1:], x.dtype
        elif (self._shape, self._dtype) != (x.shape[1:], x.dtype):
            raise ValueError(f"it goes on with another size or type: {x.shape[1:]} after {self._shape}")
        self.announce(len(self._memory) + x.nbytes)
        self._memory += np.ascontiguousarray(x).data.cast("B") if x.size else b""

    def array(self) -> Array:
        """All of them as one, in the same memory."""
        return np.frombuffer(self._memory, self._dtype).reshape(-1, *self._shape)


def _read_audio(path: Path, limit: Limit) -> Media:
    tracks = _Growing(limit, path, AUDIO_GROWTH)
    for part in _parts_of_audio(path, limit):
        tracks.append(part.x)
    return replace(part, x=tracks.array())


def _parts_of_audio(path: Path, limit: Limit) -> Iterator[Media]:
    """Audio as it is decoded. The limit counts all of it: what is not kept in memory may go to the disk."""
    demuxer, next_part = AUDIO_DEMUXERS[path.suffix.lower()]
    with _opened(path, demuxer, next_part, limit) as file:
        streams = [stream for stream in file.streams.audio if stream.format]
        if not streams:
            raise ValueError("it holds no audio")
        stream = streams[0]
        stream.codec_context.options = _strict(stream)
        encoding = _encoding(stream.codec_context.name, stream.codec_context.format.packed.name)
        bits, rate, announced = PCM[encoding][1], stream.sample_rate, stream.duration or 0
        of_sample = _float_type(bits, stream.codec_context.format.bytes).itemsize
        of_sample *= stream.codec_context.channels
        file_size = path.stat().st_size
        limit.check_bytes(announced * of_sample, file_size, AUDIO_GROWTH)
        media = Media(np.empty(0), "audio", (-1.0, 1.0), rate=rate, encoding=encoding)
        if announced:
            media = replace(media, seconds=Fraction(announced, rate))
        length, digest = 0, _FlacDigest(stream) if stream.codec_context.name == "flac" else None
        for frame in file.decode(stream):
            steps = _track(frame)
            if digest is not None:
                digest.update(steps)
            x = _to_float(steps, bits)
            length += len(x)
            limit.check_bytes(length * of_sample, file_size, AUDIO_GROWTH)
            if len(x):
                yield replace(media, x=x[:, 0] if x.shape[1] == 1 else x)
        if not length:
            raise ValueError("it holds no audio")
        if length < announced:
            raise ValueError(f"it is truncated: it holds {length} samples of {announced}")
        if digest is not None and not digest.is_right():
            raise ValueError("it is damaged: its samples do not have the MD5 sum that it states")


class _FlacDigest:
    """The MD5 sum of all samples of a FLAC file, which its header states. Frames have 16 bits for theirs."""

    def __init__(self, stream: Any) -> None:
        header = stream.codec_context.extradata or bytes(34)
        self.bits = ((header[12] & 1) << 4 | header[13] >> 4) + 1
        self.stated, self.sum = header[18:34], hashlib.md5(usedforsecurity=False)

    def update(self, steps: Array) -> None:
        """Take the next samples, which FFmpeg has shifted to the upper end of their type."""
        whole = (steps >> (8 * steps.itemsize - self.bits)).astype("<i4")
        self.sum.update(whole.reshape(-1, 1).view(np.uint8)[:, : -(-self.bits // 8)].tobytes())

    def is_right(self) -> bool:
        """Whether the samples are those of the encoder; also if it did not say."""
        return not any(self.stated) or self.sum.digest() == self.stated


def _track(frame: Any) -> Array:
    """Samples `(length, C)` of a frame."""
    samples: Array = frame.to_ndarray()
    return samples.T if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels))


def _encoding(codec: str, sample_format: str) -> str:
    """Which encoding of WAV keeps what a codec decodes to samples of this format."""
    if codec in PCM:
        return codec
    fits = [encoding for encoding, (decoded, _) in PCM.items() if decoded == sample_format]
    return fits[0]  # for "s32" that of 24 bits: FLAC's are seldom more


def _float_type(bits: int | None, itemsize: int) -> Dtype:
    """The smallest type that holds samples exactly: integers of so many bits, or floats of so many bytes."""
    return np.dtype(np.float64 if bits == 32 or (bits is None and itemsize == 8) else np.float32)


def _to_float(steps: Array, bits: int | None) -> Array:
    """Samples in [-1, 1]."""
    if bits is None:
        return steps
    x = steps.astype(_float_type(bits, steps.itemsize))
    if bits == 8:
        x -= 128
    x /= 2.0 ** (8 * steps.itemsize - 1)
    return x


def _to_steps(x: Array, sample_format: str, bits: int | None) -> Array:
    """Undo `_to_float`; round and saturate."""
    if bits is None:
        return x.astype(np.float32 if sample_format == "flt" else np.float64)
    full_scale = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(x * np.float64(full_scale)), -full_scale, full_scale - 1)
    if bits == 8:
        return (steps + 128).astype(np.uint8)
    return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << (32 - bits)


def _wav(media: Media) -> bytes:
    file = io.BytesIO()
    seconds = Fraction(len(media.x), media.rate or 1) if media.x.ndim else None
    _write_wav(file, [replace(media, seconds=seconds)])
    return file.getvalue()


def _write_wav(file: IO[bytes], parts: Iterable[Media]) -> None:
    import av

    parts = iter(parts)
    first = next(parts)
    if first.x.ndim not in (1, 2) or (first.x.ndim == 2 and first.x.shape[1] > MOST_CHANNELS):
        raise ValueError(
            f"a .wav file holds one recording, (length,) or (length, C) with C up to {MOST_CHANNELS}, and "
            f"the result has shape {first.x.shape}; write a .npy file"
        )
    sample_format, bits = PCM[first.encoding]
    channels = first.x.shape[1] if first.x.ndim == 2 else 1
    size = None if first.seconds is None else first.seconds * (first.rate or 0) * channels * first.x.itemsize
    layout = f"{channels}c"
    options = h264.MUXER_OPTIONS | {"rf64": "auto" if size is None or size > LARGE else "never"}
    refused = f"FFmpeg makes no .wav file of audio of shape {first.x.shape} at {first.rate} Hz"
    with container_into(file, "wav", refused, options) as output:
        with coding(refused):
            stream = output.add_stream(first.encoding, rate=first.rate, layout=layout)
        done = 0
        for part in chain([first], parts):
            for start in range(0, len(part.x), CHUNK):
                steps = _to_steps(part.x[start : start + CHUNK], sample_format, bits)
                with coding(refused):
                    frame = av.AudioFrame.from_ndarray(
                        steps.reshape(1, -1), format=sample_format, layout=layout
                    )
                    frame.sample_rate = first.rate
                    frame.pts = done + start
                    output.mux(stream.encode(frame))
            done += len(part.x)


# Video


def _read_video(path: Path, limit: Limit) -> Media:
    frames = _Growing(limit, path, VIDEO_GROWTH)
    for frame in _frames_of_video(path, limit, whole=True):
        frames.append(frame.x)
    return replace(frame, x=frames.array())


def _frames_of_video(path: Path, limit: Limit, *, whole: bool) -> Iterator[Media]:
    """Frames, one by one; `whole` if all of them will be kept."""
    from av.stream import Disposition
    from av.video.reformatter import VideoReformatter

    demuxer, next_part = DEMUXERS[path.suffix.lower()]
    reformatter = VideoReformatter()
    with _opened(path, demuxer, next_part, limit) as file:
        picture = Disposition.attached_pic  # the cover of a recording
        streams = [stream for stream in file.streams.video if not stream.disposition & picture]
        if not streams:
            raise ValueError("it holds no video")
        stream = streams[0]
        limit.check_pixels(stream.width, stream.height)
        pixels = stream.width * stream.height
        bits = stream.format.padded_bits_per_pixel if stream.format else 24
        kept = 3 * pixels * stream.frames if whole else 0
        limit.check_bytes(max(kept, HELD_FRAMES * pixels * bits // 8), path.stat().st_size, VIDEO_GROWTH)
        stream.codec_context.options = _strict(stream) | {"max_pixels": str(limit.pixels)}
        stream.thread_type = "AUTO"
        # Threads take memory. What is not kept is encoded again, which takes far longer than decoding.
        threads = min(thread_count(), PIXELS_IN_THREADS // max(1, pixels)) if whole else 1
        stream.thread_count = max(1, threads)
        rate = stream.average_rate or stream.guessed_rate
        seconds = Fraction(file.duration, 10**6) if file.duration else None
        shape, number = None, 0
        for number, frame in enumerate(file.decode(stream), 1):
            if frame.is_corrupt:
                raise ValueError(f"its frame {number - 1} is damaged")
            turns = frame.rotation // 90  # as a player shows it
            frame = reformatter.reformat(frame, format="rgb24", interpolation=h264.INTERPOLATION)
            pixels = np.rot90(frame.to_ndarray(), turns)
            if shape not in (None, pixels.shape):
                raise ValueError(f"it goes on with another size: {pixels.shape} after {shape}")
            shape = pixels.shape
            yield Media(pixels[None], "video", (0.0, 255.0), rate=rate, seconds=seconds)
    if not number:
        raise ValueError("it holds no frames")


def _video(container: str, media: Media) -> bytes:
    if media.x.ndim != 4:
        raise _no_video(media.x.shape)
    file = io.BytesIO()
    _write_video(container, file, (replace(media, x=frame[None]) for frame in media.x))
    return file.getvalue()


def _write_video(container: str, file: IO[bytes], parts: Iterable[Media]) -> None:
    parts = iter(parts)
    first = next(parts)
    _, height, width, channels = first.x.shape
    if channels != 3:
        raise _no_video(("F", height, width, channels))
    h264.encode_into(
        file,
        (_pixels(replace(part, x=frame)) for part in chain([first], parts) for frame in part.x),
        container,
        OUTPUT_CRF,
        frame_rate=first.rate or h264.FRAME_RATE,
        pixel_format="yuv444p" if height % 2 or width % 2 else "yuv420p",
    )


def _pixels(frame: Media) -> Array:
    """Values of 8 bits; frame by frame, for the conversion takes several times the memory of its result."""
    return frame.x if frame.x.dtype == np.uint8 else _to_bytes(frame.x, frame.clip_values)


def _no_video(shape: tuple[Any, ...]) -> ValueError:
    return ValueError(
        "a video file holds one video, (F, H, W, 3), and the result has "
        f"shape ({', '.join(map(str, shape))}); write a .npy file"
    )


# FFmpeg, and the truncated files whose beginning it would take for the whole


@contextmanager
def _opened(path: Path, demuxer: str, next_part: NextPart, limit: Limit) -> Iterator[Any]:
    """Open a file by FFmpeg's demuxer; left to guess, FFmpeg would take a text for a list of other files."""
    import av

    if not _is_whole(path, next_part) or (demuxer == "matroska" and not _sums_are_right(path)):
        raise _broken(path)
    options = {"max_pixels": str(limit.pixels)}  # larger ones are not even looked at
    try:
        # Older programs wrote tags, which nobody asks for here, in the encoding of their system.
        with av.open(path, format=demuxer, options=options, metadata_errors="ignore") as file:
            yield file
    except av.FFmpegError as error:
        raise _broken(path) from error


def _strict(stream: Any) -> dict[str, str]:
    """Options that have a decoder refuse damage, if it then takes all that is whole; others find no more."""
    return STRICT if stream.codec_context.name in ("flac", "mjpeg") else {}


def _is_whole(path: Path, next_part: NextPart) -> bool:
    """Tell whether a file goes on to the end of every part that its headers announce.

    `next_part` takes 16 bytes where a part begins, or those that are left, and returns how far away the next
    one is; 0 if its header is cut off, None if what follows says no length. A file that ends with a whole
    fragment is whole: neither fragmented MP4 nor what was written to a pipe says how much is to follow.
    """
    size, position, head = path.stat().st_size, 0, b""
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length = next_part(head)
            if length is None:
                return True
            if not length:
                return False
            position += length
    return 0 < position == size and head[4:8] != b"moof"  # a box that announces frames: they are missing


def _next_chunk(head: bytes) -> int | None:
    """WAV and AVI: four letters, a length."""
    if head[:4] in (b"RIFF", b"RF64"):
        return 12  # look inside
    if head[:1] == b"\0":  # after a chunk of odd length
        return None if head[1:2] == b"\0" else 1
    length = int.from_bytes(head[4:8], "little")
    unknown = length == 0xFFFFFFFF or (head[:4] == b"data" and not length)  # written to a pipe
    return None if unknown else 8 + length


def _no_parts(head: bytes) -> None:
    """FLAC: it says how many samples it has, not how many bytes."""


def _next_box(head: bytes) -> int | None:
    """MP4 and MOV: a length, four letters, and a longer length where the first is 1."""
    length = int.from_bytes(head[:4], "big")
    if len(head) < (16 if length == 1 else 8):
        return 0
    return int.from_bytes(head[8:], "big") if length == 1 else length or None


def _next_element(head: bytes) -> int | None:
    """Matroska: what begins so, and its content."""
    start, length = _element(head)
    return start if length is None else start + length  # look inside what was written to a pipe


def _element(head: bytes) -> tuple[int, int | None]:
    """Matroska: a number and a length, each as long as its leading zero bits say.

    Returns how long both are, and the length, or None if it is not known.
    """
    head = head.ljust(16, b"\0")  # a number that the end of the file cuts off is still as long
    start = 9 - head[0].bit_length()
    end = start + 9 - head[min(start, 15)].bit_length()
    largest = (1 << 7 * (end - start)) - 1
    length = int.from_bytes(head[start:end], "big") & largest
    return end, None if length == largest else length


def _sums_are_right(path: Path) -> bool:
    """Tell whether the parts of a Matroska file have the checksums that their writer gave them, if it did."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            start, length = _element(head)
            if length is None or head.startswith(SEGMENT):
                position += start  # look inside
                continue
            file.seek(position + start)
            first = file.read(min(length, 6))
            found = zlib.crc32(file.read(length - 6)) if first.startswith(CHECKSUM) else None
            if found is not None and found != int.from_bytes(first[2:], "little"):
                return False
            position += start + length
    return True


# Tables

PICTURES: dict[bytes, tuple[str, str, PictureCheck]] = {  # by their first bytes: Pillow's decoder
    b"\x89PNG\r\n\x1a\n": ("PIL.PngImagePlugin", "PngImageFile", _is_whole_png),
    b"\xff\xd8": ("PIL.JpegImagePlugin", "JpegImageFile", _is_whole_jpeg),
    b"RIFF": ("PIL.WebPImagePlugin", "WebPImageFile", _is_loaded),
    b"GIF8": ("PIL.GifImagePlugin", "GifImageFile", _is_loaded),
    b"BM": ("PIL.BmpImagePlugin", "BmpImageFile", _is_loaded),
}

# FFmpeg's name, and how to find the parts of a file
AUDIO_DEMUXERS: dict[str, tuple[str, NextPart]] = {".flac": ("flac", _no_parts), ".wav": ("wav", _next_chunk)}
DEMUXERS: dict[str, tuple[str, NextPart]] = {
    ".avi": ("avi", _next_chunk),
    ".mkv": ("matroska", _next_element),
    ".mov": ("mov", _next_box),
    ".mp4": ("mov", _next_box),
}
FORMATS: dict[str, Format] = {
    ".avi": Format("video", _read_video, partial(_video, "avi")),
    ".flac": Format("audio", _read_audio),
    ".jpeg": Format("image", _read_jpeg, _jpeg),
    ".jpg": Format("image", _read_jpeg, _jpeg),
    ".mkv": Format("video", _read_video, partial(_video, "mkv")),
    ".mov": Format("video", _read_video, partial(_video, "mov")),
    ".mp4": Format("video", _read_video, partial(_video, "mp4")),
    ".npy": Format("array", _read_npy, _npy),
    ".png": Format("image", _read_png, _png),
    ".wav": Format("audio", _read_audio, _wav),
}
