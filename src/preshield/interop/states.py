"""The state of a defence in a model that is saved: where its random streams are."""

import json
import re
import warnings
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.random import SeedStream
from .._core.samples import check_keeps_samples, drawing
from .._core.typing import Array
from ..preprocessor import Preprocessor

__all__ = ["check_for_a_model", "load_state", "state_of"]


def check_for_a_model(defence: object) -> None:
    """Refuse what cannot be a part of a model."""
    if not isinstance(defence, Preprocessor):
        remedy = "put several into a Chain"
        if isinstance(defence, type) and issubclass(defence, Preprocessor):
            remedy = f"pass an object of the class, {defence.__name__}(...)"
        raise ArgumentError(
            f"`defence` must be a preshield defence, got {defence!r} of type {type(defence).__module__}."
            f"{type(defence).__name__}; {remedy}."
        )
    check_keeps_samples(defence, "A part of a model")


def state_of(defence: Preprocessor) -> Array:
    """The state as bytes."""
    state = {"defence": _recipe(defence), "streams": [stream.position for stream in _streams(defence)]}
    return np.frombuffer(json.dumps(state).encode(), np.uint8).copy()


def load_state(defence: Preprocessor, state: Array) -> None:
    """Go on with the draws that would have come next."""
    saved: dict[str, Any] = json.loads(state.astype(np.uint8).tobytes())
    streams = _streams(defence)
    if len(saved["streams"]) != len(streams):
        raise ArgumentError(
            f"The state has the random streams of {saved['defence']}, and cannot be loaded into "
            f"{_recipe(defence)}."
        )
    if saved["defence"] != _recipe(defence):
        warnings.warn(
            f"The state was saved with {saved['defence']} and is loaded into {_recipe(defence)}, which keeps "
            "its parameters.",
            stacklevel=2,
        )
    for stream, position in zip(streams, saved["streams"], strict=True):
        stream.move_to(position)


def _streams(defence: Preprocessor) -> list[SeedStream]:
    return [one._own_stream() for one in drawing(defence)]


def _recipe(defence: Preprocessor) -> str:
    """The constructor call, without the addresses of objects and the types of NumPy's numbers in it."""
    return re.sub(r"np\.\w+\(([^()]*)\)", r"\1", re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(defence)))
