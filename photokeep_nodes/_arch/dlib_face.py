"""dlib's face recognition network: a small residual network that makes 128 numbers of a face, alike for one person.

Source: Davis King 2017, http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html, and dlib's
``examples/dnn_face_recognition_ex.cpp``; residual networks: He et al. 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import nn

from ..errors import WeightsFormatError
from .ffhq_window import cut, window_for

if TYPE_CHECKING:
    from collections.abc import Mapping

SIDE = 150
"""Side in pixels of what the network was trained on."""

_MEAN_RGB = (122.782, 117.001, 104.298)  # of the training set, in [0, 255]
_RANGE = 256.0  # which dlib divides by; face-api.js, which the weights come from, has 255

# dlib's mean face, in which the face from the brows down fills the unit square: mean of each eye's six points, tip of
# the nose, corners of the mouth. The network was trained on chips with a quarter of that square around it.
# Source: get_face_chip_details in dlib/image_transforms/interpolation.h.
_MEAN_FACE = ((0.22549, 0.21599), (0.75476, 0.21599), (0.49013, 0.51563), (0.25415, 0.78023), (0.72610, 0.78023))
_PADDING = 0.25

_UNIT = SIDE / (1 + 2 * _PADDING)

WINDOW = window_for([(_UNIT * (_PADDING + x), _UNIT * (_PADDING + y)) for x, y in _MEAN_FACE], SIDE)
"""The part of an FFHQ-aligned face that such a chip shows."""

# Channels of the residual blocks; those where True is said halve the size.
_BLOCKS = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)


class _Block(nn.Module):
    """Two 3x3 convolutions beside the way past them, which for a block that halves is pooling."""

    def __init__(self, inputs: int, out: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        # dlib pads no convolution that has a stride.
        self.conv1 = nn.Conv2d(inputs, out, 3, stride=2, padding=0) if halves else nn.Conv2d(inputs, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv2(self.conv1(x).relu())
        if not self.halves:
            return (x + y).relu()
        past = nnf.avg_pool2d(x, 2)
        # dlib adds maps of different sizes as if both went on with zeros: below, to the right and in further channels.
        # Pooling keeps the last column of an even map, the convolution does not.
        past = nnf.pad(past, (0, 0, 0, 0, 0, y.shape[1] - past.shape[1]))
        y = nnf.pad(y, (0, past.shape[3] - y.shape[3], 0, past.shape[2] - y.shape[2]))
        return (past + y).relu()


class DlibFace(nn.Module):
    """29 convolutions, the scales behind them folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        inputs = (32, *(out for out, _ in _BLOCKS))
        self.blocks = nn.Sequential(
            *(_Block(into, out, halves=halves) for into, (out, halves) in zip(inputs, _BLOCKS, strict=False))
        )
        self.head = nn.Linear(256, 128, bias=False)

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """Describe whose faces these are.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
        Returns:
            (B, 128) of unit length; the product of two is the cosine of the angle between them.
        Raises:
            NodeInputError: another shape.
        """
        mean = face.new_tensor(_MEAN_RGB).view(1, 3, 1, 1)
        return nnf.normalize(self.raw((cut(face, WINDOW, SIDE) * 255.0 - mean) / _RANGE))

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        """Dlib's own descriptors (B, 128) of chips (B, 3, 150, 150), RGB in [0, 255] less the mean, over 256.

        Those of one person lie less than 0.6 apart; they are 1.3 to 1.6 long, so that a cosine says as much.
        """
        x = nnf.max_pool2d(self.stem(x).relu(), 3, 2)
        pooled = self.blocks(x).mean((2, 3))
        out: torch.Tensor = self.head(pooled)
        return out


def unpacked(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as ``DlibFace`` has them, of the file's.

    There most tensors are bytes, with the step between their levels and the lowest level beside them under the same
    name with ``.levels`` (2,); and the factor and the offset that follow each convolution, which once normalised its
    channels, are on their own, ``.factor`` and ``.offset``. What does not fit is handed on for others to refuse.

    Raises:
        WeightsFormatError: there are integers whose levels are not known.
    """
    plain = {}
    for name, tensor in state.items():
        levels = state.get(f"{name}.levels")
        if levels is not None and levels.shape == (2,):
            plain[name] = tensor.float() * levels[0].float() + levels[1].float()
        elif not tensor.is_floating_point():
            raise WeightsFormatError(
                f"the weights are not those of dlib face recognition: {name} is bytes without levels"
            )
        elif not (name.endswith(".levels") and tensor.shape == (2,) and name.removesuffix(".levels") in state):
            plain[name] = tensor
    for name in [name.removesuffix(".factor") for name in plain if name.endswith(".factor")]:
        names = [f"{name}.{kind}" for kind in ("weight", "bias", "factor", "offset")]
        found = [plain[each] for each in names if each in plain]
        if len(found) < len(names) or any(each.shape != found[0].shape[:1] for each in found[1:]):
            continue
        weight, bias, factor, offset = found
        plain[names[0]] = weight * factor.view(-1, *(1,) * (weight.ndim - 1))
        plain[names[1]] = bias * factor + offset
        del plain[names[2]], plain[names[3]]
    return plain
