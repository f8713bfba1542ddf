"""Video compression: constants, scales and dtypes, shapes that encoders do not like, its rules."""

import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield import VideoCompression
from preshield._core.layout import object_array
from preshield.codecs import h264, h264_ffmpeg


def clips(n=2, frames=5, height=18, width=26, scale=1.0):
    """Squares that move over a ramp, in [0, scale], whole numbers of 8 bits."""
    y, x = np.indices((height, width))
    pixels = np.empty((n, frames, height, width, 3))
    pixels[:] = (2 * y + 4 * x)[..., None] + np.array([20, 40, 60])
    for i in range(n):
        for f in range(frames):
            pixels[i, f, 2 + f : 8 + f, 3 + i + f : 9 + i + f] = (200, 180 - 20 * i, 60)
    return np.clip(pixels, 0, 255).round() * (scale / 255)


def expected(pixels, *args):
    """Clips `(N, F, H, W, 3)` of bytes through the codec, one by one."""
    height, width = pixels.shape[2:4]
    decoded = [h264.decode(h264.encode(clip, *args))[:, :height, :width] for clip in pixels]
    return np.stack(decoded)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("level", [0, 2, 128, 255])
def test_a_constant_video_survives(level, dtype):
    x = np.full((2, 3, 9, 7, 3), level, dtype)
    out = VideoCompression(video_format="mp4", clip_values=(0, 255)).transform(x)
    assert out.dtype == dtype
    assert np.abs(out.astype(int) - level).max() <= 1  # 219 levels of brightness for 256


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 24), st.integers(1, 24)),
    video_format=st.sampled_from(list(h264.CONTAINERS)),
    crf=st.integers(0, 51),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.int32, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_codec_clip_by_clip(shape, video_format, crf, channels_first, dtype, seed):
    n, frames, height, width = shape
    width += width in (height, 3)  # or the layout would be in doubt
    pixels = np.random.default_rng(seed).integers(0, 256, (n, frames, height, width, 3), dtype=np.uint8)
    pixels.flat[0] = 255  # so that the guess is [0, 255]
    wanted = expected(pixels, video_format, crf)
    if channels_first:
        pixels, wanted = np.moveaxis(pixels, -1, 1), np.moveaxis(wanted, -1, 1)
    defence = VideoCompression(
        video_format=video_format, constant_rate_factor=crf, channels_first=channels_first
    )
    out = defence.transform(pixels.astype(dtype))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, wanted)
    unit = defence.transform(pixels / 255)
    np.testing.assert_array_equal(unit, wanted / 255)


TAKEN = r"taken for video in \[0, 1\], cut off .* clip_values=\(0, 1\) if it is, or clip_values=\(0, 255\)"


@pytest.mark.parametrize("peak", [1.001, 1.5, 7.9])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_value_outside_the_range_is_cut_off_and_no_more(peak, dtype):
    x = np.random.default_rng(0).random((1, 5, 18, 26, 3)).astype(dtype)
    x[0, 2, 3, 4, 1] = peak
    unit = VideoCompression(video_format="mp4", clip_values=(0, 1)).transform(x)
    defence = VideoCompression(video_format="mp4")
    with pytest.warns(UserWarning, match=TAKEN):
        out = defence.transform(x)
    np.testing.assert_array_equal(out, unit)
    assert abs(out.mean(dtype=float) - x.mean(dtype=float)) < 0.02  # 0.5; 1.0 for levels of 8 bits
    np.testing.assert_array_equal(defence.transform(x), unit)  # warns once


def test_the_guess_for_a_video_does_not_follow_from_the_others():
    bright, unit = 255 * clips(1), 1.01 * clips(1) / clips(1).max()
    dark = np.rint(5 * clips(1))  # levels of 8 bits
    defence = VideoCompression(video_format="mp4")
    alone = [defence.transform(bright), None, defence.transform(dark)]
    with pytest.warns(UserWarning, match=TAKEN):
        alone[1] = VideoCompression(video_format="mp4").transform(unit)
    np.testing.assert_array_equal(alone[2], defence.transform(dark.astype(np.uint8)))
    for batch in (np.concatenate, lambda videos: object_array([video[0] for video in videos])):
        with pytest.warns(UserWarning, match=TAKEN):
            out = VideoCompression(video_format="mp4").transform(batch([bright, unit, dark]))
        for i in range(3):
            np.testing.assert_array_equal(out[i], alone[i][0])


