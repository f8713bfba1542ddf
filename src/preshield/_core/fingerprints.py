"""What a defence is, to those who hash it: joblib, Hugging Face datasets and Dask, for their caches."""

import sys
from types import FrameType
from typing import Any

import numpy as np

from .typing import Defence

__all__ = ["is_hashed", "state_of"]

# Functions that hash what they pickle. Dask's asks an object first, but not those within a function.
HASHERS = {
    "joblib.hashing": "hash",
    "datasets.fingerprint": "hash",
    "dask.tokenize": "tokenize",
    "preshield.frameworks.jax": "_pickled",  # where equal arithmetic shares a program
}
OF_USE = ("_adapted", "_first_seed", "_has_drawn", "_has_warned", "_range_doubted", "_stream", "stochastic")


def is_hashed() -> bool:
    """Whether an object is pickled for the sake of its hash, which nothing but the caller tells."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if HASHERS.get(frame.f_globals.get("__name__", "")) == frame.f_code.co_name:
            return True
        frame = frame.f_back
    return False


def state_of(defence: Defence) -> dict[str, Any]:
    """Parameters and what was learned, without what calls leave behind."""
    return {name: _identity(value) for name, value in vars(defence).items() if name not in OF_USE}


def _identity(value: Any) -> Any:
    """A generator as what it was made from, wherever it is now; any other value as it is."""
    if not isinstance(value, np.random.Generator):
        return value
    source = getattr(value.bit_generator, "seed_seq", None)
    made = getattr(source, "entropy", None), getattr(source, "spawn_key", ())
    return (type(value.bit_generator).__name__, *made)
