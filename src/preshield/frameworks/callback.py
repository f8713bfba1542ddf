"""Through NumPy and back: what the graphs of frameworks call, and what they cannot do with a result.

Eager tensors are computed at once, and the draw of the forward pass is kept for the backward pass. Traced
tensors (`tf.function`, `jax.jit`, `jax.grad`) call back at run time, and the draw is made again from a seed
that is part of the graph.

The backward pass is code in NumPy, which no framework can differentiate again. A second derivative is
therefore refused, unless the gradient was passed on unchanged: then the framework's own tensor is passed on,
and stays connected.
"""

from typing import Any

import numpy as np

from .._core.checks import check_output_shape
from .._core.passes import Pass, next_seed
from .._core.random import FROZEN
from .._core.ranges import warn_caller
from .._core.typing import Array, Defence, Seed, Shape
from .native import seed_of

__all__ = ["RECOMPUTED", "TWICE", "Callback", "is_passed_on", "is_waveform", "warn_of_copies"]

TWICE = (
    "{} has neither second nor forward-mode derivatives: its gradient is computed in NumPy. Leave it out of "
    "the part that needs them, or pass gradient='identity' if it has that parameter."
)
RECOMPUTED = (
    "{} draws at random, and a recomputed forward pass would draw anew: the gradient would be that of "
    "another loss. Defend outside the checkpointed part, or run the forward and the backward pass inside "
    "`with defence.frozen(seed):`."
)

_warned: set[type] = set()


def warn_of_copies(defence: Defence, device: Any) -> None:
    """Warn that a batch on an accelerator is defended on the host, once for each class."""
    if type(defence) not in _warned:
        _warned.add(type(defence))
        warn_caller(
            f"{defence} computes in NumPy: each batch on {device} is copied to the host and back, in both "
            "directions of a pass. To defend data once, before they go to the device, is faster."
        )


def is_passed_on(pulled: Array, grad: Array) -> bool:
    """Whether a gradient was passed on, not computed: the same values in the same place."""

    def place(a: Array) -> Any:
        return a.ctypes.data, a.shape, a.strides, a.dtype

    return bool(place(pulled) == place(grad))


def is_waveform(defence: Defence, x: Any) -> bool:
    """Whether `x` is one waveform `(length,)`, as ART's speech recognisers pass it; no batch of audio is."""
    if defence.domains != ("audio",):
        return False
    shape = getattr(x, "shape", ())
    rank = shape.rank if hasattr(shape, "rank") else len(shape)  # TensorFlow's may be unknown
    of_objects = isinstance(x, np.ndarray) and x.dtype == object  # numbers, or samples of any length
    return rank == 1 and (not of_objects or (len(x) > 0 and np.ndim(x[0]) == 0))


class Callback:
    """What traced graphs call in NumPy; there a pass is made again from its seed, which the graph holds.

    A thread of the framework calls on behalf of another one, which may have frozen the defence.
    """

    def __init__(self, defence: Defence) -> None:
        self.defence = defence

    def seed(self, shape: Any, *index: Any) -> Seed:
        """The seed of a pass."""
        with FROZEN.borrowed():
            return next_seed(self.defence, tuple(map(int, shape)), *(index or (None,)))

    def words(self, samples: int, *, addressed: bool) -> Array:
        """The seed of a pass for a program that draws itself, and behind it the numbers of the samples."""
        with FROZEN.borrowed():
            seed = seed_of(self.defence, samples, addressed=addressed)
        if not addressed and len(seed) == self.defence._seed_words:
            seed = np.concatenate([seed, np.arange(samples, dtype=np.uint32)])
        return seed.view(np.int32)

    def forward(self, x: Array, seed: Seed) -> Array:
        """The batch after the defence."""
        if is_waveform(self.defence, x):  # in a graph that does not know its rank
            return self.forward(x[None], seed)[0]  # type: ignore[no-any-return]
        begun = self._begun(x, seed, once=True, runs=True)
        out = begun.output()
        check_output_shape(self.defence, out.shape, self.defence._output_shape(begun.x.shape))
        return out

    def backward(self, x: Array, seed: Seed, grad: Array) -> Array:
        """The gradient before the defence."""
        if is_waveform(self.defence, x):
            return self.backward(x[None], seed, grad[None])[0]  # type: ignore[no-any-return]
        begun = self._begun(x, seed)
        return begun.pull_back(grad).astype(begun.x.dtype, copy=False)

    def again(self, x: Array, seed: Seed, grad: Array) -> Array:
        """The derivative of `backward` with respect to `grad`, a factor: 1 if that was passed on."""
        if not is_passed_on(self._begun(x, seed).pull_back(grad), grad):
            raise RuntimeError(TWICE.format(self.defence))
        return np.ones((), grad.dtype)

    def relabel(self, y: Array, x: Array, seed: Seed) -> Array:
        """The labels after the defence."""
        with FROZEN.borrowed():
            draw = self.defence._begin(x, seed)
        return np.asarray(Pass(self.defence, x, draw).labels(y))

    def relabelled(self, y: Shape, y_dtype: Any, x: Shape, x_dtype: Any) -> Array:
        """What labels of this kind become, found by trying it on zeros."""
        seed = np.zeros(self.defence._seed_words, dtype=np.uint32)
        return self.relabel(np.zeros(y, y_dtype), np.broadcast_to(np.zeros((), x_dtype), x), seed)

    def _begun(self, x: Array, seed: Seed, **use: bool) -> Pass:
        with FROZEN.borrowed():
            return Pass.begin(self.defence, x, seed, **use)
