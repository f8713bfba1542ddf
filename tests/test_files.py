"""Reading and writing; what `preshield apply` does with it is tested in test_cli.py."""

import re
from pathlib import Path

import numpy as np
import pytest

from preshield.files import (
    DECODERS,
    ENCODERS,
    Media,
    check_target,
    encoder_for,
    range_of,
    read_media,
    read_samples,
    write_atomically,
)

RNG = np.random.default_rng(0)
X = RNG.random((4, 6, 5, 3), dtype=np.float32)
Y = np.arange(4)


@pytest.mark.parametrize("suffix", sorted(set(DECODERS) & set(ENCODERS)))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_reads_what_it_writes(tmp_path, suffix, channels):
    smooth = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(channels, axis=-1)
    path = tmp_path / f"file{suffix.upper()}"
    path.write_bytes(encoder_for(path)(Media(smooth, single=True, is_image=True, clip_values=(0, 1))))
    media = read_media(path)
    assert media.single
    assert media.clip_values == (0, 1)
    assert media.x.dtype == np.float32
    np.testing.assert_allclose(media.x, smooth, atol=0.02)


def test_npy_of_one_sample_and_of_a_batch(tmp_path):
    for x, single in ((X, False), (X[0], True)):
        np.save(tmp_path / "x.npy", x)
        media = read_media(tmp_path / "x.npy")
        assert (media.single, media.is_image, media.x.ndim) == (single, False, 4)
        write_atomically(tmp_path / "x.npy", encoder_for(tmp_path / "x.npy")(media))
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros(3, dtype=np.uint8), (0, 255)),
        (np.array([0.2, 1]), (0, 1)),
        (np.array([0, 1.5]), None),
        (np.array([-0.1, 1]), None),
        (np.array([0, 1]), None),
        (np.array([np.nan, 1]), None),
        (np.zeros((0, 3)), None),
    ],
)
def test_range_of(x, expected):
    assert range_of(x) == expected


@pytest.mark.parametrize("names", [("x", "y"), ("x_test", "y_test")])
def test_samples(tmp_path, names):
    arrays = {"x_train": X[:1], "y_train": Y[:1], **dict(zip(names, (X, Y), strict=True))}
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    x, y = read_samples(tmp_path / "data.npz")
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_x_and_y_come_before_those_of_a_test_set(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y, x_test=X[:1], y_test=Y[:1])
    assert len(read_samples(tmp_path / "data.npz")[0]) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold the arrays x and y, or x_test and y_test; it holds nothing"),
        ({"z": X, "x": X}, "must hold the arrays x and y, or x_test and y_test; it holds x, z"),
        ({"x": X, "y_test": Y}, "it holds x, y_test"),
        ({"x": X, "y": Y[:3]}, "it must hold one label for each sample, got 3 for 4"),
        ({"x": X, "y": np.array(["cat"] * 4)}, "y must be an array of numbers, got shape (4,) of <U3"),
        ({"x": X, "y": np.array(3)}, "y must be an array of numbers, got shape () of int64"),
        ({"x": X.astype(complex), "y": Y}, "x must be an array of numbers"),
        ({"x": np.array([{}] * 4), "y": Y}, "Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_samples_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=rf"cannot read '.*data.npz': .*{re.escape(message)}"):
        read_samples(tmp_path / "data.npz")


def test_files_that_hold_no_samples(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:300])
    for name, reason in {
        "none.npz": "No such file or directory",
        "array.npz": "it is truncated, or no .npz archive",
        "text.npz": "it is truncated, or no .npz archive",
        "cut.npz": "it is truncated, or no .npz archive",
    }.items():
        with pytest.raises(ValueError, match=f"cannot read '.*{name}': .*{reason}"):
            read_samples(tmp_path / name)
    with pytest.raises(ValueError, match=r"the name must end in .npz"):
        read_samples(tmp_path / "data.csv")


def test_unknown_formats(tmp_path):
    with pytest.raises(
        ValueError, match=r"cannot read '.*x.gif': the name must end in .jpeg, .jpg, .npy, .png"
    ):
        read_media(tmp_path / "x.gif")
    with pytest.raises(ValueError, match=r"cannot write '.*x.gif': the name must end in"):
        encoder_for(tmp_path / "x.gif")


def test_targets(tmp_path):
    check_target(tmp_path / "new.png")
    with pytest.raises(ValueError, match="it is a folder"):
        check_target(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder '.*no'"):
        check_target(tmp_path / "no" / "x.png")


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_atomically(path, "ä ∞")
    assert path.read_bytes() == "ä ∞".encode()

    def full(self, content):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == "ä ∞".encode()
    assert list(tmp_path.iterdir()) == [path]
