"""Defences of ART itself, and classes derived from ART's, as stages and rows beside preshield's."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core.layout import kept_dtype
from .._core.typing import Array
from ..preprocessor import Preprocessor

__all__ = ["ForeignDefence", "adapted", "as_defence"]

BASES = "art.defences.preprocessor.preprocessor"


class ForeignDefence(Preprocessor):
    """A defence of ART as one of preshield.

    It is called with NumPy arrays, and its gradient is what its `estimate_gradient` says; a class of ART's
    for torch or TensorFlow is differentiated through its `estimate_forward`. What it draws from the global
    generators of NumPy, Python and torch follows from the seed of the pass.

    Parameters
    ----------
    defence : object
        An instance of a subclass of `art.defences.preprocessor.Preprocessor`.
    """

    def __init__(self, defence: Any) -> None:
        super().__init__()
        self.defence = defence
        if isinstance(getattr(defence, "channels_first", None), bool):
            self.channels_first = defence.channels_first
        if _is_of(type(defence).estimate_gradient, "Preprocessor"):
            self.gradient_kind = "identity"  # type: ignore[misc]

    def __call__(self, x: Any, y: Any = None) -> tuple[Any, Any]:  # type: ignore[override]
        """Call the defence."""
        return self.defence(x, y)  # type: ignore[no-any-return]

    def estimate_gradient(self, x: Any, grad: Any) -> Any:  # type: ignore[override]
        """Gradient of the defence."""
        estimate = type(self.defence).estimate_gradient
        if _is_of(estimate, "PreprocessorPyTorch"):
            return _through_torch(self.defence, x, grad)
        if _is_of(estimate, "PreprocessorTensorFlowV2"):
            return _through_tensorflow(self.defence, x, grad)
        return self.defence.estimate_gradient(x, grad)

    def fit(self, x: Any, y: Any = None, **kwargs: Any) -> Any:
        """Fit the defence."""
        self.defence.fit(x, y, **kwargs)

    @property
    def is_fitted(self) -> bool:
        """Whether the defence is fitted."""
        return bool(self.defence.is_fitted)

    @property  # type: ignore[misc]
    def apply_fit(self) -> bool:
        """Whether a classifier applies the defence when it is trained."""
        return bool(self.defence.apply_fit)

    @property  # type: ignore[misc]
    def apply_predict(self) -> bool:
        """Whether a classifier applies the defence when it predicts."""
        return bool(self.defence.apply_predict)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The defence."""
        return {"defence": self.defence}

    def __repr__(self) -> str:
        """The class, and the parameters that it states."""
        inside = ", ".join(f"{name}={value!r}" for name, value in self._kept_params().items())
        return f"{self._name}({inside})"

    @property
    def _name(self) -> str:
        return type(self.defence).__name__

    def _kept_params(self) -> dict[str, Any]:
        return {
            name: getattr(self.defence, name) for name in self.defence.params if hasattr(self.defence, name)
        }

    @property
    def _learns(self) -> bool:
        return not _is_of(type(self.defence).fit, "Preprocessor")


def as_defence(value: Any) -> Any:
    """A defence of ART as one of preshield; any other object as it is."""
    if isinstance(value, Preprocessor) or not _is_arts(value):
        return value
    return ForeignDefence(value)


def adapted(defences: Sequence[Any], known: Sequence[Preprocessor] = ()) -> Sequence[Preprocessor]:
    """Defences of preshield as they are, those of ART adapted: by what is `known`, if it holds them."""
    if all(isinstance(defence, Preprocessor) for defence in defences):
        return defences
    adapters = {id(d.defence): d for d in known if isinstance(d, ForeignDefence)}
    return [adapters.get(id(defence)) or as_defence(defence) for defence in defences]


def _is_arts(value: Any) -> bool:
    base = getattr(sys.modules.get(BASES), "Preprocessor", None)  # whoever holds one has imported it
    return base is not None and isinstance(value, base)


def _is_of(method: Any, base: str) -> bool:
    """Whether a method is the one of a base class of ART's."""
    return method is getattr(getattr(sys.modules[BASES], base), method.__name__, None)


def _floating(x: Array) -> Array:
    return x.astype(kept_dtype(x.dtype), copy=False)


def _through_torch(defence: Any, x: Array, grad: Array) -> Array:
    torch = sys.modules["torch"]
    with torch.enable_grad():
        tensor = torch.tensor(_floating(x), device=defence.device, requires_grad=True)
        out = defence.estimate_forward(tensor)
        given = torch.tensor(grad, device=out.device, dtype=out.dtype)
        (pulled,) = torch.autograd.grad(out, tensor, given, allow_unused=True)
    return np.zeros_like(x) if pulled is None else np.asarray(pulled.cpu().numpy())


def _through_tensorflow(defence: Any, x: Array, grad: Array) -> Array:
    tf = sys.modules["tensorflow"]
    tensor = tf.convert_to_tensor(_floating(x))
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        out = defence.estimate_forward(tensor)
    pulled = tape.gradient(out, tensor, output_gradients=tf.cast(tf.convert_to_tensor(grad), out.dtype))
    return np.zeros_like(x) if pulled is None else np.asarray(pulled)
