"""How much a file may hold: a small one can announce more than any memory has."""

import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from .environment import number_from
from .errors import ArgumentError
from .typing import Dtype, Shape

__all__ = ["Limit", "array_header", "check_arrays", "opened_archive"]

PIXELS = 1 << 25  # a frame of 8K
BYTES = 12 * PIXELS  # which as RGB in float32 is 403 MB
GROWTH = 4  # bytes of a file become so many by a change of type alone
HEADER = 1 << 14  # bytes, more than that of any array that NumPy reads
NODE = 128  # bytes of an entry of a document in memory
NODES = 32  # times the memory of the text, if all of it is entries such as "[],"


@dataclass(frozen=True)
class Limit:
    """How much a file may hold. What its headers say is checked before anything is decoded.

    Attributes
    ----------
    pixels : int
        Of an image or a frame; by default those of 8K, or the environment variable `PRESHIELD_MAX_PIXELS`.
    bytes : int
        Of all that is decoded; by default 403 million, or the environment variable `PRESHIELD_MAX_BYTES`. A
        large file may hold more: a multiple of its own size that is ordinary for its format.
    """

    pixels: int
    bytes: int

    @classmethod
    def given(cls, limit: "Limit | None" = None) -> "Limit":
        """Return `limit`, or what the environment says."""
        if limit is not None:
            return limit
        pixels, most = number_from("PRESHIELD_MAX_PIXELS"), number_from("PRESHIELD_MAX_BYTES")
        return cls(pixels or PIXELS, most or BYTES)

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse an image or a frame that is too large."""
        if width * height > self.pixels:
            _refuse(
                f"holds pictures of {width} x {height} pixels, and the limit is {self.pixels}",
                "PIXELS",
                width * height,
            )

    def check_bytes(self, size: int, file_size: int, growth: int = GROWTH) -> None:
        """Refuse content of so many bytes in a file of that size, which ordinarily grows by that factor."""
        allowed = max(self.bytes, growth * file_size)
        if size > allowed:
            _refuse(
                f"holds {size} bytes or more in a file of {file_size}, and the limit is {allowed}",
                "BYTES",
                size,
            )

    def check_array(self, shape: Shape, itemsize: int, file_size: int) -> None:
        """Refuse an array that is too large for a file of that size."""
        self.check_bytes(math.prod(shape) * itemsize, file_size)

    def check_texts(self, archive: zipfile.ZipFile, names: Iterable[str]) -> None:
        """Refuse members of an archive whose text is too long for the document that is made of it."""
        for name in names:
            size = archive.getinfo(name).file_size
            if size > self.bytes // NODES:
                _refuse(
                    f"holds {size} bytes of text in {name!r}, and the limit is {self.bytes // NODES}",
                    "BYTES",
                    NODES * size,
                )

    def check_nodes(self, count: int) -> None:
        """Refuse a document of so many lists, objects and entries."""
        if count > self.bytes // NODE:
            _refuse(f"has {count} entries, and the limit is {self.bytes // NODE}", "BYTES", NODE * count)


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive of which some can be read without more being expanded.

    Python's decoders of bzip2 and LZMA, which no writer of arrays or models uses, expand all that they get.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArgumentError(f"its member {entry.filename!r} is not deflated")
        yield archive


def array_header(file: IO[bytes]) -> tuple[Shape, Dtype]:
    """Shape and dtype of an array in NumPy's format; no more than the header is read."""
    start = io.BytesIO(file.read(HEADER))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    return shape, dtype


def check_arrays(path: Path) -> None:
    """Refuse an archive of arrays that expands beyond the limit of the environment."""
    size = 0
    with opened_archive(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                shape, dtype = array_header(file)
            size += math.prod(shape) * dtype.itemsize
    Limit.given().check_bytes(size, path.stat().st_size)


def _refuse(finding: str, variable: str, needed: int) -> NoReturn:
    raise ArgumentError(
        f"it {finding}; if you trust it, set the environment variable PRESHIELD_MAX_{variable}={needed}"
    )
