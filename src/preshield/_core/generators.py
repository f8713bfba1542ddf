"""The random generators that a whole process shares: NumPy's global one, Python's and torch's."""

import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from threading import RLock
from typing import Any

import numpy as np

from .random import SEED_WORDS
from .typing import Seed

__all__ = ["Generators", "peeked_seed", "seeded"]

_lock = RLock()  # what is shared can follow one seed at a time


class Generators:
    """State of the shared generators at one moment. torch's are included if torch is loaded."""

    def __init__(self) -> None:
        self._numpy: Any = np.random.get_state(legacy=False)
        self._python = random.getstate()
        self._torch = [generator.get_state() for generator in _of_torch()]

    def __eq__(self, other: object) -> bool:
        """Whether nothing was drawn between two moments."""
        return isinstance(other, Generators) and self._written() == other._written()

    __hash__ = None  # type: ignore[assignment]

    def put_back(self) -> None:
        """Continue from this moment."""
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        for generator, state in zip(_of_torch(), self._torch, strict=False):  # torch may be loaded since
            generator.set_state(state)

    def _written(self) -> tuple[Any, ...]:
        torch = [state.numpy().tobytes() for state in self._torch]
        return pickle.dumps(self._numpy), self._python, torch


def peeked_seed() -> Seed:
    """A seed that follows from the state of NumPy's global generator, from which nothing is drawn."""
    state = pickle.dumps(np.random.get_state(legacy=False))
    return np.frombuffer(blake2b(state, digest_size=4 * SEED_WORDS).digest(), np.uint32)


@contextmanager
def seeded(seed: Seed) -> Iterator[None]:
    """Let the shared generators follow a seed inside a `with` block, and put them back afterwards."""
    with _lock:
        before = Generators()
        np.random.seed(seed)
        number = int.from_bytes(seed.tobytes(), "little")
        random.seed(number)
        for generator in _of_torch():
            generator.manual_seed(number % 2**63)
        try:
            yield
        finally:
            before.put_back()


def _of_torch() -> list[Any]:
    torch = sys.modules.get("torch")
    if not hasattr(torch, "default_generator"):  # not loaded, or about to be
        return []
    generators = [torch.default_generator]  # type: ignore[union-attr]
    if torch.cuda.is_initialized():  # type: ignore[union-attr]
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])  # type: ignore[union-attr]
    return generators
