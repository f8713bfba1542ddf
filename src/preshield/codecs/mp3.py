"""MP3, in memory: LAME encodes and FFmpeg decodes, through PyAV, without the global interpreter lock."""

from io import BytesIO

import numpy as np

from .._core.typing import Array
from .errors import CodecError, coding

__all__ = ["BIT_RATES", "SAMPLE_RATES", "decode", "encode"]

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
    import av

    file = BytesIO()
    refused = (
        f"`samples` must be a recording that LAME can encode at {sample_rate} Hz, got shape {samples.shape}."
    )
    with coding(refused), av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate)
        stream.layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream.format = "s16p"
        stream.bit_rate = bit_rate or 0
        for start in range(0, len(samples), CHUNK):
            planes = np.ascontiguousarray(samples[start : start + CHUNK].T)
            frame = av.AudioFrame.from_ndarray(planes, format="s16p", layout=stream.layout.name)
            frame.sample_rate = sample_rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


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
    import av

    refused = f"`data` must be an MP3 file that FFmpeg can read, got {len(data)} bytes that are none."
    with coding(refused):
        with av.open(BytesIO(data), "r", format="mp3", metadata_errors="ignore") as container:
            frames = [_to_pcm(frame.to_ndarray().T) for frame in container.decode(audio=0)]
        if not frames:
            raise CodecError(refused)
        return np.concatenate(frames)


def _to_pcm(samples: Array) -> Array:
    """16-bit steps from samples in [-1, 1]; what the decoder puts outside saturates."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
