"""Files that are written whole or not at all."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from preshield._core.writing import is_temporary, write_atomically, written


def names(folder):
    return sorted(path.name for path in folder.iterdir())


posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes of POSIX")


def test_bytes_and_text(tmp_path):
    write_atomically(tmp_path / "x", "ä ∞")
    assert (tmp_path / "x").read_bytes() == "ä ∞".encode()
    write_atomically(tmp_path / "x", b"\0\xff")
    assert (tmp_path / "x").read_bytes() == b"\0\xff"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize("name", ["é" * 120, "x" * 255])
def test_a_long_name(tmp_path, name):
    write_atomically(tmp_path / name, b"1")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_fails_leaves_nothing(tmp_path, error):
    (tmp_path / "x").write_bytes(b"before")

    def fail():
        with written(tmp_path / "x") as file:
            file.write(b"half")
            raise error("itself")

    with pytest.raises(error, match=r"^itself$"):
        fail()
    assert (tmp_path / "x").read_bytes() == b"before"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, "whatever", "/a/temporary/file")

    path = tmp_path / "x"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_atomically(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["x"]


def test_a_folder_that_is_missing_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/x'$"):
        write_atomically(tmp_path / "no" / "x", b"")


@posix
def test_the_disk_has_it_before_it_has_the_name(tmp_path, monkeypatch):
    """The order of what is asked of the system: contents, name, folder."""
    done, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(Path(f"/dev/fd/{fd}").is_dir()), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("name"), replace(a, b)))
    write_atomically(tmp_path / "x", b"1")
    assert done == [False, "name", True]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o400])
def test_the_mode_stays(tmp_path, mode):
    path = tmp_path / "x"
    path.touch(mode)
    path.chmod(mode)
    with written(path) as file:
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert temporary.stat().st_mode & 0o077 == 0
        file.write(b"secret")
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == b"secret"


@posix
def test_a_new_file_has_the_usual_mode(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "x", b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path, exists):
    (tmp_path / "there").mkdir()
    if exists:
        (tmp_path / "there" / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to(Path("there") / "file")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"


@posix
def test_a_pipe_stays_a_pipe(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_atomically(path, b"new")
    reader.join()
    assert path.is_fifo()
    assert read == [b"new"]
    write_atomically(Path("/dev/null"), b"new")


KILLED = """
import os, signal, sys
from pathlib import Path
from preshield._core.writing import written

with written(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    (leftover,) = tmp_path.iterdir()
    assert is_temporary(leftover)
    (tmp_path / ".mine.12345678.part").touch()
    with written(tmp_path / "slow") as slow:  # of a process that lives
        slow.write(b"slow")
        write_atomically(tmp_path / "y", b"1")
        assert not leftover.exists()
    assert names(tmp_path) == [".mine.12345678.part", "slow", "y"]
    assert (tmp_path / "slow").read_bytes() == b"slow"


@posix
def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    leftover = tmp_path / ".x.00000000.preshield"
    leftover.touch()
    write_atomically(tmp_path / "x", b"1")
    assert leftover.exists()
    assert (tmp_path / "x").read_bytes() == b"1"
