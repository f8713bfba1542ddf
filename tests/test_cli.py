import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import preshield
from preshield import FeatureSqueezing, GaussianAugmentation, JpegCompression, SpatialSmoothing
from preshield.cli import main

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


def test_unexpected_error_is_one_line(monkeypatch, capsys):
    def fail():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(preshield, "list_defences", fail, raising=False)
    assert fails(capsys, "list") == "preshield: error: RuntimeError: first line second line\n"


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
    assert "a JPEG file cannot hold the transparency of IN; write a .png file" in message
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
    assert "the result has shape (1, 12, 10, 30); write a .npy file" in message
    assert run("apply", "thermometer", "in.png", "out.npy", "--param", "num_space=4") == 0
    assert np.load("out.npy").shape == (12, 10, 12)


def test_seed(folder):
    command = ("apply", "gaussian", "in.png", "out.png", "--force", "--param", "sigma=0.1")
    seen = []
    for seed in (1, 1, 2):
        assert run(*command, "--seed", seed) == 0
        seen.append(pixels("out.png"))
    defence = GaussianAugmentation(0.1, augmentation=False, clip_values=(0, 1))
    with defence.frozen(1):
        np.testing.assert_array_equal(seen[0], defended(defence))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()


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
    from pathlib import Path

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
        (["jpeg", "in.gif", "out.png"], "cannot read 'in.gif': the name must end in .jpeg, .jpg, .npy, .png"),
        (["jpeg", "in.png", "out"], "cannot write 'out': the name must end in .jpeg, .jpg, .npy, .png"),
        (["jpeg", "in.png", "folder.png"], "cannot write 'folder.png': it is a folder"),
        (["jpeg", "in.png", "no/out.png"], "cannot write 'no/out.png': there is no folder 'no'"),
        (["jpg", "in.png", "out.png"], "'jpg' is no defence; choose from FeatureSqueezing, "),
        (["", "in.png", "out.png"], "'' is no defence; choose from "),
        (["label", "in.png", "out.png"], "LabelSmoothing defends labels; a file of images has"),
        (["jpeg", "in.png", "out.png", "--param", "quality"], "--param must be name=value, got 'quality'"),
        (
            ["jpeg", "in.png", "out.png", "--param", "depth=3"],
            "JpegCompression has no parameter 'depth'; it has clip_values, quality, channels_first",
        ),
        (["jpeg", "in.png", "out.png", "--param", "quality=1000"], "quality"),
        (
            ["jpeg", "in.png", "out.png", "--param", "channels_first=True"],
            "channels_first=True is for arrays",
        ),
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


def test_demo_without_its_packages(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    message = fails(capsys, "demo")
    assert 'pip install "preshield[demo]"' in message
    assert not (folder / "preshield-demo").exists()
