"""Run the contract of every defence where Numba finds no place for its cache, or does not compile at all.

`python benchmarks/without_cache.py` copies the package to a folder in which nothing can be cached, and runs
every case of `tests/cases.py` there, in one process; `--no-jit` runs them with `NUMBA_DISABLE_JIT=1`. It
prints the cases that fail, and how many there were.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = """
import sys, time, warnings

warnings.simplefilter("ignore")
import numba
import numpy as np
from preshield.testing import check_preprocessor
from tests.cases import ALL


def once(defence, x):
    if defence.domains == ("labels",):
        defence(x, np.eye(3)[np.arange(len(x)) % 3])
    else:
        y = np.eye(3, dtype=np.float32)[np.arange(len(x)) % 3]
        out, _ = defence(x, y)
        if out.dtype != object:
            defence.estimate_gradient(x, np.ones_like(out))


only = sys.argv[1:]
cases = [case for case in ALL if not only or any(name in str(case) for name in only)]
failed, slowest = [], (0.0, "")
for case in cases:
    start = time.perf_counter()
    try:
        if numba.config.DISABLE_JIT:  # a hundred times as slow: once there and back is enough
            once(case.make(), case.sample)
        else:
            check_preprocessor(case.make(), case.sample)
    except Exception as error:
        failed.append(case)
        print(f"{case}: {type(error).__name__}: {str(error)[-400:]}", flush=True)
    slowest = max(slowest, (time.perf_counter() - start, str(case)))
print(f"{len(cases) - len(failed)} of {len(cases)} cases pass; slowest: {slowest[1]}, {slowest[0]:.0f} s")
"""


def uncacheable(folder: Path) -> dict[str, str]:
    """Copy the package to a folder where Numba can write nowhere; return the environment for that."""
    package = folder / "preshield"
    shutil.copytree(ROOT / "src" / "preshield", package, ignore=shutil.ignore_patterns("__pycache__"))
    for place in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (place / "__pycache__").touch()  # where there is a file, not even root can make a folder
    nowhere = str(package / "__init__.py" / "no folder")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "NUMBA_CACHE_DIR": "",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-jit", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = uncacheable(Path(folder))
        if arguments.no_jit:
            environment["NUMBA_DISABLE_JIT"] = "1"
        command = [sys.executable, "-c", CASES, *arguments.names]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
