"""A report as HTML: a page that stands alone, and what a notebook shows."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import html
from .._core.html import Html, tag
from .._core.optional import require

if TYPE_CHECKING:
    from .detection_report import DetectionReport
    from .report import Curve, DefenceNote, Diagnostic, RobustnessReport, RobustnessRow
    from .smoothing_report import SmoothingReport

__all__ = ["fragment", "of_detection", "page", "page_of_detection", "page_of_smoothing"]

_TITLE = "Robustness report"
_LONG = 240  # characters of a parameter or a setting that are shown
_WIDTH, _CHART_WIDTH = 10.0, 7.5  # inches; 96 CSS pixels each
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --link: #0b5cad;
  --tint: transparent; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e3e6ea; --link: #79b8ff; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 74em; margin: 0 auto; padding: 1.5em clamp(1em, 4vw, 3em) 4em; }
a { color: var(--link); }
h1 { font-size: 1.9em; line-height: 1.2; margin: .6em 0 .3em; }
h2 { font-size: 1.3em; margin: 2.2em 0 .5em; padding-bottom: .2em;
  border-bottom: 1px solid rgba(128, 128, 128, .4); }
.preshield .ps-card, .preshield .ps-note { max-width: none; }
.preshield .ps-parameters li { opacity: 1; }
.preshield .ps-lead p { font-size: 1.1em; margin: .35em 0; }
figure { margin: 1em 0; }
figure img { display: block; max-width: max(100%, 42em); height: auto; background: #fff; border-radius: 4px; }
.preshield th a { text-decoration: none; }
figcaption { font-size: .92em; margin-top: .5em; opacity: .85; }
@media (max-width: 48em) {
  .preshield tr:has(> .ps-strong) > th:first-child, .preshield tr > .ps-strong { position: sticky; left: 0;
    background: linear-gradient(var(--tint) 0 0) var(--paper); }
  .preshield tr > .ps-strong { --tint: rgba(128, 128, 128, .14); left: auto; right: 0; }
  .preshield td > strong { display: inline-block; width: 6.2em; white-space: normal; vertical-align: top; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --link: #000; color-scheme: light; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; }
  h2, summary { break-after: avoid; }
  tr, figure, .preshield .ps-card, .preshield .ps-note { break-inside: avoid; }
  .preshield .ps-scroll { overflow: visible; } figure img { max-width: 100%; }
  .preshield details::details-content { content-visibility: visible; height: auto; }
  .preshield table { font-size: .8em; } .preshield th, .preshield td { padding: .25em .4em; }
}
"""


def fragment(report: "RobustnessReport") -> str:
    """Write what a notebook shows: the table, the threat model, remarks and diagnostics.

    Parameters
    ----------
    report : RobustnessReport
        What was found.

    Returns
    -------
    str
        HTML that takes its colours from where it is shown.
    """
    return html.scoped(_table(report), tag("p", report.threat), *_notes(report))


def page(report: "RobustnessReport") -> str:
    """Write all that a report holds into one file that needs no other.

    Parameters
    ----------
    report : RobustnessReport
        What was found.

    Returns
    -------
    str
        An HTML document; the pictures are inside.

    Raises
    ------
    ImportError
        If Matplotlib is missing.
    """
    classifier = report.settings.get("classifier", "")
    title = f"{_TITLE}: {classifier}" if classifier else _TITLE
    notes = _notes(report, anchors=True)
    if not report.adaptive:
        notes.append(tag("p", "No diagnostics were run: they need the adaptive column."))
    sections: dict[str, Iterable[Html]] = {
        "": [
            tag("h1", title),
            tag("p", f"{len(report.labels)} sample{'s' * (len(report.labels) != 1)}. {report.threat}"),
            tag("div", *(tag("p", line) for line in _summary(report)), class_="ps-note ps-lead"),
        ],
        "Accuracy": [_table(report, anchors=True), *_bars(report)],
        "Remarks and diagnostics": notes or [tag("p", "No diagnostic fired.")],
        "Samples": _pictures(report),
        "What the columns mean": [_explanations(report)],
        "Curves": [
            part for curve in report.curves if curve.values and curve.accuracy for part in _curve(curve)
        ],
        "Defences": [_card(row.name, row.defence) for row in report.rows if row.defence],
        "Settings": [_pairs("Settings", report.settings)] if report.settings else [],
        "Versions": [_pairs("Versions", report.versions)] if report.versions else [],
        "Attacks": [_raw(report)],
    }
    return _document(title, sections)


