"""A small U-Net that finds the noise in images."""

import math

import torch
from torch import nn
from torch.nn import functional

__all__ = ["UNet"]

FEATURES = 32  # by which the network is told the step
SLOWEST = 10000.0  # period of the slowest of these, in steps
TOGETHER = 8  # channels that are normalised as one


class UNet(nn.Module):  # type: ignore[misc]
    """Residual convolutions at three resolutions, each half of the one before.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Feature maps at full resolution; twice as many below.

    Notes
    -----
    `(images (N, C, H, W), steps (N,)) -> noise (N, C, H, W)`, of any height and width. What is new comes out
    as zero.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide, told = 2 * width, 4 * width
        self.told = nn.Sequential(nn.Linear(FEATURES, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.enter = _conv(channels, width)
        self.before = nn.ModuleList([_Block(width, width, told), _Block(wide, wide, told)])
        self.halve = nn.ModuleList([_conv(width, wide, stride=2), _conv(wide, wide, stride=2)])
        self.middle = nn.ModuleList([_Block(wide, wide, told), _Block(wide, wide, told)])
        self.after = nn.ModuleList([_Block(2 * wide, wide, told), _Block(wide + width, width, told)])
        self.leave = nn.Sequential(_norm(width), nn.SiLU(), _silent(_conv(width, channels)))

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """What is noise in the images."""
        told = self.told(_features(steps).to(x.dtype))
        x, aside = self.enter(x), []
        for block, halve in zip(self.before, self.halve, strict=True):
            x = block(x, told)
            aside.append(x)
            x = halve(x)
        for block in self.middle:
            x = block(x, told)
        for block in self.after:
            kept = aside.pop()
            x = functional.interpolate(x, size=kept.shape[-2:], mode="nearest")
            x = block(torch.cat([x, kept], dim=1), told)
        return self.leave(x)


class _Block(nn.Module):  # type: ignore[misc]
    """Two convolutions beside a short cut, scaled and shifted by the step."""

    def __init__(self, entering: int, leaving: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(entering), nn.SiLU(), _conv(entering, leaving))
        self.step = nn.Linear(told, 2 * leaving)
        self.norm = _norm(leaving)
        self.second = nn.Sequential(nn.SiLU(), _silent(_conv(leaving, leaving)))
        self.short = nn.Identity() if entering == leaving else nn.Conv2d(entering, leaving, 1)

    def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        scale, shift = self.step(told)[..., None, None].chunk(2, dim=1)
        return self.short(x) + self.second(self.norm(self.first(x)) * (1 + scale) + shift)


def _features(steps: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of steps, with periods from 2 pi up."""
    count = FEATURES // 2
    rates = torch.exp(-math.log(SLOWEST) / count * torch.arange(count, device=steps.device))
    angles = steps.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _conv(entering: int, leaving: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, stride, padding=1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // math.gcd(TOGETHER, channels), channels)


def _silent(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution that gives nothing until it is trained."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
