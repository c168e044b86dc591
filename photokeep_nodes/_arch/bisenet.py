"""BiSeNet for face parsing: which part of a face each pixel of an aligned crop shows.

Source: Yu et al. 2018, "BiSeNet: bilateral segmentation network for real-time semantic segmentation", arXiv:1808.00897,
in the form of zllrunning/face-parsing.PyTorch, where a map of the body takes the place of the spatial path. Tensors are
named as in the published ``parsing_bisenet.pth``; its two heads that only training used are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import nn

from ..errors import NodeInputError
from .batch_norm import Norm, without_counters
from .resnet import ResNetMaps

if TYPE_CHECKING:
    from collections.abc import Mapping

CLASSES = 19
SIDE = 512
# Of ImageNet, on which the body was trained: red, green, blue.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_OF_TRAINING = ("conv_out16.", "conv_out32.")


def used(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published state dict without what only training used."""
    return {name: tensor for name, tensor in without_counters(state).items() if not name.startswith(_OF_TRAINING)}


def _global_mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((-2, -1), keepdim=True)


class _Layer(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias=False)
        self.bn = Norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nnf.relu(self.bn(self.conv(x)))


class _Refinement(nn.Module):
    """A layer whose channels are weighed by what the whole map shows."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.conv = _Layer(inputs, out)
        self.conv_atten = nn.Conv2d(out, out, 1, bias=False)
        self.bn_atten = Norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        weight: torch.Tensor = self.bn_atten(self.conv_atten(_global_mean(x))).sigmoid()
        return x * weight


class _Context(nn.Module):
    """The body, and its coarse maps brought back to an eighth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNetMaps(18)
        self.arm16 = _Refinement(256, 128)
        self.arm32 = _Refinement(512, 128)
        self.conv_head32 = _Layer(128, 128)
        self.conv_head16 = _Layer(128, 128)
        self.conv_avg = _Layer(512, 128, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c8, c16, c32 = self.resnet(x)
        deep = self.arm32(c32) + self.conv_avg(_global_mean(c32))
        deep = self.conv_head32(nnf.interpolate(deep, size=c16.shape[-2:], mode="nearest"))
        middle = self.arm16(c16) + deep
        return c8, self.conv_head16(nnf.interpolate(middle, size=c8.shape[-2:], mode="nearest"))


class _Fusion(nn.Module):
    """Fine and deep maps together, channels weighed by what the whole map shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convblk = _Layer(width, width, 1)
        self.conv1 = nn.Conv2d(width, width // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 4, width, 1, bias=False)

    def forward(self, fine: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.convblk(torch.cat((fine, deep), dim=1))
        weight: torch.Tensor = self.conv2(nnf.relu(self.conv1(_global_mean(x)))).sigmoid()
        return x * weight + x


class _Output(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv = _Layer(width, width)
        self.conv_out = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv_out(self.conv(x))
        return out


class BiSeNet(nn.Module):
    """Parses aligned faces into the classes of ``ops.face_parsing``."""

    def __init__(self) -> None:
        super().__init__()
        self.cp = _Context()
        self.ffm = _Fusion(256)
        self.conv_out = _Output(256, CLASSES)

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """Say what each pixel shows.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
        Returns:
            (B, 19, 512, 512) probabilities, which add up to 1 at each pixel.
        Raises:
            NodeInputError: another shape; the network weighs its channels by the whole crop.
        """
        if face.ndim != 4 or face.shape[1:] != (3, SIDE, SIDE):
            raise NodeInputError(f"faces to parse must be (batch, 3, {SIDE}, {SIDE}), not {tuple(face.shape)}")
        mean, deviation = (face.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        fine, deep = self.cp((face - mean) / deviation)
        scores = self.conv_out(self.ffm(fine, deep))
        # Corners on corners, as the network was trained.
        return nnf.interpolate(scores, size=face.shape[-2:], mode="bilinear", align_corners=True).softmax(dim=1)
