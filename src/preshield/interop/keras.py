"""A defence as a layer of Keras; `preshield.as_keras_layer` makes one."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from .._core.errors import ArgumentError
from ..preprocessor import Preprocessor
from .states import check_for_a_model, load_state, state_of

__all__ = ["DefenceLayer"]


@keras.saving.register_keras_serializable("preshield")
class DefenceLayer(keras.layers.Layer):  # type: ignore[misc]
    """See `preshield.as_keras_layer`."""

    def __init__(self, defence: Preprocessor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_for_a_model(defence)
        self.defence = defence
        if keras.config.backend() == "tensorflow":
            self.supports_jit = False  # XLA cannot call back

    def call(self, x: Any, training: bool | None = False) -> Any:
        """Apply the defence if it is for this mode."""
        if not self._applies(training):
            return x
        out = self.defence.transform(x)
        return keras.ops.cast(out, x.dtype) if keras.backend.is_float_dtype(x.dtype) else out

    def _applies(self, training: bool | None) -> bool:
        return self.defence.apply_fit if training else self.defence.apply_predict

    def compute_output_spec(self, x: Any, training: bool | None = False) -> keras.KerasTensor:
        """Shape and dtype of the result, which no backend needs to trace."""
        if not self._applies(training):
            return keras.KerasTensor(x.shape, x.dtype)
        dtype = x.dtype
        if not keras.backend.is_float_dtype(dtype):
            dtype = self.defence._output_dtype(np.dtype(dtype)).name
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the defended batch; None where it depends on an axis of unknown length."""
        of_one, of_two = (
            self.defence._output_shape(tuple(n if n is not None else length for n in shape))
            for length in (1 << 20, 1 << 21)
        )
        return tuple(a if a == b else None for a, b in zip(of_one, of_two, strict=True))

    def get_config(self) -> dict[str, Any]:
        """The parameters of the defence, as JSON can hold them."""
        return {**super().get_config(), "defence": _encoded(self.defence, "defence")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DefenceLayer":
        """Make the layer and its defence anew."""
        return cls(**{**config, "defence": _decoded(config["defence"])})

    def save_own_variables(self, store: Any) -> None:
        """Where the random streams are."""
        store["state"] = state_of(self.defence)

    def load_own_variables(self, store: Any) -> None:
        """Go on from there."""
        load_state(self.defence, np.array(store["state"][()]))


# Parameters as JSON holds them


def _encoded(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encoded(value.item(), name)
    if isinstance(value, list):
        return [_encoded(item, name) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item, name) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encoded(item, f"{name}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, Preprocessor):
        params = {key: _encoded(item, key) for key, item in value.get_params().items()}
        return {"class": _name_of(type(value)), "parameters": params}
    advice = (
        "pass an integer seed"
        if isinstance(value, np.random.Generator)
        else ("make the model anew in code, and save and load its weights with save_weights and load_weights")
    )
    raise ArgumentError(
        f"`{name}` must be a number, a string, an array, a defence, or a list or dict of such to be saved "
        f"with a Keras model, got {type(value).__module__}.{type(value).__name__}; {advice}."
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, Preprocessor):  # as `keras.models.clone_model` may pass it
        return value
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decoded(item) for item in value["tuple"])
    if "dict" in value:
        return {key: _decoded(item) for key, item in value["dict"].items()}
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    parameters = {name: _decoded(item) for name, item in value["parameters"].items()}
    return _class_of(value["class"])(**parameters)


def _name_of(cls: type[Preprocessor]) -> str:
    import preshield

    own = getattr(preshield, cls.__name__, None) is cls
    return cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"


def _class_of(name: str) -> type[Preprocessor]:
    """The class of a name; a file never decides what is imported."""
    import preshield

    own = getattr(preshield, name) if name in dir(preshield) else None
    if isinstance(own, type) and issubclass(own, Preprocessor):
        return own
    for cls in _subclasses(Preprocessor):
        if _name_of(cls) == name:
            return cls
    raise ArgumentError(
        f"The model holds a defence of class {name!r}, which is not known; first import the module that "
        "defines the class."
    )


def _subclasses(cls: type[Preprocessor]) -> Iterator[type[Preprocessor]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
