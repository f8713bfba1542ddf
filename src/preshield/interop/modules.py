"""A defence as a part of a model."""

from importlib import import_module
from typing import TYPE_CHECKING

from .._core.optional import require
from .on_import import on_import

if TYPE_CHECKING:
    from ..preprocessor import Preprocessor
    from .keras import DefenceLayer
    from .torch import DefenceModule

__all__ = ["as_keras_layer", "as_torch_module", "register_layer_on_import"]


def as_torch_module(defence: "Preprocessor") -> "DefenceModule":
    """Make a defence a `torch.nn.Module`, for `torch.nn.Sequential(as_torch_module(defence), model)`.

    Parameters
    ----------
    defence : Preprocessor
        The defence, a `Chain` for several; one that changes neither labels nor the number of samples.

    Returns
    -------
    preshield.interop.torch.DefenceModule
        In training mode it applies the defence if its `apply_fit` is True, in evaluation mode if its
        `apply_predict` is; otherwise the batch passes unchanged. `.train()` and `.eval()` switch.

    Raises
    ------
    TypeError, ValueError
        If `defence` is no defence, or changes labels or the number of samples.
    ImportError
        If torch is missing.

    Notes
    -----
    The module has no parameters: `.to`, `.half` and `.double` change what is around it, and the result has
    the device and the floating type of its batch. A model that the defence holds, such as a generator or an
    activation map, is no submodule: the optimiser must not train it, and it stays on its device.

    `state_dict` has one entry, a tensor of bytes with the positions of the random streams, so that a model
    that was saved and loaded goes on with the draws that would have come next. The parameters of a defence
    are those of the constructor, as for other modules; loading a state that was saved with others warns.

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> from preshield import JpegCompression, as_torch_module
    >>> jpeg = JpegCompression((0, 1), quality=50, channels_first=True)
    >>> torch.nn.Sequential(as_torch_module(jpeg), torch.nn.Conv2d(3, 8, 3))
    Sequential(
      (0): DefenceModule(JpegCompression(clip_values=(0, 1), channels_first=True))
      (1): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    )
    """
    require("torch", extra="torch")
    from .torch import DefenceModule

    return DefenceModule(defence)


def as_keras_layer(defence: "Preprocessor", **kwargs: object) -> "DefenceLayer":
    """Make a defence a layer of Keras.

    Parameters
    ----------
    defence : Preprocessor
        The defence, a `Chain` for several; one that changes neither labels nor the number of samples.
    **kwargs
        Of `keras.layers.Layer`, such as `name`.

    Returns
    -------
    preshield.interop.keras.DefenceLayer
        Called with ``training=True`` it applies the defence if its `apply_fit` is True, otherwise if its
        `apply_predict` is; else the batch passes unchanged. `model.fit` and `model.predict` pass `training`.

    Raises
    ------
    TypeError, ValueError
        If `defence` is no defence, or changes labels or the number of samples. When the model is saved: if a
        parameter is neither a number, a string, an array, a defence, nor a list or dict of such.
    ImportError
        If Keras is missing.

    Notes
    -----
    For the backends TensorFlow, JAX and torch. On TensorFlow a model that holds the layer is not compiled by
    XLA, which cannot call a defence.

    A `.keras` file holds the parameters of the defence, with the positions of its random streams among the
    weights, and is loaded wherever `preshield` is imported; where the defence is of a class of your own, the
    module that defines the class too.

    Examples
    --------
    >>> import pytest
    >>> keras = pytest.importorskip("keras")
    >>> from preshield import SpatialSmoothing, as_keras_layer
    >>> layers = [keras.Input((32, 32, 3)), as_keras_layer(SpatialSmoothing(3)), keras.layers.Flatten()]
    >>> keras.Sequential(layers).output_shape
    (None, 3072)
    """
    require("keras", extra="tensorflow")
    from .keras import DefenceLayer

    return DefenceLayer(defence, **kwargs)


def register_layer_on_import() -> None:
    """Let Keras load models that hold the layer, as soon as Keras is loaded itself."""
    on_import("keras".__eq__, _register_layer)


def _register_layer(keras: object) -> None:
    import_module(f"{__package__}.keras")
