"""The gradients that a defence offers to an attacker."""

import copy
from typing import Any

from ..chain import Chain
from ..preprocessor import Preprocessor

__all__ = ["gradient_variants"]


def gradient_variants(defence: Preprocessor | None) -> list[Preprocessor | None]:
    """A defence with each gradient that it offers to an attacker, its own first.

    Parameters
    ----------
    defence : Preprocessor or None
        Left as it is. In variant `k` of a `Chain`, each stage has its own gradient `k`.

    Returns
    -------
    list of Preprocessor
    """
    if isinstance(defence, Chain):
        stages = [gradient_variants(stage) for stage in defence._stages]
        count = max(map(len, stages))
        return [
            defence if k == 0 else _copy(defence, defences=[s[min(k, len(s) - 1)] for s in stages])
            for k in range(count)
        ]
    if defence is None or not defence.gradients:
        return [defence]
    own: Any = defence
    others = [kind for kind in defence.gradients if kind != own.gradient]
    return [defence, *(_copy(defence, gradient=kind) for kind in others)]


def _copy(defence: Preprocessor, **changes: Any) -> Preprocessor:
    """The same defence, with what it has learned, but for some parameters."""
    return copy.copy(defence).set_params(**changes)
