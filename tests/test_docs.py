"""README and documentation: their code runs, and what they repeat is true."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import preshield
from preshield.demo import exhibits
from preshield.evaluation.report import COLUMNS
from tests.vision import vision

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, *(ROOT / "docs").glob("*.md")], key=lambda path: path.name)
FRAMEWORKS = ("art", "dask", "jax", "tensorflow", "torch", "zarr")
# Blocks that show them run where they are installed.
NOT_OF_OURS = (
    "albumentations",
    "datasets",
    "h5py",
    "joblib",
    "ray",
    "safetensors",
    "timm",
    "torchvision",
    "webdataset",
    "xarray",
)


def python_blocks(path):
    """The Python blocks of a Markdown file, padded so that tracebacks show its line numbers."""
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield "\n" * text.count("\n", 0, match.start(1)) + match[1]


def imports(package, code):
    return re.search(rf"^\s*(import|from) {package}\b", code, re.MULTILINE) is not None


def between(path, marker):
    text = path.read_text(encoding="utf-8")
    (part,) = re.findall(f"<!-- {marker} -->\n(.*?)\n<!-- /{marker} -->", text, re.DOTALL)
    return part


# JAX, loaded by another block or test, warns of every fork. Those are on purpose, and leave JAX alone.
@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in the files of Keras
@pytest.mark.filterwarnings("ignore:unclosed file .*samples.tar:ResourceWarning")  # by webdataset
@pytest.mark.parametrize("path", [p for p in PAGES if list(python_blocks(p))], ids=lambda p: p.stem)
def test_code_runs(path, tmp_path, monkeypatch):
    blocks = list(python_blocks(path))
    for package in FRAMEWORKS:
        if imports(package, "".join(blocks)):
            pytest.importorskip(package)
    users = [name for name in ("datasets", "torchvision") if imports(name, "".join(blocks))]
    if users and find_spec("torchvision") is not None:  # which datasets loads if it finds it
        vision("torchvision")
    if "plots" in "".join(blocks):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"blocks_of_{path.stem}")  # a real one, so that its classes can be pickled
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks:  # they build on each other
        if any(imports(package, block) and find_spec(package) is None for package in NOT_OF_OURS):
            continue
        exec(compile(block, path.name, "exec"), module.__dict__)


@pytest.mark.skipif(os.name != "posix", reason="lines for a shell")
def test_the_lines_for_an_image_fill_the_cache(tmp_path):
    (block,) = re.findall(
        r"```dockerfile\n(.*?)```", (ROOT / "docs" / "containers.md").read_text(), re.DOTALL
    )
    settings = dict(line.removeprefix("ENV ").split("=") for line in block.splitlines() if line[:3] == "ENV")
    assert set(settings) == {"NUMBA_CACHE_DIR"}
    (line,) = [line for line in block.splitlines() if line.startswith("RUN python")]
    command = shlex.quote(sys.executable) + line.removeprefix("RUN python")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(["sh", "-c", command], env=environment, check=True)
    assert list(tmp_path.rglob("squeeze.*.nbc"))


def test_readme_starts_with_code():
    block = next(python_blocks(README)).strip().splitlines()
    assert len([line for line in block if line]) <= 10


def test_readme_lists_the_defences():
    assert between(README, "defences") == preshield.list_defences().to_markdown(), (
        "paste the output of `preshield list` between the markers"
    )


def test_readme_shows_the_adaptive_figure_beside_the_oblivious_one():
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in between(README, "demo").splitlines()
    )
    assert {"Oblivious", "Adaptive", "Worst case"} <= set(head)
    assert {row[0] for row in rows} == {"none", *exhibits()}, "run: nox -s robustness"


def test_the_guide_explains_every_column_and_every_diagnostic():
    guide = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    explained = {cell.strip(" *").lower() for cell in re.findall(r"^\| ([^|]+) \|", guide, re.MULTILINE)}
    source = (Path(preshield.__file__).parent / "evaluation" / "diagnostics.py").read_text(encoding="utf-8")
    checks = re.findall(r'^    return "([^"]+)", message', source, re.MULTILINE)
    assert len(checks) == 12
    assert explained >= {*COLUMNS, *checks, "worst case", "norm", "ratio", "cost"}


def test_every_defence_has_its_docs_entry():
    index = (ROOT / "docs" / "defences" / "index.md").read_text(encoding="utf-8")
    entries = re.findall(r"^generated/(\w+)$", index, re.MULTILINE)
    assert sorted(entries) == sorted(row.name for row in preshield.list_defences())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_relative_links_lead_somewhere(page):
    made_by_the_build = re.compile(r"(^|/)generated/")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [t for t in targets if "://" not in t and not made_by_the_build.search(t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("command", ["torch==2.13.0", '".[test]"', "-m pytest -n 2"])
def test_readme_and_ci_run_the_same_tests(command):
    for path in (README, ROOT / ".ci" / "run"):
        assert command in path.read_text(encoding="utf-8"), path
