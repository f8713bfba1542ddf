"""A torch module as a classifier for attacks."""

import math
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier

from .._core.typing import Shape
from ..neural.outputs import scores_of
from ..neural.torch_module import own_type
from .classifiers import SLOPE, TINY

__all__ = ["CrossEntropy", "TorchClassifier"]


class CrossEntropy:
    """Cross-entropy of one-hot labels, whose gradient does not vanish where a model is sure.

    As `keras_classifier.CrossEntropy`, which says why.

    Parameters
    ----------
    of_probabilities : bool
        Whether scores are probabilities, and not logits.
    """

    reduction = "mean"  # which ART sets to "none" for the loss of each sample

    def __init__(self, *, of_probabilities: bool) -> None:
        self.of_probabilities = of_probabilities

    def __call__(self, outputs: Any, labels: Any) -> Any:
        """Loss, from scores and one-hot labels."""
        logits = outputs.clamp_min(TINY).log() if self.of_probabilities else outputs
        others = logits.masked_fill(labels > 0, -math.inf).logsumexp(dim=1)
        odds = others - (labels * logits).sum(dim=1)
        loss = torch.nn.functional.softplus(odds) + SLOPE * odds
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()


class TorchClassifier(PyTorchClassifier):  # type: ignore[misc]
    """ART's classifier of a torch module, which gives the module its own floating type on its own device.

    ART gives `float32`, and takes one tensor. Here samples, scores and gradients are `float32` on the CPU for
    ART, whatever the module computes in and wherever it lies, and the scores may be a part of what it
    returns.

    Parameters
    ----------
    model : torch.nn.Module
        Maps samples (N, ...) to scores (N, K), as `scores_of` finds them.
    nb_classes : int
        Number of scores, K.
    input_shape : tuple of int
        Shape of one sample.
    loss : CrossEntropy
        Takes scores and one-hot labels.
    clip_values : tuple of float
        Smallest and largest value of a sample.
    """

    def __init__(
        self,
        model: Any,
        *,
        nb_classes: int,
        input_shape: Shape,
        loss: CrossEntropy,
        clip_values: tuple[float, float],
    ) -> None:
        super().__init__(model, loss, input_shape, nb_classes, clip_values=clip_values, device_type="cpu")

    def _make_model_wrapper(self, model: Any) -> "_Network":
        self._model_wrapper = _Network  # ART deletes it from what it copies
        return _Network(model)


class _Network(torch.nn.Module):  # type: ignore[misc]
    """What ART calls in the place of a module: a list, the scores last."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    @property
    def get_layers(self) -> list[str]:
        """Names of the layers that ART can ask for."""
        return [name for name, _ in self._model.named_children()]

    def forward(self, x: Any) -> list[Any]:
        dtype, device = own_type(self._model)
        entry = x.view_as(x)  # a place for a hook between the samples and their own type
        scores = scores_of(self._model(entry.to(device, dtype)), "classifier")
        exact = scores.to(x.device, torch.float32)
        if exact.requires_grad and scores.dtype in (torch.float16, torch.bfloat16):
            _scale_gradients(entry, exact)
        return [exact]

    def _apply(self, fn: Any, recurse: bool = True) -> "_Network":
        """Leave the module where it is: ART would move it."""
        return self


def _scale_gradients(entry: Any, scores: Any) -> None:
    """Let gradients pass a network in half precision, in which those of a sure model would be 0.

    That of each sample is divided by a power of two at the scores, so that its largest entry is about 1, and
    multiplied by it at the samples: the backward pass is linear.
    """
    scales: list[Any] = []

    def begin(grad: Any) -> Any:
        largest = grad.abs().amax(dim=1)
        usable = (largest > 0) & largest.isfinite()
        scales[:] = [torch.where(usable, largest.log2().ceil().exp2(), 1.0)]
        return grad / scales[0][:, None]

    def end(grad: Any) -> Any:
        return grad * scales[0].reshape(-1, *[1] * (grad.ndim - 1))

    scores.register_hook(begin)
    if entry.requires_grad:
        entry.register_hook(end)
