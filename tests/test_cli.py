import inspect
import io
import itertools
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

import preshield
from preshield import (
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    Mp3Compression,
    Resample,
    SpatialSmoothing,
    TotalVarMin,
    VideoCompression,
    cli,
    files,
)
from preshield._core import windows
from preshield.cli import main
from preshield.codecs import h264, mp3
from preshield.evaluation.evaluate import evaluate as evaluate_itself
from preshield.evaluation.report import RobustnessReport
from preshield.files import Media, encoder_for
from tests.vision import vision

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("in.png")
    return tmp_path


def run(*arguments):
    return main([str(a) for a in arguments])


def fails(capsys, *arguments):
    """Run a command that must fail; return its only line on stderr."""
    try:
        code = run(*arguments)
    except SystemExit as exit_:  # argparse
        code = exit_.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("preshield")
    return captured.err


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def defended(defence, image=PIXELS):
    """What an image file should hold."""
    batch = (image.astype(np.float32) / 255)[None]
    return np.rint(defence.transform(batch)[0] * 255).astype(np.uint8)


# list, --version


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"preshield {preshield.__version__}\n"


def test_list(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for row in preshield.list_defences():
        assert row.name in out


def test_module_and_closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "preshield", "list"], stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_interrupt_is_quiet(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(preshield, "list_defences", interrupt, raising=False)
    assert run("list") == 130
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_of_which_a_framework_makes_another_error(monkeypatch, capsys):
    def interrupted():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("UNKNOWN: KeyboardInterrupt") from error

    monkeypatch.setattr(preshield, "list_defences", interrupted, raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        for _ in range(2):
            assert run("list") == 130
        assert capsys.readouterr().err == ""
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_unexpected_error_is_one_line(monkeypatch, capsys):
    def fail():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(preshield, "list_defences", fail, raising=False)
    assert fails(capsys, "list") == "preshield: error: RuntimeError: first line second line\n"


def test_notes_on_an_error_are_shown(monkeypatch, capsys):
    def fail():
        error = RuntimeError("out of memory")
        error.add_note("Raised by `classifier`.")
        raise error

    monkeypatch.setattr(preshield, "list_defences", fail, raising=False)
    message = "preshield: error: RuntimeError: out of memory Raised by `classifier`.\n"
    assert fails(capsys, "list") == message


# What apply computes


@pytest.mark.parametrize(
    "name", ["FeatureSqueezing", "feature-squeezing", "featuresqueezing", "feature_squeezing", "FEATURE"]
)
def test_apply_png(folder, name):
    assert run("apply", name, "in.png", "out.png", "--param", "bit_depth=2") == 0
    np.testing.assert_array_equal(pixels("out.png"), defended(FeatureSqueezing((0, 1), bit_depth=2)))
    assert sorted(p.name for p in folder.iterdir()) == ["in.png", "out.png"]


@pytest.mark.parametrize(
    "parameters",
    [["--param", "quality=30", "apply_fit=False"], ["--param", "quality=30", "--param", "apply_fit=False"]],
)
def test_apply_several_parameters(folder, parameters):
    assert run("apply", "jpeg", "in.png", "out.png", *parameters) == 0
    np.testing.assert_array_equal(pixels("out.png"), defended(JpegCompression((0, 1), quality=30)))


def test_string_parameter(folder):
    assert run("apply", "spatial", "in.png", "out.png", "--param", "gradient=exact") == 0
    np.testing.assert_array_equal(pixels("out.png"), defended(SpatialSmoothing(3)))


def test_apply_jpeg_files(folder):
    smooth = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    Image.fromarray(smooth).save("in.jpg", quality=95)
    assert run("apply", "spatial", "in.jpg", "out.JPEG", "--param", "window_size=1") == 0
    difference = pixels("out.JPEG").astype(int) - pixels("in.jpg")
    assert abs(difference).max() <= 8
    with Image.open("out.JPEG") as image:
        assert image.format == "JPEG"


def test_apply_orientation(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    Image.fromarray(PIXELS).save("in.jpg", exif=exif)
    assert run("apply", "spatial", "in.jpg", "out.png") == 0
    assert pixels("out.png").shape == (10, 12, 3)


def test_grey(folder):
    Image.fromarray(PIXELS[..., 0]).save("in.png")
    assert run("apply", "spatial", "in.png", "out.png") == 0
    expected = defended(SpatialSmoothing(3), PIXELS[..., :1])[..., 0]
    np.testing.assert_array_equal(pixels("out.png"), expected)


def test_grey_with_16_bits(folder):
    Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16)).save("in.png")
    assert run("apply", "spatial", "in.png", "out.npy") == 0
    np.testing.assert_allclose(np.load("out.npy"), np.full((4, 4, 1), 32768 / 65535), rtol=1e-6)


@pytest.mark.parametrize("grey", [False, True])
def test_transparency_is_kept(folder, grey):
    alpha = np.arange(120, dtype=np.uint8).reshape(12, 10)
    colour = PIXELS[..., :1] if grey else PIXELS
    Image.fromarray(np.dstack([colour, alpha])).save("in.png")
    assert run("apply", "spatial", "in.png", "out.png") == 0
    out = pixels("out.png")
    np.testing.assert_array_equal(out[..., -1], alpha)
    np.testing.assert_array_equal(out[..., :-1], defended(SpatialSmoothing(3), colour))


def test_transparency_and_jpeg(folder, capsys):
    rgba = Image.fromarray(np.dstack([PIXELS, np.full((12, 10), 255, dtype=np.uint8)]))
    rgba.save("in.png")
    assert run("apply", "spatial", "in.png", "opaque.jpg") == 0
    rgba.putalpha(100)
    rgba.save("in.png")
    message = fails(capsys, "apply", "spatial", "in.png", "out.jpg")
    assert "a JPEG file cannot hold the transparency of the input; write a .png file" in message
    assert not (folder / "out.jpg").exists()


def test_palette(folder):
    Image.fromarray(PIXELS).quantize(16).save("in.png")
    with Image.open("in.png") as image:
        expected = defended(SpatialSmoothing(3), np.asarray(image.convert("RGB")))
    assert run("apply", "spatial", "in.png", "out.png") == 0
    np.testing.assert_array_equal(pixels("out.png"), expected)


def test_npy_batch_and_single(folder):
    batch = RNG.random((4, 8, 8, 3), dtype=np.float32)
    np.save("batch.npy", batch)
    np.save("single.npy", batch[0])
    expected = FeatureSqueezing((0, 1), bit_depth=3).transform(batch)
    for name in ("batch", "single"):
        assert run("apply", "feature", f"{name}.npy", f"{name}-out.npy", "--param", "bit_depth=3") == 0
    np.testing.assert_array_equal(np.load("batch-out.npy"), expected)
    np.testing.assert_array_equal(np.load("single-out.npy"), expected[0])


def test_npy_of_bytes_and_clip_values(folder, capsys):
    np.save("bytes.npy", PIXELS)
    assert run("apply", "jpeg", "bytes.npy", "out.npy") == 0
    expected = JpegCompression((0, 255)).transform(PIXELS[None])[0]
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    assert run("apply", "jpeg", "bytes.npy", "out.png") == 0
    np.testing.assert_array_equal(pixels("out.png"), np.rint(expected).astype(np.uint8))

    wide = RNG.uniform(-1, 1, (8, 8, 3)).astype(np.float32)
    np.save("wide.npy", wide)
    message = fails(capsys, "apply", "feature", "wide.npy", "wide-out.npy")
    assert "FeatureSqueezing needs the range of the values" in message
    assert "--param 'clip_values=(low, high)'" in message
    clip = ("--param", "clip_values=(-1, 1)")
    assert run("apply", "feature", "wide.npy", "wide-out.npy", *clip) == 0
    expected = FeatureSqueezing((-1, 1)).transform(wide[None])[0]
    np.testing.assert_array_equal(np.load("wide-out.npy"), expected)
    assert run("apply", "spatial", "wide.npy", "wide-median.npy") == 0
    message = fails(capsys, "apply", "spatial", "wide.npy", "wide-median.png")
    assert "the range of the values is not known" in message


def test_changed_shape_goes_to_npy_only(folder, capsys):
    message = fails(capsys, "apply", "thermometer", "in.png", "out.png")
    assert "the result has shape (12, 10, 30); write a .npy file" in message
    assert run("apply", "thermometer", "in.png", "out.npy", "--param", "num_space=4") == 0
    assert np.load("out.npy").shape == (12, 10, 12)


def test_seed(folder):
    command = ("apply", "gaussianaug", "in.png", "out.png", "--force", "--param", "sigma=0.1")
    seen = []
    for seed in (1, 1, 2):
        assert run(*command, "--seed", seed) == 0
        seen.append(pixels("out.png"))
    defence = GaussianAugmentation(0.1, augmentation=False, clip_values=(0, 1))
    with defence.frozen(1):
        np.testing.assert_array_equal(seen[0], defended(defence))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()


# apply, with audio and video

STEPS = (8000 * np.sin(np.arange(16000)[:, None] * [0.1, 0.3])).astype(np.int16)  # one second of stereo
RAMP = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3)
CLIP = np.stack([np.roll(RAMP, i, axis=0) for i in range(10)]).astype(np.uint8)  # (F, H, W, 3)


