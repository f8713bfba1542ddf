"""MP3 compression."""

import math
from collections.abc import Iterator
from tempfile import TemporaryFile

import numpy as np

from .._core.checks import (
    check_bool,
    check_integer,
    check_number,
    check_option,
    ignore_device_type,
    resolve_channels_first,
)
from .._core.errors import ArgumentError
from .._core.layout import working_dtype
from .._core.ranges import MARGIN, in_unit_range, largest, misfit
from .._core.threads import map_blocks
from .._core.typing import Array, Shape
from .._core.windows import windows
from ..codecs import mp3, mp3_pydub
from ..preprocessor import Preprocessor

__all__ = ["Mp3Compression"]

ENGINES = {"pyav": mp3, "pydub": mp3_pydub}
FAINT = 64  # fractions below are seldom those of 16-bit steps: speech of variance 1 reaches 10 to 20
STEPS = 32768  # of 16-bit audio, from 0 to full scale


class Mp3Compression(Preprocessor):
    """Compress each recording as MP3 and decompress it again [1]_ [2]_.

    Parameters
    ----------
    sample_rate : int
        Samples in a second, in Hz: 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100 or 48000.
    channels_first : bool, default False
        Whether audio is `(N, C, length)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    bit_rate : int, optional
        Size of the compressed audio, in bit/s; the lower, the more is lost. MP3 has 14 of them for each
        sample rate (8 up to 12 kHz). By default LAME's choice, as in ART: from 8000 (mono at 8 kHz) to
        128000 (stereo at 44.1 kHz).
    full_scale : float, optional
        The largest value that a signal can have: 1.0, or 32768 for 16 bits. Values beyond it saturate. By
        default 32768 for integers; for floating types 1.0 for a sample within [-1, 1], and up to 8 for values
        that are not whole, as attacks, noise and filters leave [-1, 1] by a little; else 32768. A guess that
        is not certain warns, once for each object.
    engine : {"pyav", "pydub"}, default "pyav"
        Who compresses: libraries in this process, or the program ffmpeg, as in ART, which is slower and
        needs the extra "ffmpeg". With the same version of LAME they agree to the bit.
    channel_index : int, optional
        Older name: 1 sets `channels_first`.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of audio with one or two channels.
    CodecError
        A ValueError: if the codec refuses what it is given.
    ImportError, TimeoutError
        With ``engine="pydub"``: if the extra is missing; if ffmpeg does not finish.

    Notes
    -----
    Audio `(N, length, C)` or `(N, length)`, or an object array of samples `(length, C)` or `(length,)` of
    different lengths. Shape, dtype and scale are kept, and the result is aligned with the input to the
    sample. MP3 takes 16 bits: values are cut off to them, towards zero, as in ART. LAME turns the level down,
    to 0.95 at most bit rates. Gradients pass as through the identity.

    References
    ----------
    .. [1] Das, Shanbhogue, Chen, Chen, Kounavis, Chau. ADAGIO: Interactive Experimentation with Adversarial
       Attack and Defense for Audio. ECML PKDD 2018. arXiv:1805.11852
    .. [2] Andronic, Kürzinger, Chavez Rosas, Rigoll, Seeber. MP3 Compression To Diminish Adversarial Noise
       in End-to-End Speech Recognition. SPECOM 2020. arXiv:2007.12892

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Mp3Compression
    >>> tone = 0.5 * np.sin(np.arange(16000) / 16000 * 2 * np.pi * 440)[None]
    >>> out = Mp3Compression(16000).transform(tone)
    >>> out.shape
    (1, 16000)
    >>> float(out[:, 4000:12000].max())  # LAME turns the level down
    0.475
    """

    domains = ("audio",)
    keeps_integers = True
    ragged = True
    paper = "arXiv:1805.11852"
    known_attacks = (
        (
            "Carlini and Wagner 2018 (arXiv:1801.01944): targeted examples survive MP3 when gradients pass "
            "straight through it, with more distortion"
        ),
    )

    def __init__(
        self,
        sample_rate: int,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        bit_rate: int | None = None,
        full_scale: float | None = None,
        engine: str = "pyav",
        channel_index: int | None = None,
        device_type: str | None = None,
    ) -> None:
        _check_rates(sample_rate, bit_rate)
        ignore_device_type(device_type)
        if full_scale is not None:
            check_number("full_scale", full_scale)
            if full_scale <= 0:
                raise ArgumentError(
                    f"`full_scale` must be positive, got {full_scale!r}; usual are 1.0 and 32768."
                )
        check_option("engine", engine, tuple(ENGINES))
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        self.sample_rate = sample_rate
        self.channels_first = resolve_channels_first(channels_first, channel_index)
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.bit_rate = bit_rate
        self.full_scale = full_scale
        self.engine = engine

    def _transform(self, x: Array, draw: None) -> Array:
        if x.dtype == object:
            for i, sample in enumerate(x):
                self._check_channels(f"x[{i}]", sample.shape)
        else:
            self._check_channels("x", x.shape[1:])
        out = np.empty(x.shape, x.dtype.newbyteorder("="))
        scales = [self._scale(sample) for sample in x]

        def work(numbers: slice) -> None:
            for number in range(numbers.start, numbers.stop):
                out[number] = self._compress(x[number], scales[number])

        map_blocks(work, len(x), 1, progress="MP3 compression" if self.verbose else None)
        return out

    def _compress(self, sample: Array, full_scale: float) -> Array:
        """One sample there and back."""
        if not sample.size:
            return sample
        codec, rate = ENGINES[self.engine], int(self.sample_rate)
        track = sample[:, None] if sample.ndim == 1 else sample.T if self.channels_first else sample
        bit_rate = None if self.bit_rate is None else int(self.bit_rate)
        decoded = codec.decode(codec.encode(_to_pcm(track, full_scale), rate, bit_rate))
        track = _from_pcm(decoded[: len(track)], full_scale, sample.dtype)
        return track[:, 0] if sample.ndim == 1 else track.T if self.channels_first else track

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        if self.engine != "pyav" or self.full_scale is None or self.channels_first:
            return None  # the range is guessed from the whole
        return self._compress_parts(parts)

    def _compress_parts(self, parts: Iterator[Array]) -> Iterator[Array]:
        """One recording there and back, through a compressed file on the disk."""
        scale, length = self._scale(np.empty(0)), 0
        shape, dtype = (), np.dtype(np.float32)

        def tracks() -> Iterator[Array]:
            nonlocal length, shape, dtype
            for window in windows(parts):
                part = self._checked(window[None])[0]
                self._check_channels("x", part.shape)
                length, shape, dtype = length + len(part), part.shape[1:], part.dtype
                yield _to_pcm(part.reshape(len(part), -1), scale)

        bit_rate = None if self.bit_rate is None else int(self.bit_rate)
        with TemporaryFile(prefix="preshield-") as file:
            mp3.encode_into(file, tracks(), int(self.sample_rate), bit_rate)
            for decoded in mp3.decode_from(file):
                part = _from_pcm(decoded[:length], scale, dtype)  # what follows is padding
                length -= len(part)
                yield part.reshape(len(part), *shape)

    @property
    def _stated_range(self) -> tuple[str, float] | None:
        return None if self.full_scale is None else ("full_scale", float(self.full_scale))

    def _scale(self, sample: Array) -> float:
        """Full scale of a sample, alike whatever else is in the batch."""
        if self.full_scale is not None:
            return float(self.full_scale)
        peak = largest(sample)
        if sample.dtype.kind != "f" or not in_unit_range(sample, peak):
            if peak > MARGIN * STEPS:
                self._doubt_range(misfit(sample, "full_scale", None, STEPS))
            elif sample.dtype.kind == "f" and peak <= FAINT and not (sample == np.rint(sample)).all():
                self._doubt_range(
                    f"`x` reaches {peak:.6g}, far from both 1 and 32768, and is taken for audio of 16-bit "
                    "steps, of which little is left; pass full_scale=32768 if it is, or the largest value "
                    f"that the signal can have, for example full_scale={math.ceil(peak)}."
                )
            return float(STEPS)
        if peak > 1:
            self._doubt_range(
                f"`x` reaches {peak:.6g}, beyond [-1, 1] but far from 32768, and is taken for audio in "
                "[-1, 1], cut off there; pass full_scale=1.0 if it is, or full_scale=32768 for 16-bit steps."
            )
        return 1.0

    def _check_channels(self, name: str, shape: Shape) -> None:
        """`shape` is that of a sample."""
        if len(shape) == 1:
            return
        first, last = shape
        channels, others = (first, last) if self.channels_first else (last, first)
        if channels in (1, 2):
            return
        remedy = "pass each channel as a sample of its own, or mix them"
        if others in (1, 2):
            remedy = f"pass channels_first={not self.channels_first}"
        raise ArgumentError(
            f"`{name}` must have one or two channels, as MP3 has, got {channels} in a sample of shape "
            f"{shape} with channels_first={self.channels_first}; {remedy}."
        )


