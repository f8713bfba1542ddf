"""MP3 by the ffmpeg program, as ART does it through pydub: the second engine, slower, for comparison.

pydub's own export and import ask `ffprobe`, wait for ever and hide what went wrong. Here pydub reads and
writes the WAV files, and ffmpeg turns them into MP3 and back with the options that pydub gives it.
"""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .._core.optional import require
from .._core.typing import Array
from . import ffmpeg
from .errors import coding

__all__ = ["decode", "encode"]

TIMEOUT = 60.0  # seconds, and as many as the recording lasts
LOWEST_BYTES_PER_SECOND = 1000  # of an MP3 file


def encode(samples: Array, sample_rate: int, bit_rate: int | None = None) -> bytes:
    """Compress one recording; parameters and result are those of `mp3.encode`.

    Raises
    ------
    ImportError
        If pydub or imageio-ffmpeg is missing; it names the extra.
    TimeoutError
        If ffmpeg does not finish in time.
    CodecError
        A ValueError: if ffmpeg fails, or writes what cannot be read.
    """
    recording = _pydub().AudioSegment(
        np.ascontiguousarray(samples, dtype="<i2").tobytes(),
        sample_width=2,
        frame_rate=sample_rate,
        channels=samples.shape[1],
    )
    # Files, for ffmpeg goes back to write the header of an MP3 file, and to read it, which no pipe allows.
    with TemporaryDirectory(prefix="preshield-") as folder:
        wav, mp3 = Path(folder, "in.wav"), Path(folder, "out.mp3")
        recording.export(wav, format="wav").close()
        rate = [] if bit_rate is None else ["-b:a", str(bit_rate)]
        timeout = TIMEOUT + len(samples) / sample_rate
        ffmpeg.run("-f", "wav", "-i", str(wav), *rate, "-f", "mp3", str(mp3), timeout=timeout)
        with coding("ffmpeg wrote no MP3 file."):
            return mp3.read_bytes()


def decode(data: bytes) -> Array:
    """Decompress one recording; parameter and result are those of `mp3.decode`.

    Raises
    ------
    ImportError
        If pydub or imageio-ffmpeg is missing; it names the extra.
    TimeoutError
        If ffmpeg does not finish in time.
    CodecError
        A ValueError: if ffmpeg fails, or writes what cannot be read.
    """
    pydub = _pydub()
    with TemporaryDirectory(prefix="preshield-") as folder:
        mp3, wav = Path(folder, "in.mp3"), Path(folder, "out.wav")
        mp3.write_bytes(data)
        options = ("-acodec", "pcm_s16le", "-vn", "-f", "wav", str(wav))
        timeout = TIMEOUT + len(data) / LOWEST_BYTES_PER_SECOND
        ffmpeg.run("-f", "mp3", "-i", str(mp3), *options, timeout=timeout)
        with coding(f"`data` must be an MP3 file, got {len(data)} bytes in which ffmpeg found no sound."):
            recording = pydub.AudioSegment(data=wav.read_bytes())
            return np.array(recording.get_array_of_samples(), np.int16).reshape(-1, recording.channels)


def _pydub() -> Any:
    with warnings.catch_warnings():  # it misses an ffmpeg that it is not asked to run, and uses audioop
        warnings.simplefilter("ignore")
        return require("pydub", extra="ffmpeg")
