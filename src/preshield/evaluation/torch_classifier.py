"""A torch module as a classifier for attacks."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._core.typing import Array, Shape
from ..neural.outputs import scores_of
from ..neural.torch_module import TorchModule
from .perturbations import at_least, host

__all__ = ["TorchClassifier", "passes_gradients"]


class TorchClassifier:
    """A torch module, or a Keras model on torch, attacked through its own derivatives, where it lies.

    Samples are tensors on the device of the module, in `float32`, or in `float64` if that is what the module
    computes in. Half precision is left to the module: a sample under attack moves by less than it resolves.

    Parameters
    ----------
    model : torch.nn.Module
        Maps samples (N, ...) to scores (N, K), as `scores_of` finds them.
    nb_classes : int
        Number of scores, K.
    input_shape : tuple of int
        Shape of one sample.
    of_probabilities : bool
        Whether the scores are probabilities, and not logits.
    """

    def __init__(self, model: Any, *, nb_classes: int, input_shape: Shape, of_probabilities: bool) -> None:
        self.model = model
        self.nb_classes = nb_classes
        self.input_shape = input_shape
        self.of_probabilities = of_probabilities
        keras: Any = sys.modules.get("keras")
        of_keras = keras is not None and isinstance(model, keras.Model)
        self.channels_first = not of_keras or keras.config.image_data_format() == "channels_first"
        self._module = TorchModule(model)
        double = self._module.dtype == torch.float64
        self._dtype = torch.float64 if double else torch.float32

    def array(self, x: Any) -> Any:
        """Samples as a tensor, on the device of the module."""
        tensor = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.require(x, None, ("C", "W")))
        return tensor.to(self._module.device, self._dtype)

    def predict(self, x: Any) -> Array:
        """Scores `(N, K)`."""
        with torch.no_grad():
            return host(self._scores(at_least(self.array(x))).to(self._dtype))[: len(x)]

    def forward(self, x: Any) -> tuple[Array, Callable[[Array], Any]]:
        """Scores `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        with torch.enable_grad():
            entry = at_least(self.array(x)).detach().requires_grad_()
            scores = self._scores(entry)
        count = len(x)

        def pull(derivative: Array) -> Any:
            upstream = torch.zeros_like(scores)
            upstream[:count] = torch.from_numpy(np.ascontiguousarray(derivative))
            (gradient,) = torch.autograd.grad(scores, entry, upstream)
            return gradient[:count]

        return host(scores.detach().to(self._dtype))[:count], pull

    def activations(self, x: Any, layer: str | int) -> Array:
        """Output of a layer, by its name or its number among the children of the module."""
        layers = dict(self.model.named_modules())
        found: list[Any] = []
        module = layers[layer] if isinstance(layer, str) else list(self.model.children())[layer]
        hook = module.register_forward_hook(lambda module, given, output: found.append(output))
        try:
            self.predict(x)
        finally:
            hook.remove()
        return host(found[0].detach().to(self._dtype))[: len(x)]

    def _scores(self, x: Any) -> Any:
        return scores_of(self._module(x.to(self._module.dtype)), "classifier")


def passes_gradients(network: TorchModule, x: Array, name: str) -> bool:
    """Whether the scores of a module are connected to its input: not if it leaves torch, or detaches."""
    with torch.enable_grad():
        samples = network.tensor(x).requires_grad_()
        scores = scores_of(network(samples), name)
        if not getattr(scores, "requires_grad", False):
            return False
        (grad,) = torch.autograd.grad(scores.sum(), samples, allow_unused=True)
    return grad is not None
