"""What the array API standard lacks: derivatives, and constants that are made where the arrays are."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensors import framework
from ..typing import Dtype

__all__ = [
    "MOST",
    "clipped",
    "computed_once",
    "constant",
    "counted",
    "doubled",
    "gathered",
    "moved",
    "numbers",
    "product",
    "repeated",
    "running_sum",
    "scattered",
    "sent",
    "stop_gradient",
    "straight_through",
    "taken",
    "transformed",
]

MOST = 64  # entries of an array among the parameters; each is an operation


def stop_gradient(x: Any) -> Any:
    """The same values, of which nothing is differentiated."""
    kind = framework(x)
    if kind == "torch":
        return x.detach()
    if kind == "tensorflow":
        return sys.modules["tensorflow"].stop_gradient(x)
    return sys.modules["jax"].lax.stop_gradient(x) if kind == "jax" else x


def repeated(step: Callable[[Any], Any], state: Any, times: int) -> Any:
    """A step made so many times, or until nothing of `state[0]`, an array of bool, is true any more.

    That would change nothing then: who would have to ask the device goes on. The step is compiled once.
    """
    kind = framework(state[0])
    if kind == "jax":
        jax = sys.modules["jax"]

        def goes_on(count: Any, state: Any) -> Any:
            return (count < times) & state[0].any()

        return jax.lax.while_loop(lambda s: goes_on(*s), lambda s: (s[0] + 1, step(s[1])), (0, state))[1]
    if kind == "torch" and (torch := sys.modules["torch"]).compiler.is_compiling() and not transformed():
        from torch.utils._pytree import tree_map

        # The count lies on the host, so that nobody waits for the device; the loop wants tensors of its own.
        state = tree_map(lambda x: x.clone(memory_format=torch.contiguous_format), state)
        first = torch.zeros((), dtype=torch.int64), state
        return torch.while_loop(lambda n, _: n < times, lambda n, state: (n + 1, step(state)), first)[1]
    for _ in range(times):
        state = step(state)
    return state


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


def doubled(x: Any, xp: Any) -> Any:
    """The numbers in double precision, if the framework and the device have it."""
    kind = framework(x)
    if kind == "torch" and x.device.type not in ("cpu", "cuda", "meta"):
        return x
    if kind == "jax" and not sys.modules["jax"].config.jax_enable_x64:
        return x
    return xp.astype(x, xp.float64, copy=False)


def counted(count: int, x: Any, xp: Any) -> Any:
    """The numbers from 0 on, so many, in `int32` and on the device of `x`."""
    return xp.arange(count, dtype=xp.int32, **_place(x))


def running_sum(x: Any, axis: int, xp: Any) -> Any:
    """Sums of the entries up to each one; array-api-compat's does not compile without a warning."""
    return x.cumsum(axis) if framework(x) == "torch" else xp.cumulative_sum(x, axis=axis)


def gathered(x: Any, indices: Any, axis: int, xp: Any) -> Any:
    """Entries along an axis, for each line its own; torch's `take_along_dim` makes symbolic sizes fixed."""
    if framework(x) == "torch":
        return x.gather(axis, indices)
    return xp.take_along_axis(x, indices, axis=axis)


def moved(x: Any, axis: int, to: int, xp: Any) -> Any:
    """An array with an axis elsewhere; torch's `moveaxis` has no rule for `torch.func.vmap`."""
    return x.movedim(axis, to) if framework(x) == "torch" else xp.moveaxis(x, axis, to)


def transformed() -> bool:
    """Whether transforms of torch.func are active, in which torch has no loops; a constant of a program."""
    return bool(sys.modules["torch"]._C._functorch.get_interpreter_stack())


def scattered(x: Any, indices: Any, values: Any, xp: Any) -> Any:
    """An array with values written along its last axis; of several at one index, any one of them."""
    kind = framework(x)
    if kind == "torch":
        return x.scatter(-1, indices, values)
    if kind == "jax" and all(isinstance(length, int) for length in x.shape):  # none symbolic
        return xp.put_along_axis(x, indices, values, axis=-1, inplace=False)
    # All that is written at an index or stands there, side by side: the first of it is taken.
    length = x.shape[-1]
    places = xp.concat([indices, xp.zeros_like(x) + xp.astype(counted(length, x, xp), x.dtype)], axis=-1)
    order = xp.argsort(places, axis=-1, stable=True)
    sorted_places = xp.take_along_axis(places, order, axis=-1)
    repeats = sorted_places[..., 1:] == sorted_places[..., :-1]
    repeats = xp.astype(xp.concat([sorted_places[..., :1] < 0, repeats], axis=-1), xp.int32)
    first = xp.argsort(repeats, axis=-1, stable=True)[..., :length]
    order = xp.take_along_axis(order, first, axis=-1)
    return xp.take_along_axis(xp.concat([values, x], axis=-1), order, axis=-1)


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
    # JAX and TensorFlow lay numbers where they are needed.
    return {} if framework(x) in ("jax", "tensorflow") else {"device": x.device}


def clipped(x: Any, low: Any, high: Any, xp: Any) -> Any:
    """The entries, within limits: numbers or nested lists."""
    return xp.minimum(xp.maximum(x, constant(low, x, xp)), constant(high, x, xp))


def product(a: Any, b: Any, xp: Any) -> Any:
    """A product of matrices in full; by default JAX rounds the factors on some devices."""
    return xp.matmul(a, b, precision="highest") if framework(a) == "jax" else xp.matmul(a, b)
