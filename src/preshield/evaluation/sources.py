"""Samples and labels from where people keep them: loaders and data sets of any library, streams of batches.

What comes as a stream is read once, in its order, into a temporary file that is mapped into memory. So an
evaluation meets arrays, whatever it was given: a loader that shuffles or augments is asked once, a generator
may be used up, and memory holds one batch.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from math import prod
from pathlib import PurePath
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.layout import FEW_CHANNELS, as_numbers
from .._core.pictures import is_picture, plain, values_of
from .._core.progress import progress_bar
from .._core.tensors import framework, to_numpy
from .._core.typing import Array, Dtype, Shape
from ..neural.preprocessing import Geometry, stacked
from .classifiers import is_a
from .subjects import as_labels

__all__ = ["check_fields", "samples_of"]

# Names that data sets give to samples and labels, and by which these are found unless others are said.
SAMPLES = ("image", "img", "pixel_values", "x")
LABELS = ("label", "labels", "y")
BLOCK = 1 << 24  # bytes of an array in chunks that are read at once, if the chunks do not say how many
INFINITE = -1  # cardinality of a tf.data.Dataset


@contextmanager
def samples_of(
    x: Any,
    y: Any = None,
    *,
    fields: Sequence[str] | None = None,
    geometry: Geometry | None = None,
    channels_first: bool = False,
    verbose: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Samples and labels as arrays, for as long as the context lasts.

    Parameters
    ----------
    x : array_like or iterable
        An array in memory passes as it is. An array in chunks, of Dask, zarr or h5py, and a stream go into a
        temporary file. A stream has batches `(x, y)`, or mappings with such entries; an item whose label is
        one number is one sample.
    y : array_like, optional
        Labels of an array. A stream brings its own.
    fields : sequence of str, optional
        Names of the samples and of the labels in a mapping; by default the one of `SAMPLES` and the one of
        `LABELS` that it has.
    geometry : callable, optional
        A `Geometry`, which makes of a picture the array that the model takes. Without it pictures keep their
        size and their channels, in [0, 1].
    channels_first : bool, default False
        Where the channels of pictures go if there is no geometry.
    verbose : bool, default False
        Show a progress bar while a stream is read.

    Yields
    ------
    x : array_like, shape (N, ...)
    y : array_like, shape (N,)

    Raises
    ------
    ArgumentError
        If a stream is empty or infinite, or a batch is no pair, or differs in shape or type from those before
        it. What a stream raises itself passes, with a note.
    """
    check_fields(fields)
    pictures = _Pictures(geometry, channels_first)
    chunked = framework(x) == "dask" or (hasattr(type(x), "chunks") and hasattr(x, "dtype"))
    if y is None:
        _check_stream(x)
    elif not chunked:
        if not _is_array(x) and _is_iterable(x):
            raise ArgumentError(
                f"`y` must be left out where `x`, here of type {_type(x)}, brings the labels, got "
                f"{type(y).__name__}; pass defences by name: evaluate(classifier, x, defences=[...])."
            )
        if not pictures.among(x):
            yield pictures.array(x), y
            return
    with TemporaryFile(prefix="preshield-") as file:  # which has no name, and so never outlives the process
        spool = _Spool(file)
        if chunked:
            for place, block in enumerate(_blocks(x)):
                spool.append(pictures.array(block), place)
        elif y is None:
            y = _spooled(spool, x, fields, pictures, verbose)
        else:
            for place, picture in enumerate(x):
                spool.append(pictures.array(picture)[None], place)
        yield spool.array(), y


def check_fields(fields: Any) -> None:
    """Refuse what are no two names."""
    pair = isinstance(fields, tuple | list) and len(fields) == 2 and all(isinstance(n, str) for n in fields)
    if fields is not None and not pair:
        raise ArgumentError(
            '`fields` must name the samples and the labels of a batch, such as ("image", "label"), got '
            f"{fields!r}."
        )


def field_of(names: Sequence[str], usual: Sequence[str], what: str) -> str:
    """The one of these names under which samples or labels are usually found."""
    found = [name for name in names if name in usual]
    if len(found) != 1:
        have = "one of several" if found else "none"
        raise ArgumentError(
            f'`fields` must be given, such as ("image", "label"), where the {what} have {have} of the names '
            f"{', '.join(usual)}; got the names {', '.join(map(str, names))}."
        )
    return found[0]