@pytest.fixture
def recordings(folder):
    """Files of audio and video."""
    wavfile.write("in.wav", 16000, STEPS[:, 0])
    wavfile.write("stereo.wav", 16000, STEPS)
    Path("in.mp4").write_bytes(h264.encode(CLIP, "mp4", 10, frame_rate=Fraction(30000, 1001)))
    return folder


@pytest.mark.parametrize("name", ["in.wav", "stereo.wav"])
def test_apply_mp3(recordings, name):
    assert run("apply", "mp3", name, "out.wav", "--param", "bit_rate=32000") == 0
    rate, steps = wavfile.read("out.wav")
    assert rate == 16000
    assert steps.dtype == np.int16
    sample = STEPS if name == "stereo.wav" else STEPS[:, 0]
    np.testing.assert_array_equal(steps, Mp3Compression(16000, bit_rate=32000).transform(sample[None])[0])


def test_full_scale_of_audio_is_1(recordings):
    loud = (STEPS[:, 0] / 4000).astype(np.float32)  # up to 2, as some programs write
    wavfile.write("loud.wav", 16000, loud)
    assert run("apply", "mp3", "loud.wav", "out.wav") == 0
    steps = wavfile.read("out.wav")[1]
    assert steps.dtype == np.float32
    np.testing.assert_array_equal(steps, Mp3Compression(16000, full_scale=1.0).transform(loud[None])[0])


def test_apply_resample(recordings):
    command = ("apply", "resample", "stereo.wav", "out.wav", "--force", "--param", "sr_new=8000")
    assert run(*command) == 0
    rate, steps = wavfile.read("out.wav")
    assert rate == 8000
    exact = Resample(16000, 8000).transform(STEPS[None].astype(np.float32))[0]
    np.testing.assert_array_equal(steps, np.rint(exact).astype(np.int16))

    assert run(*command, "restore=True") == 0
    rate, steps = wavfile.read("out.wav")
    assert rate == 16000
    exact = Resample(16000, 8000, restore=True).transform(STEPS[None].astype(np.float32))[0]
    np.testing.assert_array_equal(steps, np.rint(exact).astype(np.int16))


def test_resample_does_not_wrap_what_a_filter_overshoots(recordings):
    square = np.where(np.arange(16000) % 160 < 80, 32767, -32768).astype(np.int16)
    wavfile.write("square.wav", 16000, square)
    assert run("apply", "resample", "square.wav", "out.wav", "--param", "sr_new=12000") == 0
    assert run("apply", "resample", "square.wav", "out.npy", "--param", "sr_new=12000") == 0
    exact = np.load("out.npy")
    assert abs(exact).max() > 1.05
    _, steps = wavfile.read("out.wav")
    np.testing.assert_array_equal(steps, np.clip(np.rint(exact * 32768), -32768, 32767))


def test_apply_video(recordings):
    clip = h264.decode(Path("in.mp4").read_bytes())
    expected = VideoCompression(video_format="mp4", constant_rate_factor=40).transform(clip[None])[0]
    assert run("apply", "video", "in.mp4", "out.npy", "--param", "constant_rate_factor=40") == 0
    np.testing.assert_array_equal(np.load("out.npy"), expected)

    assert run("apply", "video", "in.mp4", "out.mp4", "--param", "constant_rate_factor=40") == 0
    with av.open("out.mp4") as file:
        assert file.streams.video[0].average_rate == Fraction(30000, 1001)
        assert file.streams.video[0].frames == 10
    written = h264.decode(Path("out.mp4").read_bytes())
    assert np.sqrt(np.mean((written.astype(float) - expected) ** 2)) < 2
    assert np.sqrt(np.mean((written.astype(float) - clip) ** 2)) > 4  # it went through the defence


@pytest.mark.parametrize(
    ("source", "target", "container"),
    [
        ("in.mp4", "out.mkv", "mkv"),
        ("in.mp4", "out.AVI", "avi"),
        ("in.avi", "out.npy", "avi"),
        ("clip.npy", "out.npy", "mp4"),
    ],
)
def test_container(recordings, monkeypatch, source, target, container):
    Path("in.avi").write_bytes(h264.encode(CLIP, "avi", 10))
    np.save("clip.npy", CLIP)
    seen = []
    encode = h264.encode_into

    def spy(file, frames, video_format, *args, **kwargs):
        seen.append(video_format)
        return encode(file, frames, video_format, *args, **kwargs)

    monkeypatch.setattr(h264, "encode_into", spy)
    assert run("apply", "video", source, target) == 0
    assert run("apply", "video", source, target, "--force", "--param", "video_format=mov") == 0
    written = [container] * target.startswith("out") * (not target.endswith(".npy"))
    assert sorted(seen) == sorted([container, *written, "mov", *written])  # in parts the file is begun first


def test_defences_of_images_take_videos(recordings):
    clip = h264.decode(Path("in.mp4").read_bytes())
    assert run("apply", "spatial", "in.mp4", "out.npy") == 0
    np.testing.assert_array_equal(np.load("out.npy"), SpatialSmoothing(3).transform(clip[None])[0])
    assert run("apply", "feature", "in.mp4", "out.mov", "--param", "bit_depth=2") == 0
    written = h264.decode(Path("out.mov").read_bytes())
    expected = FeatureSqueezing((0, 255), bit_depth=2).transform(clip[None])[0]
    assert np.median(abs(written - expected)) < 3


