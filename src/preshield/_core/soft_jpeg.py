"""JPEG with a differentiable quantiser, and its vector-Jacobian product.

Shin and Song (2017) put r + (c - r)**3 in the place of a coefficient c that is rounded to r. Nothing else is
rounded here: colours, means and both transforms are linear, and every step is a product along one axis.
"""

from functools import cache, lru_cache

import numpy as np

from .jpeg import BYTE_SCALE, RGB, TOLERANCE, Settings, quanta
from .layout import from_frames, to_frames, working_dtype
from .resizing import Taps, clamp_taps, transpose_taps
from .threads import BLOCK_BYTES, map_blocks
from .typing import Array, Dtype

__all__ = ["soft_gradient"]

BLOCK = 8
MIDDLE, LOWEST, HIGHEST = 128, -128, 127
# The integers of JPEG's conversions, over 2**16.
TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 65536
TO_RGB = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]]) / 65536


def soft_gradient(x: Array, grad: Array, settings: Settings, *, axis: int) -> Array:
    """Vector-Jacobian product at `x` of JPEG with the cubic quantiser, its clamps included.

    Parameters
    ----------
    x, grad : ndarray
        Batch with its channels on `axis`, and the gradient with respect to what comes out.
    settings : Settings
        As of the round trip.
    axis : int
        Axis of the channels.

    Returns
    -------
    ndarray
        In the `working_dtype` of `grad`.
    """
    dtype = working_dtype(grad.dtype)
    out = np.empty(x.shape, dtype)
    frames, grads, outs = (to_frames(a, axis=axis) for a in (x, grad, out))
    scale = BYTE_SCALE / settings.largest
    count = frames.shape[0] * frames.shape[1]

    def work(numbers: slice) -> None:
        places = np.unravel_index(np.arange(numbers.start, numbers.stop), frames.shape[:2])
        levels, pulled = (_pictures(a[places], dtype) for a in (frames, grads))
        outs[places] = np.moveaxis(_pull_back(levels * dtype.type(scale), pulled, settings), 1, -1)

    if x.size:
        map_blocks(work, count, max(1, BLOCK_BYTES * count // out.nbytes))
    return from_frames(outs, x.ndim, axis=axis)


def _pictures(frames: Array, dtype: Dtype) -> Array:
    """Frames `(P, H, W, C)` as pictures `(P, C, H, W)`."""
    return np.ascontiguousarray(np.moveaxis(frames, -1, 1), dtype=dtype)


def _pull_back(levels: Array, grad: Array, settings: Settings) -> Array:
    """The product for pictures `(P, C, H, W)`."""
    values = np.minimum(levels, BYTE_SCALE)
    steps = quanta(settings.quality).astype(levels.dtype)
    if levels.shape[1] == RGB:
        ycc, tables, factors = _convert(TO_YCC, values), steps[[0, 1, 1]], [(1, 1)] + 2 * [settings.factors]
        passes = [_Plane(ycc[:, c], tables[c], factors[c], middle=MIDDLE * (c == 0)) for c in range(RGB)]
        rgb = _convert(TO_RGB, np.stack([one.out for one in passes], axis=1))
        grad = _convert(TO_RGB.T, grad * _is_open(rgb, 0, BYTE_SCALE))
        back = _convert(TO_YCC.T, np.stack([one.back(grad[:, c]) for c, one in enumerate(passes)], axis=1))
    else:
        grey = _Plane(values.reshape(-1, *values.shape[2:]), steps[0], (1, 1), middle=MIDDLE)
        back = grey.back(grad.reshape(-1, *grad.shape[2:])).reshape(grad.shape)
    return np.asarray(back * (levels <= BYTE_SCALE))


def _is_open(values: Array, low: int, high: int) -> Array:
    """Where a clamp lets gradients pass: also a little out of its range, where rounding leads."""
    return np.asarray((values >= low - TOLERANCE) & (values <= high + TOLERANCE))


class _Plane:
    """One component of pictures there and back, and the transpose of this."""

    def __init__(self, x: Array, steps: Array, factors: tuple[int, int], *, middle: int) -> None:
        height, width = x.shape[1:]
        real = -(-width // factors[1])
        smooth = real > 2  # narrower ones are enlarged by repetition, along both axes
        self._down = _down(height, factors[0], True), _down(width, factors[1], False)
        self._up = _up(height, factors[0], smooth), _up(width, factors[1], smooth)
        self._size, self._coded = (height, width), (len(self._down[0].first), len(self._down[1].first))
        steps = steps[:, None]
        samples = _in_blocks(_apply(self._down, x, self._coded) - x.dtype.type(middle))
        coefficients = _transform(samples) / steps
        rounded = np.rint(coefficients)
        off = coefficients - rounded
        square = off * off  # NumPy's third power would take as long as all the rest
        self._slope = 3 * square
        samples = _transform((rounded + square * off) * steps, inverse=True).reshape(-1, *self._coded)
        self._open = _is_open(samples, LOWEST, HIGHEST)
        samples = np.clip(samples, LOWEST, HIGHEST)
        self.out = _apply(self._up, samples, self._size) + x.dtype.type(middle)

    def back(self, grad: Array) -> Array:
        """From a gradient with respect to `out` to one with respect to `x`."""
        up = _transposed(self._up, self._coded)
        down = _transposed(self._down, self._size)
        grad = _transform(_in_blocks(_apply(up, grad, self._coded) * self._open)) * self._slope
        return _apply(down, _transform(grad, inverse=True).reshape(-1, *self._coded), self._size)


@lru_cache(maxsize=64)
def _down(length: int, factor: int, rows: bool) -> Taps:
    """Means of `factor` pixels along an axis, continued to whole blocks.

    Below the picture the last mean is repeated, to the right of it the last pixel.
    """
    real = -(-length // factor)
    numbers = np.arange(-(-real // BLOCK) * BLOCK)
    numbers = np.minimum(numbers, real - 1) if rows else numbers
    return clamp_taps(factor * numbers, np.full((len(numbers), factor), 1 / factor), length)


@lru_cache(maxsize=64)
def _up(length: int, factor: int, smooth: bool) -> Taps:
    """Pixels along an axis, from the values that lie in the picture."""
    real, numbers = -(-length // factor), np.arange(length)
    if factor == 1 or not smooth:
        return clamp_taps(numbers // factor, np.ones((length, 1)), real)
    odd = numbers % 2
    weights = np.where(odd[:, None], [0.75, 0.25], [0.25, 0.75])
    return clamp_taps(numbers // 2 - 1 + odd, weights, real)


def _transposed(taps: tuple[Taps, Taps], size: tuple[int, int]) -> tuple[Taps, Taps]:
    return transpose_taps(taps[0], size[0]), transpose_taps(taps[1], size[1])


def _apply(taps: tuple[Taps, Taps], x: Array, size: tuple[int, int]) -> Array:
    """A linear map along the rows and one along the columns of planes."""
    from .kernels.resize import resize_planes

    (rows, columns), out = taps, np.empty((len(x), *size), x.dtype)
    resize_planes(
        out,
        np.ascontiguousarray(x),
        rows.first,
        rows.weights.astype(x.dtype),
        columns.first,
        columns.weights.astype(x.dtype),
        1,
    )
    return out


def _in_blocks(x: Array) -> Array:
    """Planes `(P, H, W)` as `(P, rows of blocks, 8, blocks in a row, 8)`."""
    planes, height, width = x.shape
    return x.reshape(planes, height // BLOCK, BLOCK, width // BLOCK, BLOCK)


def _transform(blocks: Array, *, inverse: bool = False) -> Array:
    """The orthonormal cosine transform of blocks."""
    waves = _waves().astype(blocks.dtype)
    waves = waves.T if inverse else waves
    planes, rows, _, columns, _ = blocks.shape
    down = np.matmul(waves, blocks.reshape(planes * rows, BLOCK, columns * BLOCK))
    return np.asarray((down.reshape(-1, BLOCK) @ waves.T).reshape(blocks.shape))


@cache
def _waves() -> Array:
    """The cosines, a row for each frequency."""
    angles = np.outer(np.arange(BLOCK), 2 * np.arange(BLOCK) + 1) * np.pi / (2 * BLOCK)
    waves = np.cos(angles) * np.sqrt(2 / BLOCK)
    waves[0] = np.sqrt(1 / BLOCK)
    return np.asarray(waves)


def _convert(matrix: Array, pictures: Array) -> Array:
    """Other colours of pictures `(P, 3, H, W)`."""
    flat = pictures.reshape(len(pictures), RGB, -1)
    return np.asarray(np.matmul(matrix.astype(pictures.dtype), flat).reshape(pictures.shape))
