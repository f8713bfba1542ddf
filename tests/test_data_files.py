"""Pictures in files become samples; what cannot be read is known before anything is attacked."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from preshield._core.errors import ArgumentError
from preshield._core.limits import Limit
from preshield.data_files import PictureData, data_in
from preshield.files import read_picture
from preshield.neural.pretrained import PretrainedModel

LIMIT = Limit.given()
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten pictures, each of one level of grey that its name tells."""
    for level in range(20):
        place = tmp_path / "pictures" / "ab"[level // 10]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (10 * level,) * 3).save(place / f"{level}.png")
    return tmp_path / "pictures"


class Model:
    """Scores of two classes, of pictures of one shape."""

    def __init__(self, shape=(6, 6, 3)):
        self.shape = shape

    def __call__(self, x):
        assert x.shape[1:] == self.shape, "another shape"
        return np.stack([x.mean(axis=(1, 2, 3)), 1 - x.mean(axis=(1, 2, 3))], axis=1)


def opened(path, **options):
    given = {"first": 0, "samples": None, "seed": 0, "fields": None, "size": None, "classes": None}
    return data_in(path, LIMIT, **given | {"skip_unreadable": False} | options)


def read(path, model=None, clip_values=(0.0, 1.0), channels_first=False, **options):
    data = opened(path, **options)
    with data.samples(model or Model(), channels_first, clip_values, verbose=False) as (x, y):
        return np.array(x), np.array(y), data


def levels(x):
    return (x[:, 0, 0, 0] * 25.5).round().astype(int).tolist()


def test_each_picture_with_its_label(folder):
    x, y, data = read(folder)
    assert x.shape == (20, 6, 6, 3)
    assert x.dtype == np.float32
    found = levels(x)
    assert sorted(found) == list(range(20))
    assert [level // 10 for level in found] == y.tolist()
    assert np.abs(np.diff(y[:16])).sum() >= 8  # they take turns
    rows = [line.split(",") for line in data.table(5).splitlines()]
    assert rows[0] == ["number", "file", "label"]
    assert [int(row[0]) for row in rows[1:]] == list(range(5, 25))
    assert [int(re.search(r"(\d+)\.png", row[1])[1]) for row in rows[1:]] == found
    assert [int(row[2]) for row in rows[1:]] == y.tolist()


@pytest.mark.parametrize("skip", [False, True])
def test_parts_are_those_of_the_whole(folder, skip):
    if skip:
        (folder / "a" / "0.png").write_text("no picture")
        (folder / "b" / "19.png").write_text("no picture")
    whole, labels, _ = read(folder, skip_unreadable=skip, seed=3)
    assert len(whole) == (18 if skip else 20)
    parts = [
        read(folder, skip_unreadable=skip, seed=3, first=i, samples=n) for i, n in ((0, 7), (7, 5), (12, 99))
    ]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)
    assert abs(2 * int(parts[0][1].sum()) - 7) == 1  # three or four of each class
    assert not np.array_equal(read(folder, skip_unreadable=skip, seed=4)[1], labels)


def test_a_range_and_a_layout(folder):
    x, _, _ = read(folder, clip_values=(-1, 1))
    np.testing.assert_allclose(np.sort(x[:, 0, 0, 0]), np.arange(20) * 10 / 127.5 - 1, atol=1e-6)
    x, _, _ = read(folder, Model((3, 6, 6)), channels_first=True)
    assert x.shape == (20, 3, 6, 6)


def test_a_model_of_grey_pictures_gets_them(folder):
    x, _, data = read(folder, Model((6, 6, 1)))
    assert x.shape == (20, 6, 6, 1)
    assert data.told[-1] == "pictures: of one size, grey"


def test_size(folder):
    Image.fromarray(RNG.integers(0, 255, (12, 40, 3), dtype=np.uint8)).save(folder / "a" / "0.png")
    x, _, _ = read(folder, size=6)
    assert x.shape == (20, 6, 6, 3)
    message = r"the pictures have several sizes: .* has .* pixels, unlike those before; --size N resizes"
    with pytest.raises(ArgumentError, match=message):
        read(folder, lambda x: x.reshape(len(x), -1)[:, :2])
    with pytest.raises(
        ArgumentError, match=r"take pictures of shape \(4, 4, 3\) \(.*another shape.*\); another"
    ):
        read(folder, size=4)


def test_a_pretrained_model_brings_size_and_names(folder):
    def geometry(picture):
        return np.full((3, 2, 2), np.asarray(picture)[0, 0, 0] / 255, np.float32)

    named = PretrainedModel(Model((3, 2, 2)), geometry, ("b", "a"), (3, 2, 2), "one:net")
    x, y, data = read(folder, named)
    assert x.shape == (20, 3, 2, 2)
    assert [1 - level // 10 for level in levels(x)] == y.tolist()
    assert "sub-folders are the model's class names" in data.told
    with pytest.raises(
        ArgumentError, match="--size is for models from files; one:net resizes pictures itself"
    ):
        read(folder, named, size=2)


def test_names_of_the_classes_from_a_file(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("b\n a\n\n")
    x, y, _ = read(folder, classes=str(names))
    assert [1 - level // 10 for level in levels(x)] == y.tolist()
    names.write_text("b\na\nc\n")
    with pytest.raises(ArgumentError, match="--classes must have a line for each of the 2 classes of the mo"):
        read(folder, classes=str(names))
    x, y, _ = read(folder, classes="sorted")
    assert [level // 10 for level in levels(x)] == y.tolist()


# What is no picture, or an odd one


def test_all_that_cannot_be_read_is_named_at_once(folder):
    whole = (folder / "a" / "0.png").read_bytes()
    bad = {
        "a/cut.png": (whole[:-20], "Truncated File Read"),
        "a/text.jpg": (b"some text", "it is no picture in the format PNG, JPEG, WebP, GIF or BMP"),
        "b/empty.gif": (b"", "it is empty"),
        "b/scan.tif": (b"II*\0", "it is no picture in the format"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    with pytest.raises(
        ArgumentError, match=r"^4 pictures cannot be read: .* with --skip-unreadable$"
    ) as caught:
        read(folder)
    for name, (_, reason) in bad.items():
        assert re.search(rf"{name} \([^)]*{reason}[^)]*\)", str(caught.value).replace("\\", "/"))
    x, y, data = read(folder, skip_unreadable=True)
    assert sorted(levels(x)) == list(range(20))
    assert [level // 10 for level in levels(x)] == y.tolist()
    assert data.told[-1].startswith("left out, because 4 pictures cannot be read: ")
    for place in range(12):
        (folder / "a" / f"bad{place}.jpg").write_bytes(b"\xff\xd8no")
    with pytest.raises(ArgumentError, match=r"^16 pictures cannot be read: .* and 6 more; remove"):
        read(folder)


def test_a_table_of_missing_files(tmp_path):
    (tmp_path / "t.csv").write_text("none.png,0\n")
    message = "none of 1 pictures can be read; the first is '.*none.png': No such file or directory"
    with pytest.raises(ArgumentError, match=message):
        read(tmp_path / "t.csv")


def test_odd_pictures_are_converted(folder):
    """Of one level each, so that what they show is known whatever the format."""
    level, place = 90, folder / "a"
    for file in [*folder.rglob("*.png")]:
        file.unlink()
    plain = Image.new("RGB", (6, 6), (level,) * 3)
    plain.convert("L").save(place / "grey.png")
    plain.convert("CMYK").save(place / "cmyk.jpg", quality=100)
    plain.quantize(4).save(place / "palette.gif")
    Image.fromarray(np.full((6, 6), level * 257, np.uint16)).save(place / "deep.png")
    plain.save(place / "jpeg.png", "JPEG", quality=100)
    plain.save(place / "moving.webp", save_all=True, append_images=[Image.new("RGB", (6, 6))], lossless=True)
    plain.save(place / "old.bmp")
    Image.new("RGBA", (6, 6), (0, 0, 0, 255 - level)).save(place / "veil.png")
    Image.new("RGB", (6, 6), (level,) * 3).save(folder / "b" / "0.png")
    x, _, _ = read(folder)
    assert len(x) == 9
    np.testing.assert_allclose(x, level / 255, atol=3 / 255)


def test_notes_and_one_class(folder):
    (folder / "a" / "notes.txt").write_text("x")
    with pytest.raises(UserWarning, match="left out, for lack of the ending of a picture: 1 of the files"):
        opened(folder)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        data = opened(folder, samples=1, first=3)
    assert isinstance(data, PictureData)
    for file in (folder / "b").iterdir():
        file.unlink()
    (folder / "a" / "notes.txt").unlink()
    with pytest.raises(UserWarning, match="1 of 2 sub-folders hold no pictures: b; nothing is found out"):
        opened(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(read(folder)[0]) == 10
    assert "all 10 samples have the label 0; other classes" in str(caught[-1].message)


def test_the_first_sample_must_exist(folder):
    with pytest.raises(ArgumentError, match=r"--first must be below .*pictures, got 20; there are 20"):
        opened(folder, first=20)


def test_limits_hold_for_pictures(folder):
    file = folder / "a" / "0.png"
    assert read_picture(file, Limit(36, 108)).size == (6, 6)
    assert read_picture(file.read_bytes(), Limit(36, 108)).mode == "RGB"
    with pytest.raises(ValueError, match="it holds pictures of 6 x 6 pixels, and the limit is 35"):
        read_picture(file, Limit(35, 10**9))
