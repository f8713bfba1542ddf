"""Class-activation maps."""

from typing import Any

import numpy as np

from .._core.checks import check_integer
from .._core.errors import ArgumentError
from .._core.typing import Array
from .activation_maps import activation_maps
from .feature_maps import FeatureView

__all__ = ["CAM"]


class CAM:
    """Map which parts of an image speak for one class [1]_.

    Where global average pooling and a dense layer follow the convolution, this is the sum of its feature maps
    weighted by that layer. For any other head the weights are the spatial means of the gradient of the
    class's score (Grad-CAM [2]_), which is the same where both exist.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        Classifier of images. A Keras model must be functional or sequential, models within it too, and run
        on TensorFlow or torch.
    layer : str, optional
        Name of a convolution: in torch as in `named_modules`, in Keras that of the layer, after that of a
        model around it and a slash. The last convolution if omitted.
    batch_size : int, default 128
        Images that go through the model at once.

    Raises
    ------
    TypeError
        If `model` is neither a Keras model nor a torch module.
    ValueError
        If it has no convolution, or none called `layer`; if a Keras model is of another kind.

    See Also
    --------
    RobustActivationMap : The maps of several classes in one.

    Notes
    -----
    The feature maps are taken after all that follows the convolution and keeps their shape: batch
    normalisation, an activation, a residual sum. Scores are those before a softmax. The final ReLU of
    Grad-CAM is left out: the same map results from both formulas, and the maps of classes that an image
    speaks against stay comparable. The model is evaluated in inference mode and left as it was.

    References
    ----------
    .. [1] Zhou, Khosla, Lapedriza, Oliva, Torralba. Learning Deep Features for Discriminative Localization.
       CVPR 2016. arXiv:1512.04150
    .. [2] Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM: Visual Explanations from Deep Networks
       via Gradient-based Localization. ICCV 2017. arXiv:1610.02391

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import CAM
    >>> from torch import nn
    >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
    >>> images = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    >>> CAM(model)(images).shape
    (4, 32, 32)
    """

    def __init__(self, model: Any, layer: str | None = None, *, batch_size: int = 128) -> None:
        self.model = model
        self.layer = layer
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self._view = FeatureView(model, layer)

    def __call__(self, x: Any, y: Any = None) -> Array:
        """Map each image.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C) or (N, C, H, W)
            Images as `model` takes them; an array, or a tensor of any framework.
        y : array_like of int, shape (N,), optional
            The class to map for each image; the predicted one if omitted.

        Returns
        -------
        ndarray of float32, shape (N, H, W)
            From 0, where least speaks for the class, to 1; 0 everywhere if the map is constant.

        Raises
        ------
        TypeError, ValueError
            If `x` is no batch of images, or `y` does not hold one class for each.
        """
        given = None if y is None else _checked(y, len(x))

        def classes(scores: Array, batch: slice) -> Array:
            if given is None:
                predicted: Array = scores.argmax(axis=1, keepdims=True)
                return predicted
            if given.size and given.max() >= scores.shape[1]:
                raise ArgumentError(
                    f"`y` must hold classes below {scores.shape[1]}, the number of scores of `model`, got "
                    f"{given.max()}."
                )
            return given[batch][:, None]

        return activation_maps(self._view, x, classes, self.batch_size)

    def __repr__(self) -> str:
        return f"CAM({type(self.model).__name__}, layer={self._view.name!r})"


def _checked(y: Any, length: int) -> Array:
    labels = np.asarray(y)
    if labels.shape != (length,):
        raise ArgumentError(
            f"`y` must hold one class index for each of the {length} images, shape ({length},), got shape "
            f"{labels.shape}."
        )
    if length and labels.dtype.kind not in "iu":
        raise ArgumentError(f"`y` must hold class indices as integers, got dtype {labels.dtype}.")
    if labels.min(initial=0) < 0:
        raise ArgumentError(f"`y` must hold class indices from 0 on, got {labels.min()}.")
    return labels
