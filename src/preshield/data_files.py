"""Samples and labels for a model from files: arrays as they are, pictures as the model takes them."""

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ._core.errors import ArgumentError
from ._core.limits import Limit
from ._core.pictures import centred, values_of
from ._core.text import printable
from ._core.typing import Array
from .evaluation.classifiers import predictor
from .evaluation.sources import samples_of
from .files import range_of, read_picture, read_samples
from .labelled_pictures import LabelledPictures, find_pictures, is_of_pictures, labels_for, turns
from .neural.pretrained import PretrainedModel

if TYPE_CHECKING:
    from .evaluation.report import RobustnessReport

__all__ = ["ArrayData", "Data", "PictureData", "data_in"]

NAMED = 10  # bad files in a message
IN_ORDER = "sorted"  # of the class names, instead of a file of them


class Data(Protocol):
    """Samples and labels, as far as they are known without a model."""

    clip_values: tuple[float, float] | None
    channels_first: bool
    class_names: tuple[str, ...] | None
    told: list[str]

    def samples(self, model: Any, channels_first: bool, clip_values: Any, *, verbose: bool) -> Any:
        """Samples and labels for a model, for as long as the context lasts."""

    def table(self, first: int) -> str | None:
        """Which sample is which file, as CSV."""

    def stated_in(self, report: "RobustnessReport") -> "RobustnessReport":
        """A report whose settings say how the samples were chosen."""


def data_in(
    path: Path,
    limit: Limit,
    *,
    first: int,
    samples: int | None,
    seed: int,
    fields: Sequence[str] | None,
    size: int | None,
    classes: str | None,
    skip_unreadable: bool,
) -> Data:
    """Find samples and labels.

    Parameters
    ----------
    path : Path
        An ``.npz`` file, or what `find_pictures` takes.
    limit : Limit
        How much a file may hold.
    first, samples : int
        Number of the first sample, and how many; None for all.
    seed : int
        Seed of the order of pictures.
    fields : sequence of str or None
        Columns of a table or a saved data set.
    size : int or None
        Side of the square that is cut out of a picture.
    classes : str or None
        File of the model's class names, or "sorted".
    skip_unreadable : bool
        Leave out pictures that cannot be read.

    Returns
    -------
    ArrayData or PictureData

    Raises
    ------
    ValueError
        If there are no such samples, or an option is not for them.
    """
    if is_of_pictures(path):
        pictures = find_pictures(path, fields)
        _check_first(path, first, len(pictures.labels))
        for note in pictures.notes:
            warnings.warn(note, stacklevel=2)
        order = turns(pictures.labels, seed)
        return PictureData(pictures, order, first, samples, size, classes, skip_unreadable, limit)
    if path.suffix.lower() != ".npz":
        path.stat()
        raise ArgumentError(
            f"cannot read {str(path)!r}: give a folder with a sub-folder of pictures for each class, a .csv "
            "file or an .npz file"
        )
    options = {"size": size, "classes": classes, "fields": fields, "skip-unreadable": skip_unreadable}
    x, y = read_samples(path, limit)
    for option, value in options.items():
        if value:
            raise ArgumentError(f"--{option} is for pictures, and {str(path)!r} holds arrays")
    _check_first(path, first, len(x))
    end = None if samples is None else first + samples
    return ArrayData(x[first:end], y[first:end])


