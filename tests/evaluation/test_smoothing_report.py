"""What randomized smoothing found: figures by hand, files, and what is damaged."""

import json

import numpy as np
import pytest

from preshield.evaluation.smoothing_report import SmoothingReport, largest_radius

LABELS = np.array([0, 1, -1, 2, 0])
RADII = np.array([0.25, 0.5, 0.0, 0.75, 0.1])
TRUE = np.array([0, 1, 1, 0, 0])  # the fourth label is wrong
PLAIN = np.array([0, 0, 1, 0, 0])
REPORT = SmoothingReport(LABELS, RADII, TRUE, PLAIN, 0.5, 100, 1000, 0.001, "Net", "Denoiser")
EMPTY = SmoothingReport(LABELS[:0], RADII[:0], TRUE[:0], PLAIN[:0], 0.5, 100, 1000, 0.001)


def test_figures_by_hand():
    found = [REPORT.certified_accuracy(radius) for radius in (0, 0.1, 0.25, 0.26, 0.5, 0.75)]
    assert found == [0.6, 0.6, 0.4, 0.2, 0.2, 0.0]
    assert (REPORT.accuracy, REPORT.plain_accuracy, REPORT.abstention_rate) == (0.6, 0.8, 0.2)
    assert REPORT.mean_radius == pytest.approx((0.25 + 0.5 + 0.1) / 5)
    radii, accuracies = REPORT.curve
    assert radii.tolist() == [0.0, 0.1, 0.25, 0.5]
    np.testing.assert_allclose(accuracies, [0.6, 0.6, 0.4, 0.2])
    assert REPORT.largest_radius == pytest.approx(1.2316, abs=1e-4)
    assert REPORT.usual_radii == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert largest_radius(0.25, 5, 0.5) > 0
    assert largest_radius(0.25, 1, 0.4) == 0  # one draw never exceeds one half
    assert SmoothingReport(LABELS, RADII, TRUE, PLAIN, 0.25, 1, 1, 0.001).usual_radii == (0.0,)


def test_text_and_notebook():
    text = str(REPORT)
    assert text.splitlines()[:3] == [
        "L2 radius  Certified accuracy  95% interval",
        "0                        0.60  [0.23, 0.88]",
        "0.25                     0.40  [0.12, 0.77]",
    ]
    assert (
        "Model alone: accuracy 0.80. Smoothed: 0.60, abstains on 0.20, mean certified radius 0.170." in text
    )
    assert "denoised by Denoiser" in text
    assert REPORT.table((0.3,)).splitlines()[1].split()[:2] == ["0.3", "0.20"]
    assert "denoised" not in EMPTY.explanation()
    assert "[-, -]" in str(EMPTY)
    shown = SmoothingReport(LABELS, RADII, TRUE, PLAIN, 0.5, 100, 1000, 0.001, "", "<b>")._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown


def test_files(tmp_path):
    assert REPORT.to_markdown(tmp_path / "a.md").splitlines()[2] == "| 0 | 0.60 | [0.23, 0.88] |"
    REPORT.to_json(tmp_path / "a.json")
    for source in (tmp_path / "a.json", REPORT.to_json()):
        again = SmoothingReport.from_json(source)
        assert str(again) == str(REPORT)
        np.testing.assert_array_equal(again.radii, RADII)
        assert again.model == "Net"
    assert SmoothingReport.from_json(EMPTY.to_json()).labels.shape == (0,)
    assert np.isnan(EMPTY.accuracy)


def test_a_page_stands_alone(tmp_path):
    pytest.importorskip("matplotlib")
    page = REPORT.to_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == page
    assert "data:image/svg+xml;base64," in page
    assert page.count("<section>") == 2
    assert EMPTY.to_html().count("<section>") == 1


def test_damaged_json():
    record = json.loads(REPORT.to_json())
    short = {**record["report"], "y": json.loads(EMPTY.to_json())["report"]["y"]}
    for text in (
        "{}",
        '{"format": 1}',
        json.dumps({**record, "format": 9}),
        json.dumps({**record, "report": short}),
        json.dumps({**record, "report": {**record["report"], "n": 5}}),
        json.dumps({**record, "report": {**record["report"], "sigma": "wide"}}),
    ):
        with pytest.raises(ValueError, match="`source`"):
            SmoothingReport.from_json(text)
    with pytest.raises(ValueError, match="`radius` must be at least 0"):
        REPORT.certified_accuracy(-1)
