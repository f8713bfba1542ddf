"""The work of one evaluation: batch after batch, here or on workers, from where it stopped."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .._core.progress import progress_bar
from .._core.typing import Array
from .batch import Batch, BatchEvaluation, Part
from .checkpoint import Checkpoint
from .examples import ExampleFiles
from .merging import curves, diagnostics, joined, with_fewest_pictures
from .report import RobustnessReport
from .sweep import Sweep
from .workers import spread

__all__ = ["Run"]

PACKAGES = ("preshield", "adversarial-robustness-toolbox", "jax", "keras", "numpy", "tensorflow", "torch")


@dataclass(eq=False)
class Run:
    """An evaluation in batches, of which each is evaluated with all its rows and columns before the next.

    Memory holds one batch, and of all samples what was predicted for them.

    Attributes
    ----------
    x, y : ndarray
        Samples, shape (N, ...), and their labels, shape (N,).
    plan : BatchEvaluation
        What to do with a batch.
    batch_size : int
        Samples at once.
    keep_examples, checkpoint : Path or None
        Where to write examples, and what is finished.
    class_names : tuple of str
        Names of the classes; empty if they are not known.
    client : object or None
        A Client of Dask, or an executor, that spreads the batches.
    """

    x: Array
    y: Array
    plan: BatchEvaluation
    batch_size: int
    keep_examples: Path | None = None
    checkpoint: Path | None = None
    client: Any = None
    class_names: tuple[str, ...] = ()
    complete: bool = False
    error: Exception | None = None

    def report(self, defences: Any, classifier: str, *, verbose: bool) -> RobustnessReport:
        """Do all batches, and record what came of them.

        Parameters
        ----------
        defences : object
            As they were passed to `evaluate`.
        classifier : str
            What to call the classifier.
        verbose : bool
            Show a progress bar.

        Returns
        -------
        RobustnessReport
            After Ctrl-C, of the batches that were finished; in the first one, of the rows.

        Raises
        ------
        Exception
            Whatever the work raises, with that report as its attribute `report`, if there is one.
        """
        settings = self._settings(classifier)
        parts = sorted(self._finished(settings, verbose=verbose), key=lambda part: part.start)
        threat = self.plan.attacker.threat
        rows, pictures = joined([(part.rows, part.pictures) for part in parts], threat)
        swept = (defences.parameter, defences.parameter_values) if isinstance(defences, Sweep) else None
        done = len(rows[0].correct)
        report = RobustnessReport(
            threat=threat,
            rows=rows,
            diagnostics=diagnostics(rows, threat),
            curves=tuple(curves(rows, threat, swept)),
            settings={**settings, "samples": done},
            versions=_versions(),
            labels=self.y[:done],
            pictures=pictures,
            complete=self.complete,
            class_names=self.class_names,
            kept=() if self.keep_examples is None else (str(self.keep_examples),),
        )
        if self.error is not None:
            with suppress(AttributeError):  # of an error that takes none
                self.error.report = report  # type: ignore[attr-defined]
            self.error.add_note(
                f"The attribute `report` of this error holds what was finished: {done} of {len(self.x)} "
                f"samples, {len(rows)} of {len(self.plan.subjects)} rows."
            )
            raise self.error
        return report

    def _finished(self, settings: dict[str, Any], *, verbose: bool) -> list[Part]:
        """Parts of the batches, one after the other from the first on."""
        done: list[Part] = []
        form = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        with ExitStack() as stack:
            bar = stack.enter_context(
                progress_bar(total=len(self._starts), disable=not verbose, bar_format=form)
            )
            store, files = None, None
            if self.keep_examples is not None:
                files = stack.enter_context(ExampleFiles(self.keep_examples, self.x.shape))
            if self.checkpoint is not None:
                store = Checkpoint(self.checkpoint, settings, self.plan, self.x, self.y)
                for part in map(store.read, self._starts):
                    if part is not None:
                        done = self._taken(done, part, files)
            bar.update(len(done))
            left = [start for start in self._starts if start not in {part.start for part in done}]
            if left and verbose and self.client is None:
                bar.set_description_str(f"about {_in_words(self._expected_seconds(left))} ")
            work = (
                self._here(left, bar)
                if self.client is None
                else spread(self.client, self.plan, self._batches(left))
            )
            try:
                for part in work:
                    if store is not None and len(part.rows) == len(self.plan.subjects):
                        store.write(part)
                    done = self._taken(done, part, files)
                    bar.update(max(0.0, len(done) - bar.n))
                self.complete = len(done) == len(self._starts)
            except KeyboardInterrupt:
                pass
            except Exception as error:  # noqa: BLE001 - raised again, with the report of what is finished
                self.error = error
        done.sort(key=lambda part: part.start)
        in_order = [part for part, start in zip(done, self._starts, strict=False) if part.start == start]
        names = [len(part.rows) for part in in_order]
        if not names or not names[0]:
            raise self.error or KeyboardInterrupt
        return [part for part in in_order if len(part.rows) == names[0]]

    def _taken(self, done: list[Part], part: Part, files: ExampleFiles | None) -> list[Part]:
        """The finished parts and one more, without what is not needed in memory."""
        if files is not None:
            files.put(part.start - self.plan.first, part.examples)
        return with_fewest_pictures([*done, part._replace(examples={})])

    @property
    def _starts(self) -> list[int]:
        """Numbers of the first samples of the batches."""
        return [self.plan.first + place for place in range(0, len(self.x), self.batch_size)]

    def _batch(self, start: int) -> tuple[Array, Array]:
        some = slice(start - self.plan.first, start - self.plan.first + self.batch_size)
        return np.array(self.x[some], dtype=_type(self.x)), self.y[some]

    def _batches(self, starts: list[int]) -> Iterator[tuple[Array, Array, int]]:
        return ((*self._batch(start), start) for start in starts)

    def _here(self, starts: list[int], bar: Any) -> Iterator[Part]:
        """Evaluate the batches in this process; stopped in the first one, hand over its finished rows."""
        before = len(self._starts) - len(starts)
        for place, start in enumerate(starts):

            def progress(done: float, place: int = place) -> None:
                bar.update(max(0.0, before + place + done - bar.n))

            batch = Batch(self.plan, *self._batch(start), start, progress)
            try:
                yield batch.evaluated()
            except (KeyboardInterrupt, Exception):
                if before + place == 0 and batch.columns:
                    yield _rows_of(batch)
                raise

    def _expected_seconds(self, starts: list[int]) -> float:
        """How long these batches take, by the first of them."""
        x, y = self._batch(starts[0])
        samples = sum(min(self.batch_size, self.plan.first + len(self.x) - start) for start in starts)
        attacks, diagnostics = Batch(self.plan, x, y, starts[0]).expected_seconds()
        return attacks * samples / len(x) + (diagnostics if starts[0] == self.plan.first else 0.0)

    def _settings(self, classifier: str) -> dict[str, Any]:
        plan, attacker = self.plan, self.plan.attacker
        return {
            "classifier": classifier,
            "samples": len(self.x),
            "first": plan.first,
            "shape": self.x.shape[1:],
            "classes": plan.nb_classes,
            "white-box attack": attacker.white_box_in_words,
            "black-box attack": attacker.black_box_in_words,
            "draws (eot)": plan.eot,
            "gradients (budget)": attacker.budget,
            "seed": attacker.seed,
            "batch size": self.batch_size,
        }


def _in_words(seconds: float) -> str:
    """A time, as exact as an estimate is."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{max(1, round(seconds))} s"


def _rows_of(batch: Batch) -> Part:
    """The finished rows, without the last ones if their model fails again."""
    while True:
        try:
            return batch.finished()
        except Exception:
            batch.columns.popitem()
            if not batch.columns:
                raise


def _type(x: Array) -> Any:
    return np.float64 if x.dtype == np.float64 else np.float32


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
