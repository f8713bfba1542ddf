"""Which pictures there are, which class they are of, and in which order they come."""

import io
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preshield.labelled_pictures import LabelledPictures, find_pictures, is_of_pictures, labels_for, turns
from preshield.neural.imagenet import imagenet_classes
from tests.vision import vision


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(path, fields=None):
    """Names of pictures, and of their classes, or indices."""
    pictures = find_pictures(path, fields)
    classes = pictures.class_names
    labels = [classes[i] if classes else int(i) for i in pictures.labels]
    return dict(zip(map(str, pictures.names), labels, strict=True))


# Folders


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path):
    names = ["b/2.jpg", "b/10.PNG", "a/deep/er/x.jpeg", "a/y.webp", "c/z.bmp", "B/1.gif", "a/notes.txt"]
    touched(tmp_path, *names, ".ipynb_checkpoints/b/old.jpg", "a/._y.jpg", "loose.jpg")
    (tmp_path / "empty").mkdir()
    pictures = find_pictures(tmp_path)
    assert pictures.class_names == ("B", "a", "b", "c", "empty")
    by_name = [f"{name.split('/')[0]}" for name in pictures.names]
    assert by_name == [pictures.class_names[i] for i in pictures.labels]
    assert set(pictures.names) == {name.replace("/", os.sep) for name in names[:-1]}
    assert [pictures.source(i) for i in range(6)] == [tmp_path / name for name in pictures.names]
    assert pictures.notes == (
        "1 of 5 sub-folders hold no pictures: empty; nothing is found out about these classes",
        "left out, for lack of the ending of a picture: 1 of the files in the sub-folders",
    )


def test_a_folder_agrees_with_torchvision(tmp_path):
    touched(
        tmp_path, "b/2.jpg", "b/10.PNG", "a/deep/er/x.jpeg", "a/y.webp", "c/z.bmp", "B/x/1.png", "B/1.png"
    )
    peer = vision("torchvision.datasets").ImageFolder(tmp_path)
    pictures = find_pictures(tmp_path)
    assert list(pictures.class_names) == peer.classes
    assert [(str(tmp_path / n), int(y)) for n, y in zip(pictures.names, pictures.labels, strict=True)] == (
        peer.samples
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "it has no sub-folders; make one for each class, or give a CSV file with a line `file,label`"),
        (["1.jpg"], "it has no sub-folders, but loose pictures; make one for each class"),
        (["a/1.txt", "b/2.doc"], "its 2 sub-folders hold no pictures; these end in .bmp, .gif, .jpeg"),
        (["train/a/1.jpg", "val/a/2.jpg"], "are parts of a data set, not classes; give one of them: --data "),
    ],
)
def test_folders_without_classes(tmp_path, names, message):
    touched(tmp_path, *names)
    with pytest.raises(ValueError, match=f"cannot read '{re.escape(str(tmp_path))}': .*{message}"):
        find_pictures(tmp_path)


def test_the_part_that_is_proposed_is_not_the_one_for_training(tmp_path):
    touched(tmp_path, "train/a/1.jpg", "val/a/2.jpg")
    with pytest.raises(ValueError, match=f"--data {re.escape(str(tmp_path / 'val'))}$"):
        find_pictures(tmp_path)


# Tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg,3\nb.jpg,0\n", {"a.jpg": 3, "b.jpg": 0}),
        ("file,label\na.jpg,3\n", {"a.jpg": 3}),
        ("\ufefffile,label\r\na.jpg,3.0\r\n\r\n", {"a.jpg": 3}),
        ("number,file,label\n0,a.jpg,12\n", {"a.jpg": 12}),
        ("Label;Path\ncat;a.jpg\ndog;b.jpg\n", {"a.jpg": "cat", "b.jpg": "dog"}),
        ("a.jpg\tcat\nb.jpg\tant\n", {"a.jpg": "cat", "b.jpg": "ant"}),
        ('"a, b.jpg","the cat, asleep"\n', {"a, b.jpg": "the cat, asleep"}),
        ("a.jpg,007\nb.jpg,x\n", {"a.jpg": "007", "b.jpg": "x"}),
    ],
)
def test_tables(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    assert found(path) == {str(tmp_path / name): label for name, label in expected.items()}


def test_columns_by_name(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("photo\tlabel\tfine\na.jpg\t1\t7\n")
    assert found(path, ("photo", "fine")) == {str(tmp_path / "a.jpg"): 7}


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", None, "it is empty"),
        ("file,label\n", None, "it has no line below the names of its columns"),
        ("a.jpg,1\nb.jpg\n", None, "line 2 must hold a file and a label, got 'b.jpg'"),
        ("a.jpg,1\n,2\n", None, "line 2 must hold a file and a label, got ',2'"),
        (
            "a.jpg,1,x\n",
            None,
            "line 1 has 3 columns; name them in the first line, two of them file and label",
        ),
        ("file,name\na.jpg,cat\n", None, "one of its columns file, name must be named file and one label"),
        ("file,label,y\na.jpg,1,2\n", None, "say which are meant with --fields FILE LABEL"),
        (
            "file,label\na.jpg,1\n",
            ("file", "class"),
            "--fields names the column 'class', and it has file, la",
        ),
        ('"a.jpg,1\n', None, "unexpected end of data"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, fields, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"cannot read '.*t.csv': .*{message}"):
        find_pictures(tmp_path / "t.csv", fields)


def test_a_file_that_is_named_twice_is_noticed(tmp_path):
    (tmp_path / "t.csv").write_text("a.jpg,1\na.jpg,2\n")
    (note,) = find_pictures(tmp_path / "t.csv").notes
    assert note.startswith("1 files are named more than once: ")


def test_what_holds_pictures(tmp_path):
    assert is_of_pictures(tmp_path)
    assert is_of_pictures(tmp_path / "T.CSV")
    assert not is_of_pictures(tmp_path / "x.npz")


# Data sets of Hugging Face


def data_set(path, parts=()):
    """Save two grey pictures, with labels of two kinds."""
    datasets, pyarrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    contents = []
    for level in (10, 200):
        file = io.BytesIO()
        Image.new("L", (4, 4), level).save(file, "PNG")
        contents.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "coarse": datasets.ClassLabel(names=["zebra", "ant"]),
            "text": datasets.Value("string"),
            "number": datasets.Value("int64"),
        }
    )
    columns = {"img": contents, "coarse": [1, 0], "text": ["b", "a"], "number": [5, -1]}
    table = pyarrow.table(columns).cast(features.arrow_schema)
    info = datasets.DatasetInfo(features=features)
    data = datasets.Dataset(datasets.table.InMemoryTable(table), info=info, fingerprint="0")
    datasets.disable_progress_bars()
    (datasets.DatasetDict(dict.fromkeys(parts, data)) if parts else data).save_to_disk(path)
    return path


