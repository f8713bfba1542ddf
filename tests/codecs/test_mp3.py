"""The MP3 codec: alignment, length, rates, and the ffmpeg program as an oracle."""

import os
import re
import shutil
import sys
import tempfile
import threading
import tracemalloc
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preshield.codecs import ffmpeg, mp3, mp3_pydub
from preshield.codecs.errors import CodecError


def sound(length, channels=1, seed=0):
    """A tone in noise that is another one in each channel."""
    rng = np.random.default_rng(seed)
    tones = np.sin(np.arange(length)[:, None] * np.linspace(0.06, 0.1, channels))
    return np.rint(9000 * tones + 3000 * rng.standard_normal((length, channels))).astype(np.int16)


def lag(a, b):
    """Where the cross-correlation of two signals has its peak."""
    spectrum = np.fft.rfft(a, 2 * len(a)) * np.conj(np.fft.rfft(b, 2 * len(b)))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < len(a) else peak - 2 * len(a)


def lame(data):
    """The version that LAME writes into its files."""
    return re.search(rb"LAME\d\.\d+", data).group()


@settings(max_examples=40)
@given(
    length=st.integers(1, 6000),
    channels=st.integers(1, 2),
    rate=st.sampled_from(mp3.SAMPLE_RATES),
    seed=st.integers(0, 99),
)
@example(length=1, channels=1, rate=8000, seed=0)
@example(length=1, channels=2, rate=48000, seed=0)
@example(length=575, channels=1, rate=16000, seed=0)
@example(length=576, channels=1, rate=16000, seed=0)
@example(length=577, channels=1, rate=16000, seed=0)
@example(length=1152, channels=2, rate=44100, seed=0)
@example(length=1153, channels=2, rate=44100, seed=0)
def test_nothing_is_lost_at_the_end(length, channels, rate, seed):
    out = mp3.decode(mp3.encode(sound(length, channels, seed), rate))
    assert out.dtype == np.int16
    assert out.shape[1] == channels
    assert length <= len(out) < length + 1152


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", mp3.SAMPLE_RATES)
def test_the_delay_of_the_encoder_is_gone(rate, channels):
    x = sound(2 * rate, channels)
    out = mp3.decode(mp3.encode(x, rate))[: len(x)]
    assert [lag(out[:, k].astype(float), x[:, k].astype(float)) for k in range(channels)] == [0] * channels


def test_a_click_comes_back_where_it_was():
    for at in (0, 1, 700, 4999):
        x = np.zeros((5000, 1), np.int16)
        x[at] = 30000
        out = mp3.decode(mp3.encode(x, 44100, 320000))[:5000]
        assert np.argmax(np.abs(out)) == at


@pytest.mark.parametrize("rate", mp3.SAMPLE_RATES)
def test_every_bit_rate(rate):
    for bit_rate in mp3.BIT_RATES[rate]:
        data = mp3.encode(sound(3000), rate, bit_rate)
        with av.open(BytesIO(data), format="mp3") as container:
            context = container.streams.audio[0].codec_context
            assert (context.sample_rate, context.bit_rate) == (rate, bit_rate)


def test_the_tables_are_those_of_the_standard():
    # Columns of the tables in ISO 11172-3 and 13818-3, layer III; LAME stops at 64 kbit/s below 16 kHz.
    assert mp3.BIT_RATES[44100][:3] == (32000, 40000, 48000)
    assert [len(mp3.BIT_RATES[r]) for r in (48000, 32000, 24000, 16000, 12000, 8000)] == [
        14,
        14,
        14,
        14,
        8,
        8,
    ]
    assert [mp3.BIT_RATES[r][-1] for r in (48000, 22050, 11025)] == [320000, 160000, 64000]


def test_more_bits_lose_less():
    x = sound(44100)
    losses = [np.abs(mp3.decode(mp3.encode(x, 44100, b))[:44100] - x).mean() for b in (32000, 128000, 320000)]
    assert losses[0] > losses[1] > losses[2]


def test_chunks_make_no_difference(monkeypatch):
    x = sound(20 * 1152 + 7, 2)
    whole = mp3.encode(x, 44100)
    monkeypatch.setattr(mp3, "CHUNK", 1152)
    assert mp3.encode(x, 44100) == whole


def test_stereo_channels_stay_apart():
    x = sound(8000, 2)
    x[:, 1] = 0
    out = mp3.decode(mp3.encode(x, 44100, 320000))[: len(x)]
    quiet, loud = np.abs(out[:, 1]).max(), np.abs(out[:, 0]).max()
    assert quiet < 40
    assert loud > 5000


def test_silence_is_silence():
    np.testing.assert_array_equal(mp3.decode(mp3.encode(np.zeros((5000, 2), np.int16), 16000)), 0)


