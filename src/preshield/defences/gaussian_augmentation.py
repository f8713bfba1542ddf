"""Gaussian noise, added to the samples or beside them."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .._core.arithmetic.namespace import numbers
from .._core.arithmetic.noise import augmented, noisy
from .._core.checks import check_bool, check_clip_values, check_limits, check_number, check_rng
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.layout import working_dtype
from .._core.threads import map_blocks
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["GaussianAugmentation"]

BLOCK = 1 << 16  # values


class Draw(NamedTuple):
    """Which samples get a noisy copy, if any do, and where the noise comes from."""

    samples: Any
    noise: Draws


class GaussianAugmentation(Preprocessor):
    """Add Gaussian noise: to noisy copies beside the samples, or to the samples themselves [1]_.

    Parameters
    ----------
    sigma : float, default 1.0
        Standard deviation of the noise, in units of the data.
    augmentation : bool, default True
        Whether to keep the samples and append noisy copies of some; otherwise every sample is replaced by
        itself plus noise.
    ratio : float, default 1.0
        With `augmentation`: number of copies divided by number of samples.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if samples would be appended in prediction or never.

    Notes
    -----
    Any shape with a batch axis; the result is `float32`. With `augmentation`, `(N, ...)` becomes
    `(N + int(ratio * N), ...)`, copies drawn with replacement, and labels are repeated to match. Gradients
    pass through the sum unchanged; clipping is taken for the identity.

    References
    ----------
    .. [1] Zantedeschi, Nicolae, Rawat. Efficient Defenses Against Adversarial Attacks. AISec 2017.
       arXiv:1707.06728

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import GaussianAugmentation
    >>> x, y = GaussianAugmentation(sigma=0.1, ratio=0.5, rng=0)(np.zeros((4, 2)), np.arange(4))
    >>> x.shape, y.shape
    ((6, 2), (6,))
    """

    domains = ("image", "video", "audio", "features")
    stochastic = True
    changes_shape = True  # the number of samples, with `augmentation`
    output_dtype = "float32"
    paper = "arXiv:1707.06728"
    known_attacks = (
        (
            "Carlini and Wagner 2017 (arXiv:1711.08478): noise in training, defeated with a slight increase "
            "in distortion"
        ),
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): noise in prediction falls to averaged gradients",
    )

    def __init__(
        self,
        sigma: float = 1.0,
        augmentation: bool = True,
        ratio: float = 1.0,
        clip_values: ClipValues | None = None,
        apply_fit: bool = True,
        apply_predict: bool = False,
        *,
        rng: Rng = None,
    ) -> None:
        check_number("sigma", sigma, 0)
        check_bool(augmentation=augmentation, apply_fit=apply_fit, apply_predict=apply_predict)
        check_number("ratio", ratio)
        if augmentation and ratio <= 0:
            raise ArgumentError(f"`ratio` must be above 0 with augmentation=True, got {ratio!r}.")
        for name, value, only in (("apply_fit", apply_fit, True), ("apply_predict", apply_predict, False)):
            if augmentation and value != only:
                raise ArgumentError(
                    f"`{name}` must be {only} with augmentation=True, got {value}: samples are appended in "
                    "training only. Pass augmentation=False to add noise in prediction."
                )
        check_clip_values(clip_values, optional=True)
        check_rng(rng)
        self.sigma = sigma
        self.augmentation = augmentation
        self.ratio = ratio
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.rng = rng

    def _draw(self, x: Array, rng: Draws) -> Draw:
        if not self.augmentation:
            return Draw(None, rng.reserve(prod(x.shape[1:])))
        copies = self._output_shape(tuple(x.shape))[0] - x.shape[0]
        rng = rng.renumbered(copies)
        return Draw(rng.integers(0, max(1, x.shape[0]), copies), rng.reserve(prod(x.shape[1:])))

    def _transform(self, x: Array, draw: Draw) -> Array:
        if self.clip_values is not None:
            check_limits(self.clip_values, x.shape)
        out = np.empty(self._output_shape(x.shape), np.float32)
        source, noisy = x, out
        if self.augmentation:
            out[: len(x)] = x
            source = noisy = out[len(x) :]
            np.take(out[: len(x)], draw.samples, axis=0, out=noisy, mode="clip")  # "raise" would buffer
        flat_source, flat, of_sample = source.reshape(-1), noisy.reshape(-1), int(np.prod(x.shape[1:]))
        dtype = working_dtype(x.dtype)

        def work(values: slice) -> None:
            block = np.ascontiguousarray(flat_source[values], dtype)
            draw.noise.add_normals(flat[values], block, float(self.sigma), values, of_sample)

        map_blocks(work, flat.size, BLOCK)
        if self.clip_values is not None:
            np.clip(out, *self.clip_values, out=out, casting="unsafe")
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        return None if self.augmentation else self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: Draw) -> Array:
        if not self.augmentation:
            return grad
        total = grad[: len(x)].copy()
        np.add.at(total, draw.samples, grad[len(x) :])
        return total

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        limits: list[Any] | None = []
        if self.clip_values is not None:
            check_limits(self.clip_values, shape)
            limits = numbers(*self.clip_values, dtype=np.dtype(np.float32))
        if limits is None:
            return None
        function = augmented if self.augmentation else noisy
        return partial(function, sigma=float(self.sigma), limits=limits)

    @property
    def _changes_labels(self) -> bool:
        return self.augmentation

    def _transform_labels(self, y: Array | None, draw: Draw) -> Array | None:
        if y is None or not self.augmentation:  # a chain asks all of its stages
            return y
        return np.concatenate((y, y[draw.samples]))

    def _output_shape(self, shape: Shape) -> Shape:
        if not self.augmentation:
            return shape
        return (shape[0] + int(shape[0] * float(self.ratio)), *shape[1:])
