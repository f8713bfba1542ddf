"""Files that are written whole or not at all."""

import importlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LOCKS: Any = None  # on Windows, where nobody can remove a file that is open
with suppress(ImportError):
    LOCKS = importlib.import_module("fcntl")

__all__ = ["is_temporary", "write_atomically", "written"]

NAME = 48  # characters of a name of at most 255 bytes, to which more are added
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.preshield")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; see `written`.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    content : bytes or str
        Text is written as UTF-8.
    """
    with written(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of another when it is complete, and is on the disk.

    Parameters
    ----------
    path : Path
        Replaced if it exists: its mode stays, and where it is a link, the file that it leads to is replaced.
        What is no file, such as a pipe, is written to as it is.

    Yields
    ------
    file object
        A temporary file in the same folder. One that a killed process has left there is removed.

    Raises
    ------
    OSError
        With the name of `path`, whatever goes wrong.
    """
    try:
        with _written(path) as file:
            yield file
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    target = Path(os.path.realpath(path))
    before = target.stat() if target.exists() else None
    if before is not None and not stat.S_ISREG(before.st_mode):
        with target.open("wb") as file:
            yield file
        return
    _remove_leftovers(target.parent)
    temporary, descriptor = _temporary(target, 0o666 if before is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if before is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
            if LOCKS is not None:  # while it is locked
                temporary.replace(target)
        if LOCKS is None:
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `written` had not finished."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _temporary(target: Path, mode: int) -> tuple[Path, int]:
    """Make a file beside another, locked, so that nobody takes it for one of a killed process."""
    while True:
        path = target.with_name(f".{target.name[:NAME]}.{secrets.token_hex(4)}.preshield")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if _locked(descriptor) is not False and path.exists():  # else it was removed before it was locked
            return path, descriptor
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that nobody has locked. What cannot be removed does no harm."""
    with suppress(OSError):
        for path in filter(is_temporary, folder.iterdir()):
            with suppress(OSError):
                _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    if LOCKS is None:
        path.unlink()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _locked(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Lock a file until it is closed: False if another process has, None if there are no locks."""
    if LOCKS is None:
        return None
    try:
        LOCKS.flock(descriptor, LOCKS.LOCK_EX | LOCKS.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _flush_folder(folder: Path) -> None:
    """Bring a new name to the disk, where folders can be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
