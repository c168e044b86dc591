"""ConvNeXt as an encoder: what is in an image, at a quarter, an eighth, a sixteenth and a thirty-second of its size.

Source: Liu et al. 2022, "A ConvNet for the 2020s", arXiv:2201.03545. Tensor names are those of DDColor's published
files, which keep a normalisation per size and neither the one before the classifier nor the classifier.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

FACTOR = 32
"""Sides of the input are multiples of this: a fold by four and three halvings."""

_EPSILON = 1e-6
_WIDER = 4  # how many times as many channels there are between the two layers of a block


class _Norm(nn.LayerNorm):
    """Normalises each pixel of (B, C, H, W) over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # BCHW -> BHWC and back: views, of what channels_last convolutions return.
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """What surrounds a pixel, channel by channel; then all its channels; added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.pwconv1 = nn.Linear(channels, _WIDER * channels)
        self.pwconv2 = nn.Linear(_WIDER * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # BCHW -> BHWC
        added: torch.Tensor = self.gamma * self.pwconv2(nnf.gelu(self.pwconv1(pixels)))
        return x + added.permute(0, 3, 1, 2)  # BHWC -> BCHW


class ConvNeXt(nn.Module):
    """Four stages, each at half the size of the one before.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), _Norm(widths[0]))
        halve = [nn.Sequential(_Norm(into), nn.Conv2d(into, out, 2, stride=2)) for into, out in pairwise(widths)]
        self.downsample_layers = nn.ModuleList([first, *halve])
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(depth))) for depth, width in zip(depths, widths, strict=True)
        )
        self.norm0, self.norm1, self.norm2, self.norm3 = (_Norm(width) for width in widths)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Find features.

        Args:
            image: (B, 3, H, W), normalised, sides multiples of ``FACTOR``.
        Returns:
            Four maps (B, widths[i], H / 4 / 2**i, W / 4 / 2**i), each normalised.
        """
        x, found = image, []
        norms = (self.norm0, self.norm1, self.norm2, self.norm3)
        for smaller, stage, norm in zip(self.downsample_layers, self.stages, norms, strict=True):
            x = stage(smaller(x))
            found.append(norm(x))
        return found
