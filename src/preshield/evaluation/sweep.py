"""Families of defences to evaluate side by side."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from ..chain import Chain
from ..preprocessor import Preprocessor

__all__ = ["Sweep", "ablate", "sweep"]


class Sweep(dict[str, Preprocessor]):
    """Defences that differ in one parameter, by name.

    Attributes
    ----------
    parameter : str
        What differs.
    parameter_values : tuple
        Its values, in the order of the defences.
    """

    def __init__(self, defences: dict[str, Preprocessor], parameter: str, values: tuple[Any, ...]) -> None:
        super().__init__(defences)
        self.parameter = parameter
        self.parameter_values = values


def sweep(defence_class: type[Preprocessor], parameter: str, values: Iterable[Any], **fixed: Any) -> Sweep:
    """Make one defence for each value of a parameter, to pass to `evaluate`.

    Parameters
    ----------
    defence_class : type
        Class of the defences.
    parameter : str
        Name of one of its parameters.
    values : iterable
        Values of it.
    **fixed
        Other parameters, the same for all.

    Returns
    -------
    Sweep
        A dict of defences by name. The report of its evaluation has their curve.

    Raises
    ------
    TypeError
        If `defence_class` is no class of defences.
    ValueError
        If the class has no such parameter, there are no values, or two are the same.

    Examples
    --------
    >>> from preshield import JpegCompression, sweep
    >>> list(sweep(JpegCompression, "quality", [10, 50], clip_values=(0, 1)))
    ['quality=10', 'quality=50']
    """
    values = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
    if not isinstance(defence_class, type):
        raise ArgumentError(f"`defence_class` must be a class of defences, got {defence_class!r}.")
    if parameter not in defence_class.params:
        raise ArgumentError(
            f"`parameter` must be one of {', '.join(defence_class.params)}, the parameters of "
            f"{defence_class.__name__}, got {parameter!r}."
        )
    if not values:
        raise ArgumentError("`values` must hold at least one value, got none.")
    defences = {f"{parameter}={value!r}": defence_class(**{**fixed, parameter: value}) for value in values}
    if len(defences) < len(values):
        raise ArgumentError(f"`values` must differ from each other, got {list(values)!r}.")
    return Sweep(defences, parameter, values)


def ablate(chain: Chain) -> dict[str, Preprocessor]:
    """Make a chain and all chains that lack one of its stages, to pass to `evaluate`.

    Parameters
    ----------
    chain : Chain
        A chain of two stages or more.

    Returns
    -------
    dict of str to Chain
        "all stages", then "without ..." for each stage.

    Raises
    ------
    TypeError
        If it is no chain.
    ValueError
        If it has one stage.

    Examples
    --------
    >>> from preshield import Chain, FeatureSqueezing, SpatialSmoothing, ablate
    >>> list(ablate(Chain([SpatialSmoothing(3), FeatureSqueezing((0, 1), 4)])))
    ['all stages', 'without SpatialSmoothing', 'without FeatureSqueezing']
    """
    if not isinstance(chain, Chain):
        raise ArgumentError(f"`chain` must be a Chain, got {chain!r}.")
    stages = list(chain.defences)
    if len(stages) < 2:
        raise ArgumentError(f"`chain` must have two stages or more, got {chain!r}.")
    names = [type(stage).__name__ for stage in stages]
    chains: dict[str, Preprocessor] = {"all stages": chain}
    for k, name in enumerate(names):
        number = f" (stage {k + 1})" if names.count(name) > 1 else ""
        chains[f"without {name}{number}"] = Chain(
            stages[:k] + stages[k + 1 :], apply_fit=chain.apply_fit, apply_predict=chain.apply_predict
        )
    return chains