def of_detection(report: "DetectionReport") -> str:
    """Write what a notebook shows of a detector: the table, and what its columns mean."""
    return html.scoped(_detected(report), tag("p", html.marked(report.explanation())))


def page_of_detection(report: "DetectionReport") -> str:
    """Write what a detector found into one file that needs no other.

    Parameters
    ----------
    report : DetectionReport
        What was found.

    Returns
    -------
    str
        An HTML document; the picture is inside.

    Raises
    ------
    ImportError
        If Matplotlib is missing.
    """
    from .. import plots

    title, curves = "Detection report", report.roc
    words = "Share of the successful examples that are reported, against that of the clean samples."
    sections: dict[str, Iterable[Html]] = {
        "": [tag("h1", title), _detected(report), tag("p", html.marked(report.explanation()))],
        "ROC": [_chart(lambda ax: plots.roc(curves, ax=ax), 4.0, words, words)] if curves else [],
    }
    return _document(title, sections)


def page_of_smoothing(report: "SmoothingReport") -> str:
    """Write what randomized smoothing found into one file that needs no other.

    Parameters
    ----------
    report : SmoothingReport
        What was found.

    Returns
    -------
    str
        An HTML document; the picture is inside.

    Raises
    ------
    ImportError
        If Matplotlib is missing.
    """
    from ..plots import certified_accuracy

    title = "Certified accuracy"
    sections: dict[str, Iterable[Html]] = {"": [tag("h1", title), *report.parts()]}
    if len(report.y):
        sections["Curve"] = [
            _chart(
                lambda ax: certified_accuracy(report, ax=ax),
                3.6,
                "Certified accuracy against the radius",
                "Share of samples with the right label that no perturbation of this L2 norm changes.",
            )
        ]
    return _document(title, sections)


def _detected(report: "DetectionReport") -> Html:
    (_, *head), *body = report.cells()
    return html.table(("Samples", *head), body, label="Detection", strong=("Evaded",))


def _document(title: str, sections: Mapping[str, Iterable[Html]]) -> str:
    """A page of sections by their headings, those that hold something."""
    body = [
        tag("section", tag("h2", name) if name else "", *(Html(f"\n{part}") for part in parts))
        for name, parts in sections.items()
        if parts
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        html.style(_STYLE),
    )
    main = tag("main", *(Html(f"\n{section}\n") for section in body), class_="preshield")
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main), lang='en')}\n"


# What it says


def _summary(report: "RobustnessReport") -> Iterator[str]:
    """The message in numbers: what is left when the attacker knows the defence."""
    if not report.rows:
        yield "The evaluation was interrupted before a row was finished."
        return
    plain, *defended = report.rows
    yield (
        f"Without a defence the model is right on {_percent(plain.columns['clean'].accuracy)} of the samples "
        f"as they are and on {_percent(plain.worst_case)} in the worst case."
    )
    if not defended:
        return
    who = f"With {defended[0].name}" if len(defended) == 1 else f"With one of the {len(defended)} defences"
    worst = f"{_span([row.worst_case for row in defended])} in the worst case"
    if report.untried:
        worst += " of the columns that were evaluated"
    oblivious = [row.columns["oblivious"].accuracy for row in defended if "oblivious" in row.columns]
    if oblivious:
        yield (
            f"{who} it is right on {_span(oblivious)} of the examples that were made without knowledge of "
            f"the defence, but on {worst}."
        )
    else:
        yield f"{who} it is right on {worst}."
    if report.untried:
        yield report.untried
    else:
        yield from _gain(report, plain, defended)
    doubted = list(dict.fromkeys(diagnostic.row for diagnostic in report.diagnostics))
    if doubted:
        yield f"Diagnostics question the figures of {', '.join(doubted)}: see below."