IN_PARTS = {  # parameters on the command line, and those that it adds
    "BlurNet": ([], {}),
    "FeatureSqueezing": (["bit_depth=3"], {"clip_values": (0, 255)}),
    "GaussianBlur": (["kernel_size=5"], {}),
    "JpegCompression": (["quality=30"], {"clip_values": (0, 255)}),
    "SpatialSmoothing": (["window_size=5"], {}),
    "StandardisationMeanStd": (["mean=20", "std=0.5"], {}),
    "VideoCompression": (["constant_rate_factor=40"], {"clip_values": (0, 255), "video_format": "mkv"}),
    "WaveletDenoising": ([], {"clip_values": (0, 255)}),
}
DRAWN_IN_PARTS = {
    "GaussianAugmentation": (["sigma=20"], {"augmentation": False, "clip_values": (0, 255)}),
    "PixelDeflection": (["deflections=31"], {"clip_values": (0, 255)}),
    "TotalVarMin": (["max_iter=1"], {"clip_values": (0, 255)}),
}
TAPS = np.random.default_rng(0).uniform(-0.1, 0.1, 40).round(3).tolist()
WHOLE = {"Cutout": (["length=9"], {})}


def test_which_defences_take_videos_in_parts():
    of_frames = {
        row.name
        for row in preshield.list_defences()
        if {"image", "video"} <= set(row.domains) and not row.stochastic
    } - {"MajorityVote", "SqueezeDetector"}
    # Its result, with more than three channels, is no video.
    assert {*IN_PARTS, "ThermometerEncoding"} == {*of_frames, "VideoCompression"}


@pytest.mark.parametrize("name", [*IN_PARTS, *DRAWN_IN_PARTS, *WHOLE])
@pytest.mark.parametrize("sides", [(32, 48), (31, 47)], ids=str)
def test_videos_in_parts_have_the_bytes_of_the_whole(folder, monkeypatch, name, sides):
    dark = CLIP[:, : sides[0], : sides[1]].copy()
    dark[:4] //= 128  # a scene of 0 and 1 does not make anybody doubt the range
    Path("in.mp4").write_bytes(h264.encode(dark, "mp4", 10, pixel_format="yuv444p"))
    given, added = (IN_PARTS | DRAWN_IN_PARTS | WHOLE)[name]
    clip = h264.decode(Path("in.mp4").read_bytes())
    values = {key: float(value) for key, value in (pair.split("=") for pair in given)}
    values = {key: int(value) if value.is_integer() else value for key, value in values.items()}
    defence = getattr(preshield, name)(**values, **added)
    with defence.frozen(7):
        expected = defence.transform(clip[None])[0]
    media = Media(expected, "video", (0, 255), rate=25)

    seen, transform = [], preshield.Preprocessor.transform

    def spy(self, x):
        seen.append(x.shape[1])
        return transform(self, x)

    monkeypatch.setattr(preshield.Preprocessor, "transform", spy)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3 * clip[0].nbytes)
    parameters = ["--param", *given] if given else []
    assert run("apply", name, "in.mp4", "out.mkv", "--seed", "7", *parameters) == 0
    assert Path("out.mkv").read_bytes() == encoder_for(Path("out.mkv"), "video")(media)
    in_parts = [] if name in {"VideoCompression", *DRAWN_IN_PARTS} else [1, 3, 3, 3]
    assert seen == ([10] if name in WHOLE else in_parts)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Mp3Compression", {"bit_rate": 32000}),
        ("Resample", {"sr_new": 12000}),
        ("Resample", {"sr_new": 22050, "filter": "kaiser_fast"}),
        ("Resample", {"sr_new": 15999, "filter": "kaiser_best", "restore": True}),
        ("Resample", {"sr_new": 16000}),
        ("LFilter", {"numerator_coef": [0.5, 0.3, -0.2], "axis": 0, "initial_cond": [0.3, -0.1]}),
        ("LFilter", {"numerator_coef": TAPS, "axis": 0}),
        ("LFilter", {"numerator_coef": [0.2, 0.1], "denominator_coef": [2.0, -1.0, 0.5], "axis": 0}),
        ("LFilter", {"denominator_coef": [1.0, -0.9], "axis": 0, "initial_cond": [0.5]}),
        ("FeatureSqueezing", {"bit_depth": 4}),
        ("StandardisationMeanStd", {"mean": 0.1, "std": 0.3}),
        ("GaussianAugmentation", {"sigma": 0.1}),
    ],
)
def test_audio_in_parts_has_the_bytes_of_the_whole(folder, monkeypatch, name, parameters, channels):
    signal = np.random.default_rng(0).uniform(-0.7, 0.7, (9001, channels)).astype(np.float32)
    wavfile.write("in.wav", 16000, signal)
    known = {
        "Mp3Compression": {"sample_rate": 16000, "full_scale": 1.0},
        "Resample": {"sr_original": 16000},
        "StandardisationMeanStd": {},
        "GaussianAugmentation": {"clip_values": (-1, 1), "augmentation": False},
    }
    defence = getattr(preshield, name)(**parameters, **known.get(name, {"clip_values": (-1, 1)}))
    monkeypatch.setattr(mp3, "CHUNK", 2304)
    with defence.frozen(7):
        expected = defence.transform((signal if channels > 1 else signal[:, 0])[None])[0]
    rate = parameters["sr_new"] if name == "Resample" and not parameters.get("restore") else 16000
    whole = encoder_for(Path("out.wav"), "audio")(Media(expected, "audio", rate=rate, encoding="pcm_f32le"))

    monkeypatch.setattr(windows, "WINDOW_BYTES", 1500)
    if name not in ("FeatureSqueezing", "StandardisationMeanStd"):
        monkeypatch.setattr(preshield.Preprocessor, "transform", None)
    given = [f"{key}={value}" for key, value in parameters.items()]
    assert run("apply", name, "in.wav", "out.wav", "--seed", "7", "--param", *given) == 0
    assert Path("out.wav").read_bytes() == whole


def test_audio_in_parts_is_checked_as_the_whole_is(folder, capsys):
    signal = np.zeros(9000, np.float32)
    signal[8000] = np.nan
    wavfile.write("in.wav", 16000, signal)
    for name, *parameters in [("lfilter",), ("mp3",), ("resample", "--param", "sr_new=8000"), ("feature",)]:
        assert "`x` must be finite, got 1 NaN" in fails(
            capsys, "apply", name, "in.wav", "out.wav", *parameters
        )
    wavfile.write("in.wav", 16000, signal[:3])
    message = fails(capsys, "apply", "resample", "in.wav", "out.wav", "--param", "sr_new=4000")
    assert "`x` must have at least 4 along time, axis 1 of (1, 3), to be resampled" in message
    assert not Path("out.wav").exists()


@pytest.mark.parametrize("name", ["video", "jpeg"])
def test_a_video_that_is_damaged_in_the_middle_leaves_nothing(recordings, monkeypatch, capsys, name):
    def damaged(*args):
        yield from itertools.islice(files.read_parts(*args), 5)
        raise ValueError("its frame 5 is damaged")

    before = set(recordings.iterdir())
    monkeypatch.setattr(cli, "read_parts", damaged)
    assert "its frame 5 is damaged" in fails(capsys, "apply", name, "in.mp4", "out.mp4")
    assert set(recordings.iterdir()) == before


def test_the_limit_is_for_what_is_in_memory(recordings, monkeypatch, capsys):
    monkeypatch.setattr(files, "VIDEO_GROWTH", 0)
    nine = ("--max-bytes", str(9 * CLIP[0].nbytes))
    monkeypatch.setattr(files, "AUDIO_GROWTH", 0)
    wavfile.write("silence.wav", 16000, np.zeros(9 * CLIP[0].nbytes, np.int16))
    message = fails(capsys, "apply", "lfilter", "silence.wav", "out.wav", *nine)
    assert f"it holds {36 * CLIP[0].nbytes} bytes or more" in message
    for name in ("video", "jpeg"):
        assert run("apply", name, "in.mp4", f"{name}.mp4", *nine) == 0
    before = set(recordings.iterdir())
    message = fails(capsys, "apply", "cutout", "in.mp4", "out.mp4", "--param", "length=9", *nine)
    assert f"cannot read 'in.mp4': it holds {10 * CLIP[0].nbytes} bytes or more" in message
    assert message.endswith(f"MAX_BYTES={10 * CLIP[0].nbytes} (Cutout needs all frames in memory)\n")
    assert "(JpegCompression" not in fails(capsys, "apply", "jpeg", "in.mp4", "out.npy", *nine)
    assert set(recordings.iterdir()) == before


