"""The H.264 codec: both engines beside each other and beside the ffmpeg program, losses, damaged files."""

import errno
import os
import subprocess
import sys
import threading
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preshield.codecs import ffmpeg, h264, h264_ffmpeg
from preshield.codecs.errors import CodecError

av = pytest.importorskip("av")
with_program = pytest.mark.usefixtures("program")


@pytest.fixture
def program():
    """The program of imageio-ffmpeg, where it is installed."""
    return pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


def clip(frames=6, height=24, width=40, seed=0):
    """A bright square moving over waves and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    waves = 110 + 60 * np.sin(0.3 * x[..., None] + np.array([0.1, 0.2, 0.3]) * y[..., None])
    pixels = np.repeat(np.clip(waves, 0, 255)[None], frames, axis=0) + rng.normal(0, 3, (frames, 1, 1, 1))
    for number in range(frames):
        pixels[number, 4 + number : 12 + number, 6 + 2 * number : 14 + 2 * number] = (230, 200, 40)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def distance(a, b):
    return np.abs(a.astype(float) - b).mean()


# Known answers


@pytest.mark.parametrize("container", h264.CONTAINERS)
@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_a_constant_clip_survives(container, level):
    pixels = np.full((3, 18, 34, 3), level, np.uint8)
    decoded = h264.decode(h264.encode(pixels, container, 28))
    assert decoded.dtype == np.uint8
    assert decoded.shape == pixels.shape
    # 219 levels of brightness for 256, as television has them: a step of 255 / 219 between neighbours
    assert np.abs(decoded.astype(int) - level).max() <= 1


def test_without_loss_only_brightness_is_rounded():
    """Grey has no colour, and at rate factor 0 nothing but the 219 levels of brightness is lost."""
    grey = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 1), dtype=np.uint8).repeat(3, axis=-1)
    levels = np.rint(np.rint(grey * (219 / 255)) * (255 / 219))
    assert np.abs(h264.decode(h264.encode(grey, "mp4", 0)) - levels).max() <= 1


def test_an_odd_row_and_column_are_repeated():
    pixels = clip(2, 5, 7)
    even = h264.to_even_sides(pixels)
    assert even.shape == (2, 6, 8, 3)
    np.testing.assert_array_equal(even[:, :5, :7], pixels)
    np.testing.assert_array_equal(even[:, 5, :7], pixels[:, 4])
    np.testing.assert_array_equal(even[:, :5, 7], pixels[:, :, 6])
    np.testing.assert_array_equal(even[:, 5, 7], pixels[:, 4, 6])
    assert h264.encode(pixels, "mp4", 20) == h264.encode(even, "mp4", 20)
    assert h264.to_even_sides(even) is even


# Properties


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40)),
    container=st.sampled_from(list(h264.CONTAINERS)),
    crf=st.integers(0, 51),
    preset=st.sampled_from(h264.PRESETS[:6]),
    seed=st.integers(0, 2**32 - 1),
)
@example(shape=(1, 1, 1), container="mp4", crf=28, preset="medium", seed=0)
@example(shape=(1, 1, 1), container="avi", crf=0, preset="medium", seed=0)
@example(shape=(300, 2, 2), container="avi", crf=28, preset="medium", seed=0)
def test_every_frame_comes_back(shape, container, crf, preset, seed):
    frames, height, width = shape
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    decoded = h264.decode(h264.encode(pixels, container, crf, preset))
    assert decoded.shape == (frames, height + height % 2, width + width % 2, 3)


def test_frames_come_back_in_order():
    """Also with frames that are stored out of order, as predicted from later ones."""
    levels = np.array([0, 30, 60, 90, 120, 150, 180, 210, 240], np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (9, 16, 16, 3))
    for container in h264.CONTAINERS:
        decoded = h264.decode(h264.encode(pixels, container, 10))
        assert np.abs(decoded.mean(axis=(1, 2, 3)) - levels).max() < 3


def test_the_container_makes_no_difference():
    first, *others = (h264.decode(h264.encode(clip(), name, 28)) for name in h264.CONTAINERS)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_a_higher_rate_factor_loses_more():
    sizes, losses = [], []
    for crf in (0, 18, 28, 38, 51):
        data = h264.encode(clip(), "mkv", crf)
        sizes.append(len(data))
        losses.append(distance(h264.decode(data), clip()))
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert losses[-1] > 3 * losses[0]


@pytest.mark.parametrize("preset", h264.PRESETS)
def test_presets(preset):
    data = h264.encode(clip(), "mp4", 28, preset)
    assert distance(h264.decode(data), clip()) < 15
    if preset != "medium":
        assert data != h264.encode(clip(), "mp4", 28)


def test_the_file_is_what_it_is_said_to_be():
    for container, names in (("mp4", "mp4"), ("mov", "mov"), ("mkv", "matroska"), ("avi", "avi")):
        data = h264.encode(clip(), container, 28, frame_rate=Fraction(30000, 1001))
        with av.open(BytesIO(data)) as file:
            stream = file.streams.video[0]
            assert names in file.format.name
            assert stream.codec_context.name == "h264"
            assert stream.pix_fmt == "yuv420p"
            assert abs(stream.average_rate - Fraction(30000, 1001)) < Fraction(1, 100)
            assert (stream.height, stream.width) == (24, 40)


def test_the_same_frames_give_the_same_bytes():
    """Whatever the memory held before: x264 with AVX-512 decides by it."""
    board = np.kron(np.random.default_rng(0).integers(0, 256, (40, 40, 3)), np.ones((8, 8, 1)))
    pixels = np.stack([board[2 * f : 2 * f + 48, 3 * f : 3 * f + 96] for f in range(16)]).astype(np.uint8)
    expected = h264.encode(pixels, "mkv", 28)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rubbish = [rng.integers(0, 256, (1 << 17) + 4096 * k, dtype=np.uint8) for k in range(30)]
        del rubbish
        assert h264.encode(pixels, "mkv", 28) == expected


def test_the_interpreter_goes_on_meanwhile():
    noise = np.random.default_rng(0).integers(0, 256, (1, 1024, 1024, 3), dtype=np.uint8)
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(1)

    ticker = threading.Thread(target=tick)
    ticker.start()
    h264.encode(noise, "mp4", 10, "placebo")  # a single call of x264 does nearly all of it
    done.set()
    ticker.join()
    assert len(ticks) > 20


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_no_thread_is_started():
    code = """
