"""The records of an evaluation: figures by hand, tables, and the way to JSON and back."""

import json
import re
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshield import Chain, FeatureSqueezing, GaussianAugmentation, JpegCompression
from preshield._core.errors import ArgumentError
from preshield.evaluation.report import (
    Column,
    Curve,
    DefenceNote,
    Diagnostic,
    RobustnessReport,
    RobustnessRow,
    Threat,
)

INF, NAN = float("inf"), float("nan")
MINIMUM = Threat("l2-minimum", 3.0, (0.0, 1.0))


def column(*outcomes, norms=None, attack="by hand", seconds=1.5):
    outcomes = np.array(outcomes, dtype=np.int8)
    norms = np.zeros(outcomes.shape[1]) if norms is None else np.array(norms, dtype=float)
    return Column(outcomes, norms, attack, seconds)


def undefended():
    columns = {"clean": column([1, 1, 1, 0]), "adaptive": column([0, 0, 0, 0], norms=[1, 2, 3, 0])}
    return RobustnessRow("none", None, columns, 0.001)


def defended(name="noise"):
    """Two draws; every figure below is worked out from these."""
    columns = {
        "clean": column([1, 1, 1, 1], [1, 1, 0, 1]),
        "oblivious": column([1, 0, 1, 1], [1, 0, 1, 0], norms=[1, 2, 3, 4]),
        "adaptive": column([0, 0, 1, 0], [0, 1, 0, 0], norms=[4, 1, 1, 6]),
    }
    note = DefenceNote.of(GaussianAugmentation(0.1, augmentation=False))
    return RobustnessRow(name, note, columns, 0.003, ("made by hand",), {"attacked": np.ones((1, 2))})


def report(*rows, threat=MINIMUM, **others):
    others = {"diagnostics": (), "curves": (), "settings": {}, "versions": {}, **others}
    return RobustnessReport(threat=threat, rows=rows or (undefended(), defended()), **others)


# Threats


def test_threat_in_words():
    assert str(MINIMUM) == (
        "The attacker looks for the smallest L2 perturbation that changes the prediction, untargeted, "
        "within the values 0 to 1."
    )
    assert str(Threat("linf", 8 / 255, (-1.0, 1.0))) == (
        "The attacker may change each sample by up to 0.03137 in the L-infinity norm, untargeted, within the "
        "values -1 to 1."
    )


@pytest.mark.parametrize(
    ("kind", "norm", "minimum"),
    [
        ("l2-minimum", "l2", True),
        ("linf-minimum", "linf", True),
        ("l1-minimum", "l1", True),
        ("l2", "l2", False),
        ("linf", "linf", False),
    ],
)
def test_kinds_of_threat(kind, norm, minimum):
    threat = Threat(kind, 1.0, (0.0, 1.0))
    assert (threat.norm, threat.minimum) == (norm, minimum)


# Figures


def test_column_by_hand():
    draws = column([1, 1, 0, 1], [1, 0, 0, 0])
    assert draws.accuracy == 0.5
    assert draws.deviation == 0.25  # of 0.75 and 0.25
    assert draws.rejection_rate == 0
    assert draws.safe == draws.accepted_accuracy == 0.5


def test_rejection_by_hand():
    one = column([1, 1, 0, -1, -1])
    assert one.accuracy == 0.4
    assert one.rejection_rate == 0.4
    assert one.accepted_accuracy == pytest.approx(2 / 3)
    assert one.safe == 0.8
    assert np.isnan(column([-1, -1]).accepted_accuracy)


def test_worst_case_by_hand():
    # per sample: clean 1, 1, .5, 1; oblivious 1, 0, 1, .5; adaptive 0, .5, .5, 0
    assert defended().worst_case == 0.5 / 4
    assert undefended().worst_case == 0


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.dictionaries(
            st.sampled_from(["clean", "oblivious", "black-box", "adaptive"]),
            st.lists(st.lists(st.integers(-1, 1), min_size=n, max_size=n), min_size=1, max_size=3),
            min_size=1,
        )
    )
)
def test_worst_case_is_never_above_a_column(outcomes):
    columns = {name: column(*draws) for name, draws in outcomes.items()}
    row = RobustnessRow("any", None, columns, 1.0)
    assert row.worst_case <= min(c.accuracy for c in columns.values()) + 1e-12


def test_norms_by_hand():
    # a perturbation counts if most draws are wrong: more than one of two
    np.testing.assert_array_equal(defended().norms, [4, 2, INF, 6])
    # sample 3 is wrong as it is
    np.testing.assert_array_equal(undefended().norms, [1, 2, 3, 0])
    np.testing.assert_array_equal(defended().always_right, [True, True, False, True])


