"""The ResNets of torchvision as bodies of other networks: the maps inside are what counts, not the class at the end.

Source: He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385. Tensors are named
as torchvision does.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from .batch_norm import Norm

_DEPTHS = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}


class ResNetMaps(nn.Module):
    """A ResNet up to its last map.

    Args:
        depth: layers of the network as it was published.
    """

    def __init__(self, depth: Literal[18, 50]) -> None:
        super().__init__()
        block, blocks = _DEPTHS[depth]
        whole = ResNet(block, blocks, norm_layer=Norm)
        self.conv1, self.bn1 = whole.conv1, whole.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps at strides 8, 16 and 32 of (B, 3, H, W)."""
        x = nnf.max_pool2d(nnf.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        c8 = self.layer2(self.layer1(x))
        c16 = self.layer3(c8)
        return c8, c16, self.layer4(c16)