def test_parameters_for_each_frame_need_the_whole_video(recordings, monkeypatch, capsys):
    monkeypatch.setattr(windows, "WINDOW_BYTES", 5 * CLIP[0].nbytes)
    message = fails(capsys, "apply", "standard", "in.mp4", "out.mp4", "--param", "mean=[1, 2, 3, 4, 5]")
    assert "one sample of `x`, of shape (1, 32, 48, 3), got shape (5,)" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_video_goes_through_a_pipe(recordings):
    os.mkfifo("pipe.mp4")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(Path("pipe.mp4").read_bytes)
        assert run("apply", "jpeg", "in.mp4", "pipe.mp4", "--force") == 0
        assert run("apply", "jpeg", "in.mp4", "out.mp4") == 0
        assert read.result() == Path("out.mp4").read_bytes()


@pytest.mark.parametrize("name", ["jpeg", "video"])
def test_progress_of_a_video_is_in_seconds(folder, monkeypatch, name):
    Path("in.mp4").write_bytes(h264.encode(CLIP, "mp4", 10, frame_rate=2))
    bars = []

    class Bar:
        def __init__(self, **options):
            self.n, self.options = 0, options
            bars.append(self)

        def update(self, number):
            assert number >= 0
            self.n += number

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(cli, "progress_bar", Bar)
    assert run("apply", name, "in.mp4", "out.mp4") == 0
    assert [(bar.n, bar.options["total"]) for bar in bars] == [(5, 5)]


def test_defences_of_anything_take_audio(recordings):
    assert run("apply", "feature", "in.wav", "out.wav", "--param", "bit_depth=3") == 0
    expected = FeatureSqueezing((-1, 1), bit_depth=3).transform(STEPS[None, :, 0] / np.float32(32768))[0]
    steps = np.clip(np.rint(expected * 32768), -32768, 32767)
    np.testing.assert_array_equal(wavfile.read("out.wav")[1], steps)


def test_npy_of_one_recording_or_clip(recordings):
    for x, arguments, defence in (
        (STEPS[:, 0], ("mp3", "sample_rate=16000"), Mp3Compression(16000)),
        (
            CLIP,
            ("video", "constant_rate_factor=40"),
            VideoCompression(video_format="mp4", constant_rate_factor=40),
        ),
    ):
        name, parameter = arguments
        for batch in (x, x[None]):
            np.save("x.npy", batch)
            assert run("apply", name, "x.npy", "out.npy", "--force", "--param", parameter) == 0
            expected = defence.transform(x[None])
            np.testing.assert_array_equal(np.load("out.npy"), expected if batch is not x else expected[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["jpeg", "in.wav", "out.wav"],
            "JpegCompression is for image and video, and 'in.wav' holds audio data",
        ),
        (["mp3", "in.mp4", "out.mp4"], "Mp3Compression is for audio, and 'in.mp4' holds video data"),
        (["video", "in.mp4", "out.wav"], "cannot write 'out.wav': for video data the name must end in .avi,"),
        (
            ["mp3", "in.wav", "out.mp3"],
            "cannot write 'out.mp3': for audio data the name must end in .npy, .wav",
        ),
        (["mp3", "x.npy", "out.wav"], "cannot write 'out.wav': for array data the name must end in"),
        (["mp3", "none.wav", "out.wav"], "cannot read 'none.wav': No such file or directory"),
        (["mp3", "folder.wav", "out.wav"], "cannot read 'folder.wav': "),
        (["mp3", "cut.wav", "out.wav"], "cannot read 'cut.wav': it is truncated, damaged, or no .wav file"),
        (["mp3", "text.wav", "out.wav"], "cannot read 'text.wav': it is truncated, damaged, or no .wav file"),
        (["video", "cut.mp4", "out.mp4"], "cannot read 'cut.mp4': it is truncated, damaged, or no .mp4 file"),
        (["video", "text.mp4", "out.mp4"], "cannot read 'text.mp4': it is truncated, damaged, or no .mp4 fi"),
        (["video", "in.mp4", "out.mp4", "--param", "constant_rate_factor=99"], "must be between 0 and 51"),
        (["resample", "in.wav", "out.wav"], "Resample needs the parameter 'sr_new'; give it as sr_new=value"),
        (["mp3", "x.npy", "out.npy"], "Mp3Compression needs the parameter 'sample_rate'; give it as"),
        (
            ["mp3", "in.wav", "out.wav", "--param", "sample_rate=8000"],
            "sample_rate=8000 is not that of 'in.wav', 16000; leave it out",
        ),
        (
            ["resample", "in.wav", "out.wav", "--param", "sr_original=8000", "sr_new=4000"],
            "sr_original=8000 is not that of 'in.wav', 16000; leave it out",
        ),
        (
            ["video", "in.mp4", "out.mp4", "--param", "clip_values=(0, 1)"],
            "clip_values=(0, 1) is not that of 'in.mp4', (0.0, 255.0); leave it out",
        ),
        (["mp3", "fast.wav", "out.wav"], "`sample_rate` must be one that MP3 has, 8000, "),
        (["mp3", "three.wav", "out.wav"], "`x` must have one or two channels, as MP3 has, got 3"),
        (["resample", "nan.wav", "out.wav", "--param", "sr_new=8000"], "1 NaN"),
        (["mp3", "in.wav", "out.wav", "--param", "channels_first=True"], "channels_first=True is for arr"),
        (
            ["gaussianaugmentation", "in.wav", "out.wav", "--param", "augmentation=True"],
            "(length, C) with C up to 8, and the result has shape (2, 16000); write a .npy file",
        ),
    ],
)
def test_errors_with_recordings(recordings, capsys, arguments, message):
    np.save("x.npy", STEPS[:, 0])
    Path("folder.wav").mkdir()
    for name in ("in.wav", "in.mp4"):
        cut = Path(name.replace("in", "cut"))
        cut.write_bytes(Path(name).read_bytes()[:-9])
        Path(name.replace("in", "text")).write_text("A text, and nothing more than that.")
    wavfile.write("fast.wav", 96000, STEPS)
    wavfile.write("three.wav", 16000, STEPS[:, [0, 1, 0]])
    wavfile.write("nan.wav", 16000, np.r_[np.nan, np.zeros(99)].astype(np.float32))
    before = set(recordings.iterdir())
    assert message in fails(capsys, "apply", *arguments)
    assert set(recordings.iterdir()) == before


@pytest.mark.parametrize("clip_values", ["(0, 1)", "[0.0, 1.0]", "None"])
def test_range_that_agrees_with_the_file(folder, clip_values):
    command = ("apply", "gaussianaug", "in.png", "out.npy", "--seed", "1", "--param", "sigma=0.5")
    assert run(*command, f"clip_values={clip_values}") == 0
    assert (np.load("out.npy").max() > 1) == (clip_values == "None")  # None: noise that is not cut off


