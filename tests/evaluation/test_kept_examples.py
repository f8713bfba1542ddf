"""Adversarial examples that an evaluation keeps."""

from dataclasses import replace

import numpy as np
import pytest

from preshield import FeatureSqueezing, RobustnessReport, evaluate
from preshield._core.errors import ArgumentError
from tests.evaluation.rowwise import RowWise, data

X, Y = data(14)


def run(place, some=slice(None), **options):
    options = {"threat": "linf", "eps": 0.1, "budget": 8, "batch_size": 5, "verbose": False, **options}
    shown = {"3 bits: a/b": FeatureSqueezing((0, 1), 3)}
    return evaluate(RowWise(), X[some], Y[some], shown, keep_examples=place, first=some.start or 0, **options)


@pytest.mark.parametrize("name", ["folder", "new/folder", "examples.npz"])
def test_examples_are_what_the_columns_say(tmp_path, name):
    report = run(tmp_path / name)
    assert list(report.examples) == ["none", "3 bits: a/b"]
    for row in report.rows:
        columns = report.examples[row.name]
        assert set(columns) == set(row.columns) - {"clean", "noise"}
        for column, x in columns.items():
            assert (x.shape, x.dtype) == (X.shape, X.dtype)
            sizes = np.abs(x - X).reshape(len(X), -1).max(axis=1)
            np.testing.assert_allclose(sizes, row.columns[column].norms, atol=1e-6)
    squeezed = FeatureSqueezing((0, 1), 3).transform(np.array(report.examples["3 bits: a/b"]["adaptive"]))
    right = RowWise().predict(squeezed).argmax(axis=1) == Y
    np.testing.assert_array_equal(right, report["3 bits: a/b"].columns["adaptive"].outcomes[0] == 1)


def test_a_folder_is_memory_mapped_and_replaced_by_the_next_run(tmp_path):
    first = run(tmp_path)
    assert isinstance(first.examples["none"]["adaptive"], np.memmap)
    before = np.array(first.examples["none"]["adaptive"])
    second = run(tmp_path, eps=0.2)
    assert (np.array(second.examples["none"]["adaptive"]) != before).any()


def test_a_report_read_back_finds_them(tmp_path):
    report = run(tmp_path / "e")
    again = RobustnessReport.from_json(report.to_json())
    expected = np.array(report.examples["none"]["adaptive"])
    np.testing.assert_array_equal(again.examples["none"]["adaptive"], expected)
    (tmp_path / "e").rename(tmp_path / "f")
    with pytest.raises(ArgumentError, match=r"which is not there; dataclasses.replace"):
        report.examples  # noqa: B018
    moved = replace(report, kept=(str(tmp_path / "f"),))
    np.testing.assert_array_equal(moved.examples["none"]["adaptive"], expected)


@pytest.mark.parametrize(("suffix", "file"), [("", "names.json"), ("", "000.adaptive.npy"), (".npz", "")])
def test_damaged_examples(tmp_path, suffix, file):
    report = run(tmp_path / f"e{suffix}")
    (tmp_path / f"e{suffix}" / file if file else tmp_path / "e.npz").write_bytes(b"[[")
    with pytest.raises(ArgumentError, match=r"`examples` are damaged in '.*e"):
        report.examples  # noqa: B018


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_shards_have_them_one_after_the_other(tmp_path, suffix):
    shards = [run(tmp_path / f"{k}{suffix}", some) for k, some in enumerate((slice(0, 6), slice(6, 14)))]
    whole = run(tmp_path / f"whole{suffix}")
    merged = RobustnessReport.merge(shards)
    for row, columns in whole.examples.items():
        for column, x in columns.items():
            np.testing.assert_array_equal(merged.examples[row][column], x)


def test_nothing_was_kept():
    with pytest.raises(ArgumentError, match='were not kept; evaluate with keep_examples="folder"'):
        run(None).examples  # noqa: B018


def test_places_that_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("mine")
    for place, message in (
        (3, "must be a path"),
        (tmp_path / "file", 'must be a folder, or a file that ends in ".npz", got the file'),
        (tmp_path / "data", "must be a folder for examples alone, .*'thesis.tex'; give a new folder"),
        (tmp_path / "missing" / "e.npz", "must lie in a folder that exists"),
    ):
        with pytest.raises(ArgumentError, match=f"`keep_examples` {message}"):
            run(place)
    assert (tmp_path / "file").read_text() == "mine"
