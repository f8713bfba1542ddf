"""Class-activation maps: which part of an image speaks for a class."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.checks import check_batch
from .._core.tensors import to_numpy
from .._core.typing import Array
from .feature_maps import FeatureMaps, FeatureView

__all__ = ["activation_maps"]

EPSILON = 1e-6  # a relative range below this is rounding


def activation_maps(
    view: FeatureView, x: Any, classes: Callable[[Array, slice], Array], batch_size: int
) -> Array:
    """Geometric mean of the maps of several classes, for each image.

    Parameters
    ----------
    view : FeatureView
        The model.
    x : array_like, shape (N, H, W, C) or (N, C, H, W)
        Images, in the layout of the model.
    classes : callable
        Maps scores of a batch, shape (n, K), and its place in `x` to class indices, shape (n, k).
    batch_size : int
        Images that go through the model at once.

    Returns
    -------
    ndarray of float32, shape (N, H, W)
        In [0, 1]; 0 for an image whose map is constant.
    """
    x = to_numpy(x)
    x = check_batch(x, ("image",), None, layout="NCHW" if view.channels_first else "NHWC")
    size = x.shape[2:] if view.channels_first else x.shape[1:3]
    maps = np.empty((len(x), *size), np.float32)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        features = view(np.array(x[batch], np.float32, order="C"))
        chosen = classes(features.scores, batch)
        product = np.prod([normalised(class_maps(features, row)) for row in chosen.T], axis=0)
        maps[batch] = normalised(resized(product ** (1 / chosen.shape[1]), size))
    return maps


def class_maps(features: FeatureMaps, classes: Array) -> Array:
    """Map `(n, h, w)` of one class for each image: its feature maps, weighted by the mean of the gradient."""
    one_hot = np.eye(features.scores.shape[1], dtype=np.float32)[classes]
    weights = features.gradient(one_hot).mean(axis=(1, 2), dtype=np.float64)
    maps: Array = np.einsum("nhwc,nc->nhw", features.values, weights)
    return maps


def normalised(maps: Array) -> Array:
    """Each map shifted and scaled to [0, 1]; a constant one becomes 0."""
    low, high = (extreme(maps, axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
    span = high - low
    varies = span > EPSILON * np.maximum(abs(low), abs(high))
    scaled: Array = np.divide(maps - low, span, out=np.zeros_like(maps), where=varies)
    return scaled


def resized(maps: Array, size: tuple[int, ...]) -> Array:
    """Maps `(n, h, w)` at another size, by linear interpolation between the centres of their pixels."""
    rows, columns = (_hats(old, new) for old, new in zip(maps.shape[1:], size, strict=True))
    larger: Array = rows @ maps @ columns.T
    return larger


def _hats(old: int, new: int) -> Array:
    """Weights of `old` pixels in each of `new`, shape (new, old)."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - abs(centres[:, None] - np.arange(old)))
