"""Zero-DCE: brightens a dark photo by curves it estimates for every pixel.

Source: Guo et al. 2020, "Zero-reference deep curve estimation for low-light image enhancement", arXiv:2001.06826.
Tensor names, the sign of the curves and the clamp between iterations are those of the neuro-low-light weights.
"""

from __future__ import annotations

import torch
from torch import nn


class _CurveNet(nn.Module):
    """Seven convolutions with mirrored skips; returns a curve parameter per pixel, channel and iteration."""

    def __init__(self, features: int, iterations: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv3 = nn.Conv2d(features, features, 3, padding=1)
        self.conv4 = nn.Conv2d(features, features, 3, padding=1)
        self.conv5 = nn.Conv2d(2 * features, features, 3, padding=1)
        self.conv6 = nn.Conv2d(2 * features, features, 3, padding=1)
        self.conv7 = nn.Conv2d(2 * features, 3 * iterations, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x1 = self.conv1(image).relu_()
        x2 = self.conv2(x1).relu_()
        x3 = self.conv3(x2).relu_()
        x4 = self.conv4(x3).relu_()
        x5 = self.conv5(torch.cat((x4, x3), dim=1)).relu_()
        x6 = self.conv6(torch.cat((x5, x2), dim=1)).relu_()
        curves: torch.Tensor = self.conv7(torch.cat((x6, x1), dim=1)).tanh_()
        return curves


class ZeroDCE(nn.Module):
    """The curve network and the eight-fold application of its quadratic curves."""

    def __init__(self, features: int = 32, iterations: int = 8) -> None:
        super().__init__()
        self.dce_net = _CurveNet(features, iterations)
        self.iterations = iterations

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Brighten.

        Args:
            image: (B, 3, H, W) RGB, [0, 1].
        Returns:
            Shape, dtype and device of ``image``, in [0, 1].
        """
        for curve in self.dce_net(image).chunk(self.iterations, dim=1):
            # These weights were trained with the curve subtracted; the paper adds it.
            image = (image - curve * (image * (1 - image))).clamp(0.0, 1.0)
        return image
