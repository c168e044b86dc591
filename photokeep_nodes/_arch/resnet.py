"""The ResNets of torchvision as bodies of other networks: the maps inside are what counts, not the class at the end.

Source: He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385. Tensors are named
as torchvision does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as nnf
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEPTHS = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}
_COUNTER = ".num_batches_tracked"


class Norm(nn.Module):
    """Batch normalisation with what training measured; without the counter of steps, which not every checkpoint has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return nnf.batch_norm(x, mean, var, self.weight, self.bias, training=False)


def without_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without what ``Norm`` does not have."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


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
