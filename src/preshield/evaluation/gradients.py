"""A defence with each gradient that it offers to an attacker."""

import copy
from typing import Any, TypeVar

from ..preprocessor import Preprocessor

__all__ = ["gradient_variants", "side_by_side"]

T = TypeVar("T")


def gradient_variants(defence: Preprocessor | None) -> list[Preprocessor | None]:
    """A defence with each gradient that it offers to an attacker, the strongest first.

    Parameters
    ----------
    defence : Preprocessor or None
        Left as it is. Its fact `gradients` lists the weakest first and the strongest last.

    Returns
    -------
    list of Preprocessor
        Copies, and `defence` itself in the place of its own gradient. Of a `Chain`, and of what else is made
        of stages, variant `k` has variant `k` of each stage, or the last one of a stage that has fewer: the
        first variant has the strongest gradient of each stage, and the last the weakest. A defence with
        another combination follows at the end.
    """
    if defence is not None and defence._stages:
        variants: list[Preprocessor | None] = [
            defence if _same(stages, defence._stages) else _copy(defence, defences=stages)
            for stages in side_by_side([gradient_variants(stage) for stage in defence._stages])
        ]
        return variants if any(variant is defence for variant in variants) else [*variants, defence]
    if defence is None or not defence.gradients:
        return [defence]
    own: Any = defence
    return [
        defence if kind == own.gradient else _copy(defence, gradient=kind)
        for kind in reversed(defence.gradients)
    ]


def side_by_side(parts: list[list[T]]) -> list[list[T]]:
    """The first of each part, the second of each, and so on; the last one of a shorter part again."""
    return [[part[min(k, len(part) - 1)] for part in parts] for k in range(max(map(len, parts)))]


def _same(stages: Any, others: Any) -> bool:
    return all(stage is other for stage, other in zip(stages, others, strict=True))


def _copy(defence: Preprocessor, **changes: Any) -> Preprocessor:
    """The same defence, with what it has learned, but for some parameters."""
    return copy.copy(defence).set_params(**changes)
