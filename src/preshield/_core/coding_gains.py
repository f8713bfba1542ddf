"""A codec of pictures as a linear map: what share of each cosine coefficient it lets through.

No derivative passes through prediction between frames and quantisers. But which coefficients survive can be
seen by comparing what goes in with what comes out, and a perturbation that is to survive must lie in those.
The shares are taken for constants.
"""

import numpy as np

from .soft_jpeg import BLOCK, TO_RGB, TO_YCC
from .typing import Array

__all__ = ["pull_back_gains"]

FAINT = 1e-3  # of the range: a coefficient below counts as lost


def pull_back_gains(before: Array, after: Array, grad: Array) -> Array:
    """Vector-Jacobian product of the map that scales each cosine coefficient as a codec scaled it.

    Frames are cut into blocks of 8 x 8 pixels, of luminance and both chrominances on their own. A coefficient
    `c` that came out as `d` is scaled by ``c * d / (c**2 + FAINT**2)``, but by no less than 0 and no
    more than 1.

    Parameters
    ----------
    before, after : ndarray, shape (F, H, W, 3)
        RGB in [0, 1], as it went in and as it came out.
    grad : ndarray, shape (F, H, W, 3)
        Gradient with respect to what comes out. Its floating type is that of the computation.

    Returns
    -------
    ndarray, shape (F, H, W, 3)
    """
    from scipy.fft import idctn

    height, width = grad.shape[1:3]
    into, out_of = (matrix.T.astype(grad.dtype) for matrix in (TO_YCC, TO_RGB))
    one, other = (
        _coefficients(_enlarged(frames.astype(grad.dtype), "edge") @ into) for frames in (before, after)
    )
    scales = np.clip(one * other / (one * one + FAINT**2), 0, 1)
    spread = _coefficients(_enlarged(grad, "constant") @ out_of.T)
    pulled = idctn(spread * scales, axes=(2, 4), norm="ortho")
    whole = pulled.reshape(len(grad), -(-height // BLOCK) * BLOCK, -1, 3) @ into.T
    return _cut(whole, height, width)


def _coefficients(frames: Array) -> Array:
    """Of blocks: shape (F, rows of blocks, 8, blocks in a row, 8, 3)."""
    from scipy.fft import dctn

    count, height, width, channels = frames.shape
    blocks = frames.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels)
    return np.asarray(dctn(blocks, axes=(2, 4), norm="ortho"))


def _enlarged(frames: Array, mode: str) -> Array:
    """Continued to whole blocks, below and to the right."""
    below, right = (-frames.shape[1]) % BLOCK, (-frames.shape[2]) % BLOCK
    return np.asarray(np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode))  # type: ignore[call-overload]


def _cut(frames: Array, height: int, width: int) -> Array:
    """The transpose of repeating the last row and the last column: what was repeated adds up."""
    frames[:, height - 1] += frames[:, height:].sum(axis=1)
    frames[:, :, width - 1] += frames[:, :, width:].sum(axis=2)
    return frames[:, :height, :width]
