"""Pictures and their labels from where people keep them: folders of classes, tables, data sets on disk.

What is where is found without reading a picture.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._core.draws import Draws
from ._core.errors import ArgumentError
from ._core.optional import require
from ._core.text import printable
from ._core.typing import Array
from .neural.imagenet import imagenet_classes

__all__ = ["LabelledPictures", "ModelLabels", "find_pictures", "is_of_pictures", "labels_for", "turns"]

TABLES = (".csv", ".tsv")
# Endings of pictures; those that `read_picture` does not know are named, others are no data.
READABLE = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
OTHERS = (".avif", ".heic", ".heif", ".jp2", ".pgm", ".ppm", ".tif", ".tiff")
FILES = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "img")
LABELS = ("label", "labels", "class", "class_name", "target", "y")
IMAGES = ("image", "img", "picture")
PARTS = {"test", "train", "training", "val", "valid", "validation"}  # of a data set, each a folder of classes
NAMED = 10  # bad files in a message
OF_TURNS = 20  # what random numbers are for
WORDNET = re.compile(r"n\d{8}")
IMAGENET = 1000  # classes


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """Pictures that are not read yet.

    Attributes
    ----------
    source : callable
        Returns the file or the content of a picture, by its place.
    names : sequence of str
        What to call each picture.
    labels : ndarray of int, shape (N,)
        Places in `class_names`, or indices of a model's classes if there are none.
    class_names : tuple of str or None
        The classes as they are called there, in their order.
    carrier : str
        What is called so: "sub-folders", "labels".
    notes : tuple of str
        What somebody should know about the data.
    """

    source: Callable[[int], Path | bytes]
    names: Sequence[str]
    labels: Array
    class_names: tuple[str, ...] | None
    carrier: str
    notes: tuple[str, ...] = ()


def is_of_pictures(path: Path) -> bool:
    """Whether a path is a folder or a table, and not an archive of arrays."""
    return path.is_dir() or path.suffix.lower() in TABLES


def find_pictures(path: Path, fields: Sequence[str] | None = None) -> LabelledPictures:
    """Find pictures and their labels.

    Parameters
    ----------
    path : Path
        A folder with one sub-folder for each class; a CSV file with a column of files, relative to it, and
        one of labels; a data set that `datasets` of Hugging Face has saved.
    fields : sequence of str, optional
        Names of the columns of pictures and labels of a table or a data set.

    Returns
    -------
    LabelledPictures

    Raises
    ------
    ValueError
        If there are none, or their labels are missing.
    ImportError
        If it is a data set of Hugging Face, and the package `datasets` is missing.
    """
    try:
        if path.suffix.lower() in TABLES and not path.is_dir():
            return _of_table(path, fields)
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _of_data_set(path, fields)
        return _of_folder(path)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def turns(labels: Array, seed: int) -> Array:
    """Order in which the classes take turns, and which is random otherwise.

    So any part of it has as many samples of each class as can be, whichever part it is.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
        Classes.
    seed : int
        Seed of the order.

    Returns
    -------
    ndarray of int, shape (N,)
        Places of the samples.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield.labelled_pictures import turns
    >>> labels = np.repeat([0, 1, 2], [1, 2, 3])
    >>> order = turns(labels, seed=0)
    >>> sorted(labels[order[:3]].tolist()), sorted(labels[order[3:5]].tolist()), int(labels[order[5]])
    ([0, 1, 2], [1, 2], 2)
    """
    key = np.random.SeedSequence((seed, OF_TURNS)).generate_state(2).astype(np.uint32)
    order = Draws(key, np.arange(len(labels), dtype=np.uint32)).order()
    by_class = np.argsort(labels[order], kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    rounds = np.empty(len(order), np.int64)
    rounds[by_class] = np.concatenate([np.arange(count) for count in counts])
    found: Array = order[np.argsort(rounds, kind="stable")]
    return found


class ModelLabels(NamedTuple):
    """Labels in the order of a model's classes.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
        Indices of the classes.
    how : str
        How they were found: a part of a sentence.
    class_names : tuple of str or None
        What the model's classes are called, if that is known.
    """

    labels: Array
    how: str
    class_names: tuple[str, ...] | None


def labels_for(
    pictures: LabelledPictures, classes: int, known: Sequence[str] | None, *, in_order: bool = False
) -> ModelLabels:
    """Labels in the order of a model's classes.

    Parameters
    ----------
    pictures : LabelledPictures
        Whose labels.
    classes : int
        How many classes the model has.
    known : sequence of str or None
        What they are called, in the model's order, if that is known.
    in_order : bool, default False
        Take the classes of the data for the model's, in their order, whatever they are called.

    Returns
    -------
    ModelLabels

    Raises
    ------
    ValueError
        If the model lacks a class of the data, or nothing says which of its classes they are.
    """
    names, carrier = pictures.class_names, pictures.carrier
    own = None if known is None else tuple(known)
    if names is None:
        _check_indices(np.unique(pictures.labels).tolist(), classes, carrier)
        return ModelLabels(pictures.labels, f"{carrier} are indices of the model's classes", own)
    used = [names[place] for place in np.unique(pictures.labels)]
    ordered = f"{carrier} in their order are the model's classes 0 to {len(names) - 1}"
    if in_order:
        if len(names) > classes:
            raise ArgumentError(f"the data have {len(names)} classes, and the model {classes}")
        return ModelLabels(pictures.labels, ordered, names if len(names) == classes else None)
    of_imagenet = imagenet_classes() if classes == IMAGENET else ()
    if of_imagenet and all(WORDNET.fullmatch(name) for name in used):
        identifiers, nouns = zip(*of_imagenet, strict=True)
        how = f"{carrier} are WordNet identifiers of ImageNet's classes"
        return ModelLabels(_mapped(pictures, _finder(identifiers), used), how, own or nouns)
    called = "the model's class names"
    if own is None and of_imagenet:
        own, called = tuple(name for _, name in of_imagenet), "names of ImageNet's classes"
    find = _finder(own or ())
    found = [name for name in used if find(name)]
    if found and (len(found) == len(used) or known is not None):
        return ModelLabels(_mapped(pictures, find, used), f"{carrier} are {called}", own)
    own = None if known is None else own
    if all(name.isdecimal() for name in used):
        _check_indices([int(name) for name in used], classes, carrier)
        indices = {name: {int(name)} for name in used}
        labels = _mapped(pictures, lambda name: indices.get(name, set()), used)
        return ModelLabels(labels, f"{carrier} are indices of the model's classes", own)
    if len(names) == classes:
        return ModelLabels(pictures.labels, ordered, own or names)
    raise ArgumentError(
        f"{carrier} name {len(names)} classes, such as {printable(used[0])!r}, the model has {classes}, and "
        "nothing says which of them they are; name them by the model's class names, by WordNet identifiers "
        "of ImageNet, or by indices, or give --classes FILE with a line for each class of the model, or "
        "--classes sorted if they are the first ones"
    )


def _mapped(pictures: LabelledPictures, find: Callable[[str], set[int]], used: Sequence[str]) -> Array:
    """Labels by the classes of a name, of which each name that is used must have one."""
    for count, what, remedy in (
        (0, "the model has no class", "remove what is of that class, or rename it"),
        (2, "several classes of the model have the name", "name such classes by index"),
    ):
        bad = [name for name in used if min(len(find(name)), 2) == count]
        if bad:
            some = ", ".join(repr(printable(name)) for name in bad[:NAMED])
            raise ArgumentError(f"{what} {some}{' and others' if len(bad) > NAMED else ''}; {remedy}")
    numbers = [min(find(name), default=-1) for name in pictures.class_names or ()]
    return np.asarray(numbers, np.int64)[pictures.labels]


def _finder(known: Sequence[str]) -> Callable[[str], set[int]]:
    """What finds the classes of a name: as it is written, in another spelling, or as one of several names."""
    tables: list[dict[str, set[int]]] = [{}, {}, {}]
    for place, name in enumerate(known):
        tables[0].setdefault(name, set()).add(place)
        tables[1].setdefault(_plain(name), set()).add(place)
        for part in name.split(","):
            tables[2].setdefault(_plain(part), set()).add(place)

    def find(name: str) -> set[int]:
        spellings = (name, _plain(name), _plain(name))
        return next((table[s] for table, s in zip(tables, spellings, strict=True) if s in table), set())

    return find


def _plain(name: str) -> str:
    """A name as different people write it."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().casefold()))


