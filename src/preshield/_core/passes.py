"""One pass through a defence: a batch and a draw, an output and a pull-back."""

from typing import Any, Self

import numpy as np

from .checks import check_gradient, check_index, check_labels, check_ragged_gradient
from .errors import ArgumentError
from .layout import as_numbers, kept_dtype, object_array
from .overrides import Written
from .tensors import framework, like, to_numpy
from .typing import Array, Defence, Seed, Shape

__all__ = ["Pass", "next_seed", "numbers_of", "own"]


class Pass:
    """What hooks make of one batch and one draw: the output, the labels and the pull-back.

    The defence has checked the batch; for labels alone, its shape and dtype are enough. The draw is what
    `_begin` has made of a seed for this batch.
    """

    _shape: Shape = ()  # of the output, once it is known

    def __init__(self, defence: Defence, x: Array, draw: Any) -> None:
        self.defence = defence
        self.x = x
        self.draw = draw
        # A class that writes public methods draws what runs these as hooks.
        self._hooks = draw if isinstance(draw, Written) else defence

    @classmethod
    def begin(
        cls,
        defence: Defence,
        x: Any,
        seed: Seed | None = None,
        y: Any = None,
        index: Any = None,
        once: bool = False,
        **use: bool,
    ) -> Self:
        """Check a batch for its `use`, as `_checked` has it, and draw: from `seed`, else from the next one.

        No seed is drawn for a batch that is refused. Methods that take data and labels are told `y`. If it
        runs `once`, there will be no gradient, and a chain does not keep what its stages receive.
        """
        x = defence._checked(x, **use)
        if seed is None:
            seed = next_seed(defence, () if index is None else np.shape(x), index)
        draw = defence._begin(x, seed)
        if once and defence._stages and not isinstance(draw, Written):
            draw.once = True
        if y is not None and defence._wants_labels:
            draw.labels = y if framework(y) == "numpy" else to_numpy(y)
        return cls(defence, x, draw)

    def output(self) -> Array:
        """The batch after the defence, in the dtype that it promises."""
        x = self.x
        if self.defence.domains == ("labels",):
            return x
        out = self._hooks._transform(x, self.draw)
        self._shape = out.shape
        if x.dtype != object:
            return self._as_promised(out, x)
        if out.dtype != object:  # samples that now have one shape
            return out
        return object_array([self._as_promised(*pair) for pair in zip(out, x, strict=True)])

    def _as_promised(self, out: Array, x: Array) -> Array:
        """The output in its dtype, in memory of its own."""
        shared = not x.flags.writeable and np.may_share_memory(out, x)
        return out.astype(self.defence._output_dtype(x.dtype), copy=shared)

    def labels(self, y: Any) -> Any:
        """Labels of any framework, checked, after the defence."""
        if not self.defence._changes_labels:
            return y
        labels = None if y is None else to_numpy(y)
        if labels is not None:
            check_labels(labels, self.x)
            labels = as_numbers(labels)
        out = self.relabel(labels)
        return out if out is None or out is y else like(y, out)

    def relabel(self, y: Array | None) -> Array | None:
        """Labels after the defence."""
        return self._hooks._transform_labels(y, self.draw)

    def pull_back(self, grad: Array) -> Array:
        """Vector-Jacobian product at the batch; `grad` itself, in its memory, if it is passed on."""
        x, shape_after = self.x, self.defence._output_shape
        if x.dtype == object:
            grad = check_ragged_gradient(grad, [shape_after((1, *s.shape))[1:] for s in x])
            pairs = zip(self._pulled(grad), grad, strict=True)
            return object_array([_in_type_of(given, pulled) for pulled, given in pairs])
        shape = shape_after(x.shape)
        given = np.shape(grad)
        if not self.defence._states_shape and shape not in (given, given[:1] + given[2:]):
            shape = self._shape or self.output().shape
        grad = check_gradient(grad, shape)
        if grad.ndim == len(shape):
            pulled = self._pulled(grad)
        else:
            classes = [self._pulled(grad[:, k]) for k in range(grad.shape[1])]
            pulled = np.stack(classes, axis=1) if classes else np.empty((*x.shape[:1], 0, *x.shape[1:]))
        return _in_type_of(grad, pulled)

    def _pulled(self, grad: Array) -> Array:
        return self._hooks._gradient(self.x, grad, self.draw)


def _in_type_of(grad: Array, pulled: Array) -> Array:
    """A gradient in the floating type of the one that was given."""
    return pulled.astype(kept_dtype(grad.dtype), copy=False)


def own(pulled: Array, grad: Array) -> Array:
    """A gradient in memory that is not the caller's."""
    shared = not pulled.flags.writeable or np.may_share_memory(pulled, grad)
    return pulled.copy() if shared else pulled


def next_seed(defence: Defence, shape: Shape, index: Any) -> Seed:
    """The seed of a pass that begins, and behind it the numbers of the samples if the caller gives them."""
    numbers = None if index is None else numbers_of(defence, shape, index)
    if numbers is None or not defence._seed_words:
        return defence._next_seed()
    return np.concatenate([defence._next_seed(addressed=True), numbers])


def numbers_of(defence: Defence, shape: Shape, index: Any) -> Array:
    """The numbers of the samples, if the defence can make use of them."""
    if not shape:  # of labels alone
        return np.zeros(0, dtype=np.uint32)
    numbers = check_index(to_numpy(index), shape[0])
    if defence._seed_words:
        changed = defence._states_shape and defence._output_shape(shape)[0] != shape[0]
        if changed or not defence._takes_index:
            raise ArgumentError(
                f"`index` must be left out for {defence!r}: a sample of it is made of several, or it adds "
                "some, or its own methods draw."
            )
    return numbers
