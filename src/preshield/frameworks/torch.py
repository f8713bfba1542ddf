"""Eager tensors of torch; `torch.compile` breaks its graph here."""

import sys
from typing import Any

import torch

from .._core.passes import Pass
from .._core.random import FROZEN
from .._core.tensors import like, to_numpy
from .._core.typing import Defence
from .callback import RECOMPUTED, TWICE, is_passed_on

__all__ = ["call"]

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
    if torch.compiler.is_compiling():  # importing the compiler to tell it off takes seconds
        return torch.compiler.disable(_call)(defence, x, y, index)  # type: ignore[no-any-return]
    return _call(defence, x, y, index)


def _call(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    if recorder := _recorder(x):
        raise RuntimeError(RECORDED.format(defence, recorder))
    if torch._C._are_functorch_transforms_active():
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
        return "torch.jit.trace"
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export"
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return "torch.export" if fakes is not None and isinstance(x, fakes.FakeTensor) else ""
