"""Faces in scans that lie on their side or head.

Detectors know upright faces. One that is turned by a quarter or more they miss, or find with landmarks that are off by
up to half a face, at a lower score than in the photo turned upright.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torchvision.ops import nms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .detect_faces import Face

_UPRIGHT = 35.0  # degrees that a head may lean: landmarks are good up to about 45
_IOU = 0.4  # of two finds that overlap more, in whatever turn, the less probable one goes


def detect_turned(
    detect: Callable[[torch.Tensor], list[list[Face]]],
    photos: torch.Tensor,
    turned: Literal["auto", "always", "never"],
) -> list[list[Face]]:
    """Look for faces, if need be in copies of the photos turned by quarters.

    Args:
        detect: (B, 3, H, W) to the faces of each photo.
        photos: (B, 3, H, W) in [0, 1].
        turned: "auto" turns the photos in which no face is found, or one that seems to lie.
    Returns:
        The faces of each photo in its own pixels, largest first.
    """
    return [_of_one(detect, photo, turned) for photo in torch.split(photos, 1)]


def _of_one(detect: Callable[[torch.Tensor], list[list[Face]]], photo: torch.Tensor, turned: str) -> list[Face]:
    as_it_lies = detect(photo)[0]
    if turned == "never" or (turned == "auto" and as_it_lies and all(tilt(face) < _UPRIGHT for face in as_it_lies)):
        return as_it_lies
    height, width = photo.shape[-2:]
    found = list(as_it_lies)
    for quarters in (1, 2, 3):
        turned_photo = torch.rot90(photo, quarters, (-2, -1))
        found += [turned_back(face, quarters, height, width) for face in detect(turned_photo)[0]]
    return _merged(found)


def tilt(face: Face) -> float:
    """Degrees, 0 to 180, by which a face is turned from upright: the way from its eyes to its mouth tells."""
    points = face["landmarks"]
    (ax, ay), (bx, by) = (
        ((points[i][0] + points[i + 1][0]) / 2, (points[i][1] + points[i + 1][1]) / 2) for i in (0, 3)
    )
    return abs(math.degrees(math.atan2(bx - ax, by - ay)))


def turned_back(face: Face, quarters: int, height: int, width: int) -> Face:
    """A face found in a photo after ``torch.rot90(photo, quarters)``, in the pixels of the photo itself.

    Args:
        face: in the turned photo's pixels.
        quarters: turns against the clock, 0 to 3.
        height: of the photo, before it was turned.
        width: of the same.
    """

    def back(x: float, y: float) -> tuple[float, float]:
        # rot90 takes the top right corner to the top left.
        return {0: (x, y), 1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[quarters]

    (xa, ya), (xb, yb) = back(*face["box"][:2]), back(*face["box"][2:])
    return {
        "box": [min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)],
        "score": face["score"],
        "landmarks": [list(back(x, y)) for x, y in face["landmarks"]],
    }


def _merged(faces: Sequence[Face]) -> list[Face]:
    if not faces:
        return []
    boxes = torch.tensor([face["box"] for face in faces])
    kept = nms(boxes, torch.tensor([face["score"] for face in faces]), _IOU).tolist()
    return sorted((faces[i] for i in kept), key=_area, reverse=True)


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face["box"]
    return (x1 - x0) * (y1 - y0)
