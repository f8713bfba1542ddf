"""Which framework a tensor belongs to; to NumPy and back.

A framework is recognised through `sys.modules`: whoever holds a tensor has imported it.
"""

import sys
from typing import Any

import numpy as np

from .errors import ArgumentError
from .layout import as_array
from .typing import Array

__all__ = ["cast", "filled", "framework", "is_bfloat16", "like", "on_device", "to_numpy", "traced"]


def framework(x: Any) -> str:
    """Name of the framework that `x` belongs to: "torch", "tensorflow", "jax", "dask" or "numpy"."""
    torch, tensorflow, jax = (sys.modules.get(name) for name in ("torch", "tensorflow", "jax"))
    if torch is not None and isinstance(x, getattr(torch, "Tensor", ())):
        return "torch"
    if jax is not None and isinstance(x, getattr(jax, "Array", ())):
        return "jax"
    if tensorflow is not None and hasattr(tensorflow, "is_tensor") and tensorflow.is_tensor(x):
        return "tensorflow"
    lazy = sys.modules.get("dask.array")
    if lazy is not None and isinstance(x, getattr(lazy, "Array", ())):
        return "dask"
    return "numpy"


def to_numpy(x: Any) -> Array:
    """An eager tensor, or anything array-like, as a NumPy array; `bfloat16` becomes `float32`."""
    kind = framework(x)
    if kind == "torch":
        if (layout := str(x.layout)) != "torch.strided" or x.is_meta:
            held, remedy = (
                ("no values", "a tensor of another device") if x.is_meta else (layout, "x.to_dense()")
            )
            raise ArgumentError(f"Tensors must be dense and hold values, got one of {held}; pass {remedy}.")
        x = x.detach().resolve_conj().resolve_neg()
        x = x.float() if "bfloat16" in str(x.dtype) else x
        return np.asarray(x.cpu().numpy())
    array = as_array(x)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def like(x: Any, array: Array) -> Any:
    """The array as a tensor of the framework and on the device of `x`."""
    kind = framework(x)
    if kind == "torch":
        torch = sys.modules["torch"]
        return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(x.device)
    if kind == "tensorflow":
        return sys.modules["tensorflow"].convert_to_tensor(array)
    if kind == "jax":
        return sys.modules["jax"].device_put(array, x.sharding)
    return array


def cast(x: Any, dtype: str) -> Any:
    """A tensor in another floating type, by its name."""
    kind = framework(x)
    if kind == "torch":
        return x.to(getattr(sys.modules["torch"], dtype))
    return sys.modules["tensorflow"].cast(x, dtype) if kind == "tensorflow" else x.astype(dtype)


def is_bfloat16(x: Any) -> bool:
    """Whether it is a tensor, or an array as a tensor of TensorFlow's or JAX's becomes one, of this type."""
    dtype = getattr(x, "dtype", "")
    if isinstance(dtype, np.dtype) and dtype.kind != "V":  # to write the name of a type takes microseconds
        return False
    return "bfloat16" in str(dtype)


def on_device(x: Any) -> bool:
    """Whether an eager tensor of torch or JAX lies on an accelerator."""
    kind = framework(x)
    if kind == "torch":
        return bool(x.device.type != "cpu" and str(x.layout) == "torch.strided")
    return kind == "jax" and any(device.platform != "cpu" for device in x.devices())


def filled(count: int, least: int = 1) -> Array:
    """Numbers of so many samples, the last one repeated until there are `least`, and a power of two of them.

    JAX compiles what it computes anew for each size of a batch.
    """
    return np.minimum(np.arange(max(least, 1 << max(0, count - 1).bit_length())), count - 1)


def traced(kind: str, *tensors: Any) -> bool:
    """Whether values are known only when the graph runs."""
    if kind == "tensorflow":
        return not sys.modules["tensorflow"].executing_eagerly()
    return kind == "jax" and any(isinstance(t, sys.modules["jax"].core.Tracer) for t in tensors)
