"""Several defences as one."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ._core import random
from ._core.errors import ArgumentError
from ._core.generators import peeked_seed
from ._core.passes import Pass
from ._core.typing import Arithmetic, Array, Dtype, Seed, Shape
from .composite import _Composite

__all__ = ["Chain"]


class _Draw:
    """The draw of a chain: the seeds of its stages and, once it has run, the pass through each."""

    def __init__(self, x: Array, seeds: list[Seed]) -> None:
        self.x = x
        self.seeds = seeds
        self.labels: Any = None
        self.steps: list[Pass] = []
        self.once = False  # no gradient follows


class Chain(_Composite):
    """Apply several defences one after the other.

    What a stage receives is kept if a backward pass may follow, so the gradient obeys the chain rule at the
    very points that the forward pass visited, through changes of shape too.

    Parameters
    ----------
    defences : list of Preprocessor
        Stages in order, preshield's or ART's; each is applied whatever its own `apply_fit` and
        `apply_predict` say.
    apply_fit : bool, default False
        Whether a classifier applies the chain when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies the chain when it predicts.

    Raises
    ------
    TypeError
        If `defences` is not a list or tuple of defences.
    ValueError
        If it is empty, or no domain is common to all stages.

    Notes
    -----
    The facts are those of the stages: stochastic if one is, `gradient_kind` the weakest of theirs.
    `frozen` fixes the draws of all stages.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Chain, FeatureSqueezing, SpatialSmoothing
    >>> chain = Chain([SpatialSmoothing(3), FeatureSqueezing((0, 1), bit_depth=1)])
    >>> chain.transform(np.full((1, 2, 2, 1), 0.9, dtype=np.float32)).ravel()
    array([1., 1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        defences: list[Any] | tuple[Any, ...],
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(defences, apply_fit, apply_predict)

    # Facts, from the stages

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether a stage is stochastic."""
        return any(d.stochastic for d in self._stages)

    @property
    def changes_shape(self) -> bool:  # type: ignore[override]
        """Whether a stage changes the shape."""
        return any(d.changes_shape for d in self._stages)

    @property
    def ragged(self) -> bool:  # type: ignore[override]
        """Whether every stage takes samples that differ in length."""
        return all(d.ragged for d in self._stages if d.domains != ("labels",))

    @property
    def mixes_samples(self) -> bool:  # type: ignore[override]
        """Whether a stage makes samples of several of the batch."""
        return any(d.mixes_samples for d in self._stages)

    @property
    def paper(self) -> str:  # type: ignore[override]
        """Papers of the stages."""
        return self._papers

    @property
    def known_attacks(self) -> tuple[str, ...]:  # type: ignore[override]
        """Known attacks on the stages."""
        return self._attacks

    # Hooks

    def _transform(self, x: Array, draw: _Draw) -> Array:
        draw.steps.clear()
        y = draw.labels
        for stage, seed in zip(self._stages, draw.seeds, strict=True):
            # Before the first stage, _check_layout looked at all.
            once = draw.once and not self._wants_labels
            step = Pass.begin(stage, x, seed, y=y, once=once, doubt=False, runs=True, kept=True)
            if not once:
                draw.steps.append(step)
            x = step.output()
            if y is not None and stage._changes_labels:
                y = step.relabel(y)
        return x

    def _gradient(self, x: Array, grad: Array, draw: _Draw) -> Array:
        for step in reversed(self._steps(draw)):
            grad = step.pull_back(grad)
        return grad

    def _transform_labels(self, y: Array | None, draw: _Draw) -> Array | None:
        if y is None:  # in prediction
            return None
        for step in self._passes(draw):
            y = step.relabel(y)
        return y

    def _passes(self, draw: _Draw) -> Iterator[Pass]:
        """Passes for labels: draws depend on the shape and the dtype of what a stage gets alone."""
        if self._wants_labels:
            self._steps(draw)
        if draw.steps:
            yield from draw.steps
            return
        x = draw.x
        for stage, seed in zip(self._stages, draw.seeds, strict=True):
            yield Pass(stage, x, stage._begin(x, seed))
            if stage.domains != ("labels",):
                zero = np.zeros((), stage._output_dtype(x.dtype))
                x = np.broadcast_to(zero, stage._output_shape(x.shape))

    def _steps(self, draw: _Draw) -> list[Pass]:
        if not draw.steps:
            self._transform(draw.x, draw)
        return draw.steps

    def _fit(self, x: Array, y: Array | None) -> None:
        learners = [i for i, d in enumerate(self._stages) if d._learns]
        for i, stage in enumerate(self._stages[: max(learners, default=-1) + 1]):
            if stage._learns:
                stage.fit(x, y)
            if i != learners[-1]:
                x, y = stage(x, y)

    def _output_shape(self, shape: Shape) -> Shape:
        for stage in self._stages:
            shape = stage._output_shape(shape)
        return shape

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        functions, start = [], 0
        for stage in self._stages:
            # Before the first stage, _check_layout looked at all.
            if (function := stage._natively(shape, dtype, doubt=False)) is None:
                return None
            functions.append((function, start, start + stage._seed_words))
            start += stage._seed_words
            if stage.domains != ("labels",):
                shape, dtype = stage._output_shape(shape), stage._output_dtype(dtype)
        return partial(_one_by_one, tuple(functions))

    # Layouts: those of the stages

    def _check_layout(self, shape: Shape, settled: int | None = None, name: str | None = None) -> int | None:
        for i, stage in enumerate(self._stages):
            try:
                settled = stage._check_layout(shape, settled, name)
            except ArgumentError as error:
                raise ArgumentError(f"`defences[{i}]`, {type(stage).__name__}: {error}") from None
            if not stage._states_shape:
                return None  # what comes after is not known before it runs
            before, shape = shape, stage._output_shape(shape)
            changed = {
                axis for axis, pair in enumerate(zip(before, shape, strict=False)) if len(set(pair)) > 1
            }
            if len(before) != len(shape) or changed - {0, settled}:
                settled = None  # a resized image may be in doubt again; one with more channels is not
        return settled

    # Seeds: those of the stages, end to end

    @property
    def _seed_words(self) -> int:
        return sum(d._seed_words for d in self._stages)

    def _fresh_seed(self, *, addressed: bool) -> Seed:
        seeds = np.concatenate([d._next_seed(addressed=addressed) for d in self._stages])
        return random.distinct(seeds, peeked_seed)

    @property
    def _has_one_seed(self) -> bool:
        return random.FROZEN.seed(self) is None and all(d._has_one_seed for d in self._stages)

    @property
    def _draws_afresh(self) -> bool:
        return super()._draws_afresh and any(d._draws_afresh for d in self._stages)

    def _begin(self, x: Array, seed: Seed) -> _Draw:
        ends = np.cumsum([d._seed_words for d in self._stages])
        words, index = seed[: ends[-1]], seed[ends[-1] :]
        seeds = np.split(words, ends[:-1])
        seeds = [np.concatenate([words, index]) if len(words) else words for words in seeds]
        return _Draw(x, seeds)

    @property
    def _changes_labels(self) -> bool:
        return any(d._changes_labels for d in self._stages)

    @property
    def _wants_labels(self) -> bool:
        return any(d._wants_labels for d in self._stages)

    @property
    def _states_shape(self) -> bool:
        return all(d._states_shape for d in self._stages)


def _one_by_one(
    functions: tuple[tuple[Arithmetic, int, int], ...], x: Any, xp: Any, y: Any = None, source: Any = None
) -> tuple[Any, Any]:
    for function, start, stop in functions:
        x, y = function(x, xp, y, None if start == stop else source.of_stage(start, stop))
    return x, y
