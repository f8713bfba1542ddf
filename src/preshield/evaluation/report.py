"""What an evaluation found: plain records, and how they are written down."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._core.typing import Array
from ..chain import Chain
from . import metrics
from .documents import document, saved

__all__ = [
    "COLUMNS",
    "Column",
    "Curve",
    "DefenceNote",
    "Diagnostic",
    "RobustnessReport",
    "RobustnessRow",
    "Threat",
]

COLUMNS: Mapping[str, str] = {
    "clean": "the samples as they are",
    "noise": "the samples under random noise of the norm of the adaptive perturbation, on every draw another",
    "oblivious": "examples made on the undefended model, by an attacker who does not know of the defence",
    "transfer": "examples made on a surrogate model, by an attacker who knows neither model nor defence",
    "black-box": "examples made by the Square attack, with queries to the defended model and no gradients",
    "adaptive": (
        "examples made through the defence, with every gradient that it offers (exact, or approximated: "
        "BPDA), averaged over the draws of a stochastic defence (EOT)"
    ),
}
"""What each column shows, in the order of the table."""

FORMAT = 1  # of the JSON document


@dataclass(frozen=True)
class Threat:
    """What the attacker may do.

    Attributes
    ----------
    kind : {"l2-minimum", "l2", "linf"}
        The smallest L2 perturbation that changes the prediction, or any perturbation up to `eps`.
    eps : float or None
        Bound of the perturbation; for "l2-minimum", of the black-box attack alone.
    clip_values : tuple of float
        Smallest and largest value of a perturbed sample.
    """

    kind: str
    eps: float | None
    clip_values: tuple[float, float]

    @property
    def minimum(self) -> bool:
        """Whether the smallest perturbation is sought."""
        return self.kind.endswith("-minimum")

    @property
    def norm(self) -> str:
        """Norm of a perturbation: "l2" or "linf"."""
        return self.kind.removesuffix("-minimum")

    def __str__(self) -> str:
        """The threat model in words."""
        low, high = (f"{value:g}" for value in self.clip_values)
        name = {"l2": "L2", "linf": "L-infinity"}[self.norm]
        goal = (
            f"The attacker looks for the smallest {name} perturbation that changes the prediction"
            if self.minimum
            else f"The attacker may change each sample by up to {self.eps:.4g} in the {name} norm"
        )
        return f"{goal}, untargeted, within the values {low} to {high}."


@dataclass(frozen=True, eq=False)
class Column:
    """Predictions of a defended model on one version of the samples.

    Attributes
    ----------
    outcomes : ndarray of int8, shape (draws, N)
        1 where the prediction is right, 0 where it is wrong, -1 where the classifier rejected the sample.
        One row for each draw of a stochastic defence.
    norms : ndarray of float64, shape (N,)
        Norm of each perturbation; infinite where an attack for the smallest one failed.
    attack : str
        What was done, in words.
    seconds : float
        What it took.
    """

    outcomes: Array
    norms: Array
    attack: str
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right predictions; a rejected sample is not right."""
        return metrics.accuracy(self.outcomes, self._right)

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracy over the draws."""
        return float((self.outcomes == 1).mean(axis=1).std())

    @property
    def rejection_rate(self) -> float:
        """Share of samples that the classifier rejected."""
        return metrics.rejection_rate(self.outcomes)

    @property
    def accepted_accuracy(self) -> float:
        """Accuracy on the samples that were accepted; not a number if there are none."""
        return metrics.accepted_accuracy(self.outcomes, self._right)

    @property
    def safe(self) -> float:
        """Share that is right or rejected: the figure of a defender who counts rejection as success."""
        return float((self.outcomes != 0).mean())

    @property
    def _right(self) -> Array:
        """The outcome that is right, as the label of every sample."""
        return np.ones(self.outcomes.shape[1], np.int8)


@dataclass(frozen=True)
class DefenceNote:
    """What a defence states about itself.

    Attributes
    ----------
    name : str
        Name of the class.
    description : str
        The constructor call.
    gradient_kind, stochastic, changes_shape, optimises_at_test_time, paper, known_attacks
        See `Preprocessor`.
    parameters : dict of str to str
        Every parameter, written out.
    stages : tuple of DefenceNote
        Of a `Chain`.
    """

    name: str
    description: str
    gradient_kind: str
    stochastic: bool
    changes_shape: bool
    optimises_at_test_time: bool
    paper: str
    known_attacks: tuple[str, ...]
    parameters: dict[str, str]
    stages: "tuple[DefenceNote, ...]" = ()

    @classmethod
    def of(cls, defence: Any) -> Self:
        """Write down a defence, or a vote, which states the same."""
        parameters = getattr(defence, "_kept_params", defence.get_params)()
        return cls(
            name=getattr(defence, "_name", type(defence).__name__),
            description=repr(defence),
            gradient_kind=defence.gradient_kind,
            stochastic=defence.stochastic,
            changes_shape=defence.changes_shape,
            optimises_at_test_time=defence.optimises_at_test_time,
            paper=defence.paper,
            known_attacks=defence.known_attacks,
            parameters={name: repr(value) for name, value in parameters.items()},
            stages=tuple(map(cls.of, defence._stages)) if isinstance(defence, Chain) else (),
        )


@dataclass(frozen=True)
class Diagnostic:
    """A sign that a figure cannot be trusted.

    Attributes
    ----------
    row : str
        Name of the row of the table.
    check : str
        Name of the check that fired.
    message : str
        What was found, in words and numbers, and what to do.
    source : str
        The checklist that asks for it.
    """

    row: str
    check: str
    message: str
    source: str

    def __str__(self) -> str:
        """One paragraph."""
        return f"{self.row}: {self.message} [{self.source}]"


@dataclass(frozen=True, eq=False)
class RobustnessRow:
    """One defended model.

    Attributes
    ----------
    name : str
        What stands in front of the model.
    defence : DefenceNote or None
        What it states about itself; None for the undefended model.
    columns : dict of str to Column
        By name, in the order of `COLUMNS`; only those that were evaluated.
    seconds_per_sample : float
        Time of a prediction through the defence, of one draw.
    remarks : tuple of str
        What the reader must know, such as that there were no gradients.
    pictures : dict of str to ndarray
        The first samples for which the attack succeeded: "attacked", as the attacker made them through the
        defence, and "defended", the examples made on the undefended model as the model receives them.
    """

    name: str
    defence: DefenceNote | None
    columns: dict[str, Column]
    seconds_per_sample: float
    remarks: tuple[str, ...] = ()
    pictures: dict[str, Array] = field(default_factory=dict)

    @property
    def worst_case(self) -> float:
        """Accuracy if each sample meets the column that is worst for it; never above any column."""
        return metrics.worst_case([(c.outcomes == 1).mean(axis=0) for c in self.columns.values()])

    @property
    def norms(self) -> Array:
        """Norm of the smallest perturbation that succeeded on most draws, shape (N,); infinite if none."""
        attacks = [column for name, column in self.columns.items() if name not in ("clean", "noise")]
        tried = [np.where(_mostly_wrong(self.columns["clean"]), 0.0, np.inf)]
        tried += [np.where(_mostly_wrong(column), column.norms, np.inf) for column in attacks]
        smallest: Array = np.min(tried, axis=0)
        return smallest

    @property
    def always_right(self) -> Array:
        """Which clean samples are right on every draw, shape (N,)."""
        right: Array = (self.columns["clean"].outcomes == 1).all(axis=0)
        return right

    def accuracy_at(self, eps: float) -> float:
        """Accuracy if each sample meets the perturbation of norm `eps` or less that is worst for it."""
        columns = self.columns.values()
        return metrics.worst_case(
            [np.where(c.norms <= eps, (c.outcomes == 1).mean(axis=0), 1.0) for c in columns]
        )


def _mostly_wrong(column: Column) -> Array:
    """Which samples are wrong, and not rejected, on more than half of the draws, shape (N,)."""
    wrong: Array = (column.outcomes == 0).mean(axis=0) > 0.5
    return wrong


@dataclass(frozen=True)
class Curve:
    """Accuracy against something that was varied.

    Attributes
    ----------
    parameter : str
        What was varied: "eps", "budget", "eot", or a parameter of a defence.
    values : tuple
        Its values.
    accuracy : dict of str to tuple of float
        By row, one for each value.
    column : str
        What the accuracy is: the name of a column, or "worst case".
    """

    parameter: str
    values: tuple[Any, ...]
    accuracy: dict[str, tuple[float, ...]]
    column: str


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessReport:
    """What is left of a model's accuracy under attack, without and with defences.

    Attributes
    ----------
    threat : Threat
        What the attacker may do.
    rows : tuple of RobustnessRow
        The undefended model first.
    diagnostics : tuple of Diagnostic
        Signs that a figure cannot be trusted.
    curves : tuple of Curve
        Accuracy against what was varied.
    settings : dict
        All that the figures depend on: samples, seed, draws, attacks.
    versions : dict of str to str
        Of the packages that took part.
    pictures : dict of str to ndarray
        The first samples that the undefended model got right: "clean", "attacked" and their "labels".
    complete : bool
        False if the evaluation was interrupted; `rows` holds what was finished.
    """

    threat: Threat
    rows: tuple[RobustnessRow, ...]
    diagnostics: tuple[Diagnostic, ...]
    curves: tuple[Curve, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    pictures: dict[str, Array] = field(default_factory=dict)
    complete: bool = True

    def __getitem__(self, name: str) -> RobustnessRow:
        """The row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"There is no row {name!r}; rows: {', '.join(row.name for row in self.rows)}.")

    def median_norm(self, row: RobustnessRow | str) -> tuple[float, float]:
        """Median norm of the smallest successful perturbations, and its ratio to the undefended model's.

        Parameters
        ----------
        row : RobustnessRow or str
            Row, or its name.

        Returns
        -------
        norm, ratio : float
            Over the samples that are right with and without the defence. The norm is infinite if the attacks
            failed on half of them; either is not a number if it is not defined.
        """
        row = self[row] if isinstance(row, str) else row
        plain = self.rows[0]
        both = row.always_right & plain.always_right
        if not both.any():
            return float("nan"), float("nan")
        norm, reference = (float(np.median(r.norms[both])) for r in (row, plain))
        ratio = norm / reference if 0 < reference < np.inf else float("nan")
        return norm, ratio

    def cost(self, row: RobustnessRow | str) -> float:
        """Time of a prediction through the defence over that of the undefended model."""
        row = self[row] if isinstance(row, str) else row
        return row.seconds_per_sample / max(self.rows[0].seconds_per_sample, 1e-12)

    # Tables

    def cells(self, bold: str = "{}") -> list[tuple[str, ...]]:
        """The table as text, headings first.

        Parameters
        ----------
        bold : str
            Format of the number that counts: the worst case.

        Returns
        -------
        list of tuple of str
        """
        shown = [name for name in COLUMNS if any(name in row.columns for row in self.rows)]
        rejects = self._rejects
        head = ["Defence", *(name.capitalize() for name in shown), "Worst case"]
        if rejects:
            head += ["Coverage", "Accepted", "Adaptive or rejected"]
        if self.threat.minimum:
            head += ["Norm", "Ratio"]
        return [(*head, "Cost"), *(self._cells_of(row, shown, rejects, bold) for row in self.rows)]

    @property
    def _rejects(self) -> bool:
        return any(c.rejection_rate > 0 for row in self.rows for c in row.columns.values())

    def _cells_of(self, row: RobustnessRow, shown: list[str], rejects: bool, bold: str) -> tuple[str, ...]:
        cells = [row.name]
        for name in shown:
            column = row.columns.get(name)
            cells.append("-" if column is None else _mean(column.accuracy, column.deviation))
        cells.append(bold.format(f"{row.worst_case:.2f}"))
        if rejects:
            clean, last = row.columns["clean"], row.columns.get("adaptive", row.columns["clean"])
            cells += [
                f"{1 - clean.rejection_rate:.2f}",
                _number(clean.accepted_accuracy, ".2f"),
                f"{last.safe:.2f}",
            ]
        if self.threat.minimum:
            norm, ratio = self.median_norm(row)
            cells += [_number(norm, ".3g"), _number(ratio, ".1f", "x")]
        return (*cells, f"{self.cost(row):.1f}x")

    def table(self) -> str:
        """The table with aligned columns."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        )

    def to_markdown(self) -> str:
        """The table, what its columns mean, and what the diagnostics say, in GitHub's Markdown."""
        head, *body = self.cells(bold="**{}**")
        rule = (":---", *["---:"] * (len(head) - 1))
        lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, rule, *body)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        explained = "\n".join(f"- {line}" for line in self.explanations())
        parts = [table, explained, self.in_words()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def explanations(self) -> list[str]:
        """What the threat and each column mean, one sentence each."""
        shown = {
            name: note for name, note in COLUMNS.items() if any(name in row.columns for row in self.rows)
        }
        lines = [f"Threat model: {self.threat}"]
        lines += [f"{name.capitalize()}: accuracy on {note}." for name, note in shown.items()]
        worst = "**Worst case**: each sample under the column that is worst for it."
        lines.append(f"{worst} This is the figure to quote." if self.adaptive else worst)
        if self._rejects:
            lines += [
                "Coverage: share of the clean samples that the classifier does not reject.",
                "Accepted: accuracy on these; in all other columns a rejected sample counts as wrong.",
                "Adaptive or rejected: as adaptive, if rejecting a sample counts as success of the defender.",
            ]
        if self.threat.minimum:
            lines.append(
                "Norm: median L2 norm of the smallest perturbation that any of the attacks found. Ratio: "
                "that norm over the undefended model's, on the same samples"
                + (": what the defence costs an attacker who knows it." if self.adaptive else ".")
            )
        lines.append("Cost: time of a prediction over that of the undefended model.")
        return lines

    @property
    def adaptive(self) -> bool:
        """Whether there is an adaptive column, which diagnostics need."""
        return any("adaptive" in row.columns for row in self.rows)

    @property
    def untried(self) -> str:
        """Which attack on the defences was left out, as a sentence; empty if there is an adaptive column."""
        if self.adaptive or len(self.rows) < 2:
            return ""
        if any("black-box" in row.columns for row in self.rows):
            tried, told = "The black-box attack alone", "little"
        else:
            tried, told = "No attack", "nothing"
        return (
            f"{tried} was made through the defences: the figures say {told} about an attacker who knows them."
        )

    def in_words(self) -> str:
        """Remarks and diagnostics, one paragraph each; empty if there are none."""
        lines = [self.untried] if self.untried else []
        lines += [f"{row.name}: {remark}" for row in self.rows for remark in row.remarks]
        lines += map(str, self.diagnostics)
        if not self.complete:
            lines.insert(0, "Interrupted: the table holds the rows that were finished.")
        return "\n\n".join(lines)

    def __str__(self) -> str:
        """The table, the threat and the diagnostics."""
        return "\n\n".join(part for part in (self.table(), str(self.threat), self.in_words()) if part)

    __repr__ = __str__  # a console shows the table; the arrays behind it would fill pages

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, the threat and the diagnostics."""
        from .report_html import fragment

        return fragment(self)

    # Files

    def to_html(self, path: str | Path | None = None) -> str:
        """Everything in the report as one page that needs no other file: table, pictures, curves, parameters.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str

        Raises
        ------
        ImportError
            If Matplotlib is missing.
        """
        from .report_html import page

        return saved(page(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything in the report as JSON.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str
        """
        text = json.dumps({"format": FORMAT, "report": _plain(self)}, indent=1, allow_nan=False)
        return saved(text, path)

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read a report back.

        Parameters
        ----------
        source : str or Path
            The text, or a path to a file; a string that starts with a brace is a text.

        Returns
        -------
        RobustnessReport

        Raises
        ------
        ValueError
            If it is no report of this version.
        """
        record = document(source, "RobustnessReport", FORMAT)
        try:
            report = _revived(record["report"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"`source` holds a damaged record: {error!r}.") from error
        if not isinstance(report, cls):
            raise ValueError(f"`source` must be the JSON of a RobustnessReport, got {type(report).__name__}.")
        return report


def _mean(value: float, deviation: float) -> str:
    return f"{value:.2f} ± {deviation:.2f}" if deviation >= 0.005 else f"{value:.2f}"


def _number(value: float, form: str, unit: str = "") -> str:
    return "-" if np.isnan(value) else "∞" if np.isinf(value) else f"{value:{form}}{unit}"


# JSON: a record is an object with its class, an array one with its bytes; numbers that JSON lacks are strings

_RECORDS = (Threat, Column, DefenceNote, Diagnostic, RobustnessRow, Curve, RobustnessReport)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        own = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {"record": type(value).__name__, **own}
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": value.dtype.str, "shape": list(value.shape), "base64": data}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): _plain(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"tuple": [_plain(item) for item in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    # What was swept may be any object; a report of hours must not fail to be written for it.
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _revived(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "record" in value:
        known = {record.__name__: record for record in _RECORDS}
        name = value["record"]
        if name not in known:
            raise ValueError(f"`source` holds the unknown record {name!r}; records: {', '.join(known)}.")
        return known[name](**{key: _revived(item) for key, item in value.items() if key != "record"})
    if "array" in value:
        data = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["array"]))
        return data.reshape(value["shape"])
    if "tuple" in value:
        return tuple(_revived(item) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {key: _revived(item) for key, item in value["mapping"].items()}
