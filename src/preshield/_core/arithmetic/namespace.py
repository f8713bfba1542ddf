"""What the array API standard lacks: derivatives, and constants that are made where the arrays are."""

import sys
from collections.abc import Sequence
from typing import Any

from ..tensors import framework

__all__ = ["constant", "stop_gradient", "straight_through"]


def stop_gradient(x: Any) -> Any:
    """The same values, of which nothing is differentiated."""
    kind = framework(x)
    if kind == "torch":
        return x.detach()
    return sys.modules["jax"].lax.stop_gradient(x) if kind == "jax" else x


def straight_through(out: Any, stand_in: Any) -> Any:
    """The values of `out` with the derivatives of `stand_in`, of every order and in every mode.

    What is added is zero, so that the values stay exact; of a stand-in that is not finite it is NaN.
    """
    return stop_gradient(out) + (stand_in - stop_gradient(stand_in))


def constant(values: Sequence[float], x: Any, xp: Any) -> Any:
    """Numbers as a vector of the type and on the device of `x`, none of which is copied from the host."""
    return xp.stack([xp.full((), value, dtype=x.dtype, device=x.device) for value in values])