def test_brighter_than_8_bits():
    x = 65535 * clips(1)
    with pytest.warns(UserWarning, match=r"got None for .*; scale the data, for example with x / 257\.$"):
        VideoCompression(video_format="mp4").transform(x)
    VideoCompression(video_format="mp4").transform(x / 257)


def test_the_scale_is_guessed_as_in_art():
    x = clips()
    guess = VideoCompression(video_format="mp4")
    unit = VideoCompression(video_format="mp4", clip_values=(0, 1))
    byte = VideoCompression(video_format="mp4", clip_values=(0, 255))
    assert x.max() <= 1
    np.testing.assert_array_equal(guess.transform(x), unit.transform(x))
    np.testing.assert_allclose(guess.transform(255 * x), 255 * unit.transform(x), atol=1e-10)
    np.testing.assert_array_equal(guess.transform(255 * x), byte.transform(255 * x))
    # Told otherwise, it believes it, with a warning: nearly black, and far too bright
    with pytest.warns(UserWarning, match=r"pass clip_values=\(0, 1\), or scale .* with x \* 255\.$"):
        assert byte.transform(x).max() <= 1
    with pytest.warns(UserWarning, match=r"pass clip_values=\(0, 255\), or scale .* with x / 255\.$"):
        assert np.abs(unit.transform(255 * x + 1) - 1).max() < 0.01


@pytest.mark.parametrize(
    "clip_values", [(0, 1), [0.0, 1.0], (np.float32(0), np.float32(1)), (0, np.array([1]))]
)
def test_clip_values(clip_values):
    x = np.zeros((1, 2, 4, 6, 3))
    out = VideoCompression(video_format="mp4", clip_values=clip_values).transform(x)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize(
    ("value", "same_as"), [(127.5 / 255, 128), (0.4, 102), (0.402, 103), (1.2, 255), (7.0, 255)]
)
def test_values_are_rounded_and_saturated(value, same_as):
    defence = VideoCompression(video_format="mp4", clip_values=(0, 1))
    out = defence.transform(np.full((1, 2, 8, 10, 3), value))
    pixels = np.full((1, 2, 8, 10, 3), same_as, np.uint8)
    np.testing.assert_array_equal(out, expected(pixels, "mp4", 28) / 255)


@pytest.mark.parametrize("clip_values", [None, (0, 1), (0, 255)])
@pytest.mark.parametrize(
    "x", [np.float16(6e4), np.float32(3e38), 1e308, np.int16(300), np.int64(2**40)], ids=str
)
def test_the_largest_values_saturate(x, clip_values):
    batch = np.full((1, 2, 8, 10, 3), x)
    far = x > (8 if clip_values == (0, 1) else 8 * 255)
    with pytest.warns(UserWarning, match="should be the range of the data") if far else nullcontext():
        out = VideoCompression(video_format="mp4", clip_values=clip_values).transform(batch)
    assert out.dtype == batch.dtype
    np.testing.assert_array_equal(out, 1 if clip_values == (0, 1) else 255)


def test_integers_in_the_unit_interval():
    mask = np.zeros((1, 3, 16, 18, 3), bool)
    mask[:, :, 4:12] = True
    defence = VideoCompression(video_format="mp4", constant_rate_factor=10)
    for dtype in (bool, np.uint8, np.int8):
        out = defence.transform(mask.astype(dtype))
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, mask)


