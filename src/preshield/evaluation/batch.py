"""What an evaluation does to one batch: all rows and columns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core.draws import Draws
from .._core.typing import Array, Shape
from . import losses
from .attacks import QUERIES, Attacker, Made
from .classifiers import has_gradients, unchanged
from .defended import DefendedModel
from .diagnostics import examine, window
from .gradients import gradient_variants
from .oracle import key
from .perturbations import host, norms
from .report import COLUMNS, Column, DefenceNote, RobustnessRow
from .subjects import Subject

__all__ = ["Batch", "BatchEvaluation", "Part", "pictured", "room_for_pictures"]

ORDER = ("clean", "oblivious", "transfer", "adaptive", "black-box", "noise", "shared")  # of the work
SHOWN = ("clean", "oblivious", "adaptive")  # columns whose samples are needed again
PICTURED_VALUES = 320_000  # of each kind of picture in a report
PICTURES = 6
REPEATS = 5  # of a timed prediction
SHORT = 10.0  # seconds of a call that is worth repeating
OF_LABELS, OF_NOISE, OF_SHARED, OF_PICTURES, OF_ESTIMATE = range(10, 15)  # what random numbers are for

Progress = Callable[[float], None]


class Part(NamedTuple):
    """What came of a batch: rows, pictures, and examples by row and column."""

    start: int
    rows: list[RobustnessRow]
    pictures: dict[str, Array]
    examples: dict[tuple[str, str], Array]


@dataclass(eq=False)
class BatchEvaluation:
    """Attack one batch after the other; what comes of one depends on no other.

    Attributes
    ----------
    subjects : list of Subject
        The rows, the undefended classifier first.
    surrogate : object or None
        Classifier for the column "transfer".
    attacker : Attacker
        What the attacker may do.
    eot : int
        Draws of a stochastic defence.
    columns : tuple of str
        What to evaluate.
    nb_classes : int
        Number of classes.
    input_shape : tuple of int
        Shape of one sample.
    first : int
        Number of the first sample of the evaluation.
    diagnosed : bool
        Whether to look for signs that an attack was too weak.
    keeps : bool
        Whether to hand back the examples.
    made : dict
        Examples that do not depend on the defences, by kind and first sample; None if they are made anew.
    """

    subjects: list[Subject]
    surrogate: Any
    attacker: Attacker
    eot: int
    columns: tuple[str, ...]
    nb_classes: int
    input_shape: Shape
    first: int = 0
    diagnosed: bool = True
    keeps: bool = False
    made: dict[tuple[str, int], Made] | None = None

    def __call__(self, x: Array, y: Array, start: int) -> Part:
        """Evaluate a batch whose first sample has the number `start`."""
        return Batch(self, x, y, start).evaluated()


class Batch:
    """The work on one batch.

    Parameters
    ----------
    plan : BatchEvaluation
        What to do.
    x, y : ndarray
        Samples (n, ...) and their labels (n,).
    start : int
        Number of the first of them.
    progress : callable
        Called with the fraction that is done.
    """

    def __init__(
        self,
        plan: BatchEvaluation,
        x: Array,
        y: Array,
        start: int,
        progress: Progress = lambda done: None,
    ) -> None:
        self.plan, self.attacker = plan, plan.attacker
        self.x, self.y, self.start = x, y, start
        self.numbers = np.arange(start, start + len(x))
        self.progress = progress
        self.models = {subject.name: self._models(subject) for subject in plan.subjects}
        self.made: dict[str, Made] = {}  # on the undefended classifier and on the surrogate
        self.columns: dict[str, dict[str, Column]] = {}  # by row
        self.heads: dict[str, dict[str, Made]] = {}

    def evaluated(self) -> Part:
        """All rows."""
        subjects = self.plan.subjects
        with unchanged(self.plan.surrogate, *(subject.classifier for subject in subjects)):
            for place, subject in enumerate(subjects):

                def part(done: float, place: int = place) -> None:
                    self.progress((place + done) / len(subjects))

                self._row(subject, self.models[subject.name], part)
            return self.finished()

    def expected_seconds(self) -> tuple[float, float]:
        """How long attacks and diagnostics take, by the time of a gradient and of a query of each row.

        Within a bound it may be less, because samples that are broken are left. Attacks of others, whose
        steps are not known here, are not counted.
        """
        attacker, rows, total, again = self.attacker, np.arange(len(self.x)), 0.0, 0.0
        examined = min(window(attacker.threat), len(self.x)) / len(self.x)
        gradients = 0 if attacker.factories is not None else attacker.budget
        with unchanged(*(subject.classifier for subject in self.plan.subjects)):
            for subject in self.plan.subjects:
                models = self.models[subject.name]
                oracle = attacker.oracle(models[0], self.x, self.y, self.numbers, OF_ESTIMATE)
                white = has_gradients(subject.classifier)
                own = subject is self.plan.subjects[0] and self._needs_oblivious
                if white and (own or "adaptive" in self.plan.columns):
                    look = _seconds(partial(oracle.look, oracle.x, rows, losses.cross_entropy))
                    total += gradients * len(models) * look
                    again += 2 * gradients * examined * look
                if "black-box" in self.plan.columns or not white:
                    few = attacker.oracle(
                        models[0].with_draws(max(1, models[0].draws // QUERIES)),
                        self.x,
                        self.y,
                        self.numbers,
                        OF_ESTIMATE,
                    )
                    query = partial(few.mean_margin, few.x, rows)
                    total += QUERIES * attacker.budget * _seconds(query)
        return total, again if self.plan.diagnosed and "adaptive" in self.plan.columns else 0.0

    def finished(self) -> Part:
        """The rows that are done, once each has seen the examples of the others."""
        subjects = [subject for subject in self.plan.subjects if subject.name in self.columns]
        if not subjects:
            return Part(self.start, [], {}, {})
        models = self.models
        if "shared" in self.plan.columns and len(self.plan.subjects) > 1:
            for subject in subjects:
                self._share(subject, models[subject.name][0], subjects)
        right = self.columns[subjects[0].name]["clean"].outcomes[0] == 1
        shown = pictured(right, self.y, room_for_pictures(self.x.shape))
        pictures = {
            "clean": self.x[shown].astype(np.float32),
            "labels": self.y[shown],
            "numbers": self.numbers[shown],
            "right": right[shown],
        }
        _, *decisions = self._seen(models[subjects[0].name][0], self.x[shown], shown)
        pictures |= zip(("predicted", "confidence"), decisions, strict=True)
        first = self.heads[subjects[0].name]
        if attacked := first.get("oblivious", first.get("adaptive")):
            pictures["attacked"] = attacked.x[shown].astype(np.float32)
        rows = [self._record(subject, models[subject.name], shown) for subject in subjects]
        examples = {
            (name, column): made.x
            for name, heads in self.heads.items()
            for column, made in heads.items()
            if self.plan.keeps and column not in ("clean", "noise")
        }
        return Part(self.start, rows, pictures, examples)

    # Rows

    def _row(self, subject: Subject, models: list[DefendedModel], progress: Progress) -> None:
        columns: dict[str, Column] = {}
        heads: dict[str, Made] = {}
        work = [name for name in ORDER if name in self.plan.columns and name != "shared"]
        for place, name in enumerate(work):

            def part(done: float, place: int = place) -> None:
                progress((place + done) / len(work))

            begin = time.perf_counter()
            if name == "black-box" and "adaptive" in columns and not self._white(subject.classifier):
                columns[name], heads[name] = columns["adaptive"], heads["adaptive"]  # that is what it was
                continue
            made, words = self._make(name, subject, models, columns, part)
            labels = (
                self._noisy(models[0], made) if name == "noise" else self._predicted(models[0], name, made)
            )
            columns[name] = self._column(labels, made, words, time.perf_counter() - begin)
            if self.plan.keeps or name in SHOWN:
                heads[name] = made
        self.columns[subject.name], self.heads[subject.name] = columns, heads

    def _make(
        self,
        name: str,
        subject: Subject,
        models: list[DefendedModel],
        columns: Mapping[str, Column],
        progress: Progress,
    ) -> tuple[Made, str]:
        """The samples as a column has them, and how they were made, in words."""
        attacker = self.attacker
        if name == "clean":
            return Made.free(self.x, np.zeros(len(self.x))), ""
        if name == "noise":
            return Made.free(self.x, self._noise_norms(columns)), "random noise"
        own = name == "adaptive" and subject is self.plan.subjects[0]
        if name in ("oblivious", "transfer") or own:
            kind = "transfer" if name == "transfer" else "oblivious"
            attacked = self.plan.surrogate if kind == "transfer" else self.plan.subjects[0].classifier
            white = self._white(attacked)
            made = self._examples(kind, progress)
            if not own:  # what they cost is told where they were made
                made = Made.free(made.x, made.norms)
            return made, attacker.white_box_in_words if white else attacker.black_box_in_words
        if name == "adaptive" and self._white(subject.classifier):
            made = attacker.white_box(models, self.x, self.y, self.numbers, progress)
            return made, f"{attacker.white_box_in_words}, through the defence"
        made = attacker.black_box(models[0], self.x, self.y, self.numbers, self._radii(), progress)
        return made, attacker.black_box_in_words

    def _examples(self, kind: str, progress: Progress = lambda done: None) -> Made:
        """Examples made on the undefended classifier or on the surrogate."""
        kept = self.plan.made
        if kind not in self.made and kept is not None and (kind, self.start) in kept:
            self.made[kind] = kept[kind, self.start]
        if kind not in self.made:
            subject = self.plan.subjects[0]
            if kind == "transfer":
                subject = Subject("surrogate", None, self.plan.surrogate)
            models = self._models(subject)
            if self._white(subject.classifier):
                made = self.attacker.white_box(models, self.x, self.y, self.numbers, progress)
            else:
                radii = self._radii() if kind == "transfer" else np.full(len(self.x), self._usual)
                made = self.attacker.black_box(models[0], self.x, self.y, self.numbers, radii, progress)
            self.made[kind] = made
            if kept is not None and not models[0].stochastic:
                kept[kind, self.start] = made
        return self.made[kind]

    def _radii(self) -> Array:
        """How far the black-box attack may go: the bound, or twice as far as the oblivious one went."""
        eps = self.attacker.threat.eps
        if eps is not None:
            return np.full(len(self.x), eps)
        radii = np.full(len(self.x), self._usual)
        if self._needs_oblivious and self._white(self.plan.subjects[0].classifier):
            oblivious = self._examples("oblivious")
            lengths = norms(oblivious.x - self.x, self.attacker.search_norm)
            found = np.isfinite(oblivious.norms) & (lengths > 0)
            radii[found] = 2 * lengths[found]
        return radii

    @property
    def _needs_oblivious(self) -> bool:
        return bool({"oblivious", "adaptive"} & set(self.plan.columns))

    @property
    def _usual(self) -> float:
        """A twentieth of the diagonal of the range, or the bound."""
        threat = self.attacker.threat
        if threat.eps is not None:
            return threat.eps
        return replace(threat, kind=self.attacker.search_norm).diagonal(self.x[0].size) / 20

    def _noise_norms(self, columns: Mapping[str, Column]) -> Array:
        """Norm of the adaptive perturbation of each sample; where that failed, the bound, or a usual one."""
        threat = self.attacker.threat
        usual = threat.eps if threat.eps is not None else threat.diagonal(self.x[0].size) / 20
        if "adaptive" not in columns or not threat.minimum:
            return np.full(len(self.x), usual)
        found = columns["adaptive"].norms
        return np.where(np.isfinite(found), found, usual)

    def _share(self, subject: Subject, model: DefendedModel, subjects: list[Subject]) -> None:
        """The worst, for this row, of the examples that were made through the others."""
        begin = time.perf_counter()
        others = [
            self.heads[s.name]["adaptive"]
            for s in subjects
            if s is not subject and "adaptive" in self.heads[s.name]
        ]
        if not others:
            return
        minimum = self.attacker.threat.minimum
        best, worst = self.x.astype(others[0].x.dtype), np.full(len(self.x), np.inf)
        forward = np.zeros(len(self.x), np.int64)
        for place, other in enumerate(others):
            oracle = self.attacker.oracle(model, other.x, self.y, self.numbers, OF_SHARED, place)
            rows = np.arange(len(self.x))
            if minimum:
                lengths = norms(other.x - self.x, self.attacker.threat.norm)
                sizes = np.where(oracle.median_margin(oracle.x, rows) < 0, lengths, np.inf)
            else:
                sizes = oracle.mean_margin(oracle.x, rows)
            forward += oracle.forward
            better = sizes < worst
            best[better], worst[better] = other.x[better], sizes[better]
        lengths = worst if minimum else norms(best - self.x, self.attacker.threat.norm)
        made = Made(best, lengths, forward, np.zeros_like(forward))
        if self.plan.keeps:
            self.heads[subject.name]["shared"] = made
        words = "the worst of the examples made through the other rows"
        labels = self._predicted(model, "shared", made)
        self.columns[subject.name]["shared"] = self._column(labels, made, words, time.perf_counter() - begin)

    # Predictions

    def _predicted(self, model: DefendedModel, name: str, made: Made) -> Array:
        """Labels under each draw, shape (draws, N)."""
        return model.labels(
            model.array(made.x), self.numbers, (self.attacker.seed, OF_LABELS, tuple(COLUMNS).index(name))
        )

    def _noisy(self, model: DefendedModel, made: Made) -> Array:
        """Labels under as many draws of noise, each with another draw of the defence."""
        one_draw, labels = model.with_draws(1), []
        for draw in range(self.plan.eot):
            seed = (self.attacker.seed, OF_NOISE, draw)
            points = self.attacker.noise(made.x, made.norms, Draws(key(seed), self.numbers.astype(np.uint32)))
            labels.append(one_draw.labels(model.array(points), self.numbers, seed))
        return np.concatenate(labels)

    def _column(self, labels: Array, made: Made, words: str, seconds: float) -> Column:
        outcomes = np.where(labels == self.y, 1, np.where(labels < 0, -1, 0)).astype(np.int8)
        return Column(outcomes, made.norms, words, seconds, made.forward, made.backward)

    # Records

    def _record(self, subject: Subject, models: list[DefendedModel], shown: Array) -> RobustnessRow:
        columns, heads = self.columns[subject.name], self.heads[subject.name]
        stated = subject.vote if subject.defence is None else subject.defence
        white = self._white(subject.classifier)
        row = RobustnessRow(
            name=subject.name,
            defence=None if stated is None else DefenceNote.of(stated),
            columns={name: columns[name] for name in COLUMNS if name in columns},
            seconds_per_sample=self._timed(models[0]),
            remarks=self._remarks(subject, white=white),
            pictures=self._pictures(models[0], heads, shown),
            white_box=white,
            first=self.start,
        )
        seen = max(0, min(len(self.x), self.plan.first + window(self.attacker.threat) - self.start))
        if not self.plan.diagnosed or "adaptive" not in columns or not seen:
            return row
        some = slice(0, seen)
        cut = replace(row, columns={name: columns[name].part(some) for name in row.columns})
        evidence = examine(cut, models, self.attacker, self.x[some], self.y[some], self.numbers[some])
        return replace(row, evidence=evidence)

    def _timed(self, model: DefendedModel) -> float:
        """Seconds that a prediction takes for a sample."""
        one_draw, points, seconds = model.with_draws(1), model.array(self.x), []
        for _ in range(REPEATS if self.start == self.plan.first else 1):
            begin = time.perf_counter()
            one_draw.labels(points, self.numbers, (self.attacker.seed, OF_LABELS))
            seconds.append(time.perf_counter() - begin)
        return min(seconds) / len(self.x)

    def _remarks(self, subject: Subject, *, white: bool) -> tuple[str, ...]:
        remarks = []
        if not white and "adaptive" in self.plan.columns:
            remarks.append(
                "there are no gradients; the adaptive column is the black-box attack, which is weaker."
            )
        if subject.classifier is not self.plan.subjects[0].classifier and subject.vote is None:
            remarks.append(
                "it has a classifier of its own; the oblivious examples were made on the first classifier."
            )
        return tuple(remarks)

    def _pictures(self, model: DefendedModel, heads: Mapping[str, Made], shown: Array) -> dict[str, Array]:
        """Some samples: attacked through the defence; these and the oblivious ones as the model sees them."""
        oblivious, adaptive = (heads.get(name, heads["clean"]).x[shown] for name in ("oblivious", "adaptive"))
        defended, *of_oblivious = self._seen(model, oblivious, shown)
        received, *of_adaptive = self._seen(model, adaptive, shown)
        predicted, confidence = map(np.stack, zip(of_oblivious, of_adaptive, strict=True))
        return {
            "attacked": adaptive.astype(np.float32),
            "defended": defended.astype(np.float16),
            "received": received.astype(np.float16),
            "predicted": predicted.T,
            "confidence": confidence.T,
        }

    def _seen(self, model: DefendedModel, x: Array, shown: Array) -> tuple[Array, Array, Array]:
        """What a model receives of samples under one draw, its labels, and how sure it is of them."""
        seed = (self.attacker.seed, OF_PICTURES, 0)
        seen = model.defended(model.array(x), self.numbers[shown], seed)
        return host(seen), *model.decisions(seen, self.numbers[shown], seed)

    def _white(self, classifier: Any) -> bool:
        """Whether there is a white-box attack on a classifier."""
        return has_gradients(classifier) or self.attacker.factories is not None

    def _models(self, subject: Subject) -> list[DefendedModel]:
        """A row as an attacker sees it, once for each gradient."""
        classifier = subject.classifier
        votes = classifier.variants() if hasattr(classifier, "variants") else [classifier]
        return [self._model(vote, d) for vote in votes for d in gradient_variants(subject.defence)]

    def _model(self, classifier: Any, defence: Any) -> DefendedModel:
        return DefendedModel(
            classifier,
            defence,
            draws=self.plan.eot,
            clip_values=self.attacker.threat.clip_values,
            nb_classes=getattr(classifier, "nb_classes", None) or self.plan.nb_classes,
            input_shape=self.plan.input_shape,
        )


def _seconds(call: Callable[[], Any]) -> float:
    """Time of a call; of a second one, if the first was short: it may have compiled something."""
    begin = time.perf_counter()
    call()
    seconds = time.perf_counter() - begin
    if seconds > SHORT:
        return seconds
    begin = time.perf_counter()
    call()
    return min(seconds, time.perf_counter() - begin)


def room_for_pictures(shape: Shape) -> int:
    """How many samples of an array (N, ...) a report shows."""
    return max(1, min(PICTURES, PICTURED_VALUES // max(1, int(np.prod(shape[1:])))))


def pictured(right: Array, labels: Array, room: int) -> Array:
    """Which samples to show, in their order: one of each class that is right, then others, then wrong ones.

    Of several batches, the choice among their choices is the choice among all.
    """
    places = np.flatnonzero(right)
    firsts = places[np.unique(labels[places], return_index=True)[1]]
    others = np.setdiff1d(places, firsts)
    wrong = np.flatnonzero(~right)  # if there is nothing better
    return np.sort(np.concatenate([np.sort(firsts), others, wrong])[:room])