class ArrayData:
    """Samples and labels of an archive of arrays, in its order.

    Parameters
    ----------
    x, y : ndarray, shapes (N, ...) and (N,) or (N, K)
        The arrays.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self._x, self._y = x, y
        self.clip_values = range_of(x)
        self.channels_first = x.ndim == 4 and x.shape[1] in (1, 3)
        self.class_names: tuple[str, ...] | None = None
        self.told: list[str] = []

    @contextmanager
    def samples(self, *_: Any, **__: Any) -> Iterator[tuple[Array, Array]]:
        """The arrays."""
        if self._y.ndim == 1:
            _warn_of_one_class(self._y)
        yield self._x, self._y

    def table(self, first: int) -> None:
        """None: there are no files."""

    def stated_in(self, report: "RobustnessReport") -> "RobustnessReport":
        """The report as it is."""
        return report


class PictureData:
    """Samples and labels of pictures.

    Parameters
    ----------
    pictures : LabelledPictures
        What there is.
    order : ndarray of int, shape (N,)
        In which order the pictures are taken.
    first, samples, size, classes, skip_unreadable, limit
        See `data_in`.

    Attributes
    ----------
    class_names : tuple of str or None
        What the model's classes are called, once they were read, if that is known then.
    told : list of str
        What somebody should know, once they were read.
    """

    clip_values: tuple[float, float] | None = (0.0, 1.0)
    channels_first = True

    def __init__(
        self,
        pictures: LabelledPictures,
        order: Array,
        first: int,
        samples: int | None,
        size: int | None,
        classes: str | None,
        skip_unreadable: bool,
        limit: Limit,
    ) -> None:
        self._pictures, self._order = pictures, order
        self._first, self._samples, self._skip = first, samples, skip_unreadable
        self._size, self._limit = size, limit
        self._in_order = classes == IN_ORDER
        self._known = None if classes is None or self._in_order else _lines(Path(classes))
        self._settings: dict[str, str] = {}
        self._taken: list[int] = []
        self._labels: Array = pictures.labels
        self.class_names: tuple[str, ...] | None = None
        self.told: list[str] = []

    @contextmanager
    def samples(
        self, model: Any, channels_first: bool, clip_values: tuple[float, float], *, verbose: bool
    ) -> Iterator[tuple[Any, Any]]:
        """Read all of them, for a model."""
        if self._size is not None and isinstance(model, PretrainedModel):
            raise ArgumentError(f"--size is for models from files; {model.name} resizes pictures itself")
        head = self._head()
        sample_of, how, classes = _sample_maker(model, head, self._size, channels_first, clip_values)
        known = self._known or (model.class_names if isinstance(model, PretrainedModel) else None)
        if known is not None and len(known) != classes:
            raise ArgumentError(
                f"--classes must have a line for each of the {classes} classes of the model, got {len(known)}"
            )
        found = labels_for(self._pictures, classes, known, in_order=self._in_order)
        self._labels, which, self.class_names = found
        stream = _Stream(
            self._pictures,
            self._labels,
            self._order,
            sample_of,
            self._first,
            self._samples,
            self._skip,
            self._limit,
        )
        with samples_of(stream, verbose=verbose) as (x, y):
            self._taken = stream.taken
            drawn = "classes in turn, in an order drawn by the seed"
            self._settings = {"samples drawn": drawn, "pictures": how, "labels": which}
            count = len(np.unique(y))
            self.told = [
                f"{len(y)} pictures of {count} {'classes' if count > 1 else 'class'}, {drawn}",
                which,
                f"pictures: {how}",
            ]
            if stream.bad:
                self.told.append(f"left out, because {stream.failures()}")
            _warn_of_one_class(y)
            yield x, y

    def table(self, first: int) -> str:
        """Number, file and label of each sample, as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("number", "file", "label"))
        for number, place in enumerate(self._taken, first):
            writer.writerow((number, self._pictures.names[place], self._labels[place]))
        return text.getvalue()

    def stated_in(self, report: "RobustnessReport") -> "RobustnessReport":
        """A report whose settings say how the samples were chosen."""
        return replace(report, settings={**report.settings, **self._settings})

    def _head(self) -> Any:
        """The first picture that can be read."""
        failure: Exception | None = None
        for place in map(int, self._order):
            try:
                return read_picture(self._pictures.source(place), self._limit)
            except (OSError, ValueError) as error:
                failure = failure or ValueError(f"{self._pictures.names[place]!r}: {error}")
        raise ArgumentError(f"none of {len(self._order)} pictures can be read; the first is {failure}")


