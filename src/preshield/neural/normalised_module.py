"""A torch module behind a normalisation."""

from collections.abc import Callable
from typing import Any

import torch

from .outputs import scores_of

__all__ = ["NormalisedModule"]


class NormalisedModule(torch.nn.Module):  # type: ignore[misc]
    """A module that normalises what it is given.

    Parameters
    ----------
    model : torch.nn.Module
        What normalised batches are for.
    normalise : callable
        Maps a tensor to another; a module has its weights among those of this one.
    """

    def __init__(self, model: Any, normalise: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model = model
        self.normalise = normalise

    def forward(self, x: Any) -> Any:
        """The scores of normalised samples."""
        return scores_of(self.model(self.normalise(x)))