def test_range_of_audio_may_be_chosen(recordings):
    loud = (STEPS[:, 0] / 4000).astype(np.float32)  # up to 2
    wavfile.write("loud.wav", 16000, loud)
    assert run("apply", "feature", "loud.wav", "out.wav", "--param", "clip_values=(-2, 2)") == 0
    expected = FeatureSqueezing((-2, 2)).transform(loud[None])[0]
    np.testing.assert_array_equal(wavfile.read("out.wav")[1], expected)


def test_rates_that_agree_with_the_file(recordings):
    parameters = ("--param", "sr_original=16000", "sr_new=8000")
    assert run("apply", "resample", "in.wav", "out.wav", *parameters) == 0


def test_interrupt_leaves_no_video(recordings, monkeypatch, capsys):
    before = set(recordings.iterdir())

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    for name in ("decode_from", "encode_into"):
        with monkeypatch.context() as patch:
            patch.setattr(h264, name, interrupt)
            assert run("apply", "video", "in.mp4", "out.mp4") == 130
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        assert run("apply", "video", "in.mp4", "out.mp4") == 130
    assert set(recordings.iterdir()) == before
    assert capsys.readouterr() == ("", "")


# Files of apply


def test_existing_file_needs_force(folder, capsys):
    (folder / "out.png").write_text("precious")
    message = fails(capsys, "apply", "jpeg", "in.png", "out.png")
    assert message == "preshield: error: 'out.png' exists; give --force to replace it\n"
    assert (folder / "out.png").read_text() == "precious"
    assert run("apply", "jpeg", "in.png", "out.png", "--force") == 0
    assert pixels("out.png").shape == PIXELS.shape
    assert run("apply", "jpeg", "in.png", "in.png", "--force") == 0


def test_failed_write_leaves_nothing(folder, capsys, monkeypatch):
    (folder / "out.png").write_text("precious")

    def full(self, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    message = fails(capsys, "apply", "jpeg", "in.png", "out.png", "--force")
    assert message == "preshield: error: out.png: No space left on device\n"
    assert (folder / "out.png").read_text() == "precious"
    assert sorted(p.name for p in folder.iterdir()) == ["in.png", "out.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jpeg", "none.png", "out.png"], "cannot read 'none.png': No such file or directory"),
        (["jpeg", "folder.png", "out.png"], "cannot read 'folder.png': "),
        (["jpeg", "broken.png", "out.png"], "cannot read 'broken.png': "),
        (["jpeg", "cut.png", "out.png"], "cannot read 'cut.png': "),
        (["jpeg", "broken.npy", "out.npy"], "cannot read 'broken.npy': "),
        (["jpeg", "objects.npy", "out.npy"], "cannot read 'objects.npy': "),
        (["jpeg", "text.npy", "out.npy"], "cannot read 'text.npy': it must hold one array of num"),
        (["jpeg", "nan.npy", "out.npy"], "NaN"),
        (["jpeg", "in.gif", "out.png"], "cannot read 'in.gif': the name must end in .avi, .flac, .jpeg, .jp"),
        (["jpeg", "in.png", "out"], "cannot write 'out': for image data the name must end in .jpeg, .jpg,"),
        (["jpeg", "in.png", "folder.png"], "cannot write 'folder.png': it is a folder"),
        (["jpeg", "in.png", "no/out.png"], "cannot write 'no/out.png': there is no folder 'no'"),
        (["jpg", "in.png", "out.png"], "'jpg' is no defence; choose from "),
        (["", "in.png", "out.png"], "'' is no defence; choose from "),
        (["pixeldefend", "in.png", "out.png"], "only Python can give it: preshield.PixelDefend().fit(x)"),
        (["label", "in.png", "out.png"], "LabelSmoothing defends labels; it leaves samples as"),
        (["jpeg", "in.png", "out.png", "--param", "quality"], "--param must be name=value, got 'quality'"),
        (
            ["jpeg", "in.png", "out.png", "--param", "depth=3"],
            "JpegCompression has no parameter 'depth'; it has clip_values, quality, channels_first",
        ),
        (["jpeg", "in.png", "out.png", "--param", "quality=1000"], "quality"),
        (
            ["jpeg", "in.png", "out.png", "--param", "quality=10", "--param", "quality=90"],
            "the parameter 'quality' is given twice",
        ),
        (
            ["gaussianaug", "in.png", "out.png", "--param", "clip_values=(0, 0.5)"],
            "clip_values=(0, 0.5) is not that of 'in.png', (0.0, 1.0); leave it out",
        ),
        (
            ["jpeg", "in.png", "out.png", "--param", "channels_first=True"],
            "channels_first=True is for arrays",
        ),
        (["jpeg", "in.png", "out.png", "--param", "layout=NCHW"], "layout='NCHW' is for arrays"),
        (["mp3", "in.png", "out.png"], "Mp3Compression is for audio, and 'in.png' holds image data"),
        (
            ["jpeg", "in.png", "out.png", "--seed", "-1"],
            "argument --seed: must be a whole number from 0 on, got '-1'",
        ),
        (["jpeg", "in.png"], "preshield apply: error: the following arguments are required: OUT"),
    ],
)
def test_apply_errors(folder, capsys, arguments, message):
    (folder / "folder.png").mkdir()
    (folder / "broken.png").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "in.png").read_bytes()[:200])
    (folder / "broken.npy").write_text("no array")
    (folder / "in.gif").write_bytes(b"")
    np.save("objects.npy", np.array([{}], dtype=object))
    np.save("text.npy", np.array(["text"]))
    np.save("nan.npy", np.full((4, 4, 3), np.nan, dtype=np.float32))
    assert message in fails(
        capsys, "apply", *arguments, *(["--param", "clip_values=(0, 1)"] * ("nan.npy" in arguments))
    )
    assert not (folder / "out.png").exists()
    assert not (folder / "out.npy").exists()


# evaluate, with a stub in the place of the work


class Report:
    """What the command asks of a report."""

    def __init__(self, complete=True):
        self.complete = complete

    def __str__(self):
        return "the table"

    def to_json(self):
        return "{}"

    def to_markdown(self):
        return "| the table ∞ |"

    def to_html(self):
        return "<p>the table"


@pytest.fixture
def calls(folder, monkeypatch):
    """Files for `evaluate`, and the arguments of its calls."""
    pytest.importorskip("matplotlib")
    seen = []

    def evaluate(*args, **kwargs):
        seen.append((args, kwargs))
        return Report()

    monkeypatch.setattr(preshield, "evaluate", evaluate, raising=False)
    monkeypatch.setattr("preshield.cli.load_model", lambda path, limit: f"model of {path}")
    for name, entries in {
        "m.keras": ["config.json", "metadata.json"],
        "m.pt": ["m/constants.pkl", "m/code/m.py"],
    }.items():
        with ZipFile(name, "w") as archive:
            for entry in entries:
                archive.writestr(entry, "")
    np.savez("data.npz", x=RNG.random((4, 8, 8, 3), dtype=np.float32), y=np.arange(4))
    np.savez("first.npz", x=RNG.random((4, 3, 8, 8), dtype=np.float32), y=np.arange(4))
    return seen


def evaluated(calls, *arguments, model="m.keras", data="data.npz"):
    """Run `evaluate`; return the arguments of the call that it makes."""
    assert run("evaluate", "--model", model, "--data", data, *arguments) == 0
    return calls.pop()


