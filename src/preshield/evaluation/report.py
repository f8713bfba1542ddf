"""What an evaluation found: plain records, and how they are written down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._core.errors import ArgumentError
from .._core.text import in_markdown, printable
from .._core.typing import Array
from . import metrics
from .comparison import Comparison, Comparisons, PerClass
from .documents import aligned, plain, report_in, report_text, saved

__all__ = [
    "COLUMNS",
    "THREATS",
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
    "shared": "the worst of the examples made through each other row of the table, for each sample",
    "black-box": "examples made by the Square attack, with queries to the defended model and no gradients",
    "adaptive": (
        "examples made through the defence, with every gradient that it offers (exact, or approximated: "
        "BPDA), averaged over the draws of a stochastic defence (EOT)"
    ),
}
"""What each column shows, in the order of the table."""

THREATS = ("l2-minimum", "linf-minimum", "l1-minimum", "linf", "l2")
FORMAT = 2  # of the JSON document
NOT_COUNTED: Array = np.zeros(0, np.int64)  # passes of the classifier


@dataclass(frozen=True)
class Threat:
    """What the attacker may do.

    Attributes
    ----------
    kind : {"l2-minimum", "linf-minimum", "l1-minimum", "l2", "linf"}
        The smallest perturbation that changes the prediction, or any perturbation up to `eps`.
    eps : float or None
        Bound of the perturbation; of the smallest one, of the black-box attack alone.
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
        """Norm of a perturbation: "l2", "linf" or "l1"."""
        return self.kind.removesuffix("-minimum")

    @property
    def norm_in_words(self) -> str:
        """The norm as people write it."""
        return {"l2": "L2", "linf": "L-infinity", "l1": "L1"}[self.norm]

    def diagonal(self, size: int) -> float:
        """Norm of the largest perturbation of a sample of so many values."""
        low, high = self.clip_values
        return (high - low) * float(size ** {"l2": 0.5, "linf": 0.0, "l1": 1.0}[self.norm])

    def __str__(self) -> str:
        """The threat model in words."""
        low, high = (f"{value:g}" for value in self.clip_values)
        name = self.norm_in_words
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
    forward, backward : ndarray of int, shape (N,)
        Passes of the classifier that the attack spent on each sample; -1 where an attack did not count them.
    """

    outcomes: Array
    norms: Array
    attack: str
    seconds: float
    forward: Array = field(default_factory=lambda: NOT_COUNTED)
    backward: Array = field(default_factory=lambda: NOT_COUNTED)

    def __post_init__(self) -> None:
        """Fill in what was not counted."""
        for name in ("forward", "backward"):
            if getattr(self, name) is NOT_COUNTED:
                object.__setattr__(self, name, np.full(self.outcomes.shape[1], -1, np.int64))

    def part(self, samples: slice) -> "Column":
        """The same of some samples."""
        return replace(
            self,
            outcomes=self.outcomes[:, samples],
            norms=self.norms[samples],
            forward=self.forward[samples],
            backward=self.backward[samples],
        )

    @property
    def accuracy(self) -> float:
        """Share of right predictions; a rejected sample is not right."""
        return metrics.accuracy(self.outcomes, self._right)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the accuracy (Wilson)."""
        return metrics.interval(self.accuracy, self.outcomes.shape[1])

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
        Of a `Chain`, or of what else is made of others.
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
            stages=tuple(map(cls.of, getattr(defence, "_stages", ()))),
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
        return printable(f"{self.row}: {self.message} [{self.source}]")


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
        Some samples: "attacked", as the attacker made them through the defence; as the model receives them,
        "received"; and "defended", the examples made on the undefended model as it receives those. The
        classes that it predicts, "predicted", and their probabilities, "confidence", have a column for
        "defended" and one for "received".
    evidence : dict of str to ndarray
        What a closer look at the first samples found, for the diagnostics: "number", their numbers in the
        data set, and one value for each by what was looked at.
    white_box : bool
        Whether there were gradients to attack it with.
    first : int
        Number of the first sample in the data set.
    """

    name: str
    defence: DefenceNote | None
    columns: dict[str, Column]
    seconds_per_sample: float
    remarks: tuple[str, ...] = ()
    pictures: dict[str, Array] = field(default_factory=dict)
    evidence: dict[str, Array] = field(default_factory=dict)
    white_box: bool = True
    first: int = 0

    @property
    def correct(self) -> Array:
        """Share of draws on which each sample is right, in the column that is worst for it, shape (N,)."""
        shares: Array = np.min([(c.outcomes == 1).mean(axis=0) for c in self.columns.values()], axis=0)
        return shares

    @property
    def worst_case(self) -> float:
        """Accuracy if each sample meets the column that is worst for it; never above any column."""
        return float(self.correct.mean())

    @property
    def safe(self) -> float:
        """The worst case if rejecting a sample counts as success of the defender."""
        shares = [(column.outcomes != 0).mean(axis=0) for column in self.columns.values()]
        return float(np.min(shares, axis=0).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the worst case (Wilson)."""
        return metrics.interval(self.worst_case, len(self.correct))

    @property
    def examined(self) -> Array:
        """Which samples the evidence is about, as places in the columns."""
        return self.evidence["number"] - self.first if self.evidence else np.zeros(0, np.int64)

    def compare(self, other: "RobustnessRow") -> Comparison:
        """The worst cases of two rows over the same samples, sample by sample.

        Parameters
        ----------
        other : RobustnessRow
            Of the same report, or of another one.

        Returns
        -------
        Comparison
            Which prints as a sentence; of a stochastic row, a sample is right if most draws are.

        Raises
        ------
        ValueError
            If the rows are about other samples.
        """
        if not isinstance(other, RobustnessRow):
            raise ArgumentError(f'`other` must be a row, such as report["none"], got {type(other).__name__}.')
        if (self.first, len(self.correct)) != (other.first, len(other.correct)):
            raise ArgumentError(
                f"`other` must be about the same {len(self.correct)} samples from number {self.first}, got "
                f"{len(other.correct)} from number {other.first}; evaluate both on the same data."
            )
        return Comparison.of(self.name, self.correct > 0.5, other.name, other.correct > 0.5)

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

    def accuracy_at(self, eps: float, *, or_rejected: bool = False) -> float:
        """Accuracy if each sample meets the perturbation of norm `eps` or less that is worst for it.

        A rejected sample counts as wrong, or as right if `or_rejected`.
        """
        columns, least = self.columns.values(), -1 if or_rejected else 1
        kept = [np.isin(c.outcomes, (least, 1)).mean(axis=0) for c in columns]
        return metrics.worst_case(
            [np.where(c.norms <= eps, share, 1.0) for c, share in zip(columns, kept, strict=True)]
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
        The first samples that the undefended model got right: "clean", "attacked", their "labels" and their
        "numbers" in the data set; the class that the model predicts for the clean ones, "predicted", and its
        probability, "confidence".
    complete : bool
        False if the evaluation was interrupted; the report holds what was finished.
    labels : ndarray of int, shape (N,)
        The true classes.
    kept : tuple of str
        Where the adversarial examples are.
    class_names : tuple of str
        Names of the classes; empty if they are not known.
    """

    threat: Threat
    rows: tuple[RobustnessRow, ...]
    diagnostics: tuple[Diagnostic, ...]
    curves: tuple[Curve, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    pictures: dict[str, Array] = field(default_factory=dict)
    complete: bool = True
    labels: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    kept: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @staticmethod
    def merge(reports: "Sequence[RobustnessReport]") -> "RobustnessReport":
        """Put reports of parts of a data set together.

        Parameters
        ----------
        reports : sequence of RobustnessReport
            Made with the same settings, in any order; `evaluate(..., first=...)` told each where its samples
            begin. Together they must cover a range of samples once.

        Returns
        -------
        RobustnessReport
            That of one run over all samples: the same figures, diagnostics and pictures. Times are added.

        Raises
        ------
        ValueError
            If parts overlap or leave a gap, or were made with other settings.

        Notes
        -----
        Everything random depends on the seed, on the number of a sample and on the step. So the merged report
        equals that of one run bit for bit, as far as the model gives a sample the same scores in whatever
        batch. Some matrix products do not: their last bits depend on the number of rows. Shards that begin at
        multiples of `batch_size` meet the same batches.

        Examples
        --------
        >>> import numpy as np
        >>> from preshield import FeatureSqueezing, RobustnessReport, evaluate
        >>> x, y = np.random.default_rng(0).random((20, 4), dtype=np.float32), np.arange(20) % 2
        >>> def classifier(x):
        ...     return np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1)
        >>> shards = [
        ...     evaluate(
        ...         classifier,
        ...         x[i : i + 10],
        ...         y[i : i + 10],
        ...         FeatureSqueezing((0, 1), 2),
        ...         first=i,
        ...         verbose=False,
        ...     )
        ...     for i in (0, 10)
        ... ]
        >>> len(RobustnessReport.merge(shards).labels)
        20
        """
        from .merging import merged

        return merged(reports)

    @property
    def first(self) -> int:
        """Number of the first sample in the data set."""
        return int(self.settings.get("first", 0))

    def __eq__(self, other: object) -> bool:
        """Whether two reports say the same; times, versions, batches and places of files do not count."""
        if not isinstance(other, RobustnessReport):
            return NotImplemented
        return bool(self._timeless() == other._timeless())

    __hash__ = None  # type: ignore[assignment]

    def _timeless(self) -> Any:
        def strip(value: Any) -> Any:
            if isinstance(value, dict):
                left = {key: strip(item) for key, item in value.items()}
                return {
                    key: item for key, item in left.items() if key not in ("seconds", "seconds_per_sample")
                }
            return [strip(item) for item in value] if isinstance(value, list) else value

        settings = {name: value for name, value in self.settings.items() if name != "batch size"}
        return strip(plain(replace(self, settings=settings, versions={}, kept=())))

    def compare(self, other: "RobustnessReport") -> Comparisons:
        """Compare the worst cases of the rows that two reports over the same samples have in common.

        Parameters
        ----------
        other : RobustnessReport
            Of another model, threat, budget or version.

        Returns
        -------
        Comparisons
            A dict of `Comparison` by the name of the row, which prints as a table. For two rows of one
            report, see `RobustnessRow.compare`.

        Raises
        ------
        ValueError
            If the reports are about other samples, or have no row in common.
        """
        if not isinstance(other, RobustnessReport):
            raise ArgumentError(f"`other` must be a RobustnessReport, got {type(other).__name__}.")
        if self.first != other.first or not np.array_equal(self.labels, other.labels):
            raise ArgumentError(
                f"`other` must be about the same {len(self.labels)} samples from number {self.first}, got "
                f"{len(other.labels)} from number {other.first}, or other labels; evaluate both on the same "
                "data."
            )
        names = {row.name for row in other.rows}
        common = [row for row in self.rows if row.name in names]
        if not common:
            raise ArgumentError(
                f"`other` must have a row in common with {', '.join(row.name for row in self.rows)}, got "
                f"{', '.join(sorted(names))}; compare two rows with report[name].compare(other[name])."
            )
        return Comparisons({row.name: row.compare(other[row.name]) for row in common})

    def per_class(self, row: RobustnessRow | str = "none") -> PerClass:
        """The figures of a row for each class.

        Parameters
        ----------
        row : RobustnessRow or str
            Row, or its name; the undefended model by default.

        Returns
        -------
        PerClass
            Which prints as a table.
        """
        row = self[row] if isinstance(row, str) else row
        shares = {name: (column.outcomes == 1).mean(axis=0) for name, column in row.columns.items()}
        return PerClass.of(self.labels, {**shares, "worst case": row.correct})

    @property
    def examples(self) -> "Mapping[str, Mapping[str, Array]]":
        """Adversarial examples (N, ...) by row and column, which `keep_examples` of `evaluate` kept."""
        from .examples import read_examples

        return read_examples(self.kept, [row.name for row in self.rows])

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
            head += ["Coverage", "Accepted", *(f"{name.capitalize()} or rejected" for name in self._safe)]
        if self.threat.minimum:
            head += ["Norm", "Ratio"]
        return [(*head, "Cost"), *(self._cells_of(row, shown, rejects, bold) for row in self.rows)]

    @property
    def _rejects(self) -> bool:
        return any(c.rejection_rate > 0 for row in self.rows for c in row.columns.values())

    @property
    def _safe(self) -> tuple[str, ...]:
        """The figures that are also shown with rejection counted as success."""
        shown = [c for c in ("oblivious", "adaptive") if any(c in row.columns for row in self.rows)]
        return (*shown, "worst")

    def _cells_of(self, row: RobustnessRow, shown: list[str], rejects: bool, bold: str) -> tuple[str, ...]:
        cells = [row.name]
        for name in shown:
            column = row.columns.get(name)
            cells.append("-" if column is None else _mean(column.accuracy, column.deviation))
        low, high = row.interval
        cells.append(f"{bold.format(f'{row.worst_case:.2f}')} [{low:.2f}, {high:.2f}]")
        if rejects:
            clean = row.columns["clean"]
            cells += [f"{1 - clean.rejection_rate:.2f}", _number(clean.accepted_accuracy, ".2f")]
            cells += [
                f"{row.columns[name].safe:.2f}" if name in row.columns else "-" for name in self._safe[:-1]
            ]
            cells.append(f"{row.safe:.2f}")
        if self.threat.minimum:
            norm, ratio = self.median_norm(row)
            cells += [_number(norm, ".3g"), _number(ratio, ".1f", "x")]
        return (*cells, f"{self.cost(row):.1f}x")

    def table(self) -> str:
        """The table with aligned columns."""
        return aligned(self.cells())

    def to_markdown(self, path: str | Path | None = None) -> str:
        """The table, what its columns mean, and what the diagnostics say, in GitHub's Markdown.

        Parameters
        ----------
        path : str or Path, optional
            File to write it to as well.

        Returns
        -------
        str
        """
        head, *body = self.cells(bold="**{}**")
        rule = (":---", *["---:"] * (len(head) - 1))
        named = ((in_markdown(name), *cells) for name, *cells in body)
        table = "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *named))
        explained = "\n".join(f"- {in_markdown(line)}" for line in self.explanations())
        parts = [table, explained, *map(in_markdown, self._words())]
        return saved("\n\n".join(part for part in parts if part) + "\n", path)

    def explanations(self) -> list[str]:
        """What the threat and each column mean, one sentence each."""
        shown = {
            name: note for name, note in COLUMNS.items() if any(name in row.columns for row in self.rows)
        }
        lines = [f"Threat model: {self.threat}"]
        lines += [f"{name.capitalize()}: accuracy on {note}." for name, note in shown.items()]
        worst = "**Worst case**: each sample under the column that is worst for it."
        lines.append(f"{worst} This is the figure to quote." if self.adaptive else worst)
        lines.append(
            f"Brackets: 95% interval (Wilson) of the worst case over {len(self.labels)} samples; the "
            "attribute `interval` of a column has that of any other figure."
        )
        if self._rejects:
            named = ", ".join(f"{name.capitalize()} or rejected" for name in self._safe)
            lines += [
                "Coverage: share of the clean samples that the classifier does not reject.",
                "Accepted: accuracy on these; in all other columns a rejected sample counts as wrong.",
                f"{named}: the same, if rejecting a sample counts as success of the defender.",
            ]
        if self.threat.minimum:
            lines.append(
                f"Norm: median {self.threat.norm_in_words} norm of the smallest perturbation that any of the "
                "attacks found. Ratio: that norm over the undefended model's, on the same samples"
                + (": what the defence costs an attacker who knows it." if self.adaptive else ".")
            )
        lines.append("Cost: time of a prediction over that of the undefended model.")
        spent = self.spent
        if spent:
            lines.append(f"Passes of the adaptive attack for each sample, forward and backward: {spent}.")
        return lines

    @property
    def spent(self) -> str:
        """Mean passes that the adaptive attacks spent on a sample, as text; empty if that was not counted."""
        found = []
        for row in self.rows:
            column = row.columns.get("adaptive")
            if column is not None and (column.forward >= 0).all():
                found.append(f"{row.name} {column.forward.mean():.0f} and {column.backward.mean():.0f}")
        return ", ".join(found)

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
        return "\n\n".join(map(printable, self._words()))

    def _words(self) -> list[str]:
        lines = [self.untried] if self.untried else []
        lines += [f"{row.name}: {remark}" for row in self.rows for remark in row.remarks]
        lines += map(str, self.diagnostics)
        if not self.complete:
            lines.insert(0, "Interrupted: the table holds the rows that were finished.")
        return lines

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
        return saved(report_text(self, FORMAT, indent=1), path)

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
        ArgumentError
            If it is no report of this version, or a damaged one.
        """
        report = report_in(source, cls, FORMAT, _RECORDS)
        if problem := _problem_of(report):
            raise ArgumentError(f"`source` holds a damaged record: {problem}.")
        return report