def _check_rates(sample_rate: int, bit_rate: int | None) -> None:
    check_integer("sample_rate", sample_rate)
    if sample_rate not in mp3.SAMPLE_RATES:
        raise ArgumentError(
            f"`sample_rate` must be one that MP3 has, {_listed(mp3.SAMPLE_RATES)} Hz, got {sample_rate!r}; "
            "Resample brings audio to one of them."
        )
    if bit_rate is None:
        return
    check_integer("bit_rate", bit_rate)
    legal = mp3.BIT_RATES[int(sample_rate)]
    if bit_rate not in legal:
        raise ArgumentError(
            f"`bit_rate` must be None or one that MP3 has at {sample_rate} Hz, {_listed(legal)} bit/s, "
            f"got {bit_rate!r}."
        )


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values[:-1])) + f" or {values[-1]}"


def _to_pcm(track: Array, full_scale: float) -> Array:
    """16-bit steps, cut off towards zero as in ART: a single step changes what LAME decides."""
    if track.dtype == np.int16 and full_scale == STEPS:
        return track
    track = track.astype(np.float64 if track.dtype.kind in "bui" else working_dtype(track.dtype))
    np.clip(track, -full_scale, full_scale, out=track)
    track *= STEPS / full_scale
    return np.minimum(track, STEPS - 1, out=track).astype(np.int16)


def _from_pcm(pcm: Array, full_scale: float, dtype: np.dtype) -> Array:
    """16-bit steps in the scale and dtype of the input."""
    if dtype.kind == "f":
        steps = pcm.astype(working_dtype(dtype))
        steps *= full_scale / STEPS
        return steps.astype(dtype.newbyteorder("="), copy=False)
    if dtype == np.int16 and full_scale == STEPS:
        return pcm
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.clip(np.rint(pcm * (full_scale / STEPS)), low, high).astype(dtype.newbyteorder("="))
