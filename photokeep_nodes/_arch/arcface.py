"""The face recognition network of ArcFace on a residual network with squeeze-and-excitation, IR-SE50.

Source: Deng et al. 2019, "ArcFace: additive angular margin loss for deep face recognition", arXiv:1801.07698; squeeze
and excitation: Hu et al. 2018, arXiv:1709.01507. Tensor names are those of the published
``recognition_arcface_ir_se50.pth``, trained by TreB1eN/InsightFace_Pytorch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn

from .batch_norm import Norm
from .ffhq_window import cut, window_for

SIDE = 112
"""Side in pixels of what the network was trained on."""

_FEATURES = 512
_MAP = 7  # side of the last map: four halvings of 112
_SQUEEZE = 16

# Where the training set's faces have their landmarks at 112 px: that of the 96 x 112 crop of the aligned sets, moved
# by 8 px into the square. Published for pixel centres at whole numbers; half a pixel is added.
_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))

WINDOW = window_for([(x + 0.5, y + 0.5) for x, y in _TEMPLATE], SIDE)
"""The part of an FFHQ-aligned face that such a crop shows."""

# Channels, and how many blocks have them, of which the first halves the size.
_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))


class _Excitation(nn.Module):
    """Weighs channels by what the whole map holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _SQUEEZE, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * weights


class _Block(nn.Module):
    """Two 3x3 convolutions that are weighed, beside a shortcut; the second one has the stride."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)  # takes every second pixel
            if inputs == out
            else nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False), Norm(out))
        )
        self.res_layer = nn.Sequential(
            Norm(inputs),
            nn.Conv2d(inputs, out, 3, padding=1, bias=False),
            nn.PReLU(out),
            nn.Conv2d(out, out, 3, stride, padding=1, bias=False),
            Norm(out),
            _Excitation(out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class ArcFace(nn.Module):
    """IR-SE50: 49 convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), Norm(64), nn.PReLU(64))
        blocks, inputs = [], 64
        for out, count in _STAGES:
            for index in range(count):
                blocks.append(_Block(inputs, out, 2 if index == 0 else 1))
                inputs = out
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            Norm(inputs),
            nn.Identity(),  # drop-out in training
            nn.Flatten(),
            nn.Linear(inputs * _MAP * _MAP, _FEATURES),
            Norm(_FEATURES),
        )

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """Describe whose faces these are.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
        Returns:
            (B, 512) of unit length; the product of two is the cosine of the angle between them.
        Raises:
            NodeInputError: another shape.
        """
        # Blue, green, red: its trainers took the training set, and the sets they tested on, to files with the channels
        # in OpenCV's order (load_mx_rec and load_bin in their data/data_pipe.py).
        return self.raw(cut(face, WINDOW, SIDE).flip(1) * 2 - 1)

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        """As ``forward``, for crops (B, 3, 112, 112) as the network was trained on: BGR, [-1, 1]."""
        return nnf.normalize(self.output_layer(self.body(self.input_layer(x))))
