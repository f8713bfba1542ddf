"""H.264, in memory or in files: x264 encodes and FFmpeg decodes, through PyAV, without the global lock."""

import os
import platform
from collections.abc import Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from itertools import chain
from typing import IO

import numpy as np

from .._core.typing import Array
from .containers import container_into
from .errors import CodecError, coding

__all__ = [
    "CONTAINERS",
    "DEMUXERS",
    "FRAME_RATE",
    "INTERPOLATION",
    "MUXER_OPTIONS",
    "PRESETS",
    "decode",
    "decode_from",
    "encode",
    "encode_into",
    "encoder_options",
    "to_even_sides",
]

CONTAINERS = {"mp4": "mp4", "mkv": "matroska", "avi": "avi", "mov": "mov"}  # FFmpeg's name for each
FRAME_RATE = 25  # frames per second, what ffmpeg takes for raw video
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
MUXER_OPTIONS = {"fflags": "+bitexact"}  # no random numbers and no dates in a file
# Left to guess, FFmpeg would take a text for a list of other files
DEMUXERS = {"format_whitelist": ",".join(CONTAINERS.values())}
INTERPOLATION = "BICUBIC"  # of chroma, as in the ffmpeg program


def encode(
    frames: Array,
    container: str,
    constant_rate_factor: int,
    preset: str = "medium",
    *,
    frame_rate: Fraction | int = FRAME_RATE,
    pixel_format: str = "yuv420p",
) -> bytes:
    """Compress one clip.

    Parameters
    ----------
    frames : ndarray of uint8, shape (F, H, W, 3)
        RGB, one frame or more.
    container : str
        One of `CONTAINERS`.
    constant_rate_factor : int
        0 (nothing is lost but colour at half resolution) to 51 (worst).
    preset : str, default "medium"
        One of `PRESETS`: the slower, the fewer bytes.
    frame_rate : Fraction or int, default 25
        Frames per second.
    pixel_format : {"yuv420p", "yuv444p"}, default "yuv420p"
        Colour at half resolution, for which the last row or column is repeated where H or W is odd; or at
        full resolution, which fewer players know.

    Returns
    -------
    bytes
        A video file, the same for the same frames, on any number of threads.

    Raises
    ------
    CodecError
        A ValueError: if x264 or FFmpeg refuses them.
    """
    file = BytesIO()
    encode_into(
        file,
        frames,
        container,
        constant_rate_factor,
        preset,
        frame_rate=frame_rate,
        pixel_format=pixel_format,
    )
    return file.getvalue()


def encode_into(
    file: IO[bytes],
    frames: Iterable[Array],
    container: str,
    constant_rate_factor: int,
    preset: str = "medium",
    *,
    frame_rate: Fraction | int = FRAME_RATE,
    pixel_format: str = "yuv420p",
) -> None:
    """Compress frames as they come; what is written is what `encode` returns.

    Parameters
    ----------
    file : file object
        Can be written and sought.
    frames : iterable of ndarray of uint8, shape (H, W, 3)
        RGB, one frame or more, all of one size. What it raises passes as it is.
    container, constant_rate_factor, preset, frame_rate, pixel_format
        Those of `encode`.

    Raises
    ------
    CodecError
        A ValueError: if x264 or FFmpeg refuses them.
    OSError
        If the file cannot be written.
    """
    import av
    from av.video.reformatter import VideoReformatter

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise CodecError("`frames` must hold one frame or more.")
    height, width, _ = first.shape
    halved = pixel_format == "yuv420p"
    reformatter = VideoReformatter()
    got = f"got frames of shape {first.shape}"
    refused = f"`frames` must be a video that x264 can encode as {container}, {got}."
    with container_into(file, CONTAINERS[container], refused, MUXER_OPTIONS) as output:
        with coding(refused):
            stream = output.add_stream("libx264", rate=frame_rate)
            stream.height, stream.width = height + halved * (height % 2), width + halved * (width % 2)
            stream.pix_fmt = pixel_format
            stream.options = encoder_options(constant_rate_factor, preset)
        for number, pixels in enumerate(chain([first], frames)):
            with coding(refused):
                pixels = to_even_sides(pixels[None])[0] if halved else pixels
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = reformatter.reformat(
                    frame, format=pixel_format, interpolation=INTERPOLATION, threads=1
                )
                frame.pts = number
                output.mux(stream.encode(frame))


def decode(data: bytes) -> Array:
    """Decompress one clip.

    Parameters
    ----------
    data : bytes
        A video file.

    Returns
    -------
    ndarray of uint8, shape (F, H, W, 3)
        RGB; each frame of the file once, whatever its time stamp. H and W are even if `encode` made it.

    Raises
    ------
    CodecError
        A ValueError: if FFmpeg finds no video in it, or a damaged frame.
    """
    frames = list(decode_from(BytesIO(data)))
    if not frames:
        raise CodecError(_unreadable(len(data)))
    with coding(_unreadable(len(data))):  # frames of several sizes
        return np.stack(frames)


def decode_from(file: IO[bytes]) -> Iterator[Array]:
    """Decompress one clip frame by frame.

    Parameters
    ----------
    file : file object
        A video file, from its beginning.

    Yields
    ------
    ndarray of uint8, shape (H, W, 3)
        What `decode` returns, one frame after the other.

    Raises
    ------
    CodecError
        A ValueError: if FFmpeg finds no video in it, or a damaged frame.
    """
    import av
    from av.video.reformatter import VideoReformatter

    refused = _unreadable(file.seek(0, os.SEEK_END))
    file.seek(0)
    reformatter = VideoReformatter()
    with coding(refused), av.open(file, options=DEMUXERS, metadata_errors="ignore") as video:
        stream = video.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in video.decode(stream):
            if frame.is_corrupt:
                raise CodecError(refused)
            rgb = reformatter.reformat(frame, format="rgb24", interpolation=INTERPOLATION, threads=1)
            yield rgb.to_ndarray()


def _unreadable(size: int) -> str:
    return f"`data` must be a video file that FFmpeg can read, got {size} bytes that are none."


def encoder_options(constant_rate_factor: int, preset: str) -> dict[str, str]:
    """Options of FFmpeg's libx264 with which the same frames give the same bytes.

    With AVX-512, x264 reads memory that it has not written when a row does not fill a vector, and decides by
    it how to spend its bits. Without it, small frames take no longer, and all machines of this kind agree.
    Threads, too, would change the result with their number.
    """
    options = {"crf": str(constant_rate_factor), "preset": preset, "threads": "1"}
    if platform.machine().lower() in ("x86_64", "amd64"):
        options["x264-params"] = "asm=SSE4.2"  # what every processor has that runs NumPy
    return options


def to_even_sides(frames: Array) -> Array:
    """Repeat the last row or column of frames `(F, H, W, 3)` where their number is odd.

    Colour is stored at half resolution.
    """
    _, height, width, _ = frames.shape
    if height % 2 == width % 2 == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