def test_evaluate_defaults(calls, folder, capsys):
    (model, x, y, defences), options = evaluated(calls)
    assert model == "model of m.keras"
    np.testing.assert_array_equal(x, np.load("data.npz")["x"])
    np.testing.assert_array_equal(y, np.arange(4))
    assert defences == {}
    assert options == {
        "threat": "l2-minimum",
        "eps": None,
        "eot": 16,
        "seed": 0,
        "batch_size": 128,
        "budget": None,
        "verbose": False,
        "surrogate": None,
        "clip_values": (0, 1),
        "attacks": None,
        "first": 0,
        "checkpoint": None,
        "keep_examples": None,
        "class_names": None,
    }
    defaults = {name: p.default for name, p in inspect.signature(evaluate_itself).parameters.items()}
    for name in {*options} - {"threat", "eps", "verbose", "clip_values"}:
        assert options[name] == defaults[name]
    out, err = capsys.readouterr()
    files = [f"preshield-report/report.{suffix}" for suffix in ("json", "md", "html")]
    assert out.splitlines() == ["the table", "", *(f"Written: {file}" for file in files)]
    assert err == ""
    assert (folder / files[0]).read_text() == "{}"
    assert (folder / files[1]).read_text(encoding="utf-8") == "| the table ∞ |"
    assert (folder / files[2]).read_text() == "<p>the table"


def test_evaluate_options(calls, folder):
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/report.md").write_text("of an earlier run")
    (_, x, y, _), options = evaluated(
        calls,
        *(
            "--samples",
            3,
            "--threat",
            "linf",
            "--eps",
            "8/255",
            "--eot",
            2,
            "--seed",
            5,
            "--budget",
            7,
            "--batch-size",
            2,
        ),
        *("--surrogate", "m.pt", "--clip-values", "-1", "1", "--out", "deep/er", "--first", 1),
        *("--attacks", "autoattack", "--checkpoint", "half", "--keep-examples", "made.npz"),
    )
    np.testing.assert_array_equal(x, np.load("data.npz")["x"][1:])
    np.testing.assert_array_equal(y, [1, 2, 3])
    assert options == {
        "threat": "linf",
        "eps": 8 / 255,
        "eot": 2,
        "seed": 5,
        "batch_size": 2,
        "budget": 7,
        "verbose": False,
        "surrogate": "model of m.pt",
        "clip_values": (-1, 1),
        "attacks": "autoattack",
        "first": 1,
        "checkpoint": Path("half"),
        "keep_examples": Path("made.npz"),
        "class_names": None,
    }
    assert (folder / "deep/er/report.md").read_text(encoding="utf-8") == "| the table ∞ |"


@pytest.mark.parametrize(
    ("arguments", "threat", "eps"),
    [
        (["--eps", "0.5", "--threat", "l2"], "l2", 0.5),
        (["--eps", "1e-2", "--threat", "l2-minimum"], "l2-minimum", 0.01),
        (["--eps", "0", "--threat", "linf"], "linf", 0),
    ],
)
def test_evaluate_threats(calls, arguments, threat, eps):
    _, options = evaluated(calls, *arguments)
    assert (options["threat"], options["eps"]) == (threat, eps)


def test_evaluate_defences(calls):
    specs = [
        "jpeg",
        "jpeg:quality=30",
        "feature : clip_values=(0, 2), bit_depth=1",
        "spatial:gradient='exact'+gaussianaug:sigma=1e+0,clip_values=(0,1) + Total_Var",
    ]
    defences = evaluated(calls, *(argument for spec in specs for argument in ("--defence", spec)))[0][3]
    assert list(defences) == specs
    jpeg, quality, feature, chain = defences.values()
    assert jpeg.get_params() == JpegCompression((0, 1), verbose=False).get_params()
    assert quality.quality == 30
    assert feature.clip_values == (0, 2)
    spatial, gaussian, variation = chain.defences
    assert isinstance(variation, TotalVarMin)
    assert spatial.gradient == "exact"
    assert spatial.clip_values is None
    assert (gaussian.sigma, gaussian.augmentation, gaussian.clip_values) == (1, False, (0, 1))


def test_evaluate_clip_values(calls, capsys):
    np.savez("bytes.npz", x=PIXELS[None], y=[0])
    (*_, defences), options = evaluated(calls, "--defence", "jpeg", data="bytes.npz")
    assert options["clip_values"] == defences["jpeg"].clip_values == (0, 255)

    np.savez("wide.npz", x=RNG.uniform(-1, 1, (2, 8, 8, 3)), y=[0, 1])
    command = ("evaluate", "--model", "m.keras", "--data", "wide.npz", "--defence", "spatial+jpeg")
    capsys.readouterr()
    message = fails(capsys, *command)
    assert "--defence 'spatial+jpeg': JpegCompression needs the range of the values" in message
    assert "give it as --clip-values LOW HIGH" in message
    assert not calls
    wide = ("--defence", "feature", "--clip-values", "-1", "1")
    (*_, defences), options = evaluated(calls, *wide, data="wide.npz")
    assert options["clip_values"] == defences["feature"].clip_values == (-1, 1)
    assert evaluated(calls, data="wide.npz")[1]["clip_values"] is None


@pytest.mark.parametrize(
    ("model", "data", "arguments", "expected"),
    [
        ("m.keras", "data.npz", [], False),
        ("m.keras", "first.npz", [], False),
        ("m.pt", "data.npz", [], False),
        ("m.pt", "first.npz", [], True),
        ("m.pt", "first.npz", ["--no-channels-first"], False),
        ("m.keras", "first.npz", ["--channels-first"], True),
        ("m.keras", "first.npz", ["--defence", "jpeg:channels_first=True"], True),
        ("m.pt", "first.npz", ["--defence", "jpeg:layout=NCHW"], False),  # in place of the guess
        ("m.pt", "first.npz", ["--defence", "jpeg:layout=NHWC"], False),
    ],
)
def test_evaluate_layout(calls, model, data, arguments, expected):
    arguments = arguments if "--defence" in arguments else [*arguments, "--defence", "jpeg"]
    (*_, defences), _ = evaluated(calls, *arguments, model=model, data=data)
    assert [defence.channels_first for defence in defences.values()] == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "none.keras"], "none.keras: No such file or directory"),
        (["--model", "m.onnx"], "cannot load 'm.onnx': give a Keras model (.keras), a TorchScript module"),
        (["--surrogate", "in.png"], "cannot load 'in.png': give a Keras model (.keras), a"),
        (["--model", "timm:"], "`spec` must be one of timm:NAME, torchvision:NAME, hf:NAME"),
        (["--model", "timm:r", "--clip-values", "0", "255"], "must be 0 1 for timm:r, which takes pixels in"),
        (
            ["--weights", "w.safetensors"],
            "--weights is for a pretrained model, such as timm:resnet50, not",
        ),
        (["--data", "none.npz"], "cannot read 'none.npz': No such file or directory"),
        (["--data", "in.png"], "cannot read 'in.png': give a folder with a sub-folder of pictures for each"),
        (["--data", "none"], "none: No such file or directory"),
        (["--data", "none.csv"], "cannot read 'none.csv': No such file or directory"),
        (["--size", "8"], "--size is for pictures, and 'data.npz' holds arrays"),
        (["--skip-unreadable"], "--skip-unreadable is for pictures, and 'data.npz' holds arrays"),
        (["--out", "in.png"], "--out must be a folder, got the file 'in.png'"),
        (["--out", "in.png/report"], "--out must be a folder, got the file 'in.png'"),
        (["--threat", "linf"], "--threat linf needs --eps"),
        (["--eps", "0.1"], "--eps needs --threat: linf or l2 for any perturbation up to EPS, l2-minimum for"),
        (["--threat", "l1"], "argument --threat: invalid choice: 'l1'"),
        (["--eps", "8/0"], "argument --eps: must be a number or a fraction from 0 on, got '8/0'"),
        (["--eps", "nan"], "argument --eps: must be a number or a fraction from 0 on, got 'nan'"),
        (["--eps=-1/255"], "argument --eps: must be a number or a fraction from 0 on, got '-1/255'"),
        (["--first", "4"], "--first must be below the number of samples in data.npz, got 4"),
        (["--first", "-1"], "argument --first: must be a whole number from 0 on, got '-1'"),
        (["--attacks", "pgd"], "argument --attacks: invalid choice: 'pgd'"),
        (["--samples", "0"], "argument --samples: must be a whole number from 1 on, got '0'"),
        (["--clip-values", "0"], "argument --clip-values: expected 2 arguments"),
        (["--clip-values", "1", "0"], "--clip-values must be LOW HIGH with LOW < HIGH, got [1.0, 0.0]"),
        (["--defence", "jpg"], "--defence 'jpg': 'jpg' is no defence; choose from "),
        (["--defence", "jpeg+"], "--defence 'jpeg+': '' is no defence; choose from "),
        (["--defence", "defensegan"], "DefenseGAN needs a model that was trained, which only Python can"),
        (["--defence", "jpeg:quality"], "'jpeg:quality': a parameter must be name=value, got 'quality'"),
        (["--defence", "jpeg:quality=1,"], "'jpeg:quality=1,': a parameter must be name=value, got ''"),
        (["--defence", "jpeg:quality=1,quality=2"], "2': the parameter 'quality' is given twice"),
        (["--defence", "jpeg:quality=(1"], "'jpeg:quality=(1': `quality` must be"),
        (["--defence", "jpeg:depth=3"], "JpegCompression has no parameter 'depth'; it has clip_values"),
        (["--defence", "jpeg+spatial:window_size=0"], "'jpeg+spatial:window_size=0': `window_size` must"),
        (["--defence", "label"], "LabelSmoothing defends labels; it leaves samples as they are"),
        (["--defence", "jpeg", "--defence", "jpeg"], "--defence 'jpeg' is given twice"),
    ],
)
def test_evaluate_checks_arguments_first(calls, folder, capsys, monkeypatch, arguments, message):
    def load(path, limit):
        raise AssertionError("the model must not be loaded")

    monkeypatch.setattr("preshield.cli.load_model", load)
    message_seen = fails(capsys, "evaluate", "--model", "m.keras", "--data", "data.npz", *arguments)
    assert message in message_seen
    assert not (folder / "preshield-report").exists()


