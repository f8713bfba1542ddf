"""The tables of the notebooks in docs: they are what is stored, and the words around them fit."""

import json
import math
import re

import pytest

from benchmarks import notebook_tables
from benchmarks.notebook_tables import PAGES, main, table, tables, texts, to_markdown, with_tables

WITH_TABLES = [path for path in PAGES if "<!-- table: " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_TABLES, ids=lambda path: path.stem)
def test_the_page_shows_the_stored_tables(path):
    text = path.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python benchmarks/notebook_tables.py"


def test_the_systems_are_there_with_their_adaptive_figures():
    for page, notebook, columns in (
        ("pixel_deflection", "pixel_deflection", {"Adaptive", "Worst case", "Ratio"}),
        ("blurnet", "blurnet", {"transfer", "white-box", "**worst**", "Adaptive", "Ratio"}),
        ("majority_vote", "voting", {"sigma", "rejected", "Adaptive", "Adaptive or rejected", "Ratio"}),
        ("generative_models", "generative_models", {"PGD", "adaptive", "**worst case**", "ratio"}),
    ):
        (text,) = (path.read_text(encoding="utf-8") for path in WITH_TABLES if path.stem == page)
        shown = re.findall(rf"<!-- table: {notebook}, .+? -->\n\| (.*?) \|\n", text)
        assert columns <= {cell for head in shown for cell in head.split(" | ")}


@pytest.mark.parametrize("path", WITH_TABLES, ids=lambda path: path.stem)
def test_figures_in_words_stand_in_the_tables(path):
    maps = [text for text in texts("pixel_deflection") if "CAM, predicted class  " in text]  # has two heads
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in (section for section in sections if "<!-- table: " in section):
        shown = re.findall(r"<!-- table: .*?<!-- /table -->", section, flags=re.DOTALL)
        stored = figures_in("\n".join(shown + (maps if path.stem == "pixel_deflection" else [])))
        words = figures_in(re.sub(r"<!-- table: .*?<!-- /table -->", "", section, flags=re.DOTALL))
        assert words
        assert [figure for figure in words if figure not in stored] == []


def figures_in(text):
    return re.findall(r"(?<![\d.])\d+\.\d+x?(?![\d.])", text)


# What the pages say


def test_pixel_deflection():
    rows = figures(table("pixel_deflection", "Ratio"))
    both, alone, deflected = rows["PD + wavelet"], rows["wavelet alone"], rows["PD"]
    assert both["Oblivious"] > rows["none"]["Clean"] - 0.2  # restored
    assert alone["Oblivious"] >= both["Oblivious"]  # by the denoiser
    assert deflected["Oblivious"] < both["Oblivious"] - 0.1
    assert rows["PD + map + wavelet"]["Oblivious"] < both["Oblivious"] + 0.05  # the map does not help
    assert all(row["Adaptive"] < 0.25 and row["Ratio"] < 2 for row in rows.values())
    twice = figures(table("pixel_deflection", "smallest"))
    assert all(row["twice that"] < 0.25 for row in twice.values())


def test_blurnet():
    rows = figures(table("blurnet", "transfer"))
    undefended, second = rows["undefended"], rows["second seed"]
    assert rows["features 5x5"]["clean accuracy"] > rows["input 5x5"]["clean accuracy"] + 0.05
    filters = [row for name, row in rows.items() if name.startswith(("input", "features"))]
    assert second["transfer"] < min(row["transfer"] for row in filters) - 0.1
    trained = [row for name, row in rows.items() if not name.startswith("second seed")]
    assert all(row["**worst**"] > undefended["**worst**"] - 0.15 for row in trained)
    weights = figures(table("blurnet", "total variation, weight"))["sticker, **worst**"]
    assert all(rate >= weights["0"] for rate in weights.values())
    smallest = figures(table("blurnet", "Ratio"))
    assert all(row["Adaptive"] < 0.1 for row in smallest.values())
    assert max(row["Ratio"] for row in smallest.values()) == smallest["second seed"]["Ratio"]


def test_voting():
    noise = figures(table("voting", "sigma"))
    assert noise["0.125"]["vote"] > noise["0.125"]["none"] + 0.15
    assert all(row["vote"] <= max(row["once"], row["twice"]) + 0.005 for row in noise.values())
    assert noise["0.125"]["accepted"] < noise["0.125"]["rival"] + 0.05
    attacked = figures(table("voting", "Ratio"))
    assert all(row["Adaptive or rejected"] < 0.1 for row in attacked.values())
    assert max(row["Ratio"] for row in attacked.values()) < 1.2 * attacked["one blur"]["Ratio"]


