"""Standardisation."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from .._core.arithmetic.namespace import numbers
from .._core.arithmetic.standardise import standardise
from .._core.checks import check_bool, check_values, ignore_device_type
from .._core.errors import ArgumentError
from .._core.layout import part_of, working_dtype
from .._core.threads import map_parts
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["StandardisationMeanStd"]


class StandardisationMeanStd(Preprocessor):
    """Subtract a mean and divide by a standard deviation, as a model was trained to expect [1]_.

    Part of a model rather than a defence: it lets the rest of a chain, and an attack, see data in their
    original range.

    Parameters
    ----------
    mean : float or array_like, default 0.0
        One number, one for each channel `(C,)`, or an array that broadcasts against one sample.
    std : float or array_like, default 1.0
        Likewise; above 0.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or does not fit the batch.

    Notes
    -----
    Any shape with a batch axis; the result is `float32`. Numbers `(C,)` belong to the last axis if it has `C`
    entries, else to the axis after the first: `(N, ..., C)` or `(N, C, ...)`. One image `(C, H, W)` without
    its batch axis is accepted as in ART. The gradient is exact.

    References
    ----------
    .. [1] LeCun, Bottou, Orr, Müller. Efficient BackProp. In: Neural Networks: Tricks of the Trade. 2012.
       doi:10.1007/978-3-642-35289-8_3

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import StandardisationMeanStd
    >>> grey = np.full((1, 2, 2, 3), 0.5, dtype=np.float32)
    >>> StandardisationMeanStd([0.5, 0.25, 0.0], 0.25).transform(grey)[0, 0, 0]
    array([0., 1., 2.], dtype=float32)
    """

    domains = ("image", "video", "audio", "features")
    gradient_kind = "exact"
    output_dtype = "float32"
    paper = "https://doi.org/10.1007/978-3-642-35289-8_3"
    known_attacks = ("needs none: it is invertible, and every gradient passes through it",)

    def __init__(
        self,
        mean: Any = 0.0,
        std: Any = 1.0,
        apply_fit: bool = True,
        apply_predict: bool = True,
        *,
        device_type: str | None = None,
    ) -> None:
        _numbers("mean", mean)
        if not (_numbers("std", std) > 0).all():
            raise ArgumentError(f"`std` must be above 0, got {std!r}.")
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        ignore_device_type(device_type)
        self.mean = mean
        self.std = std
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict

    def _transform(self, x: Array, draw: None) -> Array:
        dtype = working_dtype(x.dtype)
        mean, std = (self._for_sample(name, x.shape, dtype) for name in ("mean", "std"))
        out = np.empty(x.shape, np.float32)

        def work(where: tuple[slice, ...]) -> None:
            values = x[where].astype(dtype, copy=False) - part_of(mean, x.ndim, where)
            out[where] = np.divide(values, part_of(std, x.ndim, where), out=values)

        map_parts(work, x)
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array]:
        return self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        return np.asarray(grad / self._for_sample("std", x.shape, working_dtype(grad.dtype)))

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        if len(shape) in (1, 3):  # what may be a single sample is told by the length of its first axis
            return None
        dtype = working_dtype(dtype)
        held = numbers(*(self._for_batch(name, shape, dtype)[0] for name in ("mean", "std")), dtype=dtype)
        return None if held is None else partial(standardise, mean=held[0], std=held[1])

    def _for_sample(self, name: str, shape: Shape, dtype: Dtype) -> Array:
        """A parameter that broadcasts against a batch, with an entry for each column if channels are last."""
        value, one = self._for_batch(name, shape, dtype)
        if value.ndim and value.shape[-1] > 1:
            value = value.reshape((1,) * (len(one) - value.ndim) + value.shape)
            value = np.ascontiguousarray(np.broadcast_to(value, (*value.shape[:-2], *one[-2:])))
        return value

    def _for_batch(self, name: str, shape: Shape, dtype: Dtype) -> tuple[Array, Shape]:
        """A parameter that broadcasts against a batch, and the shape of one sample."""
        value = np.asarray(getattr(self, name), dtype=dtype)
        if value.ndim == 1 and value.size not in (1, shape[-1]):
            axis = 1 if value.size in shape[1:2] else 0
            value = value.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        # One image (C, H, W) or one vector of features has its channels where a batch has its samples.
        alone = len(shape) in (1, 3) and value.ndim == len(shape) and value.shape[0] == shape[0]
        one = shape if alone else (1, *shape[1:])
        try:
            fits = np.broadcast_shapes(value.shape, one) == one
        except ValueError:
            fits = False
        if not fits:
            raise ArgumentError(
                f"`{name}` must be a number, hold one entry for each channel, or broadcast against one "
                f"sample of `x`, of shape {shape[1:]}, got shape {np.shape(getattr(self, name))}."
            )
        return value, one


def _numbers(name: str, value: Any) -> Array:
    """Finite numbers in an array of any shape."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0)
    if not array.size:
        raise ArgumentError(f"`{name}` must be a number or an array of numbers, got {value!r}.")
    check_values(name, array)
    return array
