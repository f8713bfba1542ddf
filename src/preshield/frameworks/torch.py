"""Tensors of torch: eager through NumPy, where `torch.compile` breaks its graph, or in torch itself."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from operator import index as whole
from types import SimpleNamespace
from typing import Any, NamedTuple

import array_api_compat.torch as xp
import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from .._core.arithmetic.draws import signed
from .._core.arithmetic.namespace import transformed
from .._core.checks import check_gradient_shape
from .._core.errors import ArgumentError
from .._core.passes import Pass, numbers_of
from .._core.random import FROZEN
from .._core.tensors import like, on_device, to_numpy
from .._core.typing import Arithmetic, Defence, Seed, Shape
from .callback import RECOMPUTED, TWICE, is_passed_on, warn_of_copies
from .native import checked_index, floating, relabelled, seed_of, source_of

__all__ = ["begin", "call", "pull_back"]

PARTS = SimpleNamespace()  # of compiled programs, by place; a dict would be read once for a whole program
TABLES: dict[Any, Any] = {}  # of normals, by device
PLACES = count()
NEW_EACH_TIME = torch.Tag.nondeterministic_seeded, torch.Tag.cudagraph_unsafe
TRACE = "torch.jit.trace"
RECORDED = (
    "{} runs in NumPy, which {} does not record: its result would be a constant of the program. Record the "
    "model alone, and defend its input."
)
ONE_DRAW = (
    "{} draws at random, and {} would record one draw as a constant of the program. Record it inside "
    "`with defence.frozen(seed):` if that is meant; otherwise record the model alone, and defend its input."
)
SAME_DRAW = (
    "{} draws at random, and torch.func.vmap runs it once for all, with one draw. Pass "
    "vmap(..., randomness='same') if that is meant; otherwise defend the whole batch, in which each sample "
    "has a draw of its own."
)
TRANSFORMED = (
    "{} runs in NumPy, which the transforms of torch.func cannot enter. Use torch.autograd, or leave it out "
    "of the function that is transformed."
)

torch.compiler.assume_constant_result(transformed)


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
        shape, numbered = (1, *map(whole, x.shape[1:])), index is not None
        exported = torch.compiler.is_exporting()
        place = _prepared(defence, shape, str(x.dtype), numbered, exported, *_parameters(defence))
        if isinstance(place, str):
            raise ArgumentError(place)
        if place is not None and _lie_together(x, y, relabels=_part(place).relabels):
            return _call_in_graph(place, x, y, index)
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
def _is_native(defence: Defence, shape: Shape, dtype: str, *_: frozenset[Any]) -> bool:
    """Whether a batch is computed in torch, or refused there."""
    try:
        return bool(vars(defence)) and _natively(defence, shape, dtype) is not None
    except ArgumentError:
        return True


class _Part(NamedTuple):
    """What the compiler has to know of a defence."""

    defence: Defence
    function: Arithmetic
    words: int  # of a seed
    seed: list[int]  # in an exported program, if it draws; others ask for it when they run
    one_draw: str  # what is wrong with a defence that draws anew
    relabels: bool


def _part(place: int) -> _Part:
    part: _Part = getattr(PARTS, f"at{place}")
    return part


def _lie_together(x: Any, y: Any, *, relabels: bool) -> bool:
    """Whether labels, if they change, lie where the batch does."""
    return y is None or not relabels or (isinstance(y, torch.Tensor) and y.device == x.device)


def _call_in_graph(place: int, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    part = _part(place)
    source, seed = None, part.seed
    if part.words:
        if not seed:
            seed = torch.ops.preshield.seed(place, x.shape[0] if index is None else 0, device=x.device)
        numbers = torch.as_tensor(index) if isinstance(index, list | tuple) else index
        source = source_of(part.words, seed, numbers, x, xp, partial(_constant_table, x.device))
    return part.function(x, xp, y, source)  # type: ignore[no-any-return]


# Arguments tell the calls of a program apart, and tags keep a compiler from running one of them again.
@torch.library.custom_op("preshield::seed", mutates_args=(), tags=NEW_EACH_TIME)  # type: ignore[untyped-decorator]
def _seed(place: int, samples: int, device: torch.device) -> torch.Tensor:
    """The seed of a pass, drawn when the program runs, and behind it the numbers of so many samples."""
    defence, one_draw = _part(place).defence, _part(place).one_draw
    if one_draw and _draws_anew(defence, numbered=not samples):  # it was frozen when this was compiled
        raise ArgumentError(one_draw)
    with _on_behalf(defence):
        seed = seed_of(defence, samples, addressed=not samples).view(np.int32)
    words, numbers = np.split(seed, [defence._seed_words])
    # Numbers become kernels' arguments: nothing is copied to the device but what was frozen.
    found = torch.stack([torch.full((), word, dtype=torch.int32, device=device) for word in words.tolist()])
    if not samples:
        return found
    known = torch.from_numpy(numbers).to(device) if len(numbers) else torch.arange(samples, device=device)
    return torch.cat([found, known.to(torch.int32)])


@_seed.register_fake  # type: ignore[untyped-decorator]
def _(place: int, samples: int, device: torch.device) -> torch.Tensor:
    return torch.empty(_part(place).words + samples, dtype=torch.int32, device=device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant_table(device: torch.device) -> torch.Tensor:
    """The table of normals as a constant of a program, whose shape is one, too."""
    table = _table(device)
    torch._dynamo.mark_static(table)
    return table


def _table(device: torch.device) -> torch.Tensor:
    """The table of normals, which goes to each device once."""
    if device not in TABLES:
        from .._core.kernels.threefry import quantiles

        with _disable_current_modes(), torch.inference_mode(False):
            TABLES[device] = torch.from_numpy(quantiles()).to(device)
    return TABLES[device]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepared(
    defence: Defence, shape: Shape, dtype: str, numbered: bool, exported: bool, *_: frozenset[Any]
) -> int | str | None:
    """Where among the `PARTS` there is what computes a batch, or why none does; made by the compiler.

    The compiler takes numbers and words for constants, not functions and errors.
    """
    if not vars(defence):  # it is made by the program, whose compiler has its parameters
        return None
    try:
        function = _natively(defence, shape, dtype)
        if numbered:
            numbers_of(defence, shape, 0)
    except ArgumentError as error:
        return str(error)
    if function is None:
        return None
    one_draw = _one_draw(defence, "torch.export" if exported else "")
    if one_draw and _draws_anew(defence, numbered=numbered):
        return one_draw
    seed = [signed(word) for word in defence._next_seed(addressed=numbered)] if exported else []
    place, words, relabels = next(PLACES), defence._seed_words, defence._changes_labels
    vars(PARTS)[f"at{place}"] = _Part(defence, function, words, seed, one_draw, relabels)
    return place


def _draws_anew(defence: Defence, *, numbered: bool) -> bool:
    """Whether the next pass may have another draw than the last one, of samples that may have numbers."""
    return defence._draws_afresh and not (numbered and defence._has_one_seed)


def _one_draw(defence: Defence, recorder: str) -> str:
    """What is wrong, in a record or in the transforms that are active, with a defence that draws anew."""
    if recorder:
        return ONE_DRAW.format(defence, recorder)
    for interpreter in torch._C._functorch.get_interpreter_stack() or ():
        if interpreter.key() == torch._C._functorch.TransformType.Vmap:
            randomness = torch._C._functorch.CVmapInterpreterPtr(interpreter).randomness()
            if randomness != torch._C._functorch.RandomnessType.Same:
                return SAME_DRAW.format(defence)
    return ""


@contextmanager
def _on_behalf(defence: Defence) -> Iterator[None]:
    """Let a backward pass use what is frozen; it calls on a thread of torch's for each GPU."""
    if torch._C._current_graph_task_id() == -1:
        yield
        return
    with FROZEN.borrowed():
        if defence._draws_afresh:
            raise RuntimeError(RECOMPUTED.format(defence))
        yield


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
    with _on_behalf(defence):
        return _call_eager(defence, x, y, index)


