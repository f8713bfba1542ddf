"""A small part of each campaign: `nox -s fuzz` runs the long one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.campaigns import CAMPAIGNS, bombs, kills, outcomes

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_changed_file_is_refused_or_read(name):
    counts = outcomes(CAMPAIGNS[name], 40)
    assert counts.total() == 40
    assert counts["refused"]
    if CAMPAIGNS[name].exact:
        assert not counts["other"]


# Each in a process that may take 1 GB more than it has after its imports

BOMBS = """
import resource, sys, warnings
from pathlib import Path
import tests.faults.campaigns as campaigns
from preshield.evaluation.report import RobustnessReport
from preshield.files import read_media, read_samples
from preshield.neural.model_files import model_format

folder = Path(sys.argv[1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, used + 10**9))
readers = {".npz": read_samples, ".keras": model_format, ".pt": model_format, ".pt2": model_format}
readers[".json"] = RobustnessReport.from_json
for path in sorted(folder.iterdir()):
    try:
        readers.get(path.suffix, read_media)(path)
    except ValueError as error:
        print(path.name, "memory" in str(error).lower(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux how much memory is used")
def test_bombs(tmp_path):
    made = []
    for name, content in bombs(small=True):
        (tmp_path / name).write_bytes(content)
        made.append(name)
    environment = os.environ | {"PRESHIELD_MAX_BYTES": "20000000"}
    command = [sys.executable, "-c", BOMBS, str(tmp_path)]
    found = subprocess.run(
        command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split() for line in found.splitlines()]
    assert [name for name, *_ in lines] == sorted(made)
    assert not any(memory == "True" for _, memory, _ in lines)


# Writing


@posix
def test_kills_leave_a_whole_file(tmp_path):
    for contents, left in kills(tmp_path, 4):
        assert len(contents) == 300_000
        assert len(set(contents)) == 1
        assert left <= 2  # what this one had begun, and nothing of those before


FULL = """
import json, sys
from pathlib import Path
from preshield._core.writing import write_atomically

path = Path(sys.argv[1])
write_atomically(path, b"before")
if sys.argv[2] == "quota":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(path, bytes(10**7))
except OSError as error:
    left = [entry.name for entry in path.parent.iterdir()]
    print(json.dumps([error.errno, str(error.filename), path.read_text(), left]))
"""


@posix
@pytest.mark.parametrize("kind", ["quota", "tmpfs"])
def test_a_full_disk_leaves_the_old_file(tmp_path, kind):
    command = [sys.executable, "-c", FULL, str(tmp_path / "x"), kind]
    if kind == "tmpfs":
        mount = [
            "unshare",
            "-m",
            "sh",
            "-c",
            'mount -t tmpfs -o size=100k none "$0" && exec "$@"',
            str(tmp_path),
        ]
        try:
            subprocess.run([*mount, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounts are not allowed")
        command = [*mount, *command]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    number, name, content, left = json.loads(found)
    assert os.strerror(number) in ("File too large", "No space left on device")
    assert (name, content, left) == (str(tmp_path / "x"), "before", ["x"])
