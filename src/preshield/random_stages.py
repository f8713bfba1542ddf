"""Defences of which each sample draws some, in an order of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ._core import random
from ._core.checks import check_rng
from ._core.draws import Draws, numbered
from ._core.errors import ArgumentError
from ._core.generators import peeked_seed
from ._core.passes import Pass
from ._core.typing import Arithmetic, Array, Dtype, Rng, Seed, Shape
from .composite import _Composite
from .preprocessor import Preprocessor

__all__ = ["_RandomStages"]

# Odd sizes, with which a defence is asked whether it keeps the shape
SHAPES = {"image": (3, 37, 41, 43), "video": (3, 5, 37, 41, 43), "audio": (3, 700, 2), "features": (3, 7)}


class _Draw:
    """The draw of a batch: the plan, and the seeds of the stages; once it has run, the passes."""

    def __init__(self, x: Array, plan: Array, seeds: list[Seed], numbers: Array) -> None:
        self.x = x
        self.plan = plan
        self.seeds = seeds
        self.numbers = numbers
        self.steps: list[tuple[Array, Pass]] = []  # the samples of each
        self.once = False  # no gradient follows


class _RandomStages(_Composite):
    """Base class: each sample passes some of the stages, in an order of its own.

    A subclass writes `_plan`, a function of the number of samples and of `rng`, which draws for each sample
    and step the number of a stage, or -1 for none, with what arrays of any namespace have. No stage comes
    twice for a sample, whose draw in it is the one that it would have alone.
    """

    stochastic: ClassVar[bool] = True

    def __init__(self, defences: Any, apply_fit: bool, apply_predict: bool, rng: Rng) -> None:
        super().__init__(defences, apply_fit, apply_predict)
        for i, stage in enumerate(self._stages):
            if stage.domains == ("labels",) or stage._changes_labels or stage.mixes_samples:
                raise ArgumentError(
                    f"`defences[{i}]` must leave labels and the other samples alone, got {stage!r}; put it "
                    "into a Chain with this one."
                )
            if not _keeps_shape(stage):
                raise ArgumentError(
                    f"`defences[{i}]` must keep the shape of every sample, since not all samples pass it, "
                    f"got {stage!r}; put it into a Chain behind this one."
                )
        check_rng(rng)
        self.rng = rng

    @property
    def _plan(self) -> Callable[[Any, Draws], Any]:
        """Of a module, or a `partial` of one, as what JAX compiles must be."""
        raise NotImplementedError

    def _candidates(self, step: int) -> range:
        """Which stages a step may be."""
        return range(len(self._stages))

    # Hooks

    def _transform(self, x: Array, draw: _Draw) -> Array:
        draw.steps.clear()
        out = x.astype(self._between(x.dtype))
        for number, column in enumerate(draw.plan.T):
            source = x if number == 0 else out
            for stage, seed, rows in self._groups(column, draw.seeds):
                if stage._seed_words and stage._takes_index:
                    seed = np.concatenate([seed, draw.numbers[rows]])
                step = Pass.begin(stage, source[rows], seed, once=draw.once, doubt=False)
                made = step.output()
                if made.shape != step.x.shape:
                    raise ArgumentError(
                        f"`defences` must keep the shape of every sample; {stage!r} has turned "
                        f"{step.x.shape} into {made.shape}."
                    )
                if not draw.once:
                    draw.steps.append((rows, step))
                out[rows] = made
        return out

    def _groups(self, column: Array, seeds: list[Seed]) -> Any:
        """The stages of one step, their seeds, and their samples."""
        for k, (stage, seed) in enumerate(zip(self._stages, seeds, strict=True)):
            rows = np.flatnonzero(column == k)
            if rows.size:
                yield stage, seed, rows

    def _gradient(self, x: Array, grad: Array, draw: _Draw) -> Array:
        if not draw.steps:
            self._transform(draw.x, draw)
        pulled = grad.copy()
        for rows, step in reversed(draw.steps):
            pulled[rows] = step.pull_back(pulled[rows])
        return pulled

    def _fit(self, x: Array, y: Array | None) -> None:
        for stage in self._stages:
            if stage._learns:
                stage.fit(x, y)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        between, functions, start = self._between(dtype), [], random.SEED_WORDS
        for stage in self._stages:
            # Before the first stage, _check_layout looked at all.
            if (function := stage._natively(shape, between, doubt=False)) is None:
                return None
            functions.append((function, start, start + stage._seed_words))
            start += stage._seed_words
        candidates = [tuple(self._candidates(step)) for step in range(self._steps)]
        types = between.name, self._output_dtype(dtype).name
        return partial(_by_plan, tuple(functions), candidates, self._plan, types)

    @property
    def _steps(self) -> int:
        """Columns of a plan."""
        return len(self._stages)

    def _between(self, dtype: Dtype) -> Dtype:
        """What holds the samples from stage to stage: the results of all of them."""
        return np.result_type(dtype.newbyteorder("="), *(d._output_dtype(dtype) for d in self._stages))

    # Layouts: those of the stages

    def _check_layout(self, shape: Shape, settled: int | None = None, name: str | None = None) -> int | None:
        for i, stage in enumerate(self._stages):
            try:
                settled = stage._check_layout(shape, settled, name)
            except ArgumentError as error:
                raise ArgumentError(f"`defences[{i}]`, {type(stage).__name__}: {error}") from None
        return settled

    # Seeds: its own, and behind it those of the stages, which follow from it if it has a source

    @property
    def _seed_words(self) -> int:
        return random.SEED_WORDS + sum(d._seed_words for d in self._stages)

    def _fresh_seed(self, *, addressed: bool) -> Seed:
        own = self._own_stream().next(addressed=addressed)
        if self.rng is not None:
            return random.expand_seed(int.from_bytes(own.tobytes(), "little"), self._seed_words)
        seeds = np.concatenate([own, *(d._next_seed(addressed=addressed) for d in self._stages)])
        return random.distinct(seeds, peeked_seed)

    @property
    def _owns_stream(self) -> bool:
        return True

    @property
    def _has_one_seed(self) -> bool:
        return random.FROZEN.seed(self) is None and self._own_stream().is_fixed

    def _begin(self, x: Array, seed: Seed) -> _Draw:
        words, numbers = seed[: self._seed_words], seed[self._seed_words :]
        if not len(numbers):
            numbers = random.FROZEN.numbers(self, len(x))
        ends = np.cumsum([random.SEED_WORDS, *(d._seed_words for d in self._stages)])
        own, *seeds = np.split(words, ends[:-1])
        key, numbers = numbered(np.concatenate([own, numbers]), len(x))
        return _Draw(x, self._plan(len(x), Draws(key, numbers)), seeds, numbers)


def _keeps_shape(stage: Preprocessor) -> bool:
    """Whether a defence returns what has the shape of a batch, as far as it says so."""
    if not stage._states_shape:
        return True
    shapes = [SHAPES[domain] for domain in stage.domains]
    if stage.layout is not None:
        shapes = [shape for shape in shapes if len(shape) == len(stage.layout)]
    try:
        return all(stage._output_shape(shape) == shape for shape in shapes)
    except ArgumentError:  # one that takes some sizes alone changes them
        return False


def _by_plan(
    functions: tuple[tuple[Arithmetic, int, int], ...],
    candidates: list[tuple[int, ...]],
    plan: Callable[[Any, Any], Any],
    types: tuple[str, str],
    x: Any,
    xp: Any,
    y: Any = None,
    source: Any = None,
) -> tuple[Any, Any]:
    """Every stage for all samples, of which those that drew it keep the result."""
    between, last = (getattr(xp, name) for name in types)
    own = source.of_stage(0, random.SEED_WORDS)
    chosen = plan(x.shape[0], own.draws(x, xp, takes_index=True))
    x = xp.astype(x, between, copy=False)
    for step, numbers in enumerate(candidates):
        before = x
        for k in numbers:
            function, start, stop = functions[k]
            made, _ = function(before, xp, None, None if start == stop else source.of_stage(start, stop))
            mine = xp.reshape(chosen[:, step] == k, (-1, *(1 for _ in x.shape[1:])))
            x = xp.where(mine, xp.astype(made, between, copy=False), x)
    return xp.astype(x, last, copy=False), y
