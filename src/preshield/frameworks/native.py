"""On the caller's own arrays: on their device, in their graph, with their derivatives."""

from functools import partial
from typing import Any

from .._core.layout import working_dtype
from .._core.overrides import check_assignment
from .._core.typing import Arithmetic, Defence, Dtype, Shape

__all__ = ["natively"]


def natively(defence: Defence, shape: Shape, dtype: Dtype, *, doubt: bool = True) -> Arithmetic | None:
    """What computes a batch in its framework, if the defence has it, after the checks that need no values.

    If `doubt`, a shape that plainly has another layout than the one expected is refused.
    """
    check_assignment(defence)
    if defence._overridden or defence._changes_labels or 0 in shape[1:]:
        return None
    defence._check_shape(shape, dtype, doubt=doubt)
    function = defence._arithmetic(shape, dtype)
    if function is None or defence._stages:  # each stage computes in a type of its own
        return function
    exact = defence.keeps_integers and dtype.kind != "f"
    working = dtype if exact else working_dtype(dtype)
    return partial(_computed, function, working.name, defence._output_dtype(dtype).name)


def _computed(function: Arithmetic, working: str, promised: str, x: Any, xp: Any) -> Any:
    out = function(xp.astype(x, getattr(xp, working), copy=False), xp)
    return xp.astype(out, getattr(xp, promised), copy=False)