def test_median_norm_and_ratio_by_hand():
    # right on every draw with and without the defence: samples 0 and 1; norms 4, 2 and 1, 2
    assert report().median_norm("noise") == (3.0, 2.0)
    assert report().median_norm(defended()) == (3.0, 2.0)
    assert report().median_norm("none") == (2.0, 1.0)


def test_median_norm_that_is_not_defined():
    wrong = RobustnessRow("wrong", None, {"clean": column([0, 0, 0, 1])}, 1.0)
    assert np.isnan(report(undefended(), wrong).median_norm("wrong")).all()
    unbroken = RobustnessRow("unbroken", None, {"clean": column([1, 1, 1, 1])}, 1.0)
    assert report(undefended(), unbroken).median_norm("unbroken") == (INF, INF)
    norm, ratio = report(unbroken).median_norm("unbroken")
    assert norm == INF
    assert np.isnan(ratio)


def test_accuracy_at():
    assert [defended().accuracy_at(eps) for eps in (0, 2, 4, 100)] == [0.875, 0.625, 0.25, 0.125]
    assert undefended().accuracy_at(0) == 0.75


def test_cost_by_hand():
    assert report().cost("noise") == pytest.approx(3)
    assert report().cost("none") == 1


def test_a_row_by_name():
    assert report()["noise"].name == "noise"
    with pytest.raises(KeyError, match="no row 'jpeg'; rows: none, noise"):
        report()["jpeg"]
    with pytest.raises(KeyError, match="jpeg"):
        report().median_norm("jpeg")


# Notes on defences


def test_note_of_a_chain():
    chain = Chain([JpegCompression((0, 1), quality=20), FeatureSqueezing((0, 1), 3)])
    note = DefenceNote.of(chain)
    assert (note.name, note.description) == ("Chain", repr(chain))
    assert [stage.name for stage in note.stages] == ["JpegCompression", "FeatureSqueezing"]
    assert note.stages[0].parameters["quality"] == "20"
    assert list(note.stages[0].parameters) == list(JpegCompression.params)
    assert note.known_attacks == chain.known_attacks
    assert note.stages[0].stages == ()


# Tables


def test_cells_by_hand():
    assert report().cells("<{}>") == [
        ("Defence", "Clean", "Oblivious", "Adaptive", "Worst case", "Norm", "Ratio", "Cost"),
        ("none", "0.75", "-", "0.00", "<0.00> [0.00, 0.49]", "2", "1.0x", "1.0x"),
        ("noise", "0.88 ± 0.12", "0.62 ± 0.12", "0.25", "<0.12> [0.01, 0.60]", "3", "2.0x", "3.0x"),
    ]


def test_cells_of_a_bounded_threat():
    head, *_ = report(threat=Threat("linf", 0.1, (0.0, 1.0))).cells()
    assert head == ("Defence", "Clean", "Oblivious", "Adaptive", "Worst case", "Cost")


def test_cells_of_rejection_by_hand():
    columns = {"clean": column([1, 1, 0, -1]), "adaptive": column([1, -1, 0, 0], norms=[9, 1, 1, 1])}
    voting = RobustnessRow("voting", None, columns, 0.001)
    found = report(undefended(), voting, threat=Threat("l2", 1.0, (0.0, 1.0)))
    head, plain, row = found.cells()
    assert head[-5:-1] == ("Coverage", "Accepted", "Adaptive or rejected", "Worst or rejected")
    assert plain[-5:-1] == ("1.00", "0.75", "0.00", "0.00")
    assert row[-5:-1] == ("0.75", "0.67", "0.50", "0.50")
    assert row[1:4] == ("0.50", "0.25", "0.25 [0.05, 0.70]")  # rejected is not right
    explained = "\n".join(found.explanations())
    assert all(f"{name}: " in explained for name in ("Coverage", "Accepted", "Worst or rejected"))
    assert "Coverage" not in "\n".join(report().explanations())


def test_infinite_and_undefined_numbers():
    unbroken = RobustnessRow("unbroken", None, {"clean": column([1, 1, 1, 1])}, 0.001)
    assert report(unbroken).cells()[1][-3:-1] == ("∞", "-")


def test_table_is_aligned():
    lines = report().table().splitlines()
    assert lines[0].split() == " ".join(report().cells()[0]).split()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert lines[1].startswith("none ")


