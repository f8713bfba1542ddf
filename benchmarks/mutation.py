"""Mutation testing: change one operator or number of the source, and see whether a test fails.

python benchmarks/mutation.py                           a sample of every room
python benchmarks/mutation.py --each 20 --seed 1 labels layout    another, larger one of the files named

The operators are cosmic-ray's (pip install cosmic-ray). Each mutant meets the tests of its own file alone, in a fork
of a process that has imported the heavy packages already; forks need Linux or macOS.
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
KINDS = re.compile(  # arithmetic, comparisons, logic, numbers, loops; not what is an error for floats
    r"ReplaceBinary\w+_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)$|ReplaceComparison\w+_(Eq|NotEq|Lt|LtE|Gt|GtE)$"
    r"|ReplaceUnary|Replace(True|False|And|Or|Break|Continue)|NumberReplacer|ZeroIteration"
)
LIMIT = 120.0  # seconds for the tests of one mutant; one that loops forever counts as killed

# Tests of files whose tests do not have their name; `-k` and a word in the same string chooses among them.
TESTS: dict[str, list[str]] = {
    "_core/blurring": ["defences/test_gaussian_blur", "defences/test_blur_net"],
    "_core/cutting": ["defences/test_cutout", "defences/test_cut_mix"],
    "_core/detection": ["defences/test_image_resize", "defences/test_image_square_pad"],
    "_core/fourier": ["evaluation/test_metrics", "plots/test_fourier"],
    "_core/labels": ["defences/test_label_smoothing", "defences/test_mixup", "defences/test_cut_mix"],
    "_core/layout": ["core/test_layout", "test_layouts"],
    "_core/remedies": ["core/test_layout", "core/test_samples", "test_inputs", "test_layouts"],
    "_core/resizing": ["defences/test_image_resize"],
    "_core/unit_range": ["defences/test_pixel_defend", "defences/test_defense_gan"],
    "_core/kernels/finite": ["core/test_checks", "test_inputs"],
    "_core/kernels/labels": ["defences/test_label_smoothing", "defences/test_mixup", "defences/test_cut_mix"],
    "_core/kernels/levels": ["defences/test_pixel_defend", "neural/test_pixel_cnn"],
    "_core/kernels/median": ["core/test_median", "defences/test_spatial_smoothing"],
    "_core/kernels/pixel_cnn": ["neural/test_pixel_cnn"],
    "_core/kernels/polyphase": ["core/test_resampling"],
    "_core/kernels/resize": ["defences/test_image_resize"],
    "_core/kernels/separable": ["defences/test_gaussian_blur", "defences/test_blur_net"],
    "_core/kernels/squeeze": ["defences/test_feature_squeezing"],
    "_core/kernels/thermometer": ["defences/test_thermometer_encoding"],
    "_core/kernels/total_variation": ["core/test_total_variation", "defences/test_total_var_min"],
    "evaluation/attacks": ["evaluation/test_attacks", "evaluation/test_evaluate"],
    "evaluation/documents": ["evaluation/test_report"],
    "evaluation/perturbations": [
        f"evaluation/test_{name}"
        for name in ("perturbations", "projected_gradient_descent", "square_attack", "minimum_norm")
    ],
    "evaluation/report": ["evaluation/test_report", "evaluation/test_evaluate"],
    "evaluation/keras_classifier": ["evaluation/test_classifiers"],
    "evaluation/torch_classifier": ["evaluation/test_classifiers"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="names such as `layout` or `_core/layout`; all if none")
    parser.add_argument("--each", type=int, default=5, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm()
    counts: Counter[tuple[str, bool]] = Counter()
    for file in sorted(p for room in ("_core", "defences", "evaluation") for p in (SOURCE / room).rglob("*.py")):
        name = file.relative_to(SOURCE).with_suffix("").as_posix()
        tests = tests_of(name)
        if not tests or (options.files and not {name, file.stem} & set(options.files)):
            continue
        if not passes(file, file.read_text(encoding="utf-8"), tests):
            print(f"{name}: its tests fail without a mutation", flush=True)
            continue
        for line, change, code in sample(file, options.each, options.seed):
            start = time.monotonic()
            killed = not passes(file, code, tests)
            counts[name.split("/")[0], killed] += 1
            print(f"{'killed' if killed else 'SURVIVED'} {time.monotonic() - start:5.1f} s {name}:{line}: {change}", flush=True)
    for room in sorted({room for room, _ in counts}):
        total = counts[room, True] + counts[room, False]
        print(f"{room}: {counts[room, True]} of {total} killed ({counts[room, True] / total:.0%})")
    return 0


def tests_of(name: str) -> list[str]:
    """Arguments of pytest for the tests of one file."""
    own = name.replace("_core/", "core/").split("/")
    guess = ROOT / "tests" / own[0] / f"test_{own[-1]}.py"
    found = [f"tests/{test}.py" for test in TESTS.get(name, [])]
    return found or ([str(guess.relative_to(ROOT))] if guess.exists() and "kernels" not in name else [])


def sample(file: Path, count: int, seed: int) -> Iterator[tuple[int, str, str]]:
    """Line, change and code of some mutants: of a sample of the places, one of those of each."""
    code = file.read_text(encoding="utf-8")
    places, rng = places_of(code), random.Random(f"{seed} {file.stem}")
    for place in rng.sample(sorted(places), min(count, len(places))):
        changed = MutationVisitor.mutate_code(code, *rng.choice(places[place]))
        before, after = (text.splitlines()[place[0] - 1].strip() for text in (code, changed))
        yield place[0], f"{before}  ->  {after}", changed


def places_of(code: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """Mutants that compile, by line and column, each as an operator and its occurrence; not those of types."""
    types = [
        ((note.lineno, note.col_offset), (note.end_lineno, note.end_col_offset))
        for node in ast.walk(ast.parse(code))
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
    ]
    stars = re.compile(r"(^|[(,\[])\s*\*+$")  # of arguments: no arithmetic
    lines = code.splitlines()
    found: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    for name in OperatorProvider():
        if not KINDS.match(name):
            continue
        operator = OperatorProvider()[name]()
        spans = [span for node in ast_nodes(get_ast(code)) for span in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spans):
            if any(first <= start < last for first, last in types) or stars.search(lines[end[0] - 1][: end[1]]):
                continue
            try:
                with warnings.catch_warnings(action="ignore"):
                    compile(MutationVisitor.mutate_code(code, operator, occurrence), "", "exec")
            except SyntaxError:
                continue
            found.setdefault(start, []).append((operator, occurrence))
    return found


def warm() -> None:
    """Import what takes long, none of it ours, and nothing that starts threads when imported."""
    os.chdir(ROOT)
    os.environ.update(PYTHONPATH=str(SOURCE.parent), PRESHIELD_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    sys.path[:0] = [str(SOURCE.parent), str(ROOT)]
    for name in ("numba", "PIL.Image", "pytest", "scipy.stats", "skimage.restoration", "torch"):
        import_module(name)


def passes(file: Path, code: str, tests: list[str]) -> bool:
    """Whether tests pass with some code in place of a file, in a fork that ends with them."""
    child = os.fork()
    if not child:
        os.setsid()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
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

    class Finder:
        @staticmethod
        def find_spec(wanted: str, path: Any = None, target: Any = None) -> Any:
            return spec_from_file_location(name, file, loader=Mutant(name, str(file))) if wanted == name else None

    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        if "kernels" in file.parts:  # the cache knows a function by its bytecode, without the numbers in it
            numba.config.CACHE_DIR = folder
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


if __name__ == "__main__":
    sys.exit(main())
