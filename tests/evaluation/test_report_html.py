"""The page and the fragment of a report."""

import base64
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from preshield import Chain, FeatureSqueezing, JpegCompression, SpatialSmoothing, TotalVarMin
from preshield.evaluation.report import (
    Column,
    Curve,
    DefenceNote,
    Diagnostic,
    RobustnessReport,
    RobustnessRow,
    Threat,
)

pytest.importorskip("matplotlib")

UNIT = (0.0, 1.0)
HOSTILE = "<script>alert('x')</script> & \"more\""
VOID = ("img", "meta")
NAMES = ("median", "squeezing")


class Page(HTMLParser):
    """The elements of a page; fails where one is not well nested."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def row(name, defence=None, *, oblivious=0.6, adaptive=0.0, norm=1.0, remarks=(), pictures=None, rejected=0):
    def column(accuracy, norms, attack):
        outcomes = (np.arange(20) < 20 * accuracy).astype(np.int8)
        outcomes[20 - rejected :] = -1
        return Column(outcomes[None], norms, attack, 1.25)

    columns = {
        "clean": column(0.95, np.zeros(20), "predictions"),
        "oblivious": column(oblivious, np.ones(20), "made on the undefended model"),
        "adaptive": column(adaptive, np.full(20, norm), "made through the defence"),
    }
    note = DefenceNote.of(defence) if defence else None
    return RobustnessRow(name, note, columns, 0.002, tuple(remarks), pictures or {})


def make_report(**others):
    rng = np.random.default_rng(0)
    images = {name: rng.random((3, 8, 8, 3)).astype(np.float16) for name in ("clean", "attacked", "defended")}
    seen = {"attacked": images["attacked"], "defended": images["defended"]}
    chain = Chain([JpegCompression(UNIT, quality=20), SpatialSmoothing(3)])
    fields = {
        "threat": Threat("l2-minimum", 3.0, UNIT),
        "rows": (
            row("none", oblivious=0.0),
            row("median", SpatialSmoothing(3), norm=1.5, pictures=seen),
            row("variation", TotalVarMin(), norm=2.5, pictures=seen, remarks=["Only 4 draws."]),
            row("chain", chain, oblivious=0.8, adaptive=0.1, norm=2.0, pictures=seen),
        ),
        "diagnostics": (
            Diagnostic("variation", "test time", "It optimises.", "Croce et al. 2022, arXiv:2202.13711"),
        ),
        "curves": (
            Curve(
                "eps", (0.0, 0.5, 1.0), {"none": (0.95, 0.375, 0.0), "median": (0.9, 0.5, 0.1)}, "worst case"
            ),
        ),
        "settings": {"seed": 0, "attacks": {"adaptive": "descent", "steps": 100}, "shape": (8, 8, 3)},
        "versions": {"numpy": "2.4.6"},
        "pictures": {"clean": images["clean"], "attacked": images["attacked"], "labels": np.arange(3)},
    }
    return RobustnessReport(**{**fields, **others})


@pytest.fixture(scope="module")
def report():
    return make_report()


@pytest.fixture(scope="module")
def page(report):
    return Page(report.to_html())


def test_the_page_is_a_document(report, page):
    assert report.to_html().startswith('<!DOCTYPE html>\n<html lang="en">')
    assert page.elements[2] == ("meta", {"charset": "utf-8"})
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    assert "@media print" in report.to_html()
    assert "prefers-color-scheme: dark" in report.to_html()
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_comes_from_elsewhere(report, page):
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {name for name, _ in page.elements}
    for name, attributes in page.elements:
        for key in ("src", "srcset", "data", "poster", "background"):
            assert attributes.get(key, "data:").startswith("data:image/"[: 11 if key in attributes else 5])
        assert not [key for key in attributes if key.startswith("on")], name
        if "href" in attributes:
            assert name == "a"
            assert re.match(r"https://arxiv\.org/abs/\d|#diagnostics$", attributes["href"])
    assert not re.search(r"url\(|@import", report.to_html())


def test_pictures_are_data(page):
    pictures = page.all("img")
    kinds = [picture["src"].partition(";")[0] for picture in pictures]
    # the accuracies, the samples, a curve
    assert kinds == ["data:image/svg+xml", "data:image/png", "data:image/svg+xml"]
    starts = [base64.b64decode(picture["src"].partition(",")[2])[:8] for picture in pictures]
    assert starts == [b"<?xml ve", b"\x89PNG\r\n\x1a\n", b"<?xml ve"]
    assert all(len(picture["alt"]) > 40 for picture in pictures)


def test_every_number_of_the_table_is_there(report, page):
    for cells in report.cells():
        for cell in cells:
            assert cell in page.text
    low, high = report["chain"].interval
    worst = f"{report['chain'].worst_case:.2f} [{low:.2f}, {high:.2f}]"
    assert f'<td class="ps-strong"><strong>{worst}</strong></td>' in report.to_html()
    scopes = [attributes.get("scope") for attributes in page.all("th")]
    assert set(scopes) == {"col", "row"}


def test_what_the_page_tells(report, page):
    assert str(report.threat) in page.text
    for line in report.explanations():
        assert line.replace("**", "").replace("`", "") in page.text
    assert '<code class="ps-code">interval</code>' in report.to_html()
    for word in (
        "Only 4 draws.",
        "It optimises.",
        "test time",
        "seed",
        "adaptive: descent; steps: 100",
        "8, 8, 3",
    ):
        assert word in page.text
    assert "numpy2.4.6" in page.text
    assert "made through the defence" in page.text
    assert "1.25" in page.text
    assert "0.38" in page.text  # a number of the curve
    assert page.text.index("It optimises.") < page.text.index("What the columns mean")


def test_every_defence_has_a_card(report, page):
    for one in report.rows[1:]:
        notes = one.defence.stages or (one.defence,)
        for note in notes:
            assert note.description in page.text
            for name, value in note.parameters.items():
                assert f"{name}={value}" in page.text
            assert all(attack in page.text for attack in note.known_attacks)
    assert page.text.index("JpegCompression(") < page.text.rindex("SpatialSmoothing(")
    assert all("open" in d for d in page.all("details")[1:-1])  # not the curve's and the raw numbers


# The summary


def summary(**others):
    text = Page(make_report(**others).to_html()).text
    return text[text.index("Without a defence") : text.index("Accuracy")].strip()


def test_summary_of_the_smallest_perturbation():
    assert summary() == (
        "Without a defence the model is right on 95% of the samples as they are and on 0% in the worst case."
        "With one of the 3 defences it is right on 60% to 80% of the examples that were made without "
        "knowledge of the defence, but on 0% to 10% in the worst case."
        "To defeat a known defence, the perturbation must be 1.5 to 2.5 times as large as without one "
        "(median L2 norm), most for variation."
        "Diagnostics question the figures of variation: see below."
    )


@pytest.mark.parametrize(
    ("adaptive", "sentence"),
    [
        ([0.1, 0.3], "In the worst case, the most is left with squeezing: 30%."),
        ([0.1], "but on 10% in the worst case."),
        ([0.0], "In the worst case, that is no more than without a defence."),
    ],
)
def test_summary_of_a_bounded_perturbation(adaptive, sentence):
    rows = [row(name, SpatialSmoothing(3), adaptive=a) for name, a in zip(NAMES, adaptive, strict=False)]
    plain = row("none", oblivious=0.0)
    found = summary(threat=Threat("linf", 0.1, UNIT), rows=(plain, *rows), diagnostics=())
    assert (
        f"With {'median' if len(rows) == 1 else 'one of the 2 defences'} it is right on 60% of the" in found
    )
    assert found.endswith(sentence)


def test_summary_does_not_take_failed_attacks_for_robustness():
    unbroken = row("wall", SpatialSmoothing(3), oblivious=0.95, adaptive=0.95)
    found = summary(rows=(row("none", oblivious=0.0), unbroken), diagnostics=())
    assert "With wall, no attack succeeded on half of the samples; a better one may." in found
    assert "inf" not in found


def test_a_report_without_an_adaptive_column():
    found = make_report(diagnostics=())
    assert not re.search("No diagnostic|say nothing", Page(found.to_html()).text)  # there are remarks
    assert "No diagnostic fired." in Page(make_report(rows=(row("none"),), diagnostics=()).to_html()).text
    rows = [replace(r, columns={k: r.columns[k] for k in ("clean", "oblivious")}) for r in found.rows]
    found = replace(found, rows=tuple(rows))
    text = Page(found.to_html()).text
    sentence = "No attack was made through the defences: the figures say nothing about an attacker"
    assert text.count(sentence) == 2  # in the summary, and among the remarks
    assert "in the worst case of the columns that were evaluated." in text
    assert "No diagnostics were run: they need the adaptive column." in text
    assert "No diagnostic fired" not in text
    assert not re.search("To defeat a known defence|the figure to quote|attacker who knows it", text)
    assert sentence in Page(found._repr_html_()).text


# Other reports


def test_interrupted():
    found = make_report(complete=False, rows=make_report().rows[:1], diagnostics=())
    for source in (found.to_html(), found._repr_html_()):
        assert "Interrupted: The report holds the rows that were finished." in Page(source).text


def test_interrupted_before_the_first_row():
    found = make_report(complete=False, rows=(), diagnostics=(), curves=(), pictures={})
    page = Page(found.to_html())
    assert "interrupted before a row was finished" in page.text
    assert not page.all("img")
    Page(found._repr_html_())


def test_rejection():
    rows = (row("none", oblivious=0.0), row("voting", FeatureSqueezing(UNIT, 2), rejected=5))
    found = make_report(rows=rows, diagnostics=())
    text = Page(found.to_html()).text
    assert "Adaptive or rejected" in text
    assert "Coverage: share of the clean samples" in text
    assert "0.75" in found.cells()[2]
    assert all(cell in text for cell in found.cells()[2])


@pytest.mark.parametrize(
    "shape", [(2, 400), (2, 8, 8, 1), (2, 3, 8, 8), (2, 4, 8, 8, 3)], ids=["audio", "grey", "first", "video"]
)
def test_samples_of_every_kind(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float16)
    rows = (
        row("none"),
        row("own", SpatialSmoothing(3), pictures={"attacked": x, "defended": x, "received": x}),
    )
    found = make_report(
        rows=rows, diagnostics=(), pictures={"clean": x, "attacked": x, "labels": np.arange(2)}
    )
    kinds = [picture["src"].partition(";")[0] for picture in Page(found.to_html()).all("img")]
    assert kinds.count("data:image/png") == 1


def test_without_pictures_curves_and_settings():
    found = make_report(pictures={}, curves=(), settings={}, versions={}, diagnostics=())
    page = Page(found.to_html())
    assert len(page.all("img")) == 1
    assert "Samples" not in page.text.split("Accuracy")[-1].split("What the columns mean")[0]
    assert "Settings" not in page.text


def test_everything_is_escaped():
    note = DefenceNote(HOSTILE, HOSTILE, HOSTILE, True, True, True, HOSTILE, (HOSTILE,), {HOSTILE: HOSTILE})
    hostile = replace(
        row(HOSTILE, SpatialSmoothing(3), remarks=[HOSTILE]), defence=replace(note, stages=(note,))
    )
    plain = replace(
        row(HOSTILE + "2"), columns={k: replace(c, attack=HOSTILE) for k, c in hostile.columns.items()}
    )
    found = make_report(
        rows=(plain, hostile),
        diagnostics=(Diagnostic(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        curves=(Curve(HOSTILE, (HOSTILE, "b"), {HOSTILE: (0.1, 0.2)}, HOSTILE),),
        settings={HOSTILE: HOSTILE, "nested": {HOSTILE: (HOSTILE,)}},
        versions={HOSTILE: HOSTILE},
    )
    for source in (found.to_html(), found._repr_html_()):
        page = Page(source)
        assert not page.all("script")
        assert "<script" not in source
        assert HOSTILE in page.text


def test_long_settings_and_parameters_are_cut():
    note = replace(
        DefenceNote.of(SpatialSmoothing(3)), parameters={"big": "x" * 10_000}, description="y" * 10_000
    )
    found = make_report(
        rows=(row("none"), replace(row("own"), defence=note)),
        diagnostics=(),
        settings={"long": "z" * 10_000, "array": np.zeros((100, 100)), "number": 0.1234567},
    )
    text = Page(found.to_html()).text
    assert not re.search(r"x{300}|y{300}|z{300}", text)
    assert "array<array (100, 100) of float64>" in text
    assert "0.123457" in text


# Files and notebooks


def test_written_to_a_file(report, tmp_path):
    path = tmp_path / "report.html"
    text = report.to_html(path)
    assert path.read_text(encoding="utf-8") == text
    assert report.to_html(str(path)) == text  # the same report, the same page


def test_the_page_of_a_report_read_back(report):
    assert RobustnessReport.from_json(report.to_json()).to_html() == report.to_html()


def test_fragment(report):
    source = report._repr_html_()
    fragment = Page(source)
    assert fragment.elements[0] == ("div", {"class": "preshield"})
    assert not fragment.all("img")
    for cells in report.cells():
        assert all(cell in fragment.text for cell in cells)
    assert str(report.threat) in fragment.text
    assert "It optimises." in fragment.text
    assert "Only 4 draws." in fragment.text
    assert len(source) < 12_000
    assert not re.search(r"[^-]color: (?!inherit)", source)  # the colours are the notebook's
    # no anchor: a notebook shows many reports
    assert not [attributes for _, attributes in fragment.elements if "id" in attributes]


def test_without_matplotlib_the_extra_is_named(report, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"preshield\[plots\]"):
        report.to_html()
    assert "It optimises." in report._repr_html_()