def test_markdown():
    lines = report(undefended(), defended("a | b")).to_markdown().splitlines()
    assert lines[0].startswith("| Defence | Clean |")
    assert lines[1] == "| :--- |" + " ---: |" * 7
    assert lines[3].startswith(r"| a \| b | 0.88 ± 0.12 |")
    assert "**0.12**" in lines[3]
    assert f"- Threat model: {MINIMUM}" in lines
    assert r"a \| b: made by hand" in lines


def test_every_column_of_the_table_is_explained():
    found = report()
    explained = "\n".join(found.explanations())
    for heading in found.cells()[0][1:]:
        assert f"{heading}:" in explained or f"**{heading}**:" in explained


def test_words():
    one = Diagnostic("noise", "zero gradients", "All gradients are zero.", "Carlini et al. 2019")
    found = report(diagnostics=(one,), complete=False)
    assert found.in_words().split("\n\n") == [
        "Interrupted: the table holds the rows that were finished.",
        "noise: made by hand",
        "noise: All gradients are zero. [Carlini et al. 2019]",
    ]
    assert str(found) == f"{found.table()}\n\n{MINIMUM}\n\n{found.in_words()}"
    assert report(undefended()).in_words() == ""


def test_what_was_not_attacked():
    def found(*names):
        rows = [
            replace(row, columns=dict.fromkeys(("clean", *names), row.columns["clean"]))
            for row in (undefended(), defended())
        ]
        return report(*rows)

    oblivious = found("oblivious")
    sentence = (
        "No attack was made through the defences: the figures say nothing about an attacker who knows them."
    )
    for text in (str(oblivious), oblivious.to_markdown()):
        assert f"\n\n{sentence}\n\nnoise: made by hand" in text
    assert "to quote" not in oblivious.to_markdown()
    assert "an attacker who knows it" not in oblivious.to_markdown()
    assert found("black-box").untried.startswith("The black-box attack alone was made through the defences")
    assert not found("adaptive").untried
    assert not report(oblivious.rows[0]).untried  # there is no defence


# Files


def assert_same(a, b):
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b or (isinstance(a, float) and np.isnan([a, b]).all())


def full_report():
    return report(
        diagnostics=(Diagnostic("noise", "check", 'a "quoted" <message> é', "source"),),
        curves=(
            Curve("eps", (0.0, 0.5, INF), {"none": (1.0, NAN, 0.0)}, "worst case"),
            Curve("clip_values", ((0.0, 1.0), (0.0, (1.0, None))), {"noise": (0.5, 0.25)}, "adaptive"),
        ),
        settings={
            "seed": 0,
            "budget": None,
            "limit": -INF,
            "own": {"nested": (1, ("a", NAN)), "record": "Column", "array": "x"},
            "verbose": True,
            "image": np.arange(6, dtype=">i2").reshape(2, 3)[:, ::-1],
        },
        versions={"numpy": np.__version__},
        pictures={
            "clean": np.linspace(0, 1, 24, dtype=np.float16).reshape(1, 2, 4, 3),
            "none": np.zeros((0, 3)),
            "right": np.array([True, False]),
        },
        complete=False,
    )


def test_json_round_trip():
    found = full_report()
    again = RobustnessReport.from_json(found.to_json())
    assert_same(found, again)
    assert again.to_json() == found.to_json()
    assert again.table() == found.table()
    assert again.to_markdown() == found.to_markdown()


def test_json_is_json():
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(full_report().to_json(), parse_constant=refuse)


def test_json_of_numpy_numbers_and_other_objects():
    odd = report(settings={"a": np.float32(0.5), "b": [np.int64(1)], "c": len, "d": {3: 1}})
    again = RobustnessReport.from_json(odd.to_json())
    assert again.settings == {"a": 0.5, "b": (1,), "c": repr(len), "d": {"3": 1}}


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_json_file(tmp_path, kind):
    path = tmp_path / "report.json"
    text = full_report().to_json(kind(path))
    assert path.read_text(encoding="utf-8") == text
    assert_same(RobustnessReport.from_json(kind(path)), full_report())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "must be the JSON of a RobustnessReport"),
        ("{}", "must be the JSON of a RobustnessReport.*format"),
        ('{"format": 99, "report": null}', "format 99; this version of preshield reads format 2"),
        ('{"format": 2}', "got NoneType"),
        ('{"format": 2, "report": null}', "got NoneType"),
        ('{"format": 2, "report": {"record": "Path"}}', "unknown record 'Path'; records: Threat"),
        ('{"format": 2, "report": {"record": "Threat", "kind": "l2"}}', "damaged record.*missing"),
        (
            '{"format": 2, "report": {"record": "Threat", "kind": "l2", "eps": 1, "clip_values": null}}',
            "Threat",
        ),
        (
            '{"format": 2, "report": {"array": "|O", "shape": [1], "base64": "AAAAAAAAAAA="}}',
            "of object",
        ),
        ('{"format": 2, "report": {"something": 1}}', "damaged record.*mapping"),
    ],
)
def test_bad_json_is_refused(text, match):
    with pytest.raises(ValueError, match=match):
        RobustnessReport.from_json(text)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        RobustnessReport.from_json(tmp_path / "missing.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match="must be the JSON of a RobustnessReport"):
        RobustnessReport.from_json(tmp_path / "list.json")


# Reports from others


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 100_000, "[" * 100_000, '{"format": 2, "report": ' + '{"tuple": [' * 400 + "]}" * 400 + "}"],
    ids=["objects", "lists", "tuples"],
)
def test_json_of_many_levels(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ArgumentError, match="`source`"):
        RobustnessReport.from_json(tmp_path / "x.json")


