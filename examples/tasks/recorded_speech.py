"""A recorded conversation, and Silero VAD, a pretrained detector of speech.

Half a minute of two people comes with the package pyannote-audio, and when each of them speaks. The network
comes with silero-vad. Neither package is imported:

    pip install --no-deps pyannote-audio silero-vad
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from .package_files import file_of

__all__ = ["RecordedSpeech", "classifier", "load"]

Array: TypeAlias = NDArray[Any]

SAMPLE_RATE = 16000  # Hz
LENGTH = 8192  # samples of a clip, 0.5 s
CLASS_NAMES = ("silence", "speech")
WINDOW, CONTEXT = 512, 64  # values that the network looks at in one step, and before them


@dataclass(frozen=True, eq=False)
class RecordedSpeech:
    """Clips of a conversation; the class says whether somebody speaks.

    Attributes
    ----------
    x : ndarray of float32, shape (N, 8192)
        Waveforms in [-1, 1] at 16 kHz.
    y : ndarray of int64, shape (N,)
        0 if nobody speaks during the clip, 1 if somebody speaks all the time.
    """

    x: Array
    y: Array
    sample_rate: int = SAMPLE_RATE
    class_names: tuple[str, ...] = CLASS_NAMES


def load() -> RecordedSpeech:
    """Cut the conversation into clips, without those during which somebody starts or ends.

    Returns
    -------
    RecordedSpeech

    Raises
    ------
    ImportError
        If pyannote-audio is missing.
    """
    folder = "pyannote/audio/sample/sample"
    _, steps = wavfile.read(file_of("pyannote-audio", f"{folder}.wav"))
    speaks = np.zeros(len(steps), bool)
    for line in file_of("pyannote-audio", f"{folder}.rttm").read_text(encoding="utf-8").splitlines():
        start, seconds = map(float, line.split()[3:5])
        speaks[int(start * SAMPLE_RATE) : int((start + seconds) * SAMPLE_RATE)] = True
    kept = len(steps) // LENGTH * LENGTH
    clips = (steps[:kept] / 32768).reshape(-1, LENGTH).astype(np.float32)
    share = speaks[:kept].reshape(-1, LENGTH).mean(axis=1)
    steady = (share == 0) | (share == 1)
    return RecordedSpeech(clips[steady], share[steady].astype(np.int64))


def classifier() -> Any:
    """Build Silero VAD with its published weights, as a classifier of clips.

    Returns
    -------
    torch.nn.Module
        From waveforms (N, length) at 16 kHz to scores (N, 2). The network, a recurrent one, says for each
        window of 32 ms how likely it is speech; the logit of that is averaged over the clip. A clip starts
        with a state of zeros.

    Raises
    ------
    ImportError
        If silero-vad is missing.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    class SileroVad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stft = nn.Conv1d(1, 258, 256, 128, bias=False)
            self.encoder = nn.Sequential(
                *(nn.Conv1d(129, 128, 3, padding=1), nn.ReLU()),
                *(nn.Conv1d(128, 64, 3, stride=2, padding=1), nn.ReLU()),
                *(nn.Conv1d(64, 64, 3, stride=2, padding=1), nn.ReLU()),
                *(nn.Conv1d(64, 128, 3, padding=1), nn.ReLU()),
            )
            self.rnn = nn.LSTMCell(128, 128)
            self.decoder = nn.Sequential(nn.ReLU(), nn.Conv1d(128, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            windows = F.pad(x, (CONTEXT, 0)).unfold(-1, CONTEXT + WINDOW, WINDOW)
            z = F.pad(windows.reshape(-1, 1, CONTEXT + WINDOW), (0, CONTEXT), mode="reflect")
            real, imaginary = self.stft(z).split(129, dim=1)
            z = (real.square() + imaginary.square() + 1e-14).sqrt()  # silence has a derivative
            steps, state, logits = self.encoder(z).reshape(len(x), windows.shape[1], 128), None, []
            for number in range(windows.shape[1]):
                state = self.rnn(steps[:, number], state)
                logits.append(self.decoder(state[0][..., None])[:, 0, 0])
            speech = torch.stack(logits, dim=1).mean(dim=1)
            return torch.stack([-speech / 2, speech / 2], dim=1)

    published = torch.jit.load(file_of("silero-vad", "silero_vad/data/silero_vad.jit")).state_dict()
    named = {name.removeprefix("_model."): value for name, value in published.items() if "8k" not in name}
    names = {"stft.weight": "stft.forward_basis_buffer"}
    for parameter in ("weight", "bias"):
        names |= {f"encoder.{2 * i}.{parameter}": f"encoder.{i}.reparam_conv.{parameter}" for i in range(4)}
        names[f"decoder.1.{parameter}"] = f"decoder.decoder.2.{parameter}"
    model = SileroVad()
    model.load_state_dict({name: named[names.get(name, f"decoder.{name}")] for name in model.state_dict()})
    return model.eval()