@pytest.mark.parametrize(
    ("dtype", "clip_values", "decoded", "expected"),
    [
        (np.int8, (0, 255), 200, 127),
        (np.int8, (0, 255), 100, 100),
        (bool, (0, 255), 200, True),
        (np.uint8, (0, 1), 254, 1),
        (np.uint8, (0, 1), 127, 0),
        (bool, (0, 1), 128, True),
        (bool, (0, 1), 127, False),
    ],
)
def test_integers_are_rounded_and_never_wrap(dtype, clip_values, decoded, expected, monkeypatch):
    monkeypatch.setattr(h264, "decode", lambda data: np.full((1, 4, 6, 3), decoded, np.uint8))
    x = np.zeros((1, 1, 4, 6, 3), dtype)
    out = VideoCompression(video_format="mp4", clip_values=clip_values).transform(x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, np.full(x.shape, expected))


@pytest.mark.parametrize("video_format", h264.CONTAINERS)
@pytest.mark.parametrize("frames", [1, 2, 40])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (7, 5), (16, 17), (33, 32)])
def test_any_size(video_format, frames, height, width):
    x = np.full((1, frames, height, width, 3), 0.25)
    x[..., -1, -1, :] = 1
    defence = VideoCompression(video_format=video_format, constant_rate_factor=1, channels_first=True)
    out = defence.transform(np.moveaxis(x, -1, 1))
    assert out.shape == (1, 3, frames, height, width)
    np.testing.assert_allclose(np.moveaxis(out, 1, -1), x, atol=0.05)  # grey: colour is not lost


def test_a_higher_rate_factor_loses_more():
    x = clips(frames=8, height=40, width=48)
    losses = [
        np.abs(VideoCompression(video_format="mp4", constant_rate_factor=crf).transform(x) - x).mean()
        for crf in (0, 20, 35, 51)
    ]
    assert losses == sorted(losses)
    assert losses[3] > 2 * losses[0]


def test_a_perturbation_is_smoothed_away():
    """What it is for: noise of 4 levels on a plain surface is nearly gone."""
    x = 0.5 + np.random.default_rng(0).choice([-4, 4], (1, 8, 40, 48, 3)) / 255
    defence = VideoCompression(video_format="mp4", constant_rate_factor=35)
    assert defence.transform(x).std() < 0.25 * x.std()


def test_the_preset_arrives():
    x = clips(scale=255)
    pixels = x.astype(np.uint8)
    out = VideoCompression(video_format="mov", preset="ultrafast").transform(x)
    np.testing.assert_array_equal(out, expected(pixels, "mov", 28, "ultrafast"))
    assert (out != expected(pixels, "mov", 28)).any()


def test_threads_and_batches_make_no_difference(monkeypatch):
    x = clips(9, 16, 32, 112).astype(np.float32)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        results.append(VideoCompression(video_format="mp4").transform(x))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    alone = np.concatenate([VideoCompression(video_format="mp4").transform(x[i : i + 1]) for i in range(9)])
    np.testing.assert_array_equal(alone, results[0])


def test_the_second_engine_gives_the_same():
    pytest.importorskip("imageio_ffmpeg")
    for video_format in h264.CONTAINERS:
        x = clips(2, 7, 13, 22)
        first, second = (
            VideoCompression(video_format=video_format, engine=engine).transform(x)
            for engine in ("pyav", "imageio-ffmpeg")
        )
        assert np.abs(first - second).mean() < 0.5 / 255  # 0, but for another release of x264
        still = VideoCompression(video_format=video_format, engine="imageio-ffmpeg").transform(x[:1, :1])
        assert still.shape == (1, 1, 13, 22, 3)


