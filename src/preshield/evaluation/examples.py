"""Adversarial examples that an evaluation keeps: a file of NumPy for each row and column, or one for all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from .._core.errors import ArgumentError
from .._core.limits import check_arrays
from .._core.typing import Array, Shape
from .._core.writing import is_temporary, write_atomically, written

__all__ = ["ExampleFiles", "check_place", "read_examples"]

NAMES = "names.json"  # of the rows, in a folder


def check_place(keep_examples: Any) -> Path | None:
    """Where to keep examples: a folder that is empty or new, or a file that ends in ".npz"."""
    if keep_examples is None:
        return None
    if not isinstance(keep_examples, str | Path):
        raise ArgumentError(
            '`keep_examples` must be a path: a folder, or a file such as "examples.npz", got '
            f"{keep_examples!r}."
        )
    place = Path(keep_examples)
    if place.suffix == ".npz":
        if not place.absolute().parent.is_dir():
            raise ArgumentError(f"`keep_examples` must lie in a folder that exists, got {str(place)!r}.")
        return place
    if place.exists() and not place.is_dir():
        raise ArgumentError(
            f'`keep_examples` must be a folder, or a file that ends in ".npz", got the file {str(place)!r}.'
        )
    found = place.iterdir() if place.is_dir() else []
    foreign = [p.name for p in found if p.suffix != ".npy" and p.name != NAMES and not is_temporary(p)]
    if foreign:
        raise ArgumentError(
            f"`keep_examples` must be a folder for examples alone, got {str(place)!r}, which holds "
            f"{foreign[0]!r}; give a new folder."
        )
    return place


class ExampleFiles:
    """Writes examples batch by batch.

    Parameters
    ----------
    place : Path
        A folder, in which each row and column has a memory-mapped file, or a ".npz" file, which is written at
        the end and held in memory until then.
    shape : tuple of int
        Of all samples, (N, ...).
    """

    def __init__(self, place: Path, shape: Shape) -> None:
        self.place = place
        self._shape = shape
        self._arrays: dict[tuple[str, str], Array] = {}
        self._rows: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, start: int, examples: Mapping[tuple[str, str], Array]) -> None:
        """Write examples, by row and column, of the samples from `start` on."""
        for (row, column), x in examples.items():
            self._array(row, column, x.dtype)[start : start + len(x)] = x

    def close(self) -> None:
        """Finish the files."""
        if self.place.suffix == ".npz":
            with written(self.place) as file:
                np.savez(file, **{f"{row}/{column}": x for (row, column), x in self._arrays.items()})  # type: ignore[arg-type]
            return
        for x in self._arrays.values():
            x.flush()  # type: ignore[attr-defined]

    def _array(self, row: str, column: str, dtype: Any) -> Array:
        if (row, column) not in self._arrays:
            if row not in self._rows:
                self._rows.append(row)
            if self.place.suffix == ".npz":
                self._arrays[row, column] = np.zeros(self._shape, dtype)
            else:
                self.place.mkdir(parents=True, exist_ok=True)
                write_atomically(self.place / NAMES, json.dumps(self._rows))
                path = self.place / f"{self._rows.index(row):03d}.{column}.npy"
                self._arrays[row, column] = np.lib.format.open_memmap(path, "w+", dtype, self._shape)
        return self._arrays[row, column]


def read_examples(kept: Sequence[str], rows: Sequence[str]) -> dict[str, dict[str, Array]]:
    """Examples by row and column: memory-mapped from a folder, in order from several places.

    Parameters
    ----------
    kept : sequence of str
        Folders or ".npz" files, in the order of their samples.
    rows : sequence of str
        Names of the rows.

    Returns
    -------
    dict of str to dict of str to ndarray, shape (N, ...)

    Raises
    ------
    ValueError
        If nothing was kept, or it is no longer there.
    """
    if not kept:
        raise ArgumentError(
            '`examples` were not kept; evaluate with keep_examples="folder" to have the adversarial examples.'
        )
    parts = [_read(Path(place)) for place in kept]
    found: dict[str, dict[str, Array]] = {row: {} for row in rows}
    for row, column in parts[0]:
        arrays = [part[row, column] for part in parts]
        found.setdefault(row, {})[column] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return found


def _read(place: Path) -> dict[tuple[str, str], Array]:
    if not place.exists():
        raise ArgumentError(
            f"`examples` were kept in {str(place)!r}, which is not there; "
            "dataclasses.replace(report, kept=(path,)) tells a report where they are now."
        )
    try:
        return _archived(place) if place.suffix == ".npz" else _mapped(place)
    except Exception as error:
        raise ArgumentError(f"`examples` are damaged in {str(place)!r}: {error!r}.") from error


def _archived(place: Path) -> dict[tuple[str, str], Array]:
    check_arrays(place)
    with np.load(place) as file:
        return {(*name.rsplit("/", 1),): file[name] for name in file.files}


def _mapped(place: Path) -> dict[tuple[str, str], Array]:
    rows = json.loads((place / NAMES).read_text(encoding="utf-8"))
    found = {}
    for path in sorted(place.glob("*.npy")):
        number, column = path.stem.split(".", 1)
        found[rows[int(number)], column] = np.load(path, mmap_mode="r")
    return found
