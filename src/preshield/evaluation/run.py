"""The work of one evaluation."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from .._core.progress import progress_bar
from .._core.typing import Array, Shape
from .attacks import Attacker
from .classifiers import has_gradients, unchanged
from .diagnostics import Evidence, diagnose
from .estimator import DefendedClassifier
from .gradients import gradient_variants
from .minimum_norm import Adversarials
from .report import COLUMNS, Column, Curve, DefenceNote, Diagnostic, RobustnessReport, RobustnessRow
from .subjects import Subject, nb_classes
from .sweep import Sweep
from .voting import VotingClassifier

__all__ = ["Run"]

# Of the work: noise is as large as the adaptive perturbation was.
ORDER = ("clean", "oblivious", "transfer", "adaptive", "black-box", "noise")
EXAMINED = 16  # samples that the diagnostics look at
PICTURED_VALUES = 300_000  # of each kind of picture in a report
PICTURES = 6
REPEATS = 5  # of a timed prediction
PACKAGES = ("preshield", "adversarial-robustness-toolbox", "numpy", "keras", "tensorflow", "torch")

Progress = Callable[[float], None]


class Run:
    """Row by row, in a row column by column, in a column batch by batch.

    Of the data set, only the examples made on the undefended classifier and on the surrogate are kept, in
    temporary files; memory holds one batch.

    Parameters
    ----------
    x, y : ndarray
        Samples, shape (N, ...), and their labels, shape (N,).
    subjects : list of Subject
        The rows, the undefended classifier first.
    surrogate : object or None
        Classifier for the column "transfer".
    attacker : Attacker
        What the attacker may do.
    eot, batch_size : int
        Draws of a stochastic defence; samples at once.
    columns : tuple of str
        What to evaluate.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        subjects: list[Subject],
        surrogate: Any,
        *,
        attacker: Attacker,
        eot: int,
        batch_size: int,
        columns: tuple[str, ...],
    ) -> None:
        self.x, self.y = x, y
        self.subjects = subjects
        self.surrogate = surrogate
        self.attacker = attacker
        self.eot = eot
        self.columns = tuple(name for name in ORDER if name in columns)
        self.nb_classes = max([int(y.max()) + 1, 2, *(nb_classes(s.classifier) or 0 for s in subjects)])
        self.batches = [slice(i, min(i + batch_size, len(x))) for i in range(0, len(x), batch_size)]
        self.made: dict[str, _Kept] = {}  # "oblivious" and "transfer": they do not depend on the defence
        self.pictured = np.arange(0)
        self.rows: list[RobustnessRow] = []
        self.diagnostics: list[Diagnostic] = []
        self.complete = False

    def execute(self, *, verbose: bool, diagnosed: bool = True) -> None:
        """Do all rows; stop quietly after Ctrl-C, unless there is nothing to show.

        Parameters
        ----------
        verbose : bool
            Show a progress bar.
        diagnosed : bool
            Whether to look for signs that an attack was too weak.
        """
        form = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        models = (self.surrogate, *(subject.classifier for subject in self.subjects))
        with (
            progress_bar(total=len(self.subjects), disable=not verbose, bar_format=form) as bar,
            unchanged(*models),
        ):
            try:
                for place, subject in enumerate(self.subjects):
                    bar.set_description(subject.name, refresh=False)

                    def progress(done: float, place: int = place) -> None:
                        bar.update(max(0.0, place + done - bar.n))

                    row, evidence = self._row(subject, progress)
                    found = diagnose(evidence) if diagnosed and "adaptive" in row.columns else []
                    self.rows.append(row)
                    self.diagnostics += found
                self.complete = True
            except KeyboardInterrupt:
                if not self.rows:
                    raise

    def take_examples(self, other: "Run") -> None:
        """Take from a run that differs in `eot` alone what does not depend on it.

        These are the examples made on the undefended classifier and on the surrogate, if those draw nothing.
        """
        attacked = {"oblivious": self.subjects[0].classifier, "transfer": self.surrogate}
        self.made = {
            name: kept
            for name, kept in other.made.items()
            if not getattr(attacked[name], "stochastic", False)
        }

    def _row(self, subject: Subject, progress: Progress) -> tuple[RobustnessRow, Evidence]:
        models = self._models(subject)
        white = self._white(subject.classifier)
        if subject is self.subjects[0]:
            self._prepare(models, lambda done: progress(done / 2))
        columns: dict[str, Column] = {}
        head: dict[str, Array] = {}  # what each column made of the first batch
        for place, name in enumerate(self.columns):

            def part(done: float, place: int = place) -> None:
                progress((place + done) / len(self.columns))

            if name == "black-box" and "adaptive" in columns and not white:  # that is what it was
                columns[name], head[name] = columns["adaptive"], head["adaptive"]
                continue
            make = self._maker(name, subject, models, columns, white=white, progress=part)
            columns[name], head[name] = self._column(models[0], make)
        progress(1.0)
        seconds, repeated = self._timed(models[0])
        stated = subject.vote if subject.defence is None else subject.defence
        row = RobustnessRow(
            name=subject.name,
            defence=None if stated is None else DefenceNote.of(stated),
            columns={name: columns[name] for name in COLUMNS if name in columns},
            seconds_per_sample=seconds,
            remarks=self._remarks(subject, white=white),
            pictures=self._pictures(models[0], head),
        )
        x, y = self._batch(self.batches[0])
        chosen = np.flatnonzero(row.always_right[: len(x)])[:EXAMINED]
        return row, Evidence(row, models, self.attacker, x[chosen], y[chosen], chosen, white, repeated)

    # What stays the same for all rows

    def _prepare(self, models: list[DefendedClassifier], progress: Progress) -> None:
        """Attack the undefended classifier and the surrogate, and find the norm of the black-box attack."""
        attacked = {}
        if {"oblivious", "adaptive"} & set(self.columns):
            attacked["oblivious"] = models
        if "transfer" in self.columns:
            attacked["transfer"] = self._models(Subject("surrogate", None, self.surrogate))
        attacked = {name: models for name, models in attacked.items() if name not in self.made}
        for white in (True, False):  # the norm of the black-box attack comes from the white-box one
            for name, attacked_models in attacked.items():
                if self._white(attacked_models[0].classifier) == white:
                    self._make(name, attacked_models, progress, white=white)
            self._set_eps()

    def _set_eps(self) -> None:
        threat = self.attacker.threat
        if threat.eps is None:
            low, high = threat.clip_values
            norms = self.made["oblivious"].norms if "oblivious" in self.made else np.zeros(0)
            found = norms[(norms > 0) & (norms < np.inf)]
            eps = 2 * float(np.median(found)) if len(found) else (high - low) * self.x[0].size ** 0.5 / 20
            self.attacker = replace(self.attacker, threat=replace(threat, eps=eps))

    def _white(self, classifier: Any) -> bool:
        """Whether there is a white-box attack on a classifier."""
        return has_gradients(classifier) or self.attacker.factories is not None

    def _make(self, name: str, models: list[DefendedClassifier], progress: Progress, *, white: bool) -> None:
        kept = self.made[name] = _Kept(self.x.shape, white=white)
        for place, batch in enumerate(self.batches):

            def part(done: float, place: int = place) -> None:
                progress((place + done) / len(self.batches))

            kept.put(batch, self._attack(models, *self._batch(batch), white=white, progress=part))

    def _attack(
        self, models: list[DefendedClassifier], x: Array, y: Array, *, white: bool, progress: Progress
    ) -> Adversarials:
        if white:
            return self.attacker.white_box(models, x, y, progress)
        return self.attacker.black_box(models[0], x, y, progress)

    # Columns

    def _maker(
        self,
        name: str,
        subject: Subject,
        models: list[DefendedClassifier],
        columns: dict[str, Column],
        *,
        white: bool,
        progress: Progress,
    ) -> "_Maker":
        """How a column changes the samples."""
        attacker = self.attacker
        own = name == "adaptive" and subject is self.subjects[0]
        if name in self.made or own:
            kept = self.made["oblivious" if own else name]
            words = attacker.white_box_in_words if kept.white else attacker.black_box_in_words
            return _Maker(words, lambda batch, x, y: kept.get(batch))
        if name == "clean":
            return _Maker("", lambda batch, x, y: Adversarials(x, np.zeros(len(x))))
        if name == "noise":
            norms = self._noise_norms(columns)
            return _Maker("random noise", lambda batch, x, y: Adversarials(x, norms[batch]), noisy=True)
        if name == "adaptive" and white:
            words = f"{attacker.white_box_in_words}, through the defence"
        else:
            white, words = False, attacker.black_box_in_words

        def attack(batch: slice, x: Array, y: Array) -> Adversarials:
            def part(done: float) -> None:
                progress((batch.start + done * len(x)) / len(self.x))

            return self._attack(models, x, y, white=white, progress=part)

        return _Maker(words, attack)

    def _column(self, model: DefendedClassifier, maker: "_Maker") -> tuple[Column, Array]:
        """Predictions on what `maker` makes of the samples, and that of the first batch."""
        start = time.perf_counter()
        outcomes, norms = [], []
        heads: list[Array] = []
        rng = np.random.default_rng(self.attacker.seed)
        one_draw = model.with_draws(1)
        for batch in self.batches:
            x, y = self._batch(batch)
            made = maker.make(batch, x, y)
            if maker.noisy:
                noisy = [self.attacker.noise(made.x, made.norms, rng) for _ in range(self.eot)]
                labels = np.concatenate([one_draw.labels(points) for points in noisy])
            else:
                labels = model.labels(made.x)
            outcomes.append(np.where(labels == y, 1, np.where(labels < 0, -1, 0)).astype(np.int8))
            norms.append(made.norms)
            heads = heads or [made.x]
        seconds = time.perf_counter() - start
        column = Column(np.concatenate(outcomes, axis=1), np.concatenate(norms), maker.words, seconds)
        return column, heads[0]

    def _noise_norms(self, columns: dict[str, Column]) -> Array:
        """Norm of the adaptive perturbation of each sample; where that failed, the largest of the others."""
        eps = float(self.attacker.threat.eps or 0)
        if "adaptive" not in columns or not self.attacker.threat.minimum:
            return np.full(len(self.x), eps)
        norms = columns["adaptive"].norms
        found = np.isfinite(norms)
        return np.where(found, norms, norms[found].max(initial=eps))

    # The rest of a row

    def _timed(self, model: DefendedClassifier) -> tuple[float, bool]:
        """Seconds that a prediction takes for a sample, and whether it is the same when repeated."""
        x, _ = self._batch(self.batches[0])
        one_draw, seconds, labels = model.with_draws(1), [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            labels.append(one_draw.labels(x))
            seconds.append(time.perf_counter() - start)
        return min(seconds) / len(x), model.stochastic or all((other == labels[0]).all() for other in labels)

    def _remarks(self, subject: Subject, *, white: bool) -> tuple[str, ...]:
        remarks = []
        if not white and "adaptive" in self.columns:
            remarks.append(
                "there are no gradients; the adaptive column is the black-box attack, which is weaker."
            )
        if subject.classifier is not self.subjects[0].classifier and subject.vote is None:
            remarks.append(
                "it has a classifier of its own; the oblivious examples were made on the first classifier."
            )
        return tuple(remarks)

    def _pictures(self, model: DefendedClassifier, head: dict[str, Array]) -> dict[str, Array]:
        """The first samples: attacked through the defence, and the oblivious ones as the model sees them.

        Which ones is decided in the first row.
        """
        if not len(self.pictured):
            count = max(1, min(PICTURES, PICTURED_VALUES // self.x[0].size))
            labels = self.y[: len(head["clean"])]
            right = np.flatnonzero(model.labels(head["clean"])[0] == labels)
            firsts = right[np.unique(labels[right], return_index=True)[1]]  # one of each class
            others = np.setdiff1d(right, firsts)
            wrong = np.setdiff1d(np.arange(len(labels)), right)  # if there is nothing better
            self.pictured = np.concatenate([firsts, others, wrong])[:count]
        shown = self.pictured
        pictures = {
            "attacked": head.get("adaptive", head["clean"])[shown],
            "defended": model.defended(head.get("oblivious", head["clean"])[shown])[0],
        }
        return {name: picture.astype(np.float32) for name, picture in pictures.items()}

    def report(self, defences: Any, classifier: str) -> RobustnessReport:
        """The record of what was done.

        Parameters
        ----------
        defences : object
            As they were passed to `evaluate`.
        classifier : str
            What to call the classifier.

        Returns
        -------
        RobustnessReport
        """
        attacker = self.attacker
        settings = {
            "classifier": classifier,
            "samples": len(self.x),
            "shape": self.x.shape[1:],
            "classes": self.nb_classes,
            "white-box attack": attacker.white_box_in_words,
            "black-box attack": attacker.black_box_in_words,
            "draws (eot)": self.eot,
            "steps (budget)": attacker.budget,
            "seed": attacker.seed,
            "batch size": self.batches[0].stop,
        }
        shown = self.pictured
        return RobustnessReport(
            threat=attacker.threat,
            rows=tuple(self.rows),
            diagnostics=tuple(self.diagnostics),
            curves=tuple(self._curves(defences)),
            settings=settings,
            versions=_versions(),
            pictures={
                "clean": np.array(self.x[shown], dtype=np.float32),
                "attacked": self.rows[0].pictures["attacked"],
                "labels": self.y[shown],
            },
            complete=self.complete,
        )

    def _curves(self, defences: Any) -> Iterator[Curve]:
        """Curves that need no further attack."""
        finite = np.concatenate([row.norms[np.isfinite(row.norms)] for row in self.rows])
        if self.attacker.threat.minimum and finite.max(initial=0) > 0:
            values = np.linspace(0, float(np.quantile(finite, 0.95)), 25)
            accuracy = {row.name: tuple(map(row.accuracy_at, values)) for row in self.rows}
            yield Curve("eps", tuple(map(float, values)), accuracy, "worst case")
        if isinstance(defences, Sweep) and self.complete:
            rows = self.rows[1:]
            accuracy = {
                name: tuple(row.columns[name].accuracy for row in rows)
                for name in COLUMNS
                if name in self.columns
            }
            accuracy["worst case"] = tuple(row.worst_case for row in rows)
            yield Curve(defences.parameter, defences.parameter_values, accuracy, "")

    def _models(self, subject: Subject) -> list[DefendedClassifier]:
        """A row as an attacker sees it, once for each gradient."""
        classifier = subject.classifier
        votes = classifier.variants() if isinstance(classifier, VotingClassifier) else [classifier]
        return [self._model(vote, d) for vote in votes for d in gradient_variants(subject.defence)]

    def _model(self, classifier: Any, defence: Any) -> DefendedClassifier:
        return DefendedClassifier(
            classifier,
            defence,
            draws=self.eot,
            seed=self.attacker.seed,
            clip_values=self.attacker.threat.clip_values,
            nb_classes=nb_classes(classifier) or self.nb_classes,
            input_shape=self.x.shape[1:],
        )

    def _batch(self, batch: slice) -> tuple[Array, Array]:
        return np.array(self.x[batch], dtype=np.float32), self.y[batch]


@dataclass(frozen=True)
class _Maker:
    """How a column changes the samples: in words, and as a function of the batch, its samples and labels."""

    words: str
    make: Callable[[slice, Array, Array], Adversarials]
    noisy: bool = False  # add noise of these norms


class _Kept:
    """Perturbed samples of the whole data set, in a temporary file."""

    def __init__(self, shape: Shape, *, white: bool) -> None:
        self.white = white
        with TemporaryFile() as file:  # which lives as long as it is mapped
            self._x = np.memmap(file, np.float32, "w+", shape=shape)
        self.norms = np.zeros(shape[0])

    def put(self, batch: slice, made: Adversarials) -> None:
        self._x[batch], self.norms[batch] = made.x, made.norms

    def get(self, batch: slice) -> Adversarials:
        return Adversarials(np.array(self._x[batch]), self.norms[batch])


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