def _gain(
    report: "RobustnessReport", plain: "RobustnessRow", defended: "list[RobustnessRow]"
) -> Iterator[str]:
    if not report.threat.minimum:
        best = max(defended, key=lambda row: row.worst_case)
        if best.worst_case <= plain.worst_case:
            yield "In the worst case, that is no more than without a defence."
        elif len(defended) > 1:
            yield f"In the worst case, the most is left with {best.name}: {_percent(best.worst_case)}."
        return
    ratios = {row.name: report.median_norm(row)[1] for row in defended}
    found = {name: ratio for name, ratio in ratios.items() if np.isfinite(ratio)}
    if found:
        low, high = (f"{choose(found.values()):.1f}" for choose in (min, max))
        factor, most = (
            (low, "")
            if low == high
            else (f"{low} to {high}", f", most for {max(found, key=found.__getitem__)}")
        )
        yield (
            f"To defeat a known defence, the perturbation must be {factor} times as large as without one "
            f"(median L2 norm){most}."
        )
    for name, ratio in ratios.items():
        if np.isinf(ratio):
            yield f"With {name}, no attack succeeded on half of the samples; a better one may."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _span(shares: list[float]) -> str:
    low, high = _percent(min(shares)), _percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _explanations(report: "RobustnessReport") -> Html:
    lines = []
    for line in report.explanations():
        name, _, meaning = line.replace("**", "").partition(": ")  # Markdown: this and code
        lines.append(tag("li", tag("strong", f"{name}: "), html.marked(meaning)))
    return tag("ul", *lines)


def _table(report: "RobustnessReport", *, anchors: bool = False) -> Html:
    head, *body = report.cells()
    doubted = {diagnostic.row for diagnostic in report.diagnostics}

    def first(name: str) -> Html:
        if name not in doubted:
            return html.text(name)
        mark = tag("abbr", "⚠", title="A diagnostic questions this row")
        return tag("span", f"{name} ", tag("a", mark, href="#diagnostics") if anchors else mark)

    return html.table(
        head,
        [(first(name), *cells) for name, *cells in body],
        caption=f"Accuracy of the model{'; the worst case is the figure to quote' * report.adaptive}",
        strong=("Worst case",),
    )


def _notes(report: "RobustnessReport", *, anchors: bool = False) -> list[Html]:
    """Remarks and diagnostics, each set off from the text."""
    notes = []
    if not report.complete:
        notes.append(_note("Interrupted", "The report holds the rows that were finished.", doubt=True))
    if report.untried:
        notes.append(_note("All rows", report.untried, doubt=True))
    notes += [_note(row.name, remark) for row in report.rows for remark in row.remarks]
    for i, diagnostic in enumerate(report.diagnostics):
        anchor = "diagnostics" if anchors and i == 0 else None
        notes.append(_diagnostic(diagnostic, anchor))
    return notes


def _note(subject: str, message: str, *, doubt: bool = False) -> Html:
    kind = "ps-note ps-doubt" if doubt else "ps-note"
    return tag("div", tag("strong", f"{subject}: "), message, class_=kind, role="note")


def _diagnostic(diagnostic: "Diagnostic", anchor: str | None) -> Html:
    return tag(
        "div",
        tag("strong", f"⚠ {diagnostic.row}: "),
        diagnostic.message,
        tag("div", f"{diagnostic.check} · ", html.links(diagnostic.source), class_="ps-source"),
        class_="ps-note ps-doubt",
        role="note",
        id=anchor,
    )


def _card(name: str, note: "DefenceNote") -> Html:
    return html.card(
        note,
        name,
        # The stages of a chain have cards of their own.
        {k: _cut(value) for k, value in note.parameters.items() if not (note.stages and k == "defences")},
        stages=[_card(stage.name, stage) for stage in note.stages],
        call="" if note.stages else _cut(note.description),
        unfolded=True,
    )


def _pairs(label: str, values: Mapping[str, Any]) -> Html:
    rows = [(key.replace("_", " "), _cut(_written(value))) for key, value in values.items()]
    return html.table(("Name", "Value"), rows, label=label, words=("Value",))


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_written(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_written, value))
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    return html.short(value) if isinstance(value, np.ndarray) else str(value)


def _cut(line: str) -> str:
    half = _LONG // 2
    return line if len(line) <= _LONG else f"{line[:half]} ... {line[-half:]}"