import os
import av
import numpy as np
from av.video import reformatter
from preshield.codecs import h264
threads = []
class Counting:
    def __init__(self):
        self.inner = inner()
    def reformat(self, *args, **kwargs):
        frame = self.inner.reformat(*args, **kwargs)
        threads.append(len(os.listdir("/proc/self/task")))
        return frame
inner, reformatter.VideoReformatter = reformatter.VideoReformatter, Counting
frames = np.random.default_rng(0).integers(0, 256, (60, 256, 256, 3), dtype=np.uint8)
before = len(os.listdir("/proc/self/task"))
h264.decode(h264.encode(frames, "mp4", 28, "ultrafast"))
print(len(threads), max(threads) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "120 0\n"


# Beside the ffmpeg program


@with_program
@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40)),
    container=st.sampled_from(list(h264.CONTAINERS)),
    crf=st.integers(0, 51),
    seed=st.integers(0, 2**32 - 1),
)
@example(shape=(16, 112, 112), container="mp4", crf=28, seed=0)
@example(shape=(1, 1, 1), container="avi", crf=28, seed=0)
def test_the_engines_agree(shape, container, crf, seed):
    pixels = clip(*shape, seed=seed)
    ours, theirs = h264.encode(pixels, container, crf), h264_ffmpeg.encode(pixels, container, crf)
    np.testing.assert_array_equal(h264_ffmpeg.decode(ours), h264.decode(ours))
    np.testing.assert_array_equal(h264_ffmpeg.decode(theirs), h264.decode(theirs))
    # Releases of x264 may differ in what they decide, not in how good it is.
    assert distance(h264.decode(ours), h264.decode(theirs)) < 0.5