def test_a_lost_frame_is_an_error(monkeypatch):
    monkeypatch.setattr(h264, "decode", lambda data: np.zeros((4, 18, 26, 3), np.uint8))
    with pytest.raises(ValueError, match="pyav made 4 frames of 5"):
        VideoCompression(video_format="mp4").transform(clips())


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("engine", ["pyav", "imageio-ffmpeg"])
def test_an_interrupt_leaves_no_process_and_no_file(engine, tmp_path):
    if engine == "imageio-ffmpeg":
        pytest.importorskip("imageio_ffmpeg")
    code = f"""
import os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
import numpy as np
from preshield import VideoCompression
from preshield._core.layout import object_array
x = np.random.default_rng(0).integers(0, 256, (40, 12, 160, 160, 3), dtype=np.uint8)
defence = VideoCompression(video_format="mp4", engine={engine!r}, preset="veryslow")
defence.transform(x[:1, :1])
threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    defence.transform(x)
except KeyboardInterrupt:
    threading.Timer(10.0, os._exit, (1,)).start()
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        print("no child", flush=True)
    os._exit(0)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PRESHIELD_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.stdout == "no child\n", done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels_first", [False, True])
def test_videos_of_different_lengths_sizes_and_scales(channels_first):
    rng = np.random.default_rng(0)
    pixels = [
        rng.integers(0, 256, (frames, 8, width, 3), dtype=np.uint8) for frames, width in ((2, 9), (5, 12))
    ]
    decoded = [expected(clip[None], "mp4", 28)[0] for clip in pixels]
    clips = [pixels[0].astype(np.float32) / 255, pixels[1]]  # a scale and a type for each
    wanted = [decoded[0].astype(np.float32) / 255, decoded[1]]
    if channels_first:
        clips, wanted = ([np.moveaxis(clip, -1, 0) for clip in batch] for batch in (clips, wanted))
    defence = VideoCompression(video_format="mp4", channels_first=channels_first)
    out = defence.transform(object_array(clips))
    assert [clip.dtype for clip in out] == [np.float32, np.uint8]
    for found, clip in zip(out, wanted, strict=True):
        np.testing.assert_array_equal(found, clip)


def test_memory_layouts_and_the_callers_array():
    x = clips(4)
    kept = x.copy()
    out = VideoCompression(video_format="mp4").transform(x)
    np.testing.assert_array_equal(x, kept)
    for same in (np.asfortranarray(x), np.repeat(x, 2, axis=3)[:, :, :, ::2], x.astype(">f8")):
        np.testing.assert_array_equal(VideoCompression(video_format="mp4").transform(same), out)
    x.flags.writeable = False
    np.testing.assert_array_equal(VideoCompression(video_format="mp4").transform(x[::2]), out[::2])


def test_no_samples():
    for dtype in (np.float32, np.uint8):
        out = VideoCompression(video_format="mp4").transform(np.zeros((0, 4, 8, 9, 3), dtype))
        assert out.shape == (0, 4, 8, 9, 3)
        assert out.dtype == dtype


def test_gradient_passes():
    grad = np.random.default_rng(0).normal(size=(1, 2, 8, 9, 3))
    defence = VideoCompression(video_format="mp4")
    np.testing.assert_array_equal(defence.estimate_gradient(np.zeros(grad.shape), grad), grad)


def scaled_cosines(before, after, seen):
    """Frames `(F, H, W, 3)` whose cosine coefficients are scaled as those of `before` were in `after`.

    Written out for one block at a time, in luminance and chrominance by ITU-T T.871 to 16 bits.
    """
    to_ycc = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 2**16
    to_rgb = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]]) / 2**16
    k, n = np.indices((8, 8))
    waves = np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos(np.pi * k * (2 * n + 1) / 16)
    height, width = before.shape[1:3]
    enlarged = ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0))
    one, other, seen = (np.pad(v @ to_ycc.T, enlarged, "edge") for v in (before, after, seen))
    out = np.empty(seen.shape)
    for f, i, j, c in np.ndindex(len(seen), seen.shape[1] // 8, seen.shape[2] // 8, 3):
        block = f, slice(8 * i, 8 * i + 8), slice(8 * j, 8 * j + 8), c
        was, became, now = (waves @ v[block] @ waves.T for v in (one, other, seen))
        share = np.clip(was * became / (was**2 + 0.001**2), 0, 1)
        out[block] = waves.T @ (share * now) @ waves
    return (out @ to_rgb.T)[:, :height, :width]


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("scale", [1, 255])
def test_soft_gradient_scales_the_cosine_coefficients(channels_first, scale):
    x = clips(2, 3, 18, 22, scale)
    rng = np.random.default_rng(0)
    grad, step = rng.normal(size=(2, *x.shape))
    options = {"video_format": "mp4", "clip_values": (0, scale), "constant_rate_factor": 34}
    after = VideoCompression(**options).transform(x)
    # The map is linear: its change along any step is the product of this step with the gradient.
    expected = [
        (scaled_cosines(*v, s) * g).sum()
        for *v, s, g in zip(x / scale, after / scale, step, grad, strict=True)
    ]
    x, grad, step = (np.moveaxis(v, -1, 1) if channels_first else v for v in (x, grad, step))
    defence = VideoCompression(**options, channels_first=channels_first, gradient="soft")
    found = (defence.estimate_gradient(x, grad) * step).sum(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_soft_gradient_of_videos_of_different_shapes():
    x = object_array([clips(1, 2, 16, 16)[0], clips(1, 3, 9, 20)[0].astype(np.float32)])
    grad = object_array([np.random.default_rng(i).normal(size=video.shape) for i, video in enumerate(x)])
    defence = VideoCompression(video_format="mp4", clip_values=(0, 1), gradient="soft")
    out = defence.estimate_gradient(x, grad)
    for i, video in enumerate(x):
        np.testing.assert_allclose(out[i], defence.estimate_gradient(video[None], grad[i][None])[0])


def test_verbose_shows_a_bar(capsys):
    VideoCompression(video_format="mp4").transform(clips())
    assert capsys.readouterr().err == ""
    VideoCompression(video_format="mp4", verbose=True).transform(clips())
    captured = capsys.readouterr()
    assert "Video compression: 100%" in captured.err
    assert "2/2" in captured.err
    assert captured.out == ""


def test_x264_says_nothing(capfd):
    VideoCompression(video_format="mp4").transform(clips())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"video_format": "webm"}, ValueError, "must be one of 'mp4', 'mkv', 'avi', 'mov', got 'webm'"),
        ({"video_format": ".mp4"}, ValueError, r"`video_format` must be one of .*, got '\.mp4'"),
        ({"video_format": None}, ValueError, "`video_format` must be one of .*, got None"),
        ({"constant_rate_factor": -1}, ValueError, "must be between 0 and 51, got -1"),
        ({"constant_rate_factor": 52}, ValueError, "must be between 0 and 51, got 52"),
        ({"constant_rate_factor": 28.5}, TypeError, "`constant_rate_factor` must be an integer, got 28.5"),
        ({"constant_rate_factor": True}, TypeError, "`constant_rate_factor` must be an integer, got True"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"verbose": "yes"}, TypeError, "`verbose` must be True or False, got 'yes'"),
        ({"apply_fit": None}, TypeError, "`apply_fit` must be True or False, got None"),
        ({"apply_predict": 0}, TypeError, "`apply_predict` must be True or False, got 0"),
        ({"clip_values": (0, 2)}, ValueError, r"must be None, \(0, 1\) or \(0, 255\), got \(0, 2\)"),
        ({"clip_values": (-1, 1)}, ValueError, r"must be None, \(0, 1\) or \(0, 255\), got \(-1, 1\)"),
        ({"clip_values": (0, np.ones(3))}, ValueError, r"must be None, \(0, 1\) or \(0, 255\)"),
        ({"clip_values": 255}, ValueError, "`clip_values` must be a pair"),
        (
            {"preset": "fastest"},
            ValueError,
            "`preset` must be one of 'ultrafast', .*'placebo', got 'fastest'",
        ),
        ({"engine": "ffmpeg"}, ValueError, "must be one of 'pyav', 'imageio-ffmpeg', got 'ffmpeg'"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        VideoCompression(**{"video_format": "mp4", **parameters})


def test_the_format_has_no_default_and_nothing_is_positional():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'video_format'"):
        VideoCompression()
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        VideoCompression("mp4")


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 4)), ValueError, r"must be a 5-D video batch \(NFHWC\), got shape \(4, 4\)"),
        (
            np.zeros((4, 8, 9, 3)),
            ValueError,
            r"5-D video batch \(NFHWC\), .*; pass x\[None\] for one video",
        ),
        (np.zeros((1, 3, 4, 8, 9)), ValueError, "3 channels, RGB, got 9 .*; pass channels_first=True"),
        (np.zeros((1, 3, 4, 8, 8)), ValueError, "pass channels_first=True"),
        (np.zeros((1, 4, 8, 9, 1)), ValueError, r"RGB, got 1 in shape .*; pass np.repeat\(x, 3, axis=4\)"),
        (np.zeros((1, 4, 8, 9, 4)), ValueError, "RGB, got 4 in shape .*; keep three of them"),
        (np.zeros((1, 0, 8, 9, 3)), ValueError, "one frame or more in each video, got shape"),
        (np.zeros((0, 0, 8, 9, 3)), ValueError, "one frame or more in each video, got shape"),
        (np.zeros((1, 2, 0, 9, 3)), ValueError, "frames of 1 to 16384 pixels a side, got 0 x 9"),
        (np.zeros((1, 1, 1, 16385, 3)), ValueError, "frames of 1 to 16384 pixels a side, got 1 x 16385"),
        (np.full((1, 1, 8, 9, 3), np.nan), ValueError, "`x` must be finite, got 216 NaN"),
        (np.full((1, 1, 8, 9, 3), np.inf), ValueError, "0 NaN and 216 infinite"),
        (
            np.full((1, 1, 8, 9, 3), -0.5),
            ValueError,
            r"must not be negative, got a minimum of -0\.5; undo any normalisation and pass values in",
        ),
        (np.full((1, 1, 8, 9, 3), "a"), TypeError, "`x` must hold real numbers"),
        (
            object_array([np.zeros((2, 8, 9, 3)), np.zeros((8, 9, 3))]),
            ValueError,
            r"`x\[1\]` must be a video \(FHWC\)",
        ),
        (object_array([np.zeros((3, 2, 8, 8))]), ValueError, "channels first, .*; pass channels_first=True"),
        (
            object_array([np.zeros((2, 8, 9, 3)), np.zeros((2, 8, 9, 4))]),
            ValueError,
            r"`x\[1\]` must have 3 channels, RGB, got 4 in shape \(2, 8, 9, 4\)",
        ),
        (
            object_array([np.zeros((2, 8, 9, 3)), np.zeros((3, 2, 8, 9))]),
            ValueError,
            r"`x\[1\]` must have 3 channels, RGB, got 9 in shape \(3, 2, 8, 9\) .*; pass channels_first=True",
        ),
        (
            object_array([np.ones((2, 8, 9, 3)), np.ones((0, 8, 9, 3))]),
            ValueError,
            r"`x\[1\]` must have one frame or more in each video, got shape \(0, 8, 9, 3\)",
        ),
        (object_array([np.ones((2, 0, 9, 3))]), ValueError, r"`x\[0\]` must have frames of 1 to"),
        (object_array([np.full((2, 8, 9, 3), -1)]), ValueError, r"`x\[0\]` must not be negative"),
    ],
)
def test_bad_arrays(x, error, message, monkeypatch):
    for codec in (h264, h264_ffmpeg):
        monkeypatch.setattr(codec, "encode", lambda *args: pytest.fail("work has started"))
    with pytest.raises(error, match=message):
        VideoCompression(video_format="mp4").transform(x)


def test_channels_first_is_checked_too():
    with pytest.raises(ValueError, match=r"RGB, got 4 .*; pass channels_first=False"):
        VideoCompression(video_format="mp4", channels_first=True).transform(np.zeros((1, 4, 8, 9, 3)))


@pytest.mark.parametrize("side", [(1, 16384), (16384, 1)])
def test_the_largest_sides(side):
    x = np.zeros((1, 1, *side, 3), np.uint8)
    out = VideoCompression(video_format="mp4", preset="ultrafast").transform(x)
    np.testing.assert_array_equal(out, x)
