"""Feature squeezing: fewer bits for each value."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from .._core.arithmetic.namespace import numbers
from .._core.arithmetic.squeeze import squeeze
from .._core.checks import check_bool, check_clip_values, check_integer, check_limits, check_option
from .._core.layout import part_of, range_dtype, working_dtype
from .._core.planes import map_planes
from .._core.threads import map_parts
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["FeatureSqueezing"]

FINE = 255  # widths of a smooth step in the range: about as far as an attack moves a value


class FeatureSqueezing(Preprocessor):
    """Round each value to one of `2**bit_depth` evenly spaced levels [1]_.

    Parameters
    ----------
    clip_values : tuple
        Lowest and highest level `(minimum, maximum)`: numbers, or arrays that broadcast against one
        sample, for example one entry for each channel. Values outside are rounded on the same grid.
    bit_depth : int, default 8
        Bits for each value, 1 to 64.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    gradient : {"identity", "soft"}, default "identity"
        What stands in for the derivative of the staircase, which is 0 almost everywhere: 1, or the slope of
        a smooth staircase as that of [2]_, but of arctangents, whose slope falls off with the square of the
        distance. A step is about 1/255 of the range wide, so that eight bits hardly differ from 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or an array in `clip_values` does not fit the batch.

    Notes
    -----
    Any shape with a batch axis. Floating types are kept; integers become `float32`. Ties go to the even
    level.

    Levels of sound should include silence. With ``clip_values=(-1, 1 - 2.0 ** (1 - bit_depth))`` they are
    those of integer samples, the multiples of ``2.0 ** (1 - bit_depth)``: the quantisation of [3]_. With
    ``(-1, 1)`` none of them is 0, and silence becomes a constant offset.

    References
    ----------
    .. [1] Xu, Evans, Qi. Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks.
       NDSS 2018. arXiv:1704.01155
    .. [2] Agustsson, Theis. Universally Quantized Neural Compression. NeurIPS 2020. arXiv:2006.09952
    .. [3] Hussain, Neekhara, Dubnov, McAuley, Koushanfar. WaveGuard: Understanding and Mitigating Audio
       Adversarial Examples. USENIX Security 2021. arXiv:2103.03344

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing
    >>> FeatureSqueezing((0, 1), bit_depth=1).transform(np.array([[0.2, 0.7]]))
    array([[0., 1.]])
    >>> FeatureSqueezing((-1, 0.75), bit_depth=3).transform(np.array([[0.1, -0.2, 0.6]]))  # a waveform
    array([[ 0.  , -0.25,  0.5 ]])
    """

    domains = ("image", "video", "audio", "features")
    gradients = ("identity", "soft")
    paper = "arXiv:1704.01155"
    known_attacks = (
        (
            "He et al. 2017 (arXiv:1706.04701): adaptive attack on bit depth and median together succeeds "
            "with low distortion"
        ),
        "Sharma and Chen 2018 (arXiv:1803.09868): stronger oblivious attacks pass the detector",
    )

    def __init__(
        self,
        clip_values: ClipValues,
        bit_depth: int = 8,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        gradient: str = "identity",
    ) -> None:
        check_clip_values(clip_values)
        check_integer("bit_depth", bit_depth, 1, 64)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_option("gradient", gradient, self.gradients)
        self.clip_values = clip_values
        self.bit_depth = bit_depth
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.gradient = gradient

    def _transform(self, x: Array, draw: None) -> Array:
        from .._core.kernels.squeeze import squeeze as round_all

        dtype = range_dtype(x.dtype, self.clip_values)
        levels = float(2.0 ** int(self.bit_depth) - 1)
        low, span = self._range(x.shape, dtype)
        out = np.empty(x.shape, working_dtype(x.dtype))
        if span.ndim:
            step, origin = span.astype(np.float64) / levels, low.astype(np.float64)

            def put(where: tuple[slice, ...]) -> None:
                lowest, width, each, first = (part_of(a, x.ndim, where) for a in (low, span, step, origin))
                position = ((x[where].astype(dtype, copy=False) - lowest) / width).astype(np.float64)
                out[where] = np.rint(position * levels) * each + first

            map_parts(put, x)
            return out

        def work(out: Array, block: Array) -> None:
            round_all(out.reshape(-1), block.reshape(-1), dtype.type(low), dtype.type(span), levels)

        # Blocks of any length if the order of memory is that of the axes.
        target, source = (a.reshape(-1) if x.flags.c_contiguous else a for a in (out, x))
        map_planes(work, target, source, dtypes=(out.dtype, dtype))
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array]:
        return self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if self.gradient == "identity":
            return grad
        low, span = self._range(x.shape, np.dtype(np.float64))
        position = (x - low) / span * (2.0 ** int(self.bit_depth) - 1)
        between = position - np.floor(position) - 0.5  # 0 half-way between two levels
        sharpness = self._sharpness()
        steepest = sharpness / (2 * np.arctan(sharpness / 2))
        return np.asarray(grad * (steepest / (1 + np.square(sharpness * between))))

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        dtype = working_dtype(dtype)
        limits = numbers(*self._range(shape, dtype), dtype=dtype)
        if limits is None:
            return None
        low, span = limits
        sharpness = self._sharpness() if self.gradient == "soft" else None
        return partial(squeeze, low=low, span=span, bits=int(self.bit_depth), sharpness=sharpness)

    def _sharpness(self) -> float:
        return FINE / (2.0 ** int(self.bit_depth) - 1)

    def _range(self, shape: Shape, dtype: Dtype) -> tuple[Array, Array]:
        """Minimum and range, in the dtype of the computation."""
        check_limits(self.clip_values, shape)
        low, high = (np.asarray(value, dtype=dtype) for value in self.clip_values)
        return low, np.asarray(high - low)
