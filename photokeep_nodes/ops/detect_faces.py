"""Find faces with RetinaFace: choose the working sizes, decode its anchors, merge, go back to the photo's pixels.

Coordinates are continuous: pixel i covers [i, i + 1), so its centre is at i + 0.5 and a photo W wide ends at W. Boxes
are half-open in that sense, and a resize by a factor is a multiplication without any half-pixel shift.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypedDict

import torch
import torch.nn.functional as nnf
from torchvision.ops import nms

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    RawDetections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

COARSE_SIDE = 640
"""Short side of the copy on which faces of ordinary size are looked for; beyond, large faces get noisy."""

FINE_SIDE = 1600
"""Short side of the copy on which small faces of large photos are looked for."""

_SMALLEST_SIDE = 192  # a photo below is enlarged to it, or the faces are smaller than the smallest anchor finds
_LONGEST_TO_SHORTEST = 4  # a panorama is reduced until its long side is no more than this many working short sides
_FINE_FACE = 256  # on the fine copy larger faces are left to the coarse one, which is better at them
_WORTHWHILE = 1.25  # least ratio of fine to coarse at which the fine copy is looked at

# Pixels between the cells of the network's three maps, and the sides of the square anchors in each of their cells.
_STRIDES = (8, 16, 32)
_ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))

# Scales of centre and size offsets that the network was trained with.
_CENTRE_VARIANCE = 0.1
_SIZE_VARIANCE = 0.2


class Face(TypedDict):
    """One face.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo, half-open, inside the photo.
        score: probability, (0, 1].
        landmarks: x, y of the eye, eye, nose tip, mouth corner, mouth corner; left to right as seen in the photo for an
            upright face. They may lie outside the photo where the face is cut off.
    """

    box: list[float]
    score: float
    landmarks: list[list[float]]


def working_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes (height, width) of the copies that are searched: one, or for large photos two, the second the larger."""
    short, long = min(height, width), max(height, width)

    def scale(side: int) -> float:
        return min(side / short, _LONGEST_TO_SHORTEST * side / long)

    coarse = min(scale(COARSE_SIDE), max(1.0, scale(_SMALLEST_SIDE)))
    fine = min(scale(FINE_SIDE), 1.0)
    scales = [coarse, fine] if fine > _WORTHWHILE * coarse else [coarse]
    return [(max(1, round(height * s)), max(1, round(width * s))) for s in scales]


def detect(
    module: torch.nn.Module, image: torch.Tensor, *, min_score: float = 0.8, nms_iou: float = 0.4
) -> list[list[Face]]:
    """Find the faces in each photo of a batch.

    Args:
        module: RetinaFace, as ``models.retinaface_mobilenet`` builds it; it may be on any device.
        image: (B, 3, H, W) RGB, [0, 1], any size.
        min_score: least probability that counts, [0, 1].
        nms_iou: of two boxes that overlap by more than this share, the less probable one is dropped.
    Returns:
        For each photo its faces, largest first; an empty list where there are none.
    Raises:
        NodeInputError: another shape.
    Source: Deng et al. 2019, arXiv:1905.00641.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise NodeInputError(f"faces are looked for in (batch, 3, height, width), not {tuple(image.shape)}")
    # One at a time: the copies of a batch of large photos would not fit together.
    return [_detect_one(module, photo[None], min_score, nms_iou) for photo in image]


def _detect_one(
    module: Callable[[torch.Tensor], RawDetections], photo: torch.Tensor, min_score: float, nms_iou: float
) -> list[Face]:
    height, width = photo.shape[-2:]
    found = []
    for index, size in enumerate(working_sizes(height, width)):
        boxes, scores, points = _search(module, _resize(photo, size), min_score)
        if index > 0:
            small = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) < _FINE_FACE
            boxes, scores, points = boxes[small], scores[small], points[small]
        # Sides are rounded to whole pixels one by one, so each has its own factor.
        factors = torch.tensor([width / size[1], height / size[0]], dtype=torch.float32)
        found.append((boxes * factors.repeat(2), scores, points * factors))
    boxes, scores, points = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = nms(boxes, scores, nms_iou)
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    faces: list[Face] = []
    for i in kept.tolist():
        box = torch.minimum(boxes[i].clamp(min=0), limits).tolist()
        if box[2] > box[0] and box[3] > box[1]:
            faces.append({"box": box, "score": float(scores[i]), "landmarks": points[i].tolist()})
    return sorted(faces, key=_area, reverse=True)


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face["box"]
    return (x1 - x0) * (y1 - y0)


def _resize(photo: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if size == tuple(photo.shape[-2:]):
        return photo
    return nnf.interpolate(photo, size=size, mode="bilinear", align_corners=False, antialias=True)


def _search(
    module: Callable[[torch.Tensor], RawDetections], copy: torch.Tensor, min_score: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (N, 4), scores (N,) and landmarks (N, 5, 2) in pixels of ``copy``, on the CPU, before merging."""
    parameter = next(module.parameters()) if isinstance(module, torch.nn.Module) else copy
    with torch.inference_mode():
        raw = module(copy.to(device=parameter.device, dtype=parameter.dtype))
        # Tens of thousands of anchors, of which a few count: picked out where they are.
        likely = raw[1][0, :, 1] >= min_score
        offsets, scores, points = (part[0][likely].float().cpu() for part in raw)
    anchors = make_anchors(*copy.shape[-2:])[likely.cpu()]
    boxes, points = decode(anchors, offsets, points)
    return boxes, scores[:, 1].clone(), points


def make_anchors(height: int, width: int) -> torch.Tensor:
    """Anchors of the three maps in the network's order: (N, 4) of centre x, centre y, width, height in pixels."""
    maps = []
    for stride, sizes in zip(_STRIDES, _ANCHOR_SIDES, strict=True):
        # Each of the stem's and the body's strided convolutions rounds up, which together rounds up once.
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
    """Turn the network's offsets into pixels.

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
