"""Robust activation maps."""

from typing import Any

import numpy as np

from .._core.checks import check_integer
from .._core.errors import ArgumentError
from .._core.typing import Array
from .activation_maps import activation_maps
from .feature_maps import FeatureView

__all__ = ["RobustActivationMap"]


class RobustActivationMap:
    """Map which parts of an image speak for any of the classes that it most resembles [1]_.

    An attack changes the predicted class, and with it the class-activation map. It changes the set of the
    most likely classes less. The maps of the `k` most likely classes are scaled to [0, 1] and combined by
    their geometric mean: high is what speaks for all of them.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        Classifier of images, as for `CAM`.
    k : int, default 5
        Number of classes.
    layer : str, optional
        Name of a convolution, as for `CAM`; the last one if omitted.
    batch_size : int, default 128
        Images that go through the model at once.

    Raises
    ------
    TypeError
        If `model` is neither a Keras model nor a torch module.
    ValueError
        If `k` is below 1; if `model` has no convolution, or none called `layer`; if a Keras model is neither
        functional nor sequential. When called, if `k` is larger than the number of classes.

    See Also
    --------
    CAM : The map of one class, and how it is made.

    Notes
    -----
    The paper takes an arithmetic mean in which the class of rank i has the weight 2**-i. A geometric mean
    makes no use of the order of the classes, which an attack changes most easily.

    References
    ----------
    .. [1] Prakash, Moran, Garber, DiLillo, Storer. Deflecting Adversarial Attacks with Pixel Deflection.
       CVPR 2018. arXiv:1801.08926

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import RobustActivationMap
    >>> from torch import nn
    >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
    >>> images = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    >>> RobustActivationMap(model, k=3)(images).shape
    (4, 32, 32)
    """

    def __init__(self, model: Any, k: int = 5, layer: str | None = None, *, batch_size: int = 128) -> None:
        self.model = model
        self.k = check_integer("k", k, 1)
        self.layer = layer
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self._view = FeatureView(model, layer)

    def __call__(self, x: Any) -> Array:
        """Map each image.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C) or (N, C, H, W)
            Images as `model` takes them; an array, or a tensor of any framework.

        Returns
        -------
        ndarray of float32, shape (N, H, W)
            From 0, where least speaks for the classes together, to 1; 0 everywhere if the map is constant.

        Raises
        ------
        TypeError, ValueError
            If `x` is no batch of images, or `model` has fewer than `k` classes.
        """

        def classes(scores: Array, batch: slice) -> Array:
            if self.k > scores.shape[1]:
                raise ArgumentError(
                    f"`k` must be at most {scores.shape[1]}, the number of scores of `model`, got {self.k}; "
                    "make the map with fewer classes."
                )
            return np.argsort(-scores, axis=1, kind="stable")[:, : self.k]

        return activation_maps(self._view, x, classes, self.batch_size)

    def __repr__(self) -> str:
        return f"RobustActivationMap({type(self.model).__name__}, k={self.k}, layer={self._view.name!r})"