def _raw(report: "RobustnessReport") -> Html:
    """Every column of every row, with what was done to get it."""
    head = (
        "Row",
        "Column",
        "Accuracy",
        "Draws",
        "Median norm",
        "Largest norm",
        "Failed",
        "Seconds",
        "Attack",
    )
    body = []
    for row in report.rows:
        for name, column in row.columns.items():
            finite = column.norms[np.isfinite(column.norms)]
            middle, largest = (np.median(finite), finite.max()) if finite.size else (np.nan, np.nan)
            body.append(
                (
                    row.name,
                    name,
                    f"{column.accuracy:.4f} ± {column.deviation:.4f}",
                    len(column.outcomes),
                    *("-" if np.isnan(norm) else f"{norm:.4g}" for norm in (middle, largest)),
                    len(column.norms) - finite.size,
                    f"{column.seconds:.2f}",
                    column.attack,
                )
            )
    caption = "Norms are those of the samples on which the attack did not fail"
    return tag(
        "details",
        tag("summary", "Every column of every row"),
        html.table(head, body, caption=caption, words=("Column", "Attack")),
    )


# What it shows


def _bars(report: "RobustnessReport") -> list[Html]:
    if not report.rows:
        return []
    from ..plots import accuracies

    alt = "Accuracies. " + "; ".join(
        f"{row.name}: {', '.join(f'{name} {column.accuracy:.2f}' for name, column in row.columns.items())}, "
        f"worst case {row.worst_case:.2f}"
        for row in report.rows
    )
    height = 1.1 + 0.42 * len(report.rows)
    return [
        _chart(lambda ax: accuracies(report, ax=ax), height, alt, "From the clean samples to the worst case.")
    ]


def _curve(curve: "Curve") -> list[Html]:
    from ..plots import curve as draw

    values = [_written(value) for value in curve.values]
    alt = f"Accuracy, {curve.column}, for {curve.parameter} from {values[0]} to {values[-1]}. " + "; ".join(
        f"{name} from {accuracy[0]:.2f} to {accuracy[-1]:.2f}" for name, accuracy in curve.accuracy.items()
    )
    caption = f"Accuracy ({curve.column}) against {curve.parameter}"
    numbers = html.table(
        (curve.parameter, *values),
        [(name, *(f"{value:.2f}" for value in accuracy)) for name, accuracy in curve.accuracy.items()],
        label=caption,
    )
    return [
        _chart(lambda ax: draw(curve, ax=ax), 3.4, alt, f"{caption}."),
        tag("details", tag("summary", "The numbers of this curve"), numbers),
    ]


def _pictures(report: "RobustnessReport") -> list[Html]:
    from ..plots import png, samples

    axes = samples(report)
    if not axes.size:
        return []
    width = axes.flat[0].figure.get_figwidth()
    names = ", ".join(row.name for row in report.rows if "defended" in row.pictures)
    alt = f"Samples before and after the attack, the difference, and what the model receives through {names}"
    caption = (
        "Samples, the examples made on the undefended model, what they differ by, and what the model "
        "receives of them through each defence"
    )
    if report.pictures["clean"].ndim == 4:
        caption += (
            "; beside these, what it receives of the examples made through the defence, and what was added. "
            "Below each picture, what the model predicts, and with which probability"
        )
    return [_figure("png", png(axes), width, alt, f"{caption}.")]


def _chart(draw: Callable[[Any], object], height: float, alt: str, caption: str) -> Html:
    """A chart as SVG, which is sharp in print, in a figure that no notebook shows as well."""
    figure = require("matplotlib.figure", extra="plots").Figure((_CHART_WIDTH, height), layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    # The same report gives the same page: no date, no random names.
    with require("matplotlib", extra="plots").rc_context({"svg.hashsalt": "preshield"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _figure("svg+xml", file.getvalue(), _CHART_WIDTH, alt, caption)


def _figure(media: str, content: bytes, width: float, alt: str, caption: str) -> Html:
    """A picture, of that width in inches, with its caption."""
    source = f"data:image/{media};base64,{base64.b64encode(content).decode()}"
    image = tag("img", src=source, alt=alt, width=round(96 * width))
    shown = tag("div", image, **html.scrolling("Picture"))
    return tag("figure", shown, tag("figcaption", caption))
