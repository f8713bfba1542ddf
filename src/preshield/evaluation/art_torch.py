"""A defended model of any framework as ART's classifier of a torch module."""

import math
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from .._core.typing import Array
from .art_bridge import DefendedClassifier
from .losses import SLOPE

__all__ = ["in_torch"]


def in_torch(classifier: DefendedClassifier) -> Any:
    """ART's classifier of a torch module that asks `classifier` for its scores and gradients."""
    return _Bridge(
        _Defended(classifier),
        _Loss(of_votes=classifier.of_votes),
        classifier.input_shape,
        classifier.nb_classes,
        clip_values=classifier.clip_values,
        channels_first=classifier.channels_first,
        device_type="cpu",
    )


class _Bridge(PyTorchClassifier):  # type: ignore[misc]
    """The defended classifier, whose layers are those of the network within."""

    def get_activations(self, x: Any, layer: Any, batch_size: int = 128, framework: bool = False) -> Any:
        return self.model.classifier.get_activations(x, layer, batch_size, framework)

    def fit(self, x: Array, y: Array, *args: Any, **kwargs: Any) -> None:
        self.model.classifier.fit(x, y)

    def save(self, filename: str, path: str | None = None) -> None:
        self.model.classifier.save(filename, path)


class _Defended(torch.nn.Module):  # type: ignore[misc]
    """The defended classifier as a function of tensors."""

    def __init__(self, classifier: DefendedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Any) -> Any:
        return _Scores.apply(x, self.classifier)


class _Scores(torch.autograd.Function):  # type: ignore[misc]
    """Scores, with gradients at the draws that made them."""

    @staticmethod
    def forward(ctx: Any, x: Any, classifier: DefendedClassifier) -> Any:
        ctx.x, ctx.classifier = x.detach().cpu().numpy(), classifier
        ctx.address = classifier.address(len(x))
        scores = classifier.scores_at(ctx.x, *ctx.address)
        return torch.from_numpy(scores.astype(np.float32)).to(x.device)

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> tuple[Any, None]:
        derivative = upstream.detach().cpu().numpy().astype(np.float64)

        def weighted(scores: Array, y: Array, targets: Array | None) -> tuple[Array, Array]:
            return (scores * derivative).sum(axis=1), derivative

        with torch.enable_grad():  # for preprocessing of ART, which differentiates without asking
            gradient = ctx.classifier.gradient_at(ctx.x, weighted, *ctx.address)
        return torch.from_numpy(gradient).to(upstream.device), None


class _Loss:
    """Cross-entropy of scores and one-hot labels, whose gradient does not vanish where a model is sure.

    Of votes it is the score of the best wrong class: what the label loses elects nobody.
    """

    reduction = "mean"  # which ART sets to "none" for the loss of each sample

    def __init__(self, *, of_votes: bool) -> None:
        self.of_votes = of_votes

    def __call__(self, scores: Any, labels: Any) -> Any:
        others = scores.masked_fill(labels > 0, -math.inf)
        if self.of_votes:
            loss = others.amax(dim=1)
        else:
            odds = others.logsumexp(dim=1) - (labels * scores).sum(dim=1)
            loss = torch.nn.functional.softplus(odds) + SLOPE * odds
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()