def _call_eager(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    recorder, followed, is_far = _recorder(x), transformed(), on_device(x)
    if (is_far or recorder or followed) and recorder != TRACE:  # to which shapes are tensors
        if (function := _natively(defence, tuple(x.shape), str(x.dtype))) is not None:
            if _draws_anew(defence, numbered=index is not None) and (wrong := _one_draw(defence, recorder)):
                raise ArgumentError(wrong)
            return _call_natively(defence, function, x, y, index)
        if is_far:
            warn_of_copies(defence, x.device)
    if recorder:
        raise RuntimeError(RECORDED.format(defence, recorder))
    if followed:
        raise RuntimeError(TRANSFORMED.format(defence))
    begun = Pass.begin(defence, to_numpy(x), y=y, index=index, runs=True)
    return x if defence.domains == ("labels",) else _Defend.apply(x, begun), begun.labels(y)


def _call_natively(defence: Defence, function: Arithmetic, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    addressed, numbers = index is not None, index
    if isinstance(index, torch.Tensor) and (transformed() or _recorder(x) or index.device.type != "cpu"):
        kind = np.dtype(str(index.dtype).removeprefix("torch."))  # values are not looked at
        numbers_of(defence, tuple(x.shape), np.zeros(tuple(index.shape), kind))
    elif addressed:
        numbers = checked_index(defence, tuple(x.shape), index)
    seed = seed_of(defence, x.shape[0], addressed=addressed)
    source = source_of(defence._seed_words, seed, numbers, x, xp, partial(_table, x.device))
    if _lie_together(x, y, relabels=defence._changes_labels):
        return function(x, xp, y, source)  # type: ignore[no-any-return]
    kind = np.dtype(str(x.dtype).removeprefix("torch."))
    return function(x, xp, None, source)[0], relabelled(defence, x, kind, seed, index, y)


def pull_back(defence: Defence, x: Any, grad: Any, index: Any) -> Any:
    """Vector-Jacobian product at a batch, by torch; None if NumPy computes it."""
    if not isinstance(x, torch.Tensor):
        return None
    compiled = torch.compiler.is_compiling()
    if not compiled and not (on_device(x) or transformed() or _recorder(x)):
        return None
    x = floating(x.detach().float() if x.dtype == torch.bfloat16 else x.detach(), xp)
    if not _is_native(defence, (1, *map(whole, x.shape[1:])), str(x.dtype), *_parameters(defence)):
        if not compiled and on_device(x):
            warn_of_copies(defence, x.device)
        return None
    grad = floating(torch.as_tensor(grad, device=x.device).detach(), xp)
    out, pull = torch.func.vjp(lambda x: call(defence, x, None, index)[0], x)
    check_gradient_shape(tuple(grad.shape), tuple(out.shape))
    if grad.ndim == out.ndim:
        return pull(grad.to(out.dtype))[0].to(grad.dtype)
    classes = [pull(grad[:, k].to(out.dtype))[0] for k in range(grad.shape[1])]
    pulled = torch.stack(classes, dim=1) if classes else x[:, None][:, :0]
    return pulled.to(grad.dtype)


def begin(defence: Defence, x: Any, seeds: Seed) -> tuple[Any, Callable[[Any], Any]] | None:
    """Passes of a batch on an accelerator, end to end, and the way back; None if NumPy computes them."""
    if (function := _natively(defence, tuple(x.shape), str(x.dtype))) is None:
        warn_of_copies(defence, x.device)
        return None
    with torch.enable_grad():
        entry = torch.cat([x.detach()] * len(seeds)).requires_grad_()
        source = source_of(defence._seed_words, seeds, None, entry, xp, partial(_table, x.device))
        out, _ = function(entry, xp, None, source)
    return out.detach(), lambda grad: torch.autograd.grad(out, entry, grad)[0]


def _recorder(x: Any) -> str:
    """What records the operations on `x` as a program, if anything does."""
    if torch.jit.is_tracing():
        return TRACE
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export"
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return "torch.export" if fakes is not None and isinstance(x, fakes.FakeTensor) else ""
