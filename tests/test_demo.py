"""A reduced demonstration, run twice in processes of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

for package in ("matplotlib", "skimage", "sklearn", "tensorflow"):
    pytest.importorskip(package)

REDUCED = """
import sys
from functools import partial
import preshield.demo
from preshield.cli import main

preshield.demo.run_demo = partial(
    preshield.demo.run_demo, epochs=2, train_per_class=50, test_per_class=2, max_steps=10
)
sys.exit(main(["demo", "--out", sys.argv[1], "--seed", "3"]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folders = [tmp_path_factory.mktemp("demo") / "report" for _ in range(2)]
    commands = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", REDUCED, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    results = [command.communicate(timeout=250) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], results
    return folders, results


def test_two_runs_print_the_same_table(runs):
    folders, results = runs
    tables = [out.split("Written:")[0] for out, _ in results]
    assert tables[0] == tables[1]
    for name in ("table.md", "table.json", "contact_sheet.png"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second


def test_terminal_shows_the_report_and_nothing_else(runs):
    (folder, _), ((out, err), _) = runs
    assert err == ""
    assert out.startswith((folder / "table.md").read_text())
    assert "The adaptive column is the one that counts" in out
    assert [line for line in out.splitlines() if line.startswith("Written:")] == [
        f"Written: {folder / name}" for name in ("table.md", "table.json", "contact_sheet.png")
    ]


def test_files(runs):
    (folder, _), _ = runs
    assert sorted(p.name for p in folder.iterdir()) == [
        "contact_sheet.png",
        "table.json",
        "table.md",
    ]
    document = json.loads((folder / "table.json").read_text())
    assert document["settings"]["seed"] == 3
    assert document["settings"]["test_crops"] == 20
    rows = {row["defence"].split(",")[0]: row for row in document["rows"]}
    assert list(rows) == [
        "none",
        "FeatureSqueezing",
        "SpatialSmoothing",
        "JpegCompression",
        "ThermometerEncoding",
        "TotalVarMin",
        "GaussianAugmentation",
        "Chain",
    ]
    undefended = rows["none"]
    assert undefended["oblivious"] == undefended["adaptive"] < undefended["clean"]
    for row in rows.values():
        assert 0 <= row["adaptive"] <= 1
        assert row["perturbation"] is None or row["perturbation"] > 0
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