def _check_indices(indices: Sequence[int], classes: int, carrier: str) -> None:
    bad = [index for index in indices if not 0 <= index < classes]
    if bad:
        raise ArgumentError(
            f"the model has classes 0 to {classes - 1}, and {carrier} say "
            f"{', '.join(map(str, bad[:NAMED]))}{' and others' if len(bad) > NAMED else ''}"
        )


# Folders


def _of_folder(path: Path) -> LabelledPictures:
    """One sub-folder for each class, in the order of torchvision's ImageFolder."""
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not folders:
        loose = any(entry.suffix.lower() in READABLE for entry in path.iterdir())
        raise ArgumentError(
            f"it has no sub-folders{', but loose pictures' if loose else ''}; make one for each class, or"
            " give a CSV file with a line `file,label` for each picture"
        )
    if PARTS.issuperset(name.lower() for name in folders):
        raise ArgumentError(
            f"its sub-folders {', '.join(folders)} are parts of a data set, not classes; give one of them: "
            f"--data {path / _part(folders)}"
        )
    files: list[Path] = []
    labels: list[int] = []
    others = 0
    for label, name in enumerate(folders):
        for folder, inner, entries in os.walk(path / name, followlinks=True):
            inner.sort()
            for entry in sorted(entries):
                if entry[0] == ".":
                    continue
                if entry.lower().endswith(READABLE + OTHERS):
                    files.append(Path(folder, entry))
                    labels.append(label)
                else:
                    others += 1
    if not files:
        raise ArgumentError(
            f"its {len(folders)} sub-folders hold no pictures; these end in {', '.join(READABLE)}"
        )
    notes = []
    if empty := [name for label, name in enumerate(folders) if label not in set(labels)]:
        notes.append(
            f"{len(empty)} of {len(folders)} sub-folders hold no pictures: {_some(empty)}; nothing is found "
            "out about these classes"
        )
    if others:
        notes.append(
            f"left out, for lack of the ending of a picture: {others} of the files in the sub-folders"
        )
    names = [str(file.relative_to(path)) for file in files]
    return LabelledPictures(
        files.__getitem__, names, np.asarray(labels), tuple(folders), "sub-folders", tuple(notes)
    )


