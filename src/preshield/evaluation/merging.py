"""Results of batches, and reports of shards, as one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.typing import Array
from .batch import Part, pictured, room_for_pictures
from .diagnostics import diagnose, window
from .report import COLUMNS, Column, Curve, Diagnostic, RobustnessReport, RobustnessRow, Threat

__all__ = ["curves", "diagnostics", "joined", "merged", "with_fewest_pictures"]

OWN = ("batch size", "first", "samples")  # settings in which shards differ


def joined(
    parts: Sequence[tuple[Sequence[RobustnessRow], Mapping[str, Array]]], threat: Threat
) -> tuple[tuple[RobustnessRow, ...], dict[str, Array]]:
    """Rows and pictures of parts that follow each other, as those of one.

    Parameters
    ----------
    parts : sequence of (rows, pictures)
        In the order of their samples, with the same rows each.
    threat : Threat
        What the attacker could do.

    Returns
    -------
    rows : tuple of RobustnessRow
    pictures : dict of str to ndarray
    """
    together = {name: np.concatenate([pictures[name] for _, pictures in parts]) for name in parts[0][1]}
    shown = pictured(together["right"], together["labels"], room_for_pictures(together["clean"].shape))
    rows = tuple(_row(rows, shown, threat) for rows in zip(*(rows for rows, _ in parts), strict=True))
    return rows, {name: values[shown] for name, values in together.items()}


def with_fewest_pictures(parts: list[Part]) -> list[Part]:
    """The parts, with those pictures alone that a report of all of them shows.

    Others are not in a report of more parts either: the samples that are preferred to them only become more.
    """
    places = [place for place, part in enumerate(parts) if len(part.pictures["right"])]
    places.sort(key=lambda place: parts[place].start)
    if not places:
        return parts
    some = [parts[place].pictures for place in places]
    right, labels = (np.concatenate([pictures[name] for pictures in some]) for name in ("right", "labels"))
    shown = np.isin(np.arange(len(right)), pictured(right, labels, room_for_pictures(some[0]["clean"].shape)))
    ends = np.cumsum([len(pictures["right"]) for pictures in some])[:-1]
    for place, kept in zip(places, np.split(shown, ends), strict=True):
        part = parts[place]
        if not kept.all():
            cut = {name: values[kept] for name, values in part.pictures.items()}
            rows = [
                replace(row, pictures={name: values[kept] for name, values in row.pictures.items()})
                for row in part.rows
            ]
            parts[place] = part._replace(rows=rows, pictures=cut)
    return parts


def diagnostics(rows: Sequence[RobustnessRow], threat: Threat) -> tuple[Diagnostic, ...]:
    """Signs that a figure cannot be trusted, in rows with an adaptive column that were examined."""
    examined = [row for row in rows if "adaptive" in row.columns and row.evidence]
    return tuple(found for row in examined for found in diagnose(row, threat))


def curves(
    rows: Sequence[RobustnessRow], threat: Threat, swept: tuple[str, tuple[Any, ...]] | None
) -> Iterator[Curve]:
    """Curves that need no further attack: over the norm, and over what a sweep varied."""
    finite = np.concatenate([row.norms[np.isfinite(row.norms)] for row in rows])
    if threat.minimum and finite.max(initial=0) > 0:
        values = np.linspace(0, float(np.quantile(finite, 0.95)), 25)
        accuracy = {row.name: tuple(map(row.accuracy_at, values)) for row in rows}
        yield Curve("eps", tuple(map(float, values)), accuracy, "worst case")
    if swept is not None and len(rows) == len(swept[1]) + 1:
        of_values = rows[1:]
        accuracy = {
            name: tuple(row.columns[name].accuracy for row in of_values)
            for name in COLUMNS
            if all(name in row.columns for row in of_values)
        }
        accuracy["worst case"] = tuple(row.worst_case for row in of_values)
        yield Curve(*swept, accuracy, "")


def merged(reports: Sequence[RobustnessReport]) -> RobustnessReport:
    """What `RobustnessReport.merge` returns."""
    given = list(reports)
    if not given or not all(isinstance(report, RobustnessReport) for report in given):
        kinds = ", ".join(type(report).__name__ for report in given) or "none"
        raise ArgumentError(f"`reports` must hold RobustnessReports, at least one, got {kinds}.")
    given.sort(key=lambda report: report.first)
    start = given[0]
    for before, after in pairwise(given):
        _check_same(start, after)
        end = before.first + len(before.labels)
        if after.first != end:
            what = "overlap" if after.first < end else "leave a gap"
            raise ArgumentError(
                f"`reports` must follow each other, and those that begin at samples {before.first} and "
                f"{after.first} {what}: the first of them ends before sample {end}. Pass first={end} to "
                "`evaluate` for the samples that come next."
            )
    unfinished = [report.first for report in given if not report.complete]
    if unfinished and len(given) > 1:
        raise ArgumentError(
            f"`reports` must be complete, got one that was interrupted, from sample {unfinished[0]} on; "
            "evaluate its samples again."
        )
    rows, pictures = joined([(report.rows, report.pictures) for report in given], start.threat)
    kept = tuple(place for report in given for place in report.kept) if all(r.kept for r in given) else ()
    swept = next(((c.parameter, c.values) for c in start.curves if not c.column), None)
    return replace(
        start,
        rows=rows,
        diagnostics=diagnostics(rows, start.threat),
        curves=tuple(curves(rows, start.threat, swept)),
        settings={**start.settings, "samples": sum(len(report.labels) for report in given)},
        labels=np.concatenate([report.labels for report in given]),
        pictures=pictures,
        kept=kept,
    )


def _check_same(start: RobustnessReport, other: RobustnessReport) -> None:
    """Refuse a report that was made otherwise, and say in what."""
    pairs: dict[str, tuple[Any, Any]] = {
        "threat": (str(start.threat), str(other.threat)),
        "rows": ([row.name for row in start.rows], [row.name for row in other.rows]),
        "defences": ([row.defence for row in start.rows], [row.defence for row in other.rows]),
        "columns": ([list(row.columns) for row in start.rows], [list(row.columns) for row in other.rows]),
    }
    for name in sorted({*start.settings, *other.settings} - {*OWN}):
        pairs[name] = start.settings.get(name), other.settings.get(name)
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ArgumentError(
                "`reports` must be made with the same settings; those that begin at samples "
                f"{start.first} and {other.first} differ in {name!r}: {ours!r} and {theirs!r}."
            )


def _row(rows: Sequence[RobustnessRow], shown: Array, threat: Threat) -> RobustnessRow:
    first = rows[0]
    evidence: dict[str, Array] = {}
    if all("number" in row.evidence or not row.evidence for row in rows) and first.evidence:
        numbers = np.concatenate([row.evidence["number"] for row in rows if row.evidence])
        names = dict.fromkeys(name for row in rows for name in row.evidence)
        seen = numbers < first.first + window(threat)
        for name in names:
            values = [
                row.evidence.get(name, np.full(len(row.evidence["number"]), np.nan))
                for row in rows
                if row.evidence
            ]
            evidence[name] = np.concatenate(values)[seen]
    pictures = {name: np.concatenate([row.pictures[name] for row in rows])[shown] for name in first.pictures}
    return replace(
        first,
        columns={name: _column([row.columns[name] for row in rows]) for name in first.columns},
        seconds_per_sample=min(row.seconds_per_sample for row in rows),
        pictures=pictures,
        evidence=evidence,
    )


def _column(columns: Sequence[Column]) -> Column:
    return Column(
        np.concatenate([column.outcomes for column in columns], axis=1),
        np.concatenate([column.norms for column in columns]),
        columns[0].attack,
        sum(column.seconds for column in columns),
        np.concatenate([column.forward for column in columns]),
        np.concatenate([column.backward for column in columns]),
    )
