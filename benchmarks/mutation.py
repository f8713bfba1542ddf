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
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from contextlib import suppress
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "preshield"
LIMIT = 60  # processor seconds for the tests of a file; a mutant has twice that, then counts as killed
HEAVY = "hypothesis.extra.numpy numba PIL.Image pytest scipy.stats skimage.restoration torch"  # no threads
OPERATORS = re.compile(  # arithmetic, comparisons, logic, numbers, loops; not what is an error for floats
    r"ReplaceBinary\w+_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)$|ReplaceComparison\w+_(Eq|NotEq|Lt|LtE|Gt|GtE)$"
    r"|ReplaceUnary|Replace(True|False|And|Or|Break|Continue)|NumberReplacer|ZeroIteration"
)
TESTS = """
attacks: attacks evaluate                        blurring: gaussian_blur blur_net
cutting: cutout cut_mix                          deflection: pixel_deflection
denoising: denoising wavelet                     descent: optimise
detection: image_resize image_square_pad         documents: report
finite: checks inputs                            fourier: metrics fourier
jpeg: jpeg_kernel jpeg_compression               tensorflow_classifier: classifiers
labels: labels label_smoothing mixup cut_mix     layout: layout layouts
levels: pixel_defend pixel_cnn                   median: median spatial_smoothing
overrides: art_style                             polyphase: resampling
perturbations: perturbations projected_gradient_descent square_attack minimum_norm
processes: workers random                        random: random draws
remedies: layout layouts samples inputs          report: report evaluate
resize: image_resize                             resizing: image_resize
separable: gaussian_blur blur_net                soft_jpeg: jpeg_kernel jpeg_compression
squeeze: feature_squeezing                       subjects: subjects foreign
thermometer: thermometer_encoding                threefry: draws
torch_classifier: classifiers                    total_variation: total_variation total_var_min
unit_range: pixel_defend defense_gan             vote_report: vote_report majority_vote
"""  # of the files that have no tests of their own name, or more than those


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
    for name in HEAVY.split():
        import_module(name)
    named = dict(entry.split(": ") for entry in re.split(r"\n|  +", TESTS.strip()))
    for room in ("_core", "defences", "evaluation"):
        counts: Counter[bool] = Counter()
        for file in sorted((SOURCE / room).rglob("*.py")):
            words = named.get(file.stem, file.stem).split()
            tests = [str(path) for word in words for path in ROOT.glob(f"tests/**/test_{word}.py")]
            if not tests or (options.files and file.stem not in options.files):
                continue
            place, code = file.relative_to(SOURCE), file.read_text(encoding="utf-8")
            if not passes(file, code, tests, LIMIT):
                print(f"left out  {place}: its tests fail as it is, or take more than {LIMIT} s", flush=True)
                continue
            for change, mutant in sample(code, options.each, f"{options.seed} {file.stem}"):
                survived = passes(file, mutant, tests, 2 * LIMIT)
                counts[survived] += 1
                print("SURVIVED " if survived else "killed   ", f"{place}:{change}", flush=True)
        if counts:
            print(f"{room}: {counts[False]} of {counts.total()} killed", flush=True)


def sample(code: str, count: int, seed: str) -> list[tuple[str, str]]:
    """Some mutants, as a description and code: of a sample of the places, one of those of each."""
    places, rng, found = mutations(code), random.Random(seed), []
    for place in rng.sample(sorted(places), min(count, len(places))):
        for operator, occurrence in rng.sample(places[place], len(places[place])):
            mutant = MutationVisitor.mutate_code(code, operator, occurrence)
            with suppress(SyntaxError), warnings.catch_warnings(action="ignore"):
                compile(mutant, "", "exec")
                lines = (text.splitlines()[place[0] - 1].strip() for text in (code, mutant))
                found.append((f"{place[0]}: {'  ->  '.join(lines)}", mutant))
                break
    return found


def mutations(code: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """Operators and their occurrences by line and column; not in types, nor of the stars of arguments."""
    notes = [
        ((note.lineno, note.col_offset), (note.end_lineno, note.end_col_offset))
        for node in ast.walk(ast.parse(code))
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
    ]
    lines, tree, found = code.splitlines(), get_ast(code), defaultdict(list)
    for name in filter(OPERATORS.match, OperatorProvider()):
        operator = OperatorProvider()[name]()
        spans = [span for node in ast_nodes(tree) for span in operator.mutation_positions(node)]
        for occurrence, (start, (row, column)) in enumerate(spans):
            star = re.search(r"(^|[(,\[])\s*\*+$", lines[row - 1][:column])
            if not star and not any(first <= start < last for first, last in notes):
                found[start].append((operator, occurrence))
    return found


def passes(file: Path, code: str, tests: list[str], limit: int) -> bool:
    """Whether tests pass with some code in place of a file, in a fork and within seconds of a processor."""
    with tempfile.TemporaryDirectory() as folder:
        if not (child := os.fork()):
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            signal.alarm(20 * limit)  # for one that waits
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1), os.dup2(sink, 2)
            os._exit(run(file, code, tests, folder))
        status = os.waitpid(child, 0)[1]
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # the processes that it has left
    return status == 0


def run(file: Path, code: str, tests: list[str], folder: str) -> int:
    import numba
    import pytest

    load = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> Any:
        return compile(code, file, "exec") if loader.path == str(file) else load(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    if "kernels" in file.parts:  # the cache knows a function by its bytecode, without the numbers in it
        numba.config.CACHE_DIR = folder
    imported = "ignore::pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", imported, *tests]))


if __name__ == "__main__":
    main()
