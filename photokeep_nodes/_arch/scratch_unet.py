"""The network of Bringing Old Photos Back to Life that finds scratches: a U-Net whose halvings are blurred first.

Source: Wan et al. 2020, arXiv:2004.09484; ``Global/detection.py`` of microsoft/Bringing-Old-Photos-Back-to-Life. Tensor
names are those of the published ``FT_Epoch_latest.pt``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as nnf
from torch import nn

from .batch_norm import Norm

FACTOR = 16
"""Input sides are multiples of this: four halvings."""

RECEPTIVE_FIELD = 3 + sum(step * (2 + 2 * 2) + step * (1 + 2) + 2 * step for step in (1, 2, 4, 8)) + 1
"""Pixels on each side that an output pixel can depend on.

The first convolution, then for each halving: a convolution and a blur before it, two convolutions after it, three
convolutions and an interpolation on the way back; the last convolution.
"""


class _Halve(nn.Module):
    """Blur and keep every other pixel (Zhang 2019, arXiv:1904.11486); the filter is part of the file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor((0.25, 0.5, 0.25))
        self.register_buffer("filt", torch.outer(line, line).repeat(channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nnf.pad(x, (1, 1, 1, 1), mode="reflect")
        return nnf.conv2d(padded, self.get_buffer("filt"), stride=2, groups=x.shape[1])


def _convolution(inputs: int, out: int, *, side: int = 3, normed: bool = True) -> list[nn.Module]:
    """A convolution of the reflected surroundings, normalised and activated."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(side // 2), nn.Conv2d(inputs, out, side)]
    return [*layers, *([Norm(out)] if normed else []), nn.LeakyReLU(0.2, inplace=True)]


class _Twice(nn.Module):
    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_convolution(inputs, out), *_convolution(out, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.block(x)
        return result


class _Rise(nn.Module):
    """Twice the size, and what was there on the way down beside it."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(enlarge, nn.ReflectionPad2d(1), nn.Conv2d(inputs, out, 3))
        self.conv_block = _Twice(2 * out, out)

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv_block(torch.cat((self.up(x), beside), dim=1))
        return result


class ScratchUNet(nn.Module):
    """Gray photo in, probability of a scratch out.

    Args:
        widths: channels at the full size, at half of it, and so on; five.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.first = nn.Sequential(*_convolution(1, widths[0], side=7, normed=False))
        self.down_sample = nn.ModuleList(nn.Sequential(*_convolution(wide, wide), _Halve(wide)) for wide, _ in pairs)
        self.down_path = nn.ModuleList(_Twice(wide, wider) for wide, wider in pairs)
        self.up_path = nn.ModuleList(_Rise(wider, wide) for wide, wider in reversed(pairs))
        self.last = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(widths[0], 1, 3))

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        """Look for scratches.

        Args:
            gray: (B, 1, H, W) Rec. 601 luma of sRGB values, [0, 1]; sides are multiples of 16, at least 32.
        Returns:
            (B, 1, H, W) probability, [0, 1].
        """
        x = self.first(gray * 2.0 - 1.0)
        passed = []
        for halve, block in zip(self.down_sample, self.down_path, strict=True):
            passed.append(x)
            x = block(halve(x))
        for rise in self.up_path:
            x = rise(x, passed.pop())
        return torch.sigmoid(self.last(x))