@with_program
def test_the_program_needs_nothing_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = h264_ffmpeg.encode(clip(), "mp4", 28, "fast", frame_rate=Fraction(30000, 1001))
    assert h264_ffmpeg.decode(data).shape == clip().shape
    assert not list(tmp_path.iterdir())
    with av.open(BytesIO(data)) as file:
        assert file.streams.video[0].average_rate == Fraction(30000, 1001)


# What goes wrong


def sound():
    file = BytesIO()
    with av.open(file, "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 100), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"no video", sound(), h264.encode(clip(), "mp4", 28)[:900]])
def test_what_is_no_video_is_refused(data):
    with pytest.raises(CodecError, match=f"must be a video file that FFmpeg can read, got {len(data)} bytes"):
        h264.decode(data)


@with_program
def test_what_the_program_says_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(CodecError, match=r"(?s)failed with exit code \d+: .*Invalid data found"):
        h264_ffmpeg.decode(b"no video")
    with pytest.raises(CodecError, match=r"failed with exit code"):
        h264_ffmpeg.encode(clip(), "mp4", 28, "no such preset")
    assert not list(tmp_path.iterdir())


@with_program
def test_the_program_may_not_take_for_ever(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(h264_ffmpeg, "TIMEOUT", 0.05)
    monkeypatch.setattr(h264_ffmpeg, "LOWEST_SPEED", 1e15)
    with pytest.raises(TimeoutError, match=r'did not finish within 0\.05 seconds; engine="pyav" needs no'):
        h264_ffmpeg.encode(clip(200, 200, 200), "mp4", 28, "placebo")
    assert not list(tmp_path.iterdir())


@with_program
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path):
    code = """
import os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
import numpy as np
from preshield.codecs import h264_ffmpeg
pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 200, 3), dtype=np.uint8)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    h264_ffmpeg.encode(pixels, "mp4", 28, "placebo")
except KeyboardInterrupt:
    threading.Timer(5.0, os._exit, (1,)).start()  # the encoder would take far longer
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        print("no child", flush=True)
    os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout == "no child\n", done.stderr
    assert not list(tmp_path.iterdir())


def test_the_program_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"preshield\[ffmpeg\]"):
        ffmpeg.executable()


@with_program
@pytest.mark.parametrize("codec", [h264, h264_ffmpeg])
def test_a_text_makes_nobody_read_other_files(codec, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "other.mp4").write_bytes(h264.encode(clip(), "mp4", 28))
    with pytest.raises(CodecError, match=r"a video file|Invalid"):
        codec.decode(b"ffconcat version 1.0\nfile ../other.mp4\n")


@pytest.mark.parametrize("frames", [np.zeros((1, 4, 20000, 3), np.uint8), np.zeros((1, 4, 4, 4), np.uint8)])
def test_what_x264_refuses(frames):
    with pytest.raises(CodecError, match=r"`frames` must be a video that x264 can encode as mp4, got frames"):
        h264.encode(frames, "mp4", 28)


def test_no_frames():
    with pytest.raises(CodecError, match=r"`frames` must hold one frame or more"):
        h264.encode(np.zeros((0, 4, 4, 3), np.uint8), "mp4", 28)


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_errors_of_others_pass(container):
    def frames():
        yield from clip()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        h264.encode_into(BytesIO(), frames(), container, 28)


class FullDisk(BytesIO):
    """Has room for a few bytes."""

    def write(self, data):
        if self.tell() + len(data) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_a_full_disk_is_no_fault_of_the_frames(container):
    with pytest.raises(OSError, match="No space left") as caught:
        h264.encode_into(FullDisk(), clip(), container, 0)
    assert caught.value.errno == errno.ENOSPC