def test_what_overshoots_saturates():
    square = np.where(np.arange(8000)[:, None] // 40 % 2, 32767, -32768).astype(np.int16)
    out = mp3.decode(mp3.encode(square, 16000, 64000))[:8000]
    assert {int(out.min()), int(out.max())} == {-32768, 32767}
    inner = np.arange(8000) % 40
    inner = (inner > 5) & (inner < 35)
    assert (np.sign(out[inner]) == np.sign(square[inner])).all()  # nothing wrapped


def test_what_is_no_mp3_is_refused():
    with pytest.raises(CodecError, match="must be an MP3 file that FFmpeg can read, got 800 bytes"):
        mp3.decode(b"no sound" * 100)


def test_other_threads_run_meanwhile():
    """The interpreter lock is free while LAME works on one chunk."""
    x, counts, done = sound(mp3.CHUNK), [0], threading.Event()

    def count():
        while not done.wait(0.001):
            counts[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    mp3.encode(x, 16000)
    done.set()
    thread.join()
    assert counts[0] >= 3


def test_memory_of_a_long_recording():
    x = np.resize(sound(16000), (16000 * 240, 1))
    tracemalloc.start()
    mp3.decode(mp3.encode(x, 16000, 8000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * x.nbytes


# The second engine


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The path of ffmpeg; temporary files go to `tmp_path`, and nothing is found on the PATH."""
    if find_spec("imageio_ffmpeg") is None or find_spec("pydub") is None:
        pytest.skip("the extra `ffmpeg` is not installed")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return ffmpeg.executable()


@pytest.fixture
def pretend(program, tmp_path_factory, monkeypatch):
    """Put a shell script in the place of ffmpeg."""

    def replace(script):
        path = tmp_path_factory.mktemp("bin") / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(ffmpeg, "executable", lambda: str(path))
        return path

    return replace


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_engines_decode_alike(rate, channels, program, tmp_path):
    data = mp3.encode(sound(7000, channels), rate)
    np.testing.assert_array_equal(mp3_pydub.decode(data), mp3.decode(data))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bit_rate", [None, 32000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_engines_encode_alike(bit_rate, channels, program, tmp_path):
    x = sound(16000, channels)
    ours, theirs = mp3.encode(x, 16000, bit_rate), mp3_pydub.encode(x, 16000, bit_rate)
    assert not list(tmp_path.iterdir())
    assert abs(len(ours) - len(theirs)) < 100  # the same bit rate
    ours, theirs = (mp3.decode(data)[: len(x), 0].astype(float) for data in (ours, theirs))
    assert lag(theirs, x[:, 0].astype(float)) == 0
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9  # LAME 4 decides otherwise than LAME 3


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_with_the_same_lame_the_engines_agree_to_the_bit(rate, monkeypatch):
    path = shutil.which("ffmpeg")
    if path is None or find_spec("pydub") is None:
        pytest.skip("needs pydub, and ffmpeg on the PATH")
    monkeypatch.setattr(ffmpeg, "executable", lambda: path)
    for channels in (1, 2):
        x = sound(rate // 2, channels)
        ours, theirs = mp3.encode(x, rate), mp3_pydub.encode(x, rate)
        if lame(mp3.encode(x, 44100)) != lame(mp3_pydub.encode(x, 44100)):
            pytest.skip("another version of LAME")
        np.testing.assert_array_equal(mp3.decode(ours), mp3_pydub.decode(theirs))


def test_the_program_can_be_named(monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/opt/my/ffmpeg")
    assert ffmpeg.executable() == "/opt/my/ffmpeg"


def test_a_failure_says_what_ffmpeg_said_last(pretend, tmp_path):
    path = pretend("for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 3")
    message = re.escape(f"ffmpeg ({path}) failed with exit code 3: line 3; line 4; line 5; line 6; line 7.")
    with pytest.raises(CodecError, match=f"^{message}$"):
        mp3_pydub.encode(sound(100), 16000)
    pretend("exit 1")
    with pytest.raises(CodecError, match=r"failed with exit code 1: it said nothing\.$"):
        mp3_pydub.decode(b"")
    assert not list(tmp_path.iterdir())


def test_what_is_no_mp3_is_refused_by_the_program(program, tmp_path):
    with pytest.raises(CodecError, match=r"failed with exit code .*Invalid data"):
        mp3_pydub.decode(b"no sound" * 100)
    assert not list(tmp_path.iterdir())


def test_a_program_that_hangs_is_ended(pretend, tmp_path, monkeypatch):
    pretend(f'echo $$ > "{tmp_path}.pid"; exec /bin/sleep 100')
    monkeypatch.setattr(mp3_pydub, "TIMEOUT", 0.3)
    with pytest.raises(TimeoutError, match=r'did not finish within 0\.3.* seconds; engine="pyav" needs no'):
        mp3_pydub.encode(sound(100), 16000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(int(Path(f"{tmp_path}.pid").read_text()), 0)


@pytest.mark.parametrize("package", ["pydub", "imageio_ffmpeg"])
def test_the_extra_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'needs the package \'{package}\': pip install "preshield\[ffmpeg\]"'
    ):
        mp3_pydub.encode(sound(100), 16000)