def _problem_of(report: RobustnessReport) -> str:
    """What is wrong with a record whose types are right; empty if nothing is."""
    if report.threat.kind not in THREATS:
        return f"the threat {report.threat.kind!r}"
    if report.threat.eps is None and not report.threat.minimum:
        return "a bound is missing"
    size = len(report.labels) if report.labels.ndim == 1 else -1
    if not isinstance(report.settings.get("first", 0), int):
        return "the number of the first sample is none"
    for row in report.rows:
        if "clean" not in row.columns or not set(row.columns) <= set(COLUMNS):
            return f"the columns of {row.name!r} are {', '.join(row.columns)}"
        for name, column in row.columns.items():
            vectors = column.norms, column.forward, column.backward
            if column.outcomes.ndim != 2 or not column.outcomes.shape[0]:
                return f"the outcomes of {row.name!r}, {name}, have shape {column.outcomes.shape}"
            lengths = {column.outcomes.shape[1:], *(vector.shape for vector in vectors)}
            if lengths != {row.columns["clean"].outcomes.shape[1:]}:
                return f"{row.name!r}, {name}, has values for other samples"
        if size >= 0 and report.labels.size and row.columns["clean"].outcomes.shape[1] != size:
            return f"{row.name!r} has other samples than there are labels"
    for curve in report.curves:
        if any(len(curve.values) != len(accuracy) for accuracy in curve.accuracy.values()):
            return f"the curve of {curve.parameter!r} has other values than accuracies"
    return "" if size >= 0 else "the labels are no vector"


def _mean(value: float, deviation: float) -> str:
    return f"{value:.2f} ± {deviation:.2f}" if deviation >= 0.005 else f"{value:.2f}"


def _number(value: float, form: str, unit: str = "") -> str:
    return "-" if np.isnan(value) else "∞" if np.isinf(value) else f"{value:{form}}{unit}"


_RECORDS = (Threat, Column, DefenceNote, Diagnostic, RobustnessRow, Curve)
