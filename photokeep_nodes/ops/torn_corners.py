"""Find the corners that are torn off a photo: even, white or black as the scanner's lid is, and cut off sharply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Plane = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

_SIDE = 1024  # torn-off corners are looked for at this size
_SHARES = (0.0005, 0.06)  # of the photo: more is no corner
_REACH = 0.45  # of each side, at most
_FULL = 0.85  # of the box around it: a wall or a border is a rectangle
_LEVELS = (0.03, 0.9)  # darker or brighter than these: the scanner's lid
_EVEN = 0.016  # most that its values differ
_STEP = 0.08  # least step to the photo, along most of the edge
_SURE = 0.75  # how likely a corner is torn off that passes all of this


def mark(scores: Bytes, luma: Plane) -> None:
    """Mark the corners of a photo that are missing.

    Args:
        scores: (H, W), 0 to 255; raised in place.
        luma: (H, W) in [0, 1].
    """
    height, width = luma.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = luma if scale == 1.0 else np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.float32)
    for corner in ((0, 0), (0, size[0] - 1), (size[1] - 1, 0), (size[1] - 1, size[0] - 1)):
        torn = _torn(small, corner)
        if torn is None:
            continue
        if scale < 1.0:  # a pixel more, for what the reduction has rounded off
            torn = cv2.dilate(torn, np.ones((3, 3), np.uint8)).astype(np.uint8)
            torn = cv2.resize(torn, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
        scores[torn > 0] = np.maximum(scores[torn > 0], round(255 * _SURE))


def _torn(small: Plane, corner: tuple[int, int]) -> Bytes | None:
    """The torn-off part at one corner (row, column) as 0 and 1, or None where nothing is missing."""
    value = float(small[corner])
    height, width = small.shape
    if _LEVELS[0] < value < _LEVELS[1] or min(height, width) < 3:
        return None
    filled = np.zeros((height + 2, width + 2), np.uint8)
    # The mask alone is written: the photo is not this function's to change.
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    area, _, _, box = cv2.floodFill(small, filled, (corner[1], corner[0]), 0.0, _EVEN, _EVEN, flags)
    across, down = box[2], box[3]
    if not _SHARES[0] <= area / small.size <= _SHARES[1] or area > _FULL * across * down:
        return None
    if across > _REACH * width or down > _REACH * height or min(across, down) < 3:
        return None
    torn = np.ascontiguousarray(filled[1:-1, 1:-1])
    near, far = (np.asarray(cv2.dilate(torn, np.ones((side, side), np.uint8)), np.uint8) for side in (3, 7))
    beside = np.abs(small[(far > 0) & (near == 0)] - value)
    return near if beside.size and float(np.mean(beside >= _STEP)) >= _FULL else None
