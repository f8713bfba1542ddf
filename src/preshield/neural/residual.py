"""A torch module that subtracts what its layers find."""

from typing import Any

import torch

__all__ = ["Residual"]


class Residual(torch.nn.Sequential):  # type: ignore[misc]
    """Layers whose output, shaped like their input, is subtracted from it."""

    def forward(self, x: Any) -> Any:
        """The input less what the layers find in it."""
        return x - super().forward(x)