def test_generative_models():
    def rows_with(column):
        return figures(table("generative_models", column))

    digits, crops = map(rows_with, ("8 x 8 digits", "8 x 8 RGB crops"))
    for rows in (digits, crops):
        plain, one, five = rows["none"], rows["DefenseGAN, 1 start"], rows["DefenseGAN, 5 starts"]
        defended = [row for name, row in rows.items() if name != "none"]
        assert all(row["**worst case**"] < plain["clean"] - 0.4 for row in defended)
        for column in ("clean", "FGSM", "PGD", "adaptive"):  # starts do not matter
            assert abs(one[column] - five[column]) < 0.1
            assert abs(rows["InverseGAN"][column] - five[column]) < 0.1
        assert all(rows[f"PixelDefend, {way}"]["left"] == 0 for way in ("one-pass", "sequential"))
        measured = {name: row for name, row in rows.items() if not math.isnan(row["left"])}
        assert set(rows) - set(measured) == {"DefenseGAN, 1 start", "DefenseGAN, 5 starts"}
        assert all(row["left"] < 0.1 and row["ratio"] < 2 for row in measured.values())
        assert abs(rows["PixelDefend, sequential"]["PGD"] - rows["PixelDefend, one-pass"]["PGD"]) < 0.05
    assert all(row["PGD"] > digits["none"]["PGD"] + 0.4 for name, row in digits.items() if name != "none")
    for name, row in crops.items():  # the generator restores nothing
        restored = row["PGD"] - crops["none"]["PGD"]
        assert restored > 0.1 if "PixelDefend" in name else restored < 0.1
    assert max(row["clean"] for name, row in crops.items() if "GAN" in name) < crops["none"]["clean"] - 0.1
    areas = rows_with("area under the curve")
    assert all(row["largest value"] > row["eps"] for row in rows_with("largest value").values())
    assert all(areas["8 x 8 digits"][attack] > 0.85 for attack in ("FGSM", "PGD", "adaptive"))
    assert areas["8 x 8 RGB crops"]["PGD"] < 0.7
    assert all(row["1/4 PGD, probable"] < 0.5 for row in areas.values())
    vae, gan = (rows_with("generator")[name] for name in ("VAE", "WGAN-GP"))
    assert vae["CPU seconds of training"] < gan["CPU seconds of training"]
    assert all(vae[column] > gan[column] - 0.05 for column in ("clean", "FGSM", "PGD", "adaptive"))


def figures(rows):
    """Numbers by row and column; of rows with equal names, those of the last."""
    head, *rest = [row for row in rows if not row[0].startswith(":")]
    return {
        row[0]: {name: number(cell) for name, cell in zip(head[1:], row[1:], strict=True)} for row in rest
    }


def number(cell):
    return float("nan") if cell == "-" else float(re.match(r"\**([\d.]+)", cell)[1])


# How tables are found


def test_tables_known_by_hand():
    text = (
        "20 crops\n\n          left  right one\na b       1.00   2.00 ± 1\nc         3        4\n\nThe  end\n"
    )
    assert tables(text) == [[["", "left", "right one"], ["a b", "1.00", "2.00 ± 1"], ["c", "3", "4"]]]
    assert tables("|  | a |\n| :-- | --: |\n| b | **1** |\n") == [[["", "a"], [":--", "--:"], ["b", "**1**"]]]
    assert to_markdown([["", "a"], [":--", "--:"], ["b", "1"]]) == "|  | a |\n| :-- | --: |\n| b | 1 |\n"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with two tables, and a page that shows one."""
    cells = [
        {"cell_type": "markdown", "source": ["| a | b |\n", "|:--|--:|\n", "| c | 1 |"]},
        {
            "cell_type": "code",
            "outputs": [
                {"output_type": "stream", "text": ["x    b\n", "y    2\n"]},
                {"output_type": "display_data", "data": {"image/png": "", "text/plain": ["<Figure>"]}},
            ],
        },
    ]
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "some.ipynb").write_text(json.dumps({"cells": cells}))
    page = tmp_path / "page.md"
    page.write_text("Words\n\n<!-- table: some, x -->\nold\n<!-- /table -->\n\nMore\n")
    monkeypatch.setattr(notebook_tables, "ROOT", tmp_path)
    monkeypatch.setattr(notebook_tables, "PAGES", [page])
    return page


def test_pages_are_written(notebook, capsys):
    assert main() == 0
    expected = "| x | b |\n| :-- | --: |\n| y | 2 |\n"
    assert notebook.read_text() == f"Words\n\n<!-- table: some, x -->\n{expected}<!-- /table -->\n\nMore\n"
    assert capsys.readouterr().out.startswith("page.md ")
    assert main() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("column", "count"), [("b", 2), ("z", 0)])
def test_a_table_must_be_the_only_one(notebook, column, count):
    with pytest.raises(ValueError, match=rf"some\.ipynb must hold one table .* '{column}', got {count}"):
        table("some", column)