class _Spool:
    """Batches end to end in a file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._count = 0
        self._shape: Shape | None = None
        self._dtype: Dtype = np.dtype(np.float32)

    def append(self, x: Array, place: int) -> None:
        """Write a batch, if it is like those before it."""
        if x.dtype.kind not in "biuf":
            differ = x.dtype == object
            raise ArgumentError(
                f"`x` must hold batches of numbers, got {x.dtype} in batch {place}, counted from 0; "
                + ("bring its samples to one shape first." if differ else "convert them first.")
            )
        if self._shape is None:
            self._shape, self._dtype = x.shape[1:], x.dtype
        if x.shape[1:] != self._shape:
            raise ArgumentError(
                f"`x` must hold samples of one shape, got {x.shape[1:]} in batch {place}, counted from 0, "
                f"and {self._shape} before; resize, crop or pad the samples where they are loaded."
            )
        if x.dtype != self._dtype:
            raise ArgumentError(
                f"`x` must hold samples of one type, got {x.dtype} in batch {place}, counted from 0, and "
                f"{self._dtype} before; convert them where they are loaded, each with its own range."
            )
        if not x.size:
            return
        try:
            self._file.write(np.ascontiguousarray(x).data.cast("B"))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                error.add_note(
                    f"The samples go to a temporary file, which holds {self._count} of them by now; set the "
                    "environment variable TMPDIR to a folder with more room."
                )
            raise
        self._count += len(x)

    def array(self) -> Array:
        """All of it, which stays in the file."""
        if not self._count:
            raise ArgumentError(
                "`x` must hold at least one sample, got none; a generator can be read only once: make a new "
                "one for each call."
            )
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=(self._count, *(self._shape or ())))


class _Pictures:
    """Makes arrays of pictures: of Pillow, and of `uint8` if there is a geometry to bring them into."""

    def __init__(self, geometry: Geometry | None, channels_first: bool) -> None:
        self._geometry = geometry
        self._channels_first = channels_first

    def among(self, x: Any) -> bool:
        """Whether what has one sample after the other has pictures."""
        first = next(iter(x), None) if isinstance(x, list | tuple) else x
        return is_picture(first) or (self._geometry is not None and _dtype(first) in (object, np.uint8))

    def array(self, values: Any) -> Any:
        """A picture as a sample, several as a batch, anything else as it is."""
        if is_picture(values):
            return self._sample(values)
        if isinstance(values, list | tuple) and values and all(map(is_picture, values)):
            samples = [self._sample(value) for value in values]
            return np.stack(samples) if len({sample.shape for sample in samples}) == 1 else samples
        if self._geometry is None:
            return values
        levels = as_numbers(to_numpy(values))
        if levels.dtype == np.uint8:
            one = levels.ndim < 3 or (
                levels.ndim == 3 and {levels.shape[0], levels.shape[2]} & {*FEW_CHANNELS}
            )
            return self._geometry(levels) if one else stacked(map(self._geometry, levels))
        self._geometry.check_size(levels.shape[-3:])
        return values

    def _sample(self, picture: Any) -> Array:
        picture = plain(picture)
        if self._geometry is not None:
            return self._geometry(picture)
        return values_of(picture, len(picture.getbands()), channels_first=self._channels_first)


def _spooled(
    spool: _Spool, x: Any, fields: Sequence[str] | None, pictures: _Pictures, verbose: bool
) -> Array:
    """Read a stream, and return its labels."""
    labels: list[Array] = []
    # A data set of torch without an order of its own has samples, also where their labels are rows.
    of_samples = is_a(x, "torch.utils.data", "Dataset") and not hasattr(x, "__iter__")
    items = _items(x)
    with progress_bar(total=_length(x), desc="Reading", leave=False, disable=not verbose) as bar:
        while True:
            place = len(labels)
            try:
                item = next(items)
            except StopIteration:
                break
            except ArgumentError:  # which says what to do
                raise
            except Exception as error:
                error.add_note(f"Raised by `x` when it was asked for batch {place}, counted from 0.")
                raise
            found, label = _pair(item, fields, place)
            with noted(f"It is in batch {place} of `x`, counted from 0."):
                samples = as_numbers(to_numpy(pictures.array(found)))
                label = as_numbers(to_numpy(label))
                if of_samples or label.ndim == 0:
                    samples, label = samples[None], label[None]
                labels.append(as_labels(label) if len(label) else np.empty(0, np.int64))
            if samples.shape[:1] != label.shape[:1]:
                raise ArgumentError(
                    f"`x` must hold one label for each sample, got {len(label)} for samples of shape "
                    f"{samples.shape} in batch {place}, counted from 0."
                )
            spool.append(samples, place)
            bar.update()
    return np.concatenate(labels) if labels else np.empty(0, np.int64)


def _pair(item: Any, fields: Sequence[str] | None, place: int) -> tuple[Any, Any]:
    """Samples and labels of an item of a stream."""
    if isinstance(item, Mapping):
        names = list(item)
        known = fields or (field_of(names, SAMPLES, "samples"), field_of(names, LABELS, "labels"))
        missing = [name for name in known if name not in names]
        if missing:
            raise ArgumentError(
                f"`fields` must be names in each batch, got {missing[0]!r}, and batch {place}, counted from "
                f"0, has {', '.join(map(str, names))}."
            )
        return item[known[0]], item[known[1]]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    found = f"{_type(item)} without labels"
    remedy = "let its data set return pairs, such as torch.utils.data.TensorDataset(x, y)"
    if isinstance(item, tuple | list):
        found = f"{type(item).__name__} of {len(item)}"
        if len(item) > 2:
            remedy = "pass ((parts[0], parts[1]) for parts in x), or whichever two they are"
    raise ArgumentError(
        f"`x` must hold pairs of samples and their labels, got a {found} in batch {place}, counted from 0; "
        f"{remedy}."
    )


def _check_stream(x: Any) -> None:
    """Refuse what brings no labels."""
    if _is_array(x) and not isinstance(x, list | tuple):
        raise ArgumentError(f"`y` must be given with an array {_shape(x)}: its labels, got None.")
    if isinstance(x, Mapping):
        raise ArgumentError(
            f"`x` must be one data set, got {_type(x)} with {', '.join(map(repr, x))}; pass one of them: "
            f"x[{next(iter(x), 'test')!r}]."
        )
    if isinstance(x, str | bytes | PurePath) or not _is_iterable(x):
        raise ArgumentError(
            "`x` must be samples, with their labels as `y`, or a loader, a data set or an iterable of batches"
            f" (x, y), got {x!r:.200}; of a folder of pictures make torchvision.datasets.ImageFolder(folder),"
            " or use `preshield evaluate --data FOLDER`."
        )
    cardinality = getattr(x, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == INFINITE:
        raise ArgumentError("`x` must end, got a data set that repeats for ever; pass x.take(100).")


def _is_array(x: Any) -> bool:
    """Whether something is read as an array: all at once, and not item by item."""
    known = isinstance(x, list | tuple) or framework(x) != "numpy"
    if known or hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
        return True
    return hasattr(x, "shape") and hasattr(x, "dtype")  # a data set of Hugging Face has a shape, too


def _dtype(x: Any) -> Any:
    """The type of the values of an array of any framework; None if it is none."""
    if framework(x) == "torch" or framework(x) == "tensorflow":
        return np.uint8 if "uint8" in str(x.dtype) else None
    return getattr(x, "dtype", None)


def _is_iterable(x: Any) -> bool:
    return hasattr(x, "__iter__") or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))


def _items(x: Any) -> Iterator[Any]:
    """Items in order; those of a data set that has no order of its own by their numbers."""
    return iter(x) if hasattr(x, "__iter__") else (x[place] for place in range(len(x)))


def _length(x: Any) -> int | None:
    try:
        return len(x)
    except TypeError:  # it has none, or one that is not known
        return None


def _blocks(x: Any) -> Iterator[Array]:
    """An array in chunks, some of its samples at a time."""
    lengths = (x.chunks or (None,))[0]
    if isinstance(lengths, tuple):  # Dask's, one for each chunk
        if np.isnan(lengths).any():
            raise ArgumentError("`x` must have chunks of known lengths; call x.compute_chunk_sizes() before.")
        ends = [0, *accumulate(lengths)]
    else:
        rows = lengths or max(1, BLOCK // max(1, np.dtype(x.dtype).itemsize * prod(x.shape[1:])))
        ends = [*range(0, x.shape[0], rows), x.shape[0]]
    for start, end in pairwise(ends):
        yield np.asarray(x[start:end])


def _shape(x: Any) -> str:
    return f"of shape {tuple(x.shape)}" if hasattr(x, "shape") else f"of type {_type(x)}"


def _type(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__name__}"
