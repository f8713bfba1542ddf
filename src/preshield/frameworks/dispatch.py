"""Public calls with a batch of any framework: what all have in common, and which one is entered."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core.checks import check_given_labels, check_labels
from .._core.layout import as_array, object_array
from .._core.passes import Pass, own
from .._core.tensors import cast, framework, is_bfloat16, like, on_device, to_numpy, traced
from .._core.typing import Defence, Seed
from .callback import is_waveform

__all__ = ["accelerated", "call", "pull_back"]

ENTERED: dict[str, Any] = {}  # the room of each framework of which there was a tensor


def call(defence: Defence, x: Any, y: Any = None, index: Any = None) -> tuple[Any, Any]:
    """Apply `defence` to a batch of any framework, and to its labels."""
    kind = framework(x)
    lazy = y is not None and framework(y) == "dask"
    if lazy and kind != "dask" and not defence._changes_labels:
        return call(defence, x, None, index)[0], y
    if lazy or (kind == "dask" and defence.domains != ("labels",)):
        return _room("dask").call(defence, x, y, index)  # type: ignore[no-any-return]
    if kind == "numpy" and y is not None and defence._changes_labels and traced(framework(y), y):
        if defence.domains == ("labels",):  # the data may be anything, and pass
            return x, call(defence, y, y, index)[1]
        kind, x = framework(y), as_array(x)
    if defence.domains == ("labels",) and not traced(kind, x, y):
        if framework(y) == "torch" or on_device(y):
            check_labels(y, x)
            y = cast(y, "float32") if is_bfloat16(y) else y
            return x, _room(framework(y)).call(defence, y, y, index)[1]
        return _call_numpy(defence, x, y, index)
    x = as_array(x) if kind == "numpy" else x
    if y is None and defence.mixes_samples:
        if kind == "numpy":
            defence._checked(x)  # what is wrong with the batch comes first
        check_given_labels(y, type(defence).__name__)
    if is_waveform(defence, x):
        out, y = call(defence, x[None], y, index)
        return out[0], y
    if kind == "numpy" and not is_bfloat16(x):
        return _call_numpy(defence, x, y, index)
    if is_bfloat16(x):
        widened = cast(x, "float32")
        out, y = call(defence, widened, y, index)
        return (cast(out, "bfloat16") if out.dtype == widened.dtype else out), y
    return _room(kind).call(defence, x, y, index)  # type: ignore[no-any-return]


def _room(kind: str) -> Any:
    """The file for a framework, imported by a statement, which torch's compiler knows."""
    if kind not in ENTERED:
        if kind == "torch":
            from . import torch

            ENTERED[kind] = torch
        elif kind == "jax":
            from . import jax

            ENTERED[kind] = jax
        elif kind == "dask":
            from . import dask

            ENTERED[kind] = dask
        else:
            from . import tensorflow

            ENTERED[kind] = tensorflow
    return ENTERED[kind]


def _call_numpy(defence: Defence, x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    begun = Pass.begin(defence, x, y=y, index=index, once=True, runs=True)
    out = begun.output()
    of_python = isinstance(x, np.ndarray) and x.dtype == object and begun.x.dtype != object
    if defence.ragged and of_python:
        out = out.astype(object)  # samples of one length, which may differ in the next batch
    return out, begun.labels(y)


def pull_back(defence: Defence, x: Any, grad: Any, index: Any = None) -> Any:
    """Vector-Jacobian product at a batch of any framework."""
    kind = framework(x) if framework(x) != "numpy" else framework(grad)
    if "dask" in (kind, framework(grad)):
        return _room("dask").pull_back(defence, x, grad, index)
    if kind in ("torch", "jax"):
        if is_waveform(defence, x):
            return pull_back(defence, x[None], grad[None], index)[0]
        pulled = _room(kind).pull_back(defence, x, grad, index)
        if pulled is not None:
            return pulled
    batch, given = to_numpy(x), to_numpy(grad)
    if is_waveform(defence, batch):
        pulled = Pass.begin(defence, batch[None], index=index).pull_back(given[None])[0]
    else:
        pulled = Pass.begin(defence, batch, index=index).pull_back(given)
    if pulled.dtype == object:
        pulled = object_array([own(*pair) for pair in zip(pulled, given, strict=True)])
    else:
        pulled = own(pulled, given)
        pulled = pulled.astype(object) if given.dtype == object else pulled
    out = like(x if framework(grad) == "numpy" else grad, pulled)
    return cast(out, "bfloat16") if is_bfloat16(grad) else out


def accelerated(defence: Defence, x: Any, seeds: Sequence[Seed]) -> tuple[Any, Callable[[Any], Any]] | None:
    """Passes of a tensor of torch or JAX on an accelerator, one for each seed, all in one call.

    Returns
    -------
    tuple or None
        The results end to end, and what takes a gradient of them back; None if NumPy has to compute them.
    """
    kind = framework(x)
    if kind not in ("torch", "jax") or not on_device(x) or (defence._seed_words and not defence._takes_index):
        return None
    return _room(kind).begin(defence, x, np.stack(seeds))  # type: ignore[no-any-return]
