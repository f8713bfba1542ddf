"""A torch module as a function of NumPy arrays."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from .._core.tensors import to_numpy
from .._core.typing import Array
from .locks import LOCKS

__all__ = ["TorchModule", "evaluating", "own_type"]


class TorchModule:
    """A torch module, or a Keras model on torch, on its own device and in its own floating type.

    Parameters
    ----------
    model : torch.nn.Module
        The module. It is called in evaluation mode and gets its flags back.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.dtype, self.device = own_type(model)

    def __call__(self, *x: Any) -> Any:
        """What the module returns for a tensor, or for several."""
        with evaluating(self.model):
            return self.model(*x)

    def returned(self, x: Any) -> Any:
        """What the module returns for an array or a tensor, without gradients."""
        with sys.modules["torch"].no_grad():
            return self(self.tensor(x))

    def outputs(self, x: Array) -> Array:
        """What the module returns for an array, if it is one tensor."""
        return to_numpy(self.returned(x))

    def tensor(self, x: Any) -> Any:
        """An array or a tensor as the module takes it."""
        torch = sys.modules["torch"]
        if isinstance(x, torch.Tensor):
            return x.to(self.device, self.dtype)
        exact = np.float64 if self.dtype == torch.float64 else np.float32  # NumPy has no bfloat16
        return torch.from_numpy(np.array(x, exact)).to(self.device, self.dtype)


def own_type(model: Any) -> tuple[Any, Any]:
    """Floating type and device of the inputs of a torch module.

    Parameters
    ----------
    model : torch.nn.Module
        The module.

    Returns
    -------
    dtype : torch.dtype
        That of the first floating parameter, or of the first floating buffer; `float32` if there is none.
        Types of 8 bits do not count: weights are kept in them, nothing is computed.
    device : torch.device
        Where that tensor lies; without one, where the first one lies, or the CPU.
    """
    torch = sys.modules["torch"]
    types = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    held = list(chain(model.parameters(), model.buffers()))
    floating = next((tensor for tensor in held if tensor.dtype in types), None)
    if floating is not None:
        return floating.dtype, floating.device
    return torch.float32, held[0].device if held else torch.device("cpu")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Hold a torch module in evaluation mode, and give its flags back.

    The flags are set one by one: `eval()` may do more than that, as where it merges weights.
    """
    with LOCKS.flags:
        # A frozen ScriptModule has no flags.
        training = [module for module in model.modules() if getattr(module, "training", False)]
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True