def test_a_saved_data_set(tmp_path):
    pictures = find_pictures(data_set(tmp_path / "set"))
    assert pictures.class_names == ("zebra", "ant")
    assert pictures.labels.tolist() == [1, 0]
    with Image.open(io.BytesIO(pictures.source(1))) as picture:
        assert picture.getpixel((0, 0)) == 200
    assert found(tmp_path / "set", ("img", "text")) == {"row 0": "b", "row 1": "a"}
    for fields, message in (
        (("img", "number"), "some of its pictures have no label in 'number'"),
        (("img", "fine"), "--fields names the column 'fine', and it has img, coarse, text, number"),
        (("text", "coarse"), "its column 'text' holds no pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            find_pictures(tmp_path / "set", fields)
    with pytest.raises(ValueError, match=r"it has the parts train, test; give one of them: --data .*test$"):
        find_pictures(data_set(tmp_path / "sets", parts=("train", "test")))


def test_rows_of_hugging_face_in_python(tmp_path):
    from preshield.evaluation.sources import samples_of

    datasets = pytest.importorskip("datasets")
    data = datasets.load_from_disk(str(data_set(tmp_path / "set")))
    for rows in (data, data.iter(batch_size=2)):
        with samples_of(rows, fields=("img", "coarse")) as (x, y):
            np.testing.assert_array_equal(x[:, 0, 0, 0], np.float32([10, 200]) / np.float32(255))
            assert y.tolist() == [1, 0]


# The order


@settings(max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 2**40))
def test_classes_take_turns(labels, seed):
    """Whatever part of the order is taken from the front, no class with more left is two behind another."""
    labels = np.array(labels)
    order = turns(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for end in range(len(order) + 1):
        taken = np.bincount(labels[order[:end]], minlength=5)
        total = np.bincount(labels, minlength=5)
        unfinished = taken[taken < total]
        assert not unfinished.size or unfinished.min() >= taken.max() - 1


def test_the_order_is_drawn_by_the_seed():
    labels = np.repeat([0, 1], 200)
    assert turns(labels, 3).tolist() == turns(labels, 3).tolist()
    assert turns(labels, 3).tolist() != turns(labels, 4).tolist()
    firsts = [int(turns(labels, seed)[0]) for seed in range(40)]
    assert len({first // 50 for first in firsts}) == 8  # anywhere, in either class


# Labels in the order of a model


def pictures_of(*names, labels=None):
    labels = np.arange(len(names)) if labels is None else np.array(labels)
    return LabelledPictures(None, [], labels, names or None, "sub-folders")


@pytest.mark.parametrize(
    ("pictures", "classes", "known", "expected", "how"),
    [
        (pictures_of("cat", "dog"), 3, ["dog", "ant", "cat"], [2, 0], "the model's class names"),
        (pictures_of("Cat", "guinea_pig"), 2, ["guinea pig", "cat"], [1, 0], "the model's class names"),
        (pictures_of("tench", "Tinca-tinca"), 2, ["ant", "tench, Tinca tinca"], [1, 1], "class names"),
        (pictures_of("jay", "bird"), 3, ["bird, jay", "jay", "bird"], [1, 2], "the model's class names"),
        (pictures_of("n02123045", "n01440764"), 1000, None, [281, 0], "WordNet identifiers of ImageNet's"),
        (pictures_of("tabby", "tench"), 1000, None, [281, 0], "names of ImageNet's classes"),
        (pictures_of("10", "9"), 11, None, [10, 9], "indices of the model's classes"),
        (pictures_of("007"), 11, ["x"] * 11, [7], "indices of the model's classes"),
        (pictures_of("ant", "bee"), 2, None, [0, 1], "in their order are the model's classes 0 to 1"),
        (pictures_of("ant", "bee"), 2, ["x", "y"], [0, 1], "in their order are the model's classes 0 to 1"),
        (pictures_of(labels=[4, 1, 4]), 5, ["a"] * 5, [4, 1, 4], "indices of the model's classes"),
        # an empty folder of no class of the model does no harm
        (pictures_of("ant", "bee", "old", labels=[1, 0]), 2, ["bee", "ant"], [0, 1], "class names"),
    ],
)
def test_labels_follow_the_order_of_the_model(pictures, classes, known, expected, how):
    labels, words, called = labels_for(pictures, classes, known)
    assert labels.tolist() == expected
    assert how in words
    if known is not None:
        assert called == tuple(known)
    elif "ImageNet" in how:
        assert called[281] == "tabby"
    else:
        assert called == (pictures.class_names if "in their order" in how else None)


def test_the_order_of_the_data_if_that_is_asked_for():
    labels, words, _ = labels_for(pictures_of("dog", "2"), 5, ["a", "dog", "c", "d", "e"], in_order=True)
    assert labels.tolist() == [0, 1]
    assert words == "sub-folders in their order are the model's classes 0 to 1"


@pytest.mark.parametrize(
    ("pictures", "classes", "known", "in_order", "message"),
    [
        (pictures_of("cat", "cow"), 2, ["dog", "cat"], False, "the model has no class 'cow'; remove what is"),
        (pictures_of("n02123045", "n99999999"), 1000, None, False, "the model has no class 'n99999999'"),
        (
            pictures_of("crane"),
            2,
            ["crane", "crane"],
            False,
            "several classes of the model have the name 'cr",
        ),
        (pictures_of("3", "12"), 10, None, False, "the model has classes 0 to 9, and sub-folders say 12"),
        (
            pictures_of(labels=[0, 10]),
            10,
            None,
            False,
            "the model has classes 0 to 9, and sub-folders say 10",
        ),
        (
            pictures_of("cat", "dog"),
            10,
            None,
            False,
            "sub-folders name 2 classes, such as 'cat', the model h",
        ),
        (pictures_of("cat", "dog"), 1, None, False, "or give --classes FILE with a line for each class"),
        (pictures_of("cat", "dog"), 1, None, True, "the data have 2 classes, and the model 1"),
        (pictures_of(*map(str, range(100, 120))), 5, None, False, "say 100, 101, .*109 and others"),
    ],
)
def test_classes_that_a_model_lacks(pictures, classes, known, in_order, message):
    with pytest.raises(ValueError, match=message):
        labels_for(pictures, classes, known, in_order=in_order)


def test_all_names_of_imagenet_find_their_class():
    names = [name for _, name in imagenet_classes()]
    labels, _, _ = labels_for(pictures_of(*names), 1000, None)
    assert labels.tolist() == list(range(1000))
    with pytest.raises(ValueError, match="several classes of the model have the name 'CARDIGAN'"):
        labels_for(pictures_of("CARDIGAN"), 1000, names)  # a dog and a jacket