def test_evaluate_loads_models_before_it_attacks(calls, folder, capsys, monkeypatch):
    def load(path, limit):
        raise ValueError(f"cannot load {str(path)!r}: it is odd")

    monkeypatch.setattr("preshield.cli.load_model", load)
    message = fails(capsys, "evaluate", "--model", "m.pt", "--data", "data.npz")
    assert message == "preshield: error: cannot load 'm.pt': it is odd\n"
    assert not calls
    assert not (folder / "preshield-report").exists()


def test_report_on_a_stream_without_its_signs(calls, monkeypatch):
    monkeypatch.setattr(Report, "__str__", Report.to_markdown)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    evaluated(calls)
    assert stream.buffer.getvalue().startswith(b"| the table ? |")


def test_evaluate_interrupted(calls, folder, capsys, monkeypatch):
    monkeypatch.setattr(preshield, "evaluate", lambda *args, **kwargs: Report(complete=False))
    assert run("evaluate", "--model", "m.pt", "--data", "data.npz", "--out", "report") == 130
    out, err = capsys.readouterr()
    assert out.endswith("Written: report/report.html\n")
    assert err == "preshield: interrupted; the report holds what was finished\n"
    assert len(list((folder / "report").iterdir())) == 3


def test_evaluate_that_fails_reports_what_is_finished(calls, folder, capsys, monkeypatch):
    def fail(*args, **kwargs):
        error = RuntimeError("out of memory")
        error.report = Report(complete=False)
        raise error

    monkeypatch.setattr(preshield, "evaluate", fail)
    assert run("evaluate", "--model", "m.pt", "--data", "data.npz", "--out", "report") == 2
    out, err = capsys.readouterr()
    assert out.endswith("Written: report/report.html\n")
    assert err.splitlines() == [
        "preshield: interrupted; the report holds what was finished",
        "preshield: error: RuntimeError: out of memory",
    ]
    assert len(list((folder / "report").iterdir())) == 3


def test_evaluate_without_matplotlib(calls, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = fails(capsys, "evaluate", "--model", "m.pt", "--data", "data.npz")
    assert 'pip install "preshield[plots]"' in message
    assert not calls


def test_evaluate_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("evaluate", "--help")
    out = capsys.readouterr().out
    assert "--defence jpeg:quality=50" in out
    assert max(map(len, out.splitlines())) <= 80


def test_samples_after_the_first(calls):
    for arguments, some in ((["--first", 1, "--samples", 2], [1, 2]), (["--first", 3], [3])):
        (_, x, y, _), options = evaluated(calls, *arguments)
        np.testing.assert_array_equal(x, np.load("data.npz")["x"][some])
        np.testing.assert_array_equal(y, some)
        assert options["first"] == some[0]


# merge


def classify(x):
    return np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1)


def part(start, end, **options):
    x = np.random.default_rng(0).random((10, 3), dtype=np.float32)
    options = {"threat": "linf", "eps": 0.1, "columns": ["black-box"], "budget": 2, **options}
    y = (x[:, 0] > 0.5).astype(int)
    return evaluate_itself(classify, x[start:end], y[start:end], [], first=start, verbose=False, **options)


def test_merge(folder, capsys):
    pytest.importorskip("matplotlib")
    for name, ends in {"a.json": (0, 4), "b.json": (4, 10)}.items():
        part(*ends).to_json(name)
    assert run("merge", "b.json", "a.json", "--out", "whole") == 0
    out, err = capsys.readouterr()
    whole = part(0, 10)
    assert RobustnessReport.from_json("whole/report.json") == whole
    assert out.startswith(f"{whole.table().splitlines()[0]}\n")
    assert "Written: whole/report.html" in out
    assert err == ""


def test_merge_errors(folder, capsys):
    pytest.importorskip("matplotlib")
    for name, ends in {"a.json": (0, 4), "b.json": (4, 10), "c.json": (5, 10)}.items():
        part(*ends).to_json(name)
    part(4, 10, seed=1).to_json("other.json")
    Path("broken.json").write_text("{")
    for arguments, message in (
        (["a.json", "c.json"], "leave a gap"),
        (["a.json", "a.json"], "overlap"),
        (["a.json", "other.json"], "differ in 'seed': 0 and 1"),
        (["a.json", "none.json"], "none.json"),
        (["a.json", "broken.json"], "`source`"),
        (["a.json", "b.json", "--out", "in.png"], "--out must be a folder, got the file 'in.png'"),
        ([], "the following arguments are required: REPORT"),
    ):
        assert message in fails(capsys, "merge", *arguments)
    assert not Path("preshield-report").exists()


# evaluate, from files to files


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """Bright and dark images, (N, H, W, C), and models that tell them apart, in both layouts."""
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("brightness")
    y = np.arange(12) % 2
    x = np.random.default_rng(0).uniform(0.1, 0.6, (12, 8, 8, 3)).astype(np.float32)
    x += 0.3 * y[:, None, None, None].astype(np.float32)
    np.savez(folder / "last.npz", x=x, y=y)
    np.savez(folder / "first.npz", x=np.moveaxis(x, -1, 1), y=y)
    weights = np.tile(np.array([[-0.1, 0.1]], dtype=np.float32), (192, 1))
    bias = np.array([9.6, -9.6], dtype=np.float32)  # brightness 0.5 is on the border
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.set_weights([weights, bias])
    linear = torch.nn.Linear(192, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights.T))
        linear.bias.copy_(torch.from_numpy(bias))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model.save(folder / "model.keras")
        torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), linear)).save(folder / "model.pt")
    return folder