def test_json_of_many_entries(monkeypatch):
    monkeypatch.setenv("PRESHIELD_MAX_BYTES", "12800")
    text = '{"format": 1, "report": [' + "[]," * 99 + "0]}"
    with pytest.raises(ArgumentError, match=r"has 201 entries, and the limit is 100; .*_MAX_BYTES=25728"):
        RobustnessReport.from_json(text)


def changed(change):
    """A report in JSON, and what becomes of it."""
    found = json.loads(full_report().to_json())
    change(found["report"])
    return json.dumps(found)


def item(record, *path):
    for key in path:
        record = record[key]
    return record


@pytest.mark.parametrize("value", [None, 1, 1.5, "x", [], {}, {"mapping": {}}, {"tuple": [{"tuple": []}]}])
@pytest.mark.parametrize("name", sorted(field.name for field in fields(RobustnessReport)))
def test_json_of_wrong_types(name, value):
    """It is refused, or it is a report that can be written in every way."""

    def change(record):
        record[name] = value

    try:
        again = RobustnessReport.from_json(changed(change))
    except ArgumentError as error:
        assert "`source`" in str(error)  # noqa: PT017
    else:
        assert str(again)
        assert again.to_markdown()
        assert again._repr_html_()


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("threat",), "kind", "l7"),
        (("threat",), "clip_values", {"tuple": [0.0]}),
        (("rows", "tuple", 0), "columns", {"mapping": {}}),
        (("rows", "tuple", 0, "columns", "mapping", "clean"), "norms", "AAAA"),
        (("rows", "tuple", 0, "columns", "mapping", "clean", "norms"), "shape", [2]),
        (("rows", "tuple", 0, "columns", "mapping", "clean", "outcomes"), "shape", [4]),
        (("rows", "tuple", 0), "remarks", {"tuple": [1]}),
        (("rows", "tuple", 1, "defence"), "parameters", {"mapping": {"a": 1}}),
        (("curves", "tuple", 0), "values", {"tuple": []}),
        (("settings", "mapping"), "first", "zero"),
    ],
)
def test_json_of_a_damaged_report(path, key, value):
    def change(record):
        item(record, *path)[key] = value

    with pytest.raises(ArgumentError, match="damaged record"):
        RobustnessReport.from_json(changed(change))


HOSTILE = [
    r"$\frac{1}{$",
    "\ud800",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![](http://example.org/seen)",
    "a\nb | c",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnirts",
    "x" * 100_000,
]


def named(name):
    return report(
        undefended(),
        defended(name),
        diagnostics=(Diagnostic(name, name, name, name),),
        curves=(Curve(name, (name, 2.0), {name: (0.5, 0.25)}, name),),
        settings={name: name},
        labels=np.zeros(4, np.int64),
    )


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
def test_hostile_names(name, tmp_path):
    found = RobustnessReport.from_json(named(name).to_json())
    assert found.rows[1].name == name
    text, markdown = str(found), found.to_markdown(tmp_path / "x.md")
    page = found.to_html(tmp_path / "x.html")
    for written in (text, markdown, page):
        written.encode()
        assert "\x1b" not in written
        assert "\u202e" not in written
    assert "<script" not in page
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(", markdown)
    assert len(text.splitlines()) == len(str(named("x")).splitlines())
    assert len(markdown.splitlines()) == len(named("x").to_markdown().splitlines())
    table = markdown.split("\n\n")[0].splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}
    assert len(found.table()) < 2000
