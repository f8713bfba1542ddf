"""What the array API standard lacks: derivatives, and constants that are made where the arrays are."""

import sys
from typing import Any

import numpy as np

from ..tensors import framework
from ..typing import Dtype

__all__ = [
    "clipped",
    "computed_once",
    "constant",
    "counted",
    "numbers",
    "product",
    "sent",
    "stop_gradient",
    "straight_through",
    "taken",
]

MOST = 64  # entries of an array among the parameters; each is an operation


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


def numbers(*arrays: Any, dtype: Dtype) -> list[Any] | None:
    """Numbers of a type, or nested lists, for parameters that broadcast; None if they hold too many."""
    held = [np.asarray(array, dtype) for array in arrays]
    held = [array.reshape(-1)[0] if array.size and np.ptp(array) == 0 else array for array in held]
    return None if any(array.size > MOST for array in held) else [array.tolist() for array in held]


def constant(value: Any, x: Any, xp: Any) -> Any:
    """A number or a nested list as an array of the type and on the device of `x`, where it is made."""
    if isinstance(value, list):
        return xp.stack([constant(part, x, xp) for part in value])
    return xp.full((), value, dtype=x.dtype, **_place(x))


def counted(count: int, x: Any, xp: Any) -> Any:
    """The numbers from 0 on, so many, in `int32` and on the device of `x`."""
    return xp.arange(count, dtype=xp.int32, **_place(x))


def sent(array: Any, x: Any, xp: Any) -> Any:
    """An array of NumPy's on the device of `x`."""
    return xp.asarray(array, **_place(x))


def taken(x: Any, indices: Any, xp: Any) -> Any:
    """Entries along the first axis, by their numbers."""
    if framework(x) == "torch":  # the function of the standard does not compile with symbolic sizes
        return x.index_select(0, indices)
    return xp.take(x, indices, axis=0)


def computed_once(x: Any) -> Any:
    """The same array, which torch's compiler computes once, and not again for each of its uses.

    Of a long chain in which all values are used more than once it would otherwise compile for minutes.
    """
    if framework(x) == "torch" and sys.modules["torch"].compiler.is_compiling():
        return x.as_strided(x.shape, x.stride())  # it asks for an array in memory
    return x


def _place(x: Any) -> dict[str, Any]:
    return {} if framework(x) == "jax" else {"device": x.device}  # JAX lays numbers where they are needed


def clipped(x: Any, low: Any, high: Any, xp: Any) -> Any:
    """The entries, within limits: numbers or nested lists."""
    return xp.minimum(xp.maximum(x, constant(low, x, xp)), constant(high, x, xp))


def product(a: Any, b: Any, xp: Any) -> Any:
    """A product of matrices in full; by default JAX rounds the factors on some devices."""
    return xp.matmul(a, b, precision="highest") if framework(a) == "jax" else xp.matmul(a, b)
