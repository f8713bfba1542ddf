"""MP3, in memory or in files: LAME encodes and FFmpeg decodes, through PyAV, without the global lock."""

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain
from typing import IO

import numpy as np

from .._core.typing import Array
from .containers import container_into
from .errors import CodecError, coding

__all__ = ["BIT_RATES", "SAMPLE_RATES", "decode", "decode_from", "encode", "encode_into"]

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz
_MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_2_5 = (8, 16, 24, 32, 40, 48, 56, 64)  # above 64 LAME writes 64
# Legal bit rates in bit/s for each sample rate in Hz
BIT_RATES = {
    rate: tuple(1000 * k for k in (_MPEG_1 if rate >= 32000 else _MPEG_2 if rate >= 16000 else _MPEG_2_5))
    for rate in SAMPLE_RATES
}
CHUNK = 1152 * 128  # samples handed to LAME in one go: whole frames of any kind of MP3


def encode(samples: Array, sample_rate: int, bit_rate: int | None = None) -> bytes:
    """Compress one recording.

    Parameters
    ----------
    samples : ndarray of int16, shape (L, C)
        One or two channels, one sample or more.
    sample_rate : int
        One of `SAMPLE_RATES`, in Hz.
    bit_rate : int, optional
        One of `BIT_RATES[sample_rate]`, in bit/s; by default LAME's choice for that rate.

    Returns
    -------
    bytes
        An MP3 file at a constant bit rate, with the header by which a decoder finds the first sample and
        the last.

    Raises
    ------
    CodecError
        A ValueError: if LAME or FFmpeg refuses them.
    """
    file = BytesIO()
    encode_into(file, [samples], sample_rate, bit_rate)
    return file.getvalue()


def encode_into(
    file: IO[bytes], parts: Iterable[Array], sample_rate: int, bit_rate: int | None = None
) -> None:
    """Compress a recording as it comes; what is written is what `encode` returns.

    Parameters
    ----------
    file : file object
        Can be written and sought.
    parts : iterable of ndarray of int16, shape (L, C)
        One or two channels, one sample or more in all. What it raises passes as it is.
    sample_rate, bit_rate
        Those of `encode`.

    Raises
    ------
    CodecError
        A ValueError: if LAME or FFmpeg refuses them.
    OSError
        If the file cannot be written.
    """
    import av

    parts = iter(parts)
    first = next(parts)
    refused = (
        f"`samples` must be a recording that LAME can encode at {sample_rate} Hz, got shape {first.shape}."
    )
    with container_into(file, "mp3", refused) as container:
        with coding(refused):
            stream = container.add_stream("libmp3lame", rate=sample_rate)
            stream.layout = "mono" if first.shape[1] == 1 else "stereo"
            stream.format = "s16p"
            stream.bit_rate = bit_rate or 0
        start = 0
        for chunk in _chunks(chain([first], parts)):
            with coding(refused):
                planes = np.ascontiguousarray(chunk.T)
                frame = av.AudioFrame.from_ndarray(planes, format="s16p", layout=stream.layout.name)
                frame.sample_rate = sample_rate
                frame.pts = start
                container.mux(stream.encode(frame))
            start += len(chunk)


def decode(data: bytes) -> Array:
    """Decompress one recording.

    Parameters
    ----------
    data : bytes
        An MP3 file.

    Returns
    -------
    ndarray of int16, shape (L, C)
        The recording without the encoder's delay. What was shorter than a frame allows to say ends in a
        few samples of padding; cut it to the length that was encoded.

    Raises
    ------
    CodecError
        A ValueError: if FFmpeg finds no MP3 in it, or a damaged frame.
    """
    frames = list(decode_from(BytesIO(data)))
    if not frames:
        raise CodecError(_unreadable(len(data)))
    with coding(_unreadable(len(data))):  # frames with other numbers of channels
        return np.concatenate(frames)


def decode_from(file: IO[bytes]) -> Iterator[Array]:
    """Decompress one recording part by part.

    Parameters
    ----------
    file : file object
        An MP3 file.

    Yields
    ------
    ndarray of int16, shape (L, C)
        What `decode` returns, one part after the other.

    Raises
    ------
    CodecError
        A ValueError: if FFmpeg finds no MP3 in it, or a damaged frame.
    """
    import av

    refused = _unreadable(file.seek(0, os.SEEK_END))
    file.seek(0)
    with coding(refused), av.open(file, "r", format="mp3", metadata_errors="ignore") as container:
        for frame in container.decode(audio=0):
            yield _to_pcm(frame.to_ndarray().T)


def _unreadable(size: int) -> str:
    return f"`data` must be an MP3 file that FFmpeg can read, got {size} bytes that are none."


def _chunks(parts: Iterable[Array]) -> Iterator[Array]:
    """The same samples in pieces of `CHUNK`, however they come."""
    held: list[Array] = []
    length = 0
    for part in parts:
        while length + len(part) >= CHUNK:
            rest = CHUNK - length
            yield np.concatenate([*held, part[:rest]])
            held, length, part = [], 0, part[rest:]
        held.append(part)
        length += len(part)
    if length:
        yield np.concatenate(held)


def _to_pcm(samples: Array) -> Array:
    """16-bit steps from samples in [-1, 1]; what the decoder puts outside saturates."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
