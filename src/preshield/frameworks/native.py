"""On the caller's own arrays: on their device, in their graph, with their derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from .._core.arithmetic.draws import NativeDraws, signed
from .._core.arithmetic.namespace import counted, sent, stop_gradient
from .._core.checks import check_labels
from .._core.layout import working_dtype
from .._core.overrides import check_assignment
from .._core.passes import Pass, numbers_of
from .._core.random import FROZEN
from .._core.typing import Arithmetic, Defence, Dtype, Seed, Shape

__all__ = ["Source", "checked_index", "floating", "natively", "relabelled", "seed_of", "source_of"]


class Source(NamedTuple):
    """Where the draws of a call come from."""

    words: Any  # of the seeds of its stages, end to end, in int32
    numbers: Any  # of its samples, in int32; none, if they are numbered from 0 on
    table: Callable[[], Any]  # of normals

    def of_stage(self, start: int, stop: int) -> Self:
        """The same with the words of one stage."""
        return self._replace(words=self.words[start:stop])

    def draws(self, x: Any, xp: Any, *, takes_index: bool) -> NativeDraws:
        """What `_draw` is given for a batch. Samples that a stage has added have their places as numbers."""
        index = counted(x.shape[0], x, xp)
        numbers = self.numbers
        known = len(numbers) if isinstance(numbers, list | tuple) else numbers.shape[0]
        if takes_index and known:
            index = self.numbers if known == x.shape[0] else xp.concat([self.numbers, index[known:]])
        return NativeDraws(self.words, index, xp, self.table)


def natively(defence: Defence, shape: Shape, dtype: Dtype, *, doubt: bool = True) -> Arithmetic | None:
    """What computes a batch in its framework, if the defence has it, after the checks that need no values.

    If `doubt`, a shape that plainly has another layout than the one expected is refused.

    Returns
    -------
    callable
        A function of the batch, its namespace, the labels and the source of draws, both or either None. It
        returns the batch and the labels.
    """
    check_assignment(defence)
    of_labels = defence.domains == ("labels",)
    if defence._overridden or (0 in shape[1:] and not of_labels):
        return None
    defence._check_shape(shape, dtype, doubt=doubt)
    function = defence._arithmetic(shape, dtype)
    if function is None or defence._stages:  # each stage computes in a type of its own
        return function
    types = None
    if not of_labels:
        exact = defence.keeps_integers and dtype.kind != "f"
        working = dtype if exact else working_dtype(dtype)
        types = working.name, defence._output_dtype(dtype).name
    draw = partial(_draw, defence, defence._takes_index) if defence._seed_words else None
    return partial(_computed, function, draw, types, defence._changes_labels)


def _computed(
    function: Arithmetic,
    draw: Callable[[Any, Any, Source], Any] | None,
    types: tuple[str, str] | None,
    relabels: bool,
    x: Any,
    xp: Any,
    y: Any = None,
    source: Source | None = None,
) -> tuple[Any, Any]:
    out = xp.astype(x, getattr(xp, types[0]), copy=False) if types else x
    drawn = (draw(x, xp, source),) if draw and source else ()
    if relabels and y is not None:
        check_labels(y, x)
    if relabels:
        out, y = function(out, xp, *drawn, None if y is None else stop_gradient(y))
    else:
        out = function(out, xp, *drawn)
    return (xp.astype(out, getattr(xp, types[1]), copy=False) if types else x), y


def _draw(defence: Defence, takes_index: bool, x: Any, xp: Any, source: Source) -> Any:
    return defence._draw(x, source.draws(x, xp, takes_index=takes_index))  # type: ignore[arg-type]


def source_of(words: int, seed: Any, index: Any, x: Any, xp: Any, table: Callable[[], Any]) -> Source | None:
    """Where the draws of a batch come from.

    Parameters
    ----------
    words : int
        Of the seeds of all stages; if there are none, nothing is drawn.
    seed : ndarray of uint32, or array of int32
        Words, known now or in a graph, and behind them the numbers of the samples if they are none from 0 on.
        Known ones may be several rows, for as many parts of the batch, of one length.
    index : int, array of int or None
        The same numbers, checked as far as they are known, if the caller gives them.
    x, xp
        Batch and namespace.
    table : callable
        Of normals.
    """
    if not words:
        return None
    key: Any
    numbers: Any
    if isinstance(seed, np.ndarray):
        key, numbers = seed[..., :words].view(np.int32), seed[..., words:].view(np.int32).reshape(-1)
        if key.ndim == 1:
            key = key.tolist()
        else:
            key = sent(np.repeat(key.T[..., None], x.shape[0] // len(key), axis=1), x, xp)
        numbers = sent(numbers, x, xp) if len(numbers) else ()
    else:
        key, numbers = seed[:words], seed[words:]
    if isinstance(index, int):
        numbers = counted(x.shape[0], x, xp) + signed(index)
    elif isinstance(index, np.ndarray):
        numbers = sent(index.view(np.int32), x, xp)
    elif index is not None:
        numbers = xp.astype(index, xp.int32) + (0 if index.ndim else counted(x.shape[0], x, xp))
    return Source(key, numbers, table)


def seed_of(defence: Defence, samples: int, *, addressed: bool) -> Seed:
    """The next seed, and behind it the numbers of samples with which `frozen` holds it.

    Without those if the samples are `addressed` by the caller.
    """
    seed = defence._next_seed(addressed=addressed)
    return seed if addressed else np.concatenate([seed, _frozen_numbers(defence, samples)])


def floating(x: Any, xp: Any) -> Any:
    """Numbers that have derivatives: integers in `float32`."""
    return x if xp.isdtype(x.dtype, "real floating") else xp.astype(x, xp.float32)


def checked_index(defence: Defence, shape: Shape, index: Any) -> Any:
    """A number, or the numbers of all samples, refused as by `numbers_of`."""
    numbers = numbers_of(defence, shape, index)
    return numbers if np.ndim(index) else int(index)


def _frozen_numbers(defence: Defence, samples: int) -> Seed:
    numbers = FROZEN.numbers(defence, samples)
    for stage in defence._stages:
        numbers = numbers if len(numbers) else _frozen_numbers(stage, samples)
    return numbers


def relabelled(defence: Defence, x: Any, dtype: Dtype, seed: Seed, index: Any, y: Any) -> Any:
    """Labels that are not where the batch is, by NumPy, after the draw of the same seed."""
    shape = tuple(x.shape)
    numbers = seed[:0] if index is None else numbers_of(defence, shape, index)
    draw = defence._begin(np.broadcast_to(np.zeros((), dtype), shape), np.concatenate([seed, numbers]))
    return Pass(defence, x, draw).labels(y)
