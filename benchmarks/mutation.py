"""Mutation testing: change one operator or number of the source, and see whether a test fails.

python benchmarks/mutation.py                               a sample of every file
python benchmarks/mutation.py --each 20 --seed 1 layout     another, larger one of the files named

The operators are cosmic-ray's (pip install cosmic-ray). A mutant meets the tests of its own file alone, in a
fork of a process that has imported the heavy packages already; this needs Linux or macOS.
"""

import argparse
import ast
import os
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "preshield"
LIMIT = 120.0  # seconds for the tests of one mutant; one that takes longer counts as killed
HEAVY = ("hypothesis.extra.numpy", "numba", "PIL.Image", "pytest", "scipy.stats", "skimage", "torch")
OPERATORS = re.compile(  # arithmetic, comparisons, logic, numbers, loops; not what is an error for floats
    r"ReplaceBinary\w+_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)$|ReplaceComparison\w+_(Eq|NotEq|Lt|LtE|Gt|GtE)$"
    r"|ReplaceUnary|Replace(True|False|And|Or|Break|Continue)|NumberReplacer|ZeroIteration"
)
# The tests of files that have none of their own name, or more than those.
TESTS = {
    **dict.fromkeys(("blurring", "separable"), "gaussian_blur blur_net"),
    **dict.fromkeys(("keras_classifier", "torch_classifier"), "classifiers"),
    "attacks": "attacks evaluate",
    "cutting": "cutout cut_mix",
    "deflection": "pixel_deflection",
    "descent": "optimise",
    "detection": "image_resize image_square_pad",
    "documents": "report",
    "finite": "checks inputs",
    "fourier": "metrics fourier",
    "labels": "label_smoothing mixup cut_mix",
    "layout": "layout layouts",
    "levels": "pixel_defend pixel_cnn",
    "median": "median spatial_smoothing",
    "overrides": "art_style",
    "perturbations": "perturbations projected_gradient_descent square_attack minimum_norm",
    "polyphase": "resampling",
    "remedies": "layout layouts samples inputs",
    "report": "report evaluate",
    "resize": "image_resize",
    "resizing": "image_resize",
    "squeeze": "feature_squeezing",
    "thermometer": "thermometer_encoding",
    "total_variation": "total_variation total_var_min",
    "unit_range": "pixel_defend defense_gan",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="names of modules such as `layout`; all if none")
    parser.add_argument("--each", type=int, default=6, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(PYTHONPATH=str(SOURCE.parent), PRESHIELD_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path[:0] = [str(SOURCE.parent), str(ROOT)]
    for name in (
        "hypothesis.extra.numpy",
        "numba",
        "PIL.Image",
        "pytest",
        "scipy.stats",
        "skimage.restoration",
        "torch",
    ):
        import_module(name)  # nothing of ours, and nothing that starts threads when imported
    counts: Counter[tuple[str, bool]] = Counter()
    for room in ("_core", "defences", "evaluation"):
        for file in sorted((SOURCE / room).rglob("*.py")):
            words = TESTS.get(file.stem, file.stem).split()
            tests = [str(path) for word in words for path in ROOT.glob(f"tests/**/test_{word}.py")]
            if not tests or (options.files and file.stem not in options.files):
                continue
            if not passes(file, file.read_text(encoding="utf-8"), tests):
                print(f"{file}: its tests fail without a mutation")
                continue
            for change, code in sample(file, options.each, options.seed):
                survived = passes(file, code, tests)
                counts[room, survived] += 1
                place = file.relative_to(SOURCE)
                print("SURVIVED" if survived else "killed  ", f"{place}:{change}", flush=True)
        if total := counts[room, True] + counts[room, False]:
            print(f"{room}: {counts[room, False]} of {total} killed", flush=True)


def sample(file: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Some mutants, as a description and code: of a sample of the places, one of those of each."""
    code, rng = file.read_text(encoding="utf-8"), random.Random(f"{seed} {file.stem}")
    places = mutations(code)
    for place in rng.sample(sorted(places), min(count, len(places))):
        for operator, occurrence in rng.sample(places[place], len(places[place])):
            mutant = MutationVisitor.mutate_code(code, operator, occurrence)
            if compiles(mutant):
                lines = (text.splitlines()[place[0] - 1].strip() for text in (code, mutant))
                yield f"{place[0]}: {'  ->  '.join(lines)}", mutant
                break


def compiles(code: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(code, "", "exec")
    except SyntaxError:
        return False
    return True


def mutations(code: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """Operators and their occurrences by line and column; not in types, nor of the stars of arguments."""
    notes = [
        ((note.lineno, note.col_offset), (note.end_lineno, note.end_col_offset))
        for node in ast.walk(ast.parse(code))
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
    ]
    lines, tree = code.splitlines(), get_ast(code)
    found: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    for name in filter(OPERATORS.match, OperatorProvider()):
        operator = OperatorProvider()[name]()
        spans = [span for node in ast_nodes(tree) for span in operator.mutation_positions(node)]
        for occurrence, (start, (row, column)) in enumerate(spans):
            star = re.search(r"(^|[(,\[])\s*\*+$", lines[row - 1][:column])
            if not star and not any(first <= start < last for first, last in notes):
                found.setdefault(start, []).append((operator, occurrence))
    return found


def passes(file: Path, code: str, tests: list[str]) -> bool:
    """Whether tests pass with some code in place of a file, in a fork."""
    child = os.fork()
    if not child:
        os.setsid()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1), os.dup2(sink, 2)
        os._exit(run(file, code, tests))
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if (done := os.waitpid(child, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1]) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(file: Path, code: str, tests: list[str]) -> int:
    import numba
    import pytest

    name = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)

    class Mutant(SourceFileLoader):
        def get_code(self, fullname: str) -> Any:
            return compile(code, self.path, "exec")

        def find_spec(self, wanted: str, path: Any = None, target: Any = None) -> Any:
            return spec_from_file_location(name, file, loader=self) if wanted == name else None

    sys.meta_path.insert(0, Mutant(name, str(file)))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        if "kernels" in file.parts:  # the cache knows a function by its bytecode, without the numbers in it
            numba.config.CACHE_DIR = folder
        imported = "ignore::pytest.PytestAssertRewriteWarning"
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", imported, *tests]))


if __name__ == "__main__":
    main()
