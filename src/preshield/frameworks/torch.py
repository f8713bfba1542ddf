"""Tensors of torch: eager through NumPy, where `torch.compile` breaks its graph, or in torch itself."""

import sys
from collections.abc import Iterator
from functools import cache
from itertools import count
from operator import index as whole
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from .._core.errors import ArgumentError
from .._core.passes import Pass, numbers_of
from .._core.random import FROZEN
from .._core.tensors import like, to_numpy
from .._core.typing import Arithmetic, Defence, Shape
from .callback import RECOMPUTED, TWICE, is_passed_on, warn_of_copies

__all__ = ["call"]

PREPARED: dict[int, Arithmetic] = {}  # parts of compiled programs
PLACES = count()
TRACE = "torch.jit.trace"
RECORDED = (
    "{} runs in NumPy, which {} does not record: its result would be a constant of the program. Record the "
    "model alone, and defend its input."
)
TRANSFORMED = (
    "{} runs in NumPy, which the transforms of torch.func cannot enter. Use torch.autograd, or leave it out "
    "of the function that is transformed."
)


class _Once(torch.autograd.Function):  # type: ignore[misc]
    """A gradient that is not to be differentiated again, whichever way it is reached."""

    @staticmethod
    def forward(ctx: Any, pulled: Any, defence: Defence, grad: Any, x: Any) -> Any:
        ctx.defence = defence
        return pulled.view_as(pulled)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        raise RuntimeError(TWICE.format(ctx.defence))


class _Defend(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, begun: Pass) -> Any:
        ctx.begun = begun
        ctx.save_for_backward(x)
        return like(x, begun.output())

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, None]:
        (x,) = ctx.saved_tensors
        given = to_numpy(grad)
        ctx.begun.x = to_numpy(x)  # over its own copy a defence may have written
        pulled = ctx.begun.pull_back(given)
        if is_passed_on(pulled, given):
            return grad.to(x.dtype), None
        back = like(grad, pulled).to(x.dtype)
        if torch.is_grad_enabled():  # somebody may want to differentiate it
            back = _Once.apply(back, ctx.begun.defence, grad, x)
        return back, None


def call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    """Apply `defence` to a tensor, and to its labels."""
    if torch.compiler.is_compiling():
        # The number of samples may be symbolic; a program is made for samples of one shape.
        place = _prepared(defence, (1, *map(whole, x.shape[1:])), str(x.dtype), *_parameters(defence))
        if isinstance(place, str):
            raise ArgumentError(place)
        if place is not None:
            return PREPARED[place](x, xp), y
        return torch.compiler.disable(_call)(defence, x, y, index)  # type: ignore[no-any-return]
    if "torch._dynamo" in sys.modules:  # of which the import takes seconds
        return _untraced()(defence, x, y, index)  # type: ignore[no-any-return]
    return _call(defence, x, y, index)


@cache
def _untraced() -> Any:
    """What keeps the compiler out also where it has given up on a caller, and tries what that calls."""
    return torch.compiler.disable(_call)


def _natively(defence: Defence, shape: Shape, dtype: str) -> Arithmetic | None:
    return defence._natively(shape, np.dtype(dtype.removeprefix("torch.")))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepared(defence: Defence, shape: Shape, dtype: str, *_: frozenset[Any]) -> int | str | None:
    """Where in `PREPARED` there is what computes a batch, or why none does; made while a program is compiled.

    The compiler takes numbers and words for constants, not functions and errors.
    """
    if not vars(defence):  # it is made by the program, whose compiler has its parameters
        return None
    try:
        function = _natively(defence, shape, dtype)
    except ArgumentError as error:
        return str(error)
    if function is None:
        return None
    place = next(PLACES)
    PREPARED[place] = function
    return place


def _parameters(defence: Defence) -> Iterator[frozenset[Any]]:
    """Numbers and words among the parameters: if one changes, the program is compiled again."""
    for name in defence.params:
        value = getattr(defence, name)
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, int | float | str):
                yield frozenset((part,))  # in a set, the compiler takes numbers for constants, always
            elif hasattr(part, "params"):  # a stage
                yield from _parameters(part)


def _call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    recorder, transformed = _recorder(x), torch._C._are_functorch_transforms_active()
    on_device = x.device.type != "cpu" and x.layout == torch.strided
    if (on_device or recorder or transformed) and recorder != TRACE:  # to which shapes are tensors
        if (function := _natively(defence, tuple(x.shape), str(x.dtype))) is not None:
            if index is not None and not isinstance(index, torch.Tensor):  # which may lie on the device
                numbers_of(defence, tuple(x.shape), index)
            return function(x, xp), y
        if on_device:
            warn_of_copies(defence, x.device)
    if recorder:
        raise RuntimeError(RECORDED.format(defence, recorder))
    if transformed:
        raise RuntimeError(TRANSFORMED.format(defence))
    if torch._C._current_graph_task_id() == -1:
        return _pass(defence, x, y, index)
    with FROZEN.borrowed():  # a backward pass calls, on a thread of torch's for each GPU
        if defence._draws_afresh:
            raise RuntimeError(RECOMPUTED.format(defence))
        return _pass(defence, x, y, index)


def _pass(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    begun = Pass.begin(defence, to_numpy(x), y=y, index=index, runs=True)
    return _Defend.apply(x, begun), begun.labels(y)


def _recorder(x: Any) -> str:
    """What records the operations on `x` as a program, if anything does."""
    if torch.jit.is_tracing():
        return TRACE
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export"
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return "torch.export" if fakes is not None and isinstance(x, fakes.FakeTensor) else ""