def in_a_process(arguments, capfd):
    command = [sys.executable, "-m", "preshield", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    return result.returncode, result.stdout, result.stderr


def in_this_process(arguments, capfd):
    capfd.readouterr()
    return run(*arguments), *capfd.readouterr()


@pytest.mark.parametrize(
    ("model", "data", "execute"),
    [
        pytest.param("model.keras", "last.npz", in_a_process, marks=pytest.mark.slow),
        ("model.pt", "first.npz", in_this_process),
    ],
)
def test_evaluate_end_to_end(brightness, tmp_path, capfd, model, data, execute):
    arguments = [
        *("evaluate", "--out", tmp_path / "report"),
        *("--model", brightness / model, "--data", brightness / data, "--samples", "8"),
        *("--threat", "linf", "--eps", "8/255", "--budget", "5", "--eot", "2"),
        *("--defence", "jpeg:quality=50", "--defence", "spatial+gaussianaug:sigma=0.02"),
    ]
    code, out, err = execute(arguments, capfd)
    assert (code, err) == (0, "")
    assert "spatial+gaussianaug:sigma=0.02" in out
    assert out.splitlines()[-3:] == [
        f"Written: {tmp_path / 'report' / 'report'}.{suffix}" for suffix in ("json", "md", "html")
    ]
    report = RobustnessReport.from_json(tmp_path / "report" / "report.json")
    assert [row.name for row in report.rows] == ["none", "jpeg:quality=50", "spatial+gaussianaug:sigma=0.02"]
    assert report.complete
    assert report.threat.eps == 8 / 255
    assert all(row.columns["clean"].accuracy == 1 for row in report.rows)
    assert "jpeg:quality=50" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "jpeg:quality=50" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_pretrained_model_end_to_end(tmp_path, capsys):
    """Pictures of any size, in the size of the model; the attack is made in its pixels."""
    timm = vision("timm")
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    x = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(2))
    arguments = [
        *("evaluate", "--model", "timm:test_resnet", "--weights", tmp_path / "w.safetensors"),
        *("--data", tmp_path / "data.npz", "--out", tmp_path / "report", "--defence", "feature:bit_depth=4"),
        *("--threat", "linf", "--eps", "2/255", "--budget", "1", "--keep-examples", tmp_path / "x.npz"),
    ]
    assert run(*arguments) == 0
    report = RobustnessReport.from_json(tmp_path / "report" / "report.json")
    assert report.settings["classifier"] == "timm:test_resnet"
    assert report.threat.clip_values == (0, 1)
    assert report.examples["none"]["adaptive"].shape == (2, 3, 160, 160)
    assert [row.name for row in report.rows] == ["none", "feature:bit_depth=4"]


@pytest.fixture(scope="module")
def pictures(brightness):
    """The bright and dark images as files, a folder for each class."""
    arrays = np.load(brightness / "last.npz")
    for number, (x, y) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
        place = brightness / "pictures" / ("bright" if y else "a dark one")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(x * 255).astype(np.uint8)).save(place / f"{number:02}.png")
    return brightness / "pictures"


@pytest.mark.parametrize("model", ["model.pt", "model.keras"])
def test_a_folder_of_pictures_end_to_end(brightness, pictures, tmp_path, capsys, model):
    """Parts merged are one run, which a checkpoint gives back; bad files stop it before any attack."""
    common = [
        "--model",
        brightness / model,
        "--data",
        pictures,
        "--threat",
        "linf",
        "--eps",
        "8/255",
        "--budget",
        "2",
    ]

    def report(name, *arguments):
        assert run("evaluate", *common, "--out", tmp_path / name, *arguments) == 0
        return RobustnessReport.from_json(tmp_path / name / "report.json")

    kept = ["--checkpoint", tmp_path / "half", "--keep-examples", tmp_path / "x.npz"]
    whole = report("whole", *kept)
    assert capsys.readouterr().err.splitlines() == [
        "preshield: 12 pictures of 2 classes, classes in turn, in an order drawn by the seed",
        "preshield: sub-folders in their order are the model's classes 0 to 1",
        "preshield: pictures: of one size, colour",
        f"preshield: which is which: {tmp_path / 'whole' / 'samples.csv'}",
    ]
    assert whole.settings["samples drawn"] == "classes in turn, in an order drawn by the seed"
    assert whole["none"].columns["clean"].accuracy == 1
    assert whole.class_names == ("a dark one", "bright")
    rows = [line.split(",") for line in (tmp_path / "whole" / "samples.csv").read_text().splitlines()[1:]]
    assert [int(label) for _, _, label in rows] == whole.labels.tolist()
    assert all(
        (pictures / name).is_file() and ("bright" in name) == (label == "1") for _, name, label in rows
    )
    if model == "model.keras":
        return
    assert whole.examples["none"]["adaptive"].shape == (12, 3, 8, 8)
    seconds = whole["none"].columns["adaptive"].seconds
    assert report("again", *kept)["none"].columns["adaptive"].seconds == seconds
    parts = [tmp_path / name / "report.json" for name in ("first", "last")]
    report("first", "--samples", "5")
    report("last", "--first", "5")
    assert run("merge", *parts, "--out", tmp_path / "merged") == 0
    assert RobustnessReport.from_json(tmp_path / "merged" / "report.json") == whole
    with Image.open(pictures / "bright" / "01.png") as picture:
        picture.save(tmp_path / "small.png")
    (tmp_path / "t.csv").write_text(
        f"file,label\nsmall.png,1\n{pictures / 'bright' / '03.png'},0\nnone.png,1\n"
    )
    common[3] = tmp_path / "t.csv"
    capsys.readouterr()
    message = fails(capsys, "evaluate", *common, "--out", tmp_path / "table")
    assert "1 picture cannot be read: " in message
    assert not (tmp_path / "table" / "report.json").exists()
    assert report("table", "--skip-unreadable")["none"].columns["clean"].accuracy == 0.5


def test_labels_beside_the_order_of_the_model(brightness, pictures, tmp_path, capsys):
    """Told in a line, before the attack."""
    (tmp_path / "names.txt").write_text("bright\na dark one\n")
    arguments = ["--model", brightness / "model.pt", "--data", pictures, "--out", tmp_path / "report"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert (
            run(
                "evaluate",
                *arguments,
                "--threat",
                "linf",
                "--eps",
                "0",
                "--budget",
                1,
                "--classes",
                tmp_path / "names.txt",
            )
            == 0
        )
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith(
        "preshield: warning: The classifier is right on 0 of 12 samples without any att"
    )


# Other errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "preshield: error: the following arguments are required: COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["demo", "--seed", "x"], "argument --seed: must be a whole number from 0 on, got 'x'"),
        (["demo", "--out", "in.png"], "--out must be a folder, got the file 'in.png'"),
    ],
)
def test_other_errors(folder, capsys, arguments, message):
    assert message in fails(capsys, *arguments)


@pytest.mark.parametrize("text", ["jpg", ""])
def test_choices_are_defences_of_samples(folder, capsys, text):
    message = fails(capsys, "apply", text, "in.png", "out.png")
    assert "TotalVarMin" in message
    assert "LabelSmoothing" not in message


def test_demo_without_its_packages(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    message = fails(capsys, "demo")
    assert 'pip install "preshield[demo]"' in message
    assert not (folder / "preshield-demo").exists()
