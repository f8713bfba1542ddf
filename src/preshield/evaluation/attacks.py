"""What an evaluation does to samples: white-box attacks, the black-box one, and noise."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.generators import Generators
from .._core.typing import Array
from .classifiers import PredictOnly
from .estimator import DefendedClassifier
from .metrics import perturbation_norms
from .minimum_norm import Adversarials, minimum_norm_attack, pull_towards
from .perturbations import scaled, unit, within
from .projected_gradient_descent import projected_gradient_descent
from .report import Threat
from .square_attack import square_attack

__all__ = ["Attacker"]

QUERIES = 4  # of the black-box attack, for each step of a white-box one

Factory = Callable[[DefendedClassifier], Any]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Attacker:
    """An attacker with a threat model and a budget.

    Attributes
    ----------
    threat : Threat
        What may be done to a sample.
    budget : int
        Steps of a white-box attack; the black-box attack has four queries for each.
    factories : mapping of str to callable, optional
        White-box attacks instead of the default one: each makes an ART attack for a classifier.
    seed : int
        Seed of all that is random.
    """

    threat: Threat
    budget: int
    factories: Mapping[str, Factory] | None
    seed: int

    @property
    def white_box_in_words(self) -> str:
        """The white-box attacks."""
        if self.factories is not None:
            return ", ".join(self.factories)
        if self.threat.minimum:
            return f"minimum-norm attack, up to {self.budget} steps"
        return f"projected gradient descent, {self.budget} steps, random start"

    @property
    def black_box_in_words(self) -> str:
        """The black-box attack."""
        return f"Square, {QUERIES * self.budget} queries, {self.threat.norm} norm {self.threat.eps:.4g}"

    def white_box(
        self, models: list[DefendedClassifier], x: Array, y: Array, progress: Progress = lambda done: None
    ) -> Adversarials:
        """Attack a defended classifier through each gradient that it offers; keep the best for each sample.

        Parameters
        ----------
        models : list of DefendedClassifier
            One defended classifier, once for each of its gradients.
        x : ndarray of float32, shape (N, ...)
            Samples.
        y : ndarray of int, shape (N,)
            Labels.
        progress : callable
            Called with the fraction that is done.

        Returns
        -------
        Adversarials
            Where the classifier is wrong from the start, the sample as it is, with norm 0.
        """
        judge = models[0]
        factories = [None] if self.factories is None else self.factories.values()
        runs = [(model, factory) for model in models for factory in factories]
        right = judge.mean_margin(x, y) >= 0 if judge.draws == 1 else np.ones(len(x), bool)
        best = Adversarials(x.copy(), np.where(right, np.inf, 0.0))
        if self.threat.eps == 0 and not self.threat.minimum:
            return Adversarials(best.x, np.zeros(len(x)))
        rows = np.flatnonzero(right)
        for index, (model, factory) in enumerate(runs if len(rows) else ()):

            def part(done: float, index: int = index) -> None:
                progress((index + done) / len(runs))

            found = self._one(model, factory, x[rows], y[rows], part)
            best = self._better(judge, y, best, found, rows, first=index == 0)
        progress(1.0)
        return _for_most_draws(judge, x, y, best) if self.threat.minimum else best

    def black_box(
        self, model: DefendedClassifier, x: Array, y: Array, progress: Progress = lambda done: None
    ) -> Adversarials:
        """Attack a defended classifier by queries; each averages a quarter of the draws, the same in all.

        With new ones the search would end at, or never leave, the first point whose draws were lucky.
        """
        draws = max(1, model.draws // 4)
        moved = square_attack(
            x,
            lambda points, rows: model.with_draws(draws).mean_margin(points, y[rows]),
            norm=self.threat.norm,
            eps=self.threat.eps or 0.0,
            clip_values=self.threat.clip_values,
            channels_first=model.channels_first,
            queries=QUERIES * self.budget,
            enough=-np.inf if model.stochastic else 0.0,
            seed=self.seed,
            on_query=progress,
        )
        if self.threat.minimum:
            found = pull_towards(x, moved, y, model.margin, failed=model.margin(moved, y) >= 0)
            return _for_most_draws(model, x, y, found)
        return Adversarials(moved, perturbation_norms(x, moved, self.threat.norm))

    def noise(self, x: Array, norms: Array, rng: np.random.Generator) -> Array:
        """Return the samples with random noise of the given norms, clipped to the range."""
        if self.threat.norm == "linf":
            noise = rng.integers(0, 2, x.shape).astype(np.float32) * 2 - 1
        else:
            noise = rng.standard_normal(x.shape, dtype=np.float32)
            noise = unit(noise)
        noisy: Array = np.clip(x + scaled(noise, norms), *self.threat.clip_values)
        return noisy.astype(np.float32)

    def single_step(self, model: DefendedClassifier, x: Array, y: Array, norms: Array) -> Array:
        """Return the samples after one step of the given norms along the gradient."""
        gradient = np.nan_to_num(model.margin_and_gradient(x, y)[1], posinf=0, neginf=0)
        step = np.sign(gradient) if self.threat.norm == "linf" else unit(gradient)
        moved: Array = np.clip(x + scaled(step, norms), *self.threat.clip_values)
        return moved.astype(x.dtype)

    def unbounded(self) -> "Attacker":
        """The same attacker, who may move a sample anywhere."""
        low, high = self.threat.clip_values
        return replace(self, threat=replace(self.threat, kind="linf", eps=high - low))

    def _one(
        self, model: DefendedClassifier, factory: Factory | None, x: Array, y: Array, progress: Progress
    ) -> Adversarials:
        threat = self.threat
        if factory is None and threat.minimum:
            return minimum_norm_attack(
                x,
                y,
                model.margin,
                model.margin_and_gradient,
                clip_values=threat.clip_values,
                max_steps=self.budget,
                seed=self.seed,
                on_step=progress,
            )
        if factory is None:
            moved = projected_gradient_descent(
                x,
                y,
                model.margin_and_gradient,
                norm=threat.norm,
                eps=float(threat.eps or 0),
                clip_values=threat.clip_values,
                steps=self.budget,
                seed=self.seed,
                on_step=progress,
            )
            return Adversarials(moved, perturbation_norms(x, moved, threat.norm))
        moved, labels = np.empty(x.shape, np.float32), np.eye(model.nb_classes, dtype=np.float32)[y]
        groups = [np.full(len(x), True)]
        if isinstance(model.classifier, PredictOnly):  # whose rejections must not look like successes
            groups = [y == label for label in np.unique(y)]
        with _numpy_seed(self.seed):
            for rows in groups:
                model.rejected_as = y[rows][0]
                moved[rows] = factory(model).generate(x[rows], y=labels[rows])
        moved = np.clip(np.where(np.isfinite(moved), moved, x), *threat.clip_values)
        if threat.minimum:
            return pull_towards(x, moved, y, model.margin, failed=model.margin(moved, y) >= 0)
        moved = within(x, moved, threat.norm, float(threat.eps or 0))
        return Adversarials(moved, perturbation_norms(x, moved, self.threat.norm))

    def _better(
        self,
        judge: DefendedClassifier,
        y: Array,
        best: Adversarials,
        new: Adversarials,
        rows: Array,
        *,
        first: bool,
    ) -> Adversarials:
        """Keep, of two perturbations of each row, the smaller one, or the one that is wrong more often."""
        if first:
            better = np.ones(len(rows), bool)
        elif self.threat.minimum:
            better = new.norms < best.norms[rows]
        else:
            better = judge.mean_margin(new.x, y[rows]) < judge.mean_margin(best.x[rows], y[rows])
        x, norms = best.x, best.norms
        x[rows[better]], norms[rows[better]] = new.x[better], new.norms[better]
        return Adversarials(x, norms)


def _for_most_draws(model: DefendedClassifier, x: Array, y: Array, found: Adversarials) -> Adversarials:
    """The perturbations, with the norm from which on most draws are wrong, and not all of them.

    The norm that every draw needs grows with the number of draws, whatever the defence does.
    """
    if not model.stochastic:
        return found
    failed = model.median_margin(found.x, y) >= 0
    return Adversarials(found.x, pull_towards(x, found.x, y, model.median_margin, failed=failed).norms)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed the global generators, which ART's attacks use, and give them back as they were."""
    before = Generators()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        before.put_back()
