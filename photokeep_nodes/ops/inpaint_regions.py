"""Which parts of a photo to inpaint one after the other.

Small holes near each other share a crop. A long thin one, such as a scratch across a whole scan, is taken piece by
piece at full size, each piece building on the one before. Only a hole that is large in both directions is taken whole,
and then, by a network, on a reduced copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

    Box = tuple[int, int, int, int]
    """top, left, bottom, right, half-open."""

_LEAST_CONTEXT = 96  # pixels around a speck that a network is shown
_THIN = 4  # of the side of a piece: a hole thinner than this part of it can be cut into pieces


@dataclass(frozen=True)
class Region:
    """One part.

    Attributes:
        crop: rows and columns to work on.
        core: box in the photo within which holes are filled; those around it are only unknown.
        work: height and width of the copy to work on, less than the crop's where that is too large.
        mine: of the crop, the hole that is meant, (1, 1, h, w); None means all within the core.
    """

    crop: tuple[slice, slice]
    core: Box
    work: tuple[int, int]
    mine: torch.Tensor | None = None


def regions(
    unknown: torch.Tensor, *, side: int, context: int, least: int = 1, keep_whole: bool = False
) -> list[Region]:
    """Divide the holes of one photo.

    Args:
        unknown: (1, 1, H, W), true where to fill.
        side: longest side in pixels of what is worked on at once.
        context: pixels around the holes that are shown, less around small ones.
        least: least side of a crop, where the photo has as much.
        keep_whole: a classical method is meant: crops are never reduced, and all of the context is shown.
    Returns:
        In the order in which to fill them. Together their cores hold every hole.
    """
    holes = unknown[0, 0].cpu().numpy().astype(np.uint8)
    height, width = holes.shape
    number, labels, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=8)
    piece = max(8, side - 2 * context)
    thin = context if keep_whole else max(4, piece // _THIN)
    lefts, tops = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    rights, bottoms = lefts + stats[:, cv2.CC_STAT_WIDTH], tops + stats[:, cv2.CC_STAT_HEIGHT]
    boxes: list[Box] = []
    found: list[Region] = []
    for label in range(1, number):
        box = (int(tops[label]), int(lefts[label]), int(bottoms[label]), int(rights[label]))
        if max(box[2] - box[0], box[3] - box[1]) <= piece:
            boxes.append(box)
            continue
        here = labels[box[0] : box[2], box[1] : box[3]] == label
        if 2.0 * _depth(here) <= thin:
            boxes += _pieces(here, box, piece)
            continue
        around = context if keep_whole else max(context, max(box[2] - box[0], box[3] - box[1]) // 2)
        crop = _crop(box, around, least, height, width)
        mine = torch.from_numpy(labels[crop] == label)[None, None]
        found.append(Region(crop, box, _work(crop, 0 if keep_whole else side), mine))
    for box in _grouped(boxes, piece):
        longest = max(box[2] - box[0], box[3] - box[1])
        around = context if keep_whole else min(context, max(_LEAST_CONTEXT, longest))
        crop = _crop(box, around, least, height, width)
        found.append(Region(crop, box, _work(crop, 0 if keep_whole else side)))
    return found


def _depth(hole: npt.NDArray[np.bool_]) -> float:
    """How far the innermost pixel of a hole is from its edge; the border of the box counts as edge."""
    padded = cv2.copyMakeBorder(hole.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())


def _pieces(hole: npt.NDArray[np.bool_], box: Box, piece: int) -> list[Box]:
    """Tight boxes of what a hole has in each cell of a grid."""
    found = []
    for top in range(0, hole.shape[0], piece):
        for left in range(0, hole.shape[1], piece):
            cell = hole[top : top + piece, left : left + piece]
            rows, columns = np.flatnonzero(cell.any(1)), np.flatnonzero(cell.any(0))
            if rows.size:
                down, right = box[0] + top, box[1] + left
                found.append(
                    (
                        down + int(rows[0]),
                        right + int(columns[0]),
                        down + int(rows[-1]) + 1,
                        right + int(columns[-1]) + 1,
                    )
                )
    return found


def _grouped(boxes: list[Box], piece: int) -> list[Box]:
    """Join boxes as long as what holds them is no larger than a piece."""
    groups: list[Box] = []
    # In bands from the top, each from left to right: neighbours in this order are mostly neighbours in the photo.
    for box in sorted(boxes, key=lambda box: (box[0] // piece, box[1], box[0])):
        if groups:
            last = groups[-1]
            both = (min(last[0], box[0]), min(last[1], box[1]), max(last[2], box[2]), max(last[3], box[3]))
            if both[2] - both[0] <= piece and both[3] - both[1] <= piece:
                groups[-1] = both
                continue
        groups.append(box)
    return groups


def _crop(box: Box, around: int, least: int, height: int, width: int) -> tuple[slice, slice]:
    return _span(box[0], box[2], around, least, height), _span(box[1], box[3], around, least, width)


def _span(first: int, last: int, around: int, least: int, length: int) -> slice:
    first, last = first - around, last + around
    short = max(0, least - (last - first))
    first, last = first - short // 2, last + short - short // 2
    # What would lie outside the photo is shown on the other side instead, as far as the least goes.
    if first < 0:
        first, last = 0, max(last, min(least, length))
    if last > length:
        first, last = min(first, max(0, length - least)), length
    return slice(max(0, first), last)


def _work(crop: tuple[slice, slice], side: int) -> tuple[int, int]:
    height, width = (span.stop - span.start for span in crop)
    scale = min(1.0, side / max(height, width)) if side else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))
