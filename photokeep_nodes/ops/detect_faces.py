"""Find faces with any detector: choose the working sizes, merge what it finds, go back to the photo's pixels.

A detector takes (1, 3, H, W) RGB in [0, 1] of any size, and returns all its finds in pixels of that, overlapping ones
too: boxes (N, 4) as x0, y0, x1, y1, scores (N,) in [0, 1], and landmarks (N, 5, 2), see `Face`.

Coordinates are continuous: pixel i covers [i, i + 1), so its centre is at i + 0.5 and a photo W wide ends at W. Boxes
are half-open in that sense, and a resize by a factor is a multiplication without any half-pixel shift.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypedDict

import torch
import torch.nn.functional as nnf
from torchvision.ops import nms

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Finds = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

COARSE_SIDE = 640
"""Short side of the copy on which faces of ordinary size are looked for; beyond, large faces get noisy."""

FINE_SIDE = 1600
"""Short side of the copy on which small faces of large photos are looked for."""

_SMALLEST_SIDE = 192  # a photo below is enlarged to it, or the faces are smaller than what detectors were trained on
_LONGEST_TO_SHORTEST = 4  # a panorama is reduced until its long side is no more than this many working short sides
_FINE_FACE = 256  # on the fine copy larger faces are left to the coarse one, which is better at them
_WORTHWHILE = 1.25  # least ratio of fine to coarse at which the fine copy is looked at


class _Found(TypedDict):
    box: list[float]
    score: float
    landmarks: list[list[float]]


class Face(_Found, total=False):
    """One face.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo, half-open, inside the photo.
        score: probability, (0, 1].
        landmarks: x, y of the eye, eye, nose tip, mouth corner, mouth corner; left to right as seen in the photo for an
            upright face. They may lie outside the photo where the face is cut off.
        number: what people call it by, from 1, once it was shown to them; it stays when others are left out.
    """

    number: int


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
        module: a detector, see above; it may be on any device.
        image: (B, 3, H, W) RGB, [0, 1], any size.
        min_score: least probability that counts, [0, 1].
        nms_iou: of two boxes that overlap by more than this share, the less probable one is dropped.
    Returns:
        For each photo its faces, largest first; an empty list where there are none.
    Raises:
        NodeInputError: another shape.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise NodeInputError(f"faces are looked for in (batch, 3, height, width), not {tuple(image.shape)}")
    # One at a time: the copies of a batch of large photos would not fit together.
    return [_detect_one(module, photo[None], min_score, nms_iou) for photo in image]


def _detect_one(
    module: Callable[[torch.Tensor], Finds], photo: torch.Tensor, min_score: float, nms_iou: float
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
    module: Callable[[torch.Tensor], Finds], copy: torch.Tensor, min_score: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (N, 4), scores (N,) and landmarks (N, 5, 2) in pixels of ``copy``, on the CPU, before merging."""
    held = itertools.chain(module.parameters(), module.buffers()) if isinstance(module, torch.nn.Module) else iter(())
    # A network may hold integers beside, or instead of, its weights: they do not say what it computes in.
    like = next((tensor for tensor in held if tensor.is_floating_point()), copy)
    with torch.inference_mode():
        finds = module(copy.to(device=like.device, dtype=like.dtype))
        # Tens of thousands, of which a few count: picked out where they are.
        likely = finds[1] >= min_score
        boxes, scores, points = (part[likely].float().cpu() for part in finds)
    return boxes, scores, points
