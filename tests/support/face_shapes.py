"""Faces at known places, and photos to put them into."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from photokeep_nodes.ops import faces

if TYPE_CHECKING:
    from photokeep_nodes.ops.detect_faces import Face


def make_face(x: float, y: float, scale: float, angle: float = 0.0) -> Face:
    """A face whose landmarks are the template's, turned, scaled (photo pixels per crop pixel) and centred at x, y."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    points = (faces.template() - 256) @ turn.T * scale + torch.tensor([x, y], dtype=torch.float64)
    half = 165 * scale
    return {"box": [x - half, y - half, x + half, y + half], "score": 0.9, "landmarks": points.tolist()}


def dots(height: int, width: int, points: list[list[float]], sigma: float) -> torch.Tensor:
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    x = torch.arange(width, dtype=torch.float64)[None, :] + 0.5
    image = sum(torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points)
    return image.float().expand(1, 3, -1, -1)


def smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.arange(height)[:, None] / 40, torch.arange(width)[None, :] / 55
    return torch.stack([0.5 + 0.4 * torch.sin(y + i) * torch.cos(x - i) for i in range(3)])[None]


def rough(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


# name: photo size, face
POSES = {
    "upright": ((220, 200), make_face(100.3, 105.7, 0.25)),
    "turned": ((260, 260), make_face(130.2, 128.9, 0.3, 0.9)),
    "upside down": ((260, 260), make_face(131, 129, 0.3, math.pi)),
    "at scale one": ((560, 540), make_face(270.4, 281.1, 1.0, -0.2)),
    "giant": ((1100, 1000), make_face(500, 552.5, 1.9, 0.1)),
    "tiny": ((90, 120), make_face(60.1, 44.2, 0.03)),
    "cut by the corner": ((200, 200), make_face(10.0, 12.0, 0.3)),
    "mostly outside": ((200, 200), make_face(-60.0, 100.0, 0.3)),
    "larger than the photo": ((64, 48), make_face(20.0, 30.0, 0.7)),
}