def _part(names: Sequence[str]) -> str:
    """Which of the parts of a data set somebody may want: not the one that a model was trained on."""
    return min(names, key=lambda name: (name.lower().startswith("train"), name))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(map(printable, names[:NAMED]))}{more}"


# Tables


def _of_table(path: Path, fields: Sequence[str] | None) -> LabelledPictures:
    """Files and labels line by line, below the names of the columns if there are any."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = max("\t;,", key=head.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    if not rows:
        raise ArgumentError("it is empty")
    columns = _columns(rows[0][1], fields)
    if columns is None:
        line, row = rows[0]
        if len(row) != 2:
            raise ArgumentError(
                f"line {line} has {len(row)} columns; name them in the first line, two of them file and label"
            )
        columns = 0, 1
    elif not rows[1:]:
        raise ArgumentError("it has no line below the names of its columns")
    else:
        del rows[0]
    files, labels = [], []
    for line, row in rows:
        if len(row) <= max(columns) or not all(row[place] for place in columns):
            raise ArgumentError(f"line {line} must hold a file and a label, got {delimiter.join(row)!r:.200}")
        files.append(path.parent / row[columns[0]])
        labels.append(row[columns[1]])
    repeated = [str(file) for file, count in Counter(files).items() if count > 1]
    notes = (f"{len(repeated)} files are named more than once: {_some(repeated)}",) if repeated else ()
    return LabelledPictures(
        files.__getitem__, [str(file) for file in files], *_classes(labels), "labels", notes
    )


def _columns(head: Sequence[str], fields: Sequence[str] | None) -> tuple[int, int] | None:
    """Which columns hold files and labels, if the first line names them."""
    if fields is not None:
        missing = [name for name in fields if name not in head]
        if missing:
            raise ArgumentError(f"--fields names the column {missing[0]!r}, and it has {', '.join(head)}")
        return head.index(fields[0]), head.index(fields[1])
    found = [[place for place, name in enumerate(head) if name.lower() in usual] for usual in (FILES, LABELS)]
    if not any(found):
        return None
    if [len(places) for places in found] != [1, 1]:
        raise ArgumentError(
            f"one of its columns {', '.join(head)} must be named file and one label; say which are meant "
            "with --fields FILE LABEL"
        )
    return found[0][0], found[1][0]


def _classes(labels: Sequence[str]) -> tuple[Array, tuple[str, ...] | None]:
    """Labels as indices, or as places among the sorted names."""
    if all(re.fullmatch(r"\d{1,9}(\.0*)?", label) for label in labels):
        return np.asarray([int(label.partition(".")[0]) for label in labels]), None
    names, places = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    return places.reshape(-1), tuple(map(str, names))


# Data sets of Hugging Face


def _of_data_set(path: Path, fields: Sequence[str] | None) -> LabelledPictures:
    """A data set in files of Arrow; none of them holds code."""
    datasets = require("datasets", extra="datasets")
    data = datasets.load_from_disk(str(path))
    if isinstance(data, datasets.DatasetDict):
        raise ArgumentError(
            f"it has the parts {', '.join(data)}; give one of them: --data {path / _part(list(data))}"
        )
    data = data.with_format(None)
    image, label = fields or (
        _feature(data.features, lambda kind: isinstance(kind, datasets.Image), IMAGES, "pictures"),
        _feature(data.features, lambda kind: isinstance(kind, datasets.ClassLabel), LABELS, "labels"),
    )
    for name in (image, label):
        if name not in data.features:
            raise ArgumentError(f"--fields names the column {name!r}, and it has {', '.join(data.features)}")
    if not isinstance(data.features[image], datasets.Image):
        raise ArgumentError(
            f"its column {image!r} holds no pictures, but {data.features[image]}; for arrays call "
            "preshield.evaluate(model, data_set, fields=...) in Python"
        )
    contents = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def source(place: int) -> Path | bytes:
        content = contents[place][image] or {}
        return content.get("bytes") or Path(content.get("path") or "nowhere")

    values, feature = [*data[label]], data.features[label]
    if any(value is None or value == -1 for value in values):
        raise ArgumentError(f"some of its pictures have no label in {label!r}; give a part with labels")
    if isinstance(feature, datasets.ClassLabel):
        labels, names = np.asarray(values, np.int64), tuple(feature.names)
    else:
        labels, names = _classes([str(value) for value in values])  # type: ignore[assignment]
    return LabelledPictures(source, [f"row {i}" for i in range(len(data))], labels, names, "labels")


def _feature(features: Any, fits: Callable[[Any], bool], usual: Sequence[str], what: str) -> str:
    """The only column of a kind, or the only one with a usual name."""
    found = [name for name, kind in features.items() if fits(kind)] or [n for n in features if n in usual]
    if len(found) != 1:
        raise ArgumentError(
            f"{'several' if found else 'none'} of its columns {', '.join(found or features)} may be the "
            f"{what}; say which are meant with --fields IMAGE LABEL"
        )
    return str(found[0])