@dataclass(eq=False)
class _Stream:
    """Samples and labels, picture after picture; which cannot be read is known at the end.

    Where these are left out, numbers count the others alone, so that parts follow each other. Then only
    reading all pictures before the first one tells which it is.
    """

    pictures: LabelledPictures
    labels: Array
    order: Array
    sample_of: Callable[[Any], Array]
    first: int
    samples: int | None
    skip: bool
    limit: Limit
    taken: list[int] = field(default_factory=list)  # places of the pictures that were read
    bad: dict[str, str] = field(default_factory=dict)  # names and reasons of those that cannot be

    def __len__(self) -> int:
        left = len(self.order) - self.first
        return left if self.samples is None else min(left, self.samples)

    def __iter__(self) -> Iterator[tuple[Array, int]]:
        end = None if self.samples is None else self.first + self.samples
        order, before = (self.order, self.first) if self.skip else (self.order[self.first : end], 0)
        shape: tuple[int, ...] | None = None
        for place in map(int, order):
            if len(self.taken) == self.samples:
                break
            name = self.pictures.names[place]
            try:
                picture = read_picture(self.pictures.source(place), self.limit)
            except (OSError, ValueError) as error:
                self.bad[name] = getattr(error, "strerror", None) or str(error)
                continue
            if before:
                before -= 1
                continue
            sample = self.sample_of(picture)
            shape = shape or sample.shape
            if sample.shape != shape:
                raise ArgumentError(
                    f"the pictures have several sizes: {printable(name)} has {picture.width} x "
                    f"{picture.height} pixels, unlike those before; --size N resizes each to N pixels on its "
                    "shorter side and cuts out the centre"
                )
            self.taken.append(place)
            yield sample, int(self.labels[place])
        if self.bad and not self.skip:
            raise ArgumentError(
                f"{self.failures()}; remove what cannot be read, or leave it out with --skip-unreadable"
            )
        if not self.taken:
            raise ArgumentError(f"no picture is left from number {self.first} on: {self.failures()}")

    def failures(self) -> str:
        """How many pictures cannot be read, and some of them with the reason."""
        some = [f"{printable(name)} ({reason})" for name, reason in list(self.bad.items())[:NAMED]]
        more = f" and {len(self.bad) - NAMED} more" if len(self.bad) > NAMED else ""
        count = "1 picture" if len(self.bad) == 1 else f"{len(self.bad)} pictures"
        return f"{count} cannot be read: {', '.join(some)}{more}"


def _sample_maker(
    model: Any,
    head: Any,
    size: int | None,
    channels_first: bool,
    clip_values: tuple[float, float],
) -> tuple[Callable[[Any], Array], str, int]:
    """What makes a sample of a picture, in words too, and the number of classes that the model then has.

    A model from a file says with a picture whether it takes colours or grey.
    """
    if isinstance(model, PretrainedModel):
        scores = predictor(model.model)(model.geometry(head)[None])
        return model.geometry, f"resized and cropped as {model.name} does", scores.shape[1]
    low, high = clip_values
    failures = []
    for channels in (3, 1):

        def sample_of(picture: Any, channels: int = channels) -> Array:
            cut = picture if size is None else centred(picture, size)
            x = values_of(cut, channels, channels_first=channels_first)
            return x if (low, high) == (0, 1) else low + x * np.float32(high - low)

        sample = sample_of(head)
        try:
            scores = predictor(model)(sample[None])
        except Exception as error:  # noqa: BLE001 - whatever a model has to say about a shape
            failures.append(f"{sample.shape} ({_first_line(error)})")
            continue
        if scores.ndim != 2:
            raise ArgumentError(f"the model must give one score for each class, got shape {scores.shape}")
        words = "of one size" if size is None else f"{size} x {size} pixels, resized and cut from the centre"
        return sample_of, f"{words}, {'grey' if channels == 1 else 'colour'}", scores.shape[1]
    takes = getattr(model, "input_shape", None)
    wanted, side = "", "N"
    if isinstance(takes, tuple):
        wanted, side = f"it takes {takes[1:]}; ", str(max((n for n in takes[1:] if n), default="N"))
    remedy = f"--size {side} cuts squares out of them" if size is None else "another --size may fit"
    raise ArgumentError(
        f"the model does not take pictures of shape {failures[head.mode == 'L']}; {wanted}{remedy}"
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1] if "Traceback" in str(error) else lines[0], 200) if lines else repr(error)


def _check_first(path: Path, first: int, count: int) -> None:
    if first >= count:
        raise ArgumentError(
            f"--first must be below the number of samples in {path}, got {first}; there are {count}"
        )


def _warn_of_one_class(y: Array) -> None:
    if len(y) > 1 and (y == y[0]).all():
        warnings.warn(
            f"all {len(y)} samples have the label {y[0]}; other classes may be easier to attack", stacklevel=2
        )


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"cannot read {str(path)!r}: it is no text in UTF-8") from error
    return [line.strip() for line in lines if line.strip()]
