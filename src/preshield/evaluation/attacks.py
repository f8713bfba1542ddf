"""What an evaluation does to samples: white-box attacks, the black-box one, and noise."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace

from .._core.generators import Generators
from .._core.typing import Array
from . import losses
from .autoattack import autoattack
from .bounded_attack import bounded_attack
from .classifiers import PredictOnly
from .defended import DefendedModel
from .minimum_norm import Adversarials, for_most_draws, minimum_norm_attack, pull_towards
from .oracle import Oracle
from .perturbations import chosen, copied, host, norms, places, put, scaled, take, unit, within
from .report import Threat
from .square_attack import square_attack
from .subjects import AUTOATTACK

__all__ = ["Attacker", "Made"]

QUERIES = 4  # of the black-box attack, for each gradient of a white-box one
OF_JUDGE, OF_WHITE_BOX, OF_BLACK_BOX, OF_CHOICE = range(4)  # what random numbers are for

Factory = Callable[[Any], Any]
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Made:
    """What an attack made of a batch.

    Attributes
    ----------
    x : ndarray, shape (N, ...)
        The perturbed samples.
    norms : ndarray of float, shape (N,)
        Norm of each perturbation: 0 where the sample was wrong from the start, infinite where an attack for
        the smallest one failed.
    forward, backward : ndarray of int, shape (N,)
        Passes of the classifier that each sample has cost.
    """

    x: Array
    norms: Array
    forward: Array
    backward: Array

    @classmethod
    def free(cls, x: Array, lengths: Array) -> "Made":
        """Samples that cost nothing."""
        nothing = np.zeros(len(x), np.int64)
        return cls(x, np.asarray(lengths, np.float64), nothing, nothing)


@dataclass(frozen=True)
class Attacker:
    """An attacker with a threat model and a budget.

    Attributes
    ----------
    threat : Threat
        What may be done to a sample.
    budget : int
        Gradients of a white-box attack for each sample; the black-box attack has four queries for each.
    factories : mapping of str to callable or "autoattack", optional
        White-box attacks instead of the default one: each makes an ART attack for a classifier.
    seed : int
        Seed of all that is random.
    """

    threat: Threat
    budget: int
    factories: Mapping[str, Factory | str] | None
    seed: int

    @property
    def white_box_in_words(self) -> str:
        """The white-box attacks."""
        if self.factories is not None:
            return ", ".join(self.factories)
        kind = "minimum-norm attack" if self.threat.minimum else "attack within the bound"
        return f"{kind}, up to {self.budget} gradients"

    @property
    def black_box_in_words(self) -> str:
        """The black-box attack."""
        bound = "twice the oblivious perturbation" if self.threat.eps is None else f"{self.threat.eps:.4g}"
        return f"Square, {QUERIES * self.budget} queries, {self.search_norm} norm {bound}"

    def oracle(self, model: DefendedModel, x: Any, y: Array, numbers: Array, *purpose: int) -> Oracle:
        """A batch in front of a model, and random numbers of its own for each purpose."""
        return Oracle(model, model.array(x), y, numbers, (self.seed, *purpose))

    def white_box(
        self,
        models: list[DefendedModel],
        x: Array,
        y: Array,
        numbers: Array,
        progress: Progress = lambda done: None,
    ) -> Made:
        """Attack a defended classifier through each gradient that it offers; keep the best for each sample.

        Parameters
        ----------
        models : list of DefendedModel
            One defended classifier, once for each of its gradients.
        x : ndarray of float, shape (N, ...)
            Samples.
        y, numbers : ndarray of int, shape (N,)
            Their labels, and their numbers in the data set.
        progress : callable
            Called with the fraction that is done.

        Returns
        -------
        Made
            Where the classifier is wrong from the start, the sample as it is, with norm 0.
        """
        judge = self.oracle(models[0], x, y, numbers, OF_JUDGE)
        attacks = [None] if self.factories is None else list(self.factories.values())
        runs = [(model, attack) for model in models for attack in attacks]
        best, smallest = copied(judge.x), np.full(len(x), np.inf)  # norms, or margins within a bound
        rows = np.arange(len(x))
        for place, (model, attack) in enumerate(runs):

            def part(done: float, place: int = place) -> None:
                progress((place + done) / len(runs))

            start = (
                chosen(np.isfinite(smallest[rows]), take(best, rows), take(judge.x, rows)) if place else None
            )
            oracle = self.oracle(model, take(judge.x, rows), y[rows], numbers[rows], OF_WHITE_BOX, place)
            new, sizes = self._one(oracle, attack, self.budget_of(place, len(models)), start, part)
            judge.forward[rows] += oracle.forward
            judge.backward[rows] += oracle.backward
            if sizes is None or (judge.stochastic and not self.threat.minimum):  # on draws of its own
                sizes = judge.mean_margin(new, rows)
            better = places((sizes < smallest[rows]) | (place == 0), new)
            smallest[rows[better]] = sizes[better]
            best = put(best, rows[better], take(new, better))
            rows = rows[places(self._open(judge, best, smallest, rows), best, rows)]
            if not len(rows):
                break
        progress(1.0)
        if self.threat.minimum:
            found = for_most_draws(judge, Adversarials(best, smallest), norm=self.threat.norm)
        else:
            found = Adversarials(best, norms(best - judge.x, self.threat.norm))
        return Made(host(found.x), found.norms, judge.forward, judge.backward)

    def black_box(
        self,
        model: DefendedModel,
        x: Array,
        y: Array,
        numbers: Array,
        radii: Array,
        progress: Progress = lambda done: None,
    ) -> Made:
        """Attack a defended classifier by queries; each averages a quarter of the draws, the same in all.

        With new ones the search would end at, or never leave, the first point whose draws were lucky. `radii`
        bound the search for each sample.
        """
        few = model.with_draws(max(1, model.draws // 4))
        judge = self.oracle(model, x, y, numbers, OF_BLACK_BOX, 0)

        def margin(points: Array, rows: Array) -> Array:
            query = self.oracle(few, points, y[rows], numbers[rows], OF_BLACK_BOX, 1)
            judge.forward[rows] += few.draws
            return query.mean_margin(query.x, np.arange(len(rows)))

        moved = square_attack(
            host(judge.x),
            margin,
            norm=self.search_norm,
            eps=radii,
            clip_values=self.threat.clip_values,
            channels_first=model.channels_first,
            queries=QUERIES * self.budget,
            enough=-np.inf if model.stochastic else 0.0,
            seed=self.seed,
            numbers=numbers,
            on_query=progress,
        )
        found = self._measured(judge, model.array(moved))
        if self.threat.minimum:
            found = for_most_draws(judge, found, norm=self.threat.norm)
            moved = host(found.x)
        return Made(moved, found.norms, judge.forward, judge.backward)

    @property
    def search_norm(self) -> str:
        """Norm of the ball in which the black-box attack searches."""
        return "linf" if self.threat.norm == "linf" else "l2"

    def noise(self, x: Array, lengths: Array, draws: Any) -> Array:
        """Return the samples with random noise of the given norms, clipped to the range."""
        noise = draws.standard_normal(x.shape, np.float32)
        if self.threat.norm == "linf":
            noise = np.where(noise < 0, np.float32(-1), np.float32(1))
        noise = scaled(noise, lengths / norms(noise, self.threat.norm))
        noisy: Array = np.clip(x + noise, *self.threat.clip_values).astype(x.dtype)
        return noisy

    def single_step(self, oracle: Oracle, lengths: Array) -> Any:
        """Return the samples after one step of the given norms up the cross-entropy."""
        rows = np.arange(len(oracle))
        gradient = oracle.look(oracle.x, rows, losses.cross_entropy).gradient
        xp = array_namespace(gradient)
        gradient = xp.where(xp.isfinite(gradient), gradient, xp.zeros_like(gradient))
        step = xp.sign(gradient) if self.threat.norm == "linf" else unit(gradient)
        own = norms(step, self.threat.norm)
        step = scaled(step, lengths / np.where(own > 0, own, 1))
        return xp.clip(oracle.x + step, *self.threat.clip_values)

    def budget_of(self, place: int, models: int) -> int:
        """Gradients of the default attack through one of several gradients, of which the first is strongest.

        Within a bound the first has most of what all have together: what a long attack through it did not
        break, long ones through the others did not either.
        """
        others = self.budget if self.threat.minimum else -(-self.budget // 4)
        return others if place else models * self.budget - (models - 1) * others

    def unbounded(self) -> "Attacker":
        """The same attacker, who may move a sample anywhere."""
        low, high = self.threat.clip_values
        return replace(self, threat=replace(self.threat, kind="linf", eps=high - low))

    def _open(self, judge: Oracle, best: Any, smallest: Array, rows: Array) -> Array:
        """Which of these rows another attack may still improve."""
        if self.threat.minimum:
            return smallest[rows] > 0
        if not judge.stochastic:
            return smallest[rows] >= 0
        right: Array = judge.margin(take(best, rows), rows) >= 0
        return right

    def _one(
        self, oracle: Oracle, attack: Factory | str | None, budget: int, start: Any, progress: Progress
    ) -> tuple[Any, Array | None]:
        """What one attack found, and its norms, or its margins within a bound, if it knows them."""
        threat, eps = self.threat, float(self.threat.eps or 0)
        if attack == AUTOATTACK:
            version: Literal["standard", "rand"] = "rand" if oracle.stochastic else "standard"
            return autoattack(oracle, norm=threat.norm, eps=eps, version=version, on_step=progress)
        if attack is not None:
            found = self._measured(oracle, self._of_art(oracle, attack))
            return found.x, found.norms if threat.minimum else None
        if threat.minimum:
            return minimum_norm_attack(oracle, norm=threat.norm, budget=budget, start=start, on_step=progress)
        return bounded_attack(oracle, norm=threat.norm, eps=eps, budget=budget, on_step=progress)

    def _of_art(self, oracle: Oracle, attack: Any) -> Any:
        """What an attack of ART makes of the samples, within the threat."""
        from .art_bridge import bridge

        x, y = host(oracle.x), oracle.y
        moved, labels = np.empty_like(x), np.eye(oracle.nb_classes, dtype=np.float32)[y]
        groups = [np.full(len(x), True)]
        if isinstance(oracle.model.classifier, PredictOnly):  # whose rejections must not look like successes
            groups = [y == label for label in np.unique(y)]
        with _numpy_seed(self.seed):
            for rows in groups:
                classifier = bridge(
                    oracle.model, numbers=oracle.numbers[rows], seed=self.seed, rejected_as=int(y[rows][0])
                )
                moved[rows] = attack(classifier).generate(x[rows], y=labels[rows])
        moved = np.clip(np.where(np.isfinite(moved), moved, x), *self.threat.clip_values)
        return oracle.model.array(moved)

    def _measured(self, oracle: Oracle, moved: Any) -> Adversarials:
        """Points from elsewhere: pulled towards the samples while wrong, or kept within the bound."""
        if self.threat.minimum:
            return pull_towards(oracle, moved, norm=self.threat.norm)
        moved = within(oracle.x, moved, self.threat.norm, float(self.threat.eps or 0))
        return Adversarials(moved, norms(moved - oracle.x, self.threat.norm))


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
