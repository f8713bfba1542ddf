"""H.264 by the ffmpeg program, as ART does it: the second engine, slower, for comparison."""

from fractions import Fraction
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .._core.typing import Array
from . import ffmpeg, h264
from .errors import coding

__all__ = ["decode", "encode"]

TIMEOUT = 60.0  # seconds, and as many as the slowest preset may need:
LOWEST_SPEED = 1e5  # values of RGB in a second


def encode(
    frames: Array,
    container: str,
    constant_rate_factor: int,
    preset: str = "medium",
    *,
    frame_rate: Fraction | int = h264.FRAME_RATE,
) -> bytes:
    """Compress one clip; parameters and result are those of `h264.encode`.

    Raises
    ------
    ImportError
        If imageio-ffmpeg is missing; it names the extra.
    TimeoutError
        If ffmpeg does not finish in time.
    CodecError
        A ValueError: if ffmpeg fails, or writes what cannot be read.
    """
    frames = h264.to_even_sides(frames)
    height, width = frames.shape[1:3]
    pixels = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frame_rate))
    options = h264.encoder_options(constant_rate_factor, preset) | h264.MUXER_OPTIONS
    # Files, for ffmpeg goes back to write the header of a video file, which no pipe allows.
    with TemporaryDirectory(prefix="preshield-") as folder:
        raw, video = Path(folder, "in.rgb"), Path(folder, "out.video")
        raw.write_bytes(frames.tobytes())
        ffmpeg.run(
            *pixels,
            *("-i", str(raw), "-vcodec", "libx264", "-pix_fmt", "yuv420p"),
            *chain.from_iterable((f"-{name}", value) for name, value in options.items()),
            *("-f", h264.CONTAINERS[container], str(video)),
            timeout=TIMEOUT + frames.size / LOWEST_SPEED,
        )
        with coding("ffmpeg wrote no video."):
            return video.read_bytes()


def decode(data: bytes) -> Array:
    """Decompress one clip; parameter and result are those of `h264.decode`.

    Raises
    ------
    ImportError
        If imageio-ffmpeg is missing; it names the extra.
    TimeoutError
        If ffmpeg does not finish in time.
    CodecError
        A ValueError: if ffmpeg fails, or writes what cannot be read.
    """
    with TemporaryDirectory(prefix="preshield-") as folder:
        video, pictures = Path(folder, "in.video"), Path(folder, "out.ppm")
        video.write_bytes(data)
        options = ("-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "image2pipe", "-vcodec", "ppm")
        timeout = TIMEOUT + len(data) / LOWEST_SPEED
        allowed = chain.from_iterable((f"-{name}", value) for name, value in h264.DEMUXERS.items())
        ffmpeg.run(*allowed, "-i", str(video), *options, str(pictures), timeout=timeout)
        with coding(f"`data` must be a video file, got {len(data)} bytes in which ffmpeg found no picture."):
            return _from_ppm(pictures.read_bytes())


def _from_ppm(data: bytes) -> Array:
    """Frames `(F, H, W, 3)` from pictures one after the other, each with the same three lines before it."""
    width, height = map(int, data.split(b"\n", 2)[1].split())
    size = 3 * height * width
    header = data.index(b"\n255\n") + len(b"\n255\n")
    pictures = np.frombuffer(data, np.uint8).reshape(-1, header + size)
    return pictures[:, header:].reshape(-1, height, width, 3)
