"""Find scratches, creases, dust and torn-off corners without a network.

Thin lines are `thin_lines`' work; here is what is done with them, wide creases, which are thin lines on reduced copies,
and dust.

Tuned to leave a scratch rather than to paint over an eye: bench/scratches.py has the figures. What is a thin line on
plain ground (a mast, a whisker) is taken for a scratch by any detector that does not know what it sees.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch

from ..errors import NodeInputError
from ..images import luminance
from . import torn_corners
from .thin_lines import REACH, Lines, believe, enlarged, look_along

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from .detect_faces import Face

    Plane = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

What = Literal["all", "scratches", "dust"]

_WIDEST = 0.003  # of the longer side: the widest crease; 12 px at 12 megapixels
_LEAST_WIDEST = 6.0
_LEVEL_WIDTH = 3.0  # pixels: widest line found on each level of the pyramid

_BORDER = 5  # pixels: scratches along the border are narrower

_RING = 4  # radius in pixels of the ring that a speck must stand out of all around
_SPECK_CONTRAST = 0.04
_SPECK_FLATNESS = 2.0  # times the spread of the ring's values
_SPECK_SIZE, _SPECK_SHARE = 16.0, 0.012  # pixels, and share of the longer side, from which on a place is no speck
_SPECK_RADIUS = 1  # pixels that a speck reaches beyond those whose ring is clear of it

_TILE = 1024

# Half axes of what is kept of a face, in distances between the eyes.
_EYE_AXES = (0.36, 0.24)
_MOUTH_AXES = (0.28, 0.30)  # the first beyond the mouth's corners
_EYES_OF_BOX = 0.33  # of the box's mean side: seen from the side, the eyes are nearer to each other


def steps(height: int, width: int) -> int:
    """How often ``score`` calls ``after_tile`` for one photo."""
    count = 0
    for _ in range(_levels(height, width)):
        count += math.ceil(height / _TILE) * math.ceil(width / _TILE)
        height, width = -(-height // 2), -(-width // 2)
    return count


def score(image: torch.Tensor, what: What = "all", after_tile: Callable[[], None] | None = None) -> torch.Tensor:
    """How likely each place is to be damage.

    Args:
        image: (B, 3, H, W) in [0, 1].
        what: lines and torn-off corners, specks, or both.
        after_tile: called after each tile's work, see ``steps``.
    Returns:
        (B, 1, H, W) in [0, 1].
    Raises:
        NodeInputError: another shape, or values that are not numbers.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise NodeInputError(f"scratches are looked for in (batch, 3, height, width), not {tuple(image.shape)}")
    if not bool(torch.isfinite(image.sum(dtype=torch.float64))):
        raise NodeInputError("the photo holds values that are not numbers")
    found = image.new_zeros((image.shape[0], 1, *image.shape[-2:]), dtype=torch.float32, device="cpu")
    for index, photo in enumerate(torch.split(image, 1)):
        luma = np.ascontiguousarray(luminance(photo.float()).cpu()[0, 0].numpy())
        found[index, 0] = torch.from_numpy(_score_one(luma, what, after_tile or _nothing)).float() / 255.0
    return found


def detect(image: torch.Tensor, sensitivity: float = 0.5, what: What = "all") -> torch.Tensor:
    """Mark damage.

    Args:
        image: (B, 3, H, W) in [0, 1].
        sensitivity: 0 finds nothing, 1 whatever could be damage.
        what: see ``score``.
    Returns:
        (B, 1, H, W), 0 or 1; as wide as what was found, so grow it before inpainting.
    """
    return select(score(image, what), sensitivity)


def select(scores: torch.Tensor, sensitivity: float) -> torch.Tensor:
    """Mark what scores enough: more than 1 - ``sensitivity``; 0 or 1, shape as ``scores``."""
    return (scores > max(1.0 - sensitivity, 0.02)).float()


def only(mask: torch.Tensor, what: What) -> torch.Tensor:
    """What of a mask, whoever made it, are lines, or specks: (B, 1, H, W), 0 or 1."""
    if what == "all":
        return (mask > 0).float()
    kept = torch.zeros(mask.shape, dtype=torch.float32)
    for index, one in enumerate(mask):
        labels, long = _places(one)
        keep = long if what == "scratches" else ~long
        keep[0] = False
        kept[index, 0] = torch.from_numpy(keep[labels]).float()
    return kept


def count(mask: torch.Tensor) -> tuple[int, int]:
    """How many lines, and how many specks, (1, H, W) marks."""
    _, long = _places(mask)
    return int(long[1:].sum()), int((~long[1:]).sum())


def _places(mask: torch.Tensor) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Separate places of (1, H, W), and of each, 0 being the rest, whether it is long for a speck."""
    marked = (mask[0] > 0).to(torch.uint8).cpu().numpy()
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    length = np.hypot(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])
    return np.asarray(labels), np.asarray(length > max(_SPECK_SIZE, _SPECK_SHARE * max(marked.shape)))


def face_keep_out(faces: Sequence[Face], height: int, width: int) -> torch.Tensor:
    """Mark the eyes and mouths of a photo, whose lines are nobody's scratches.

    Args:
        faces: in pixels of that photo.
        height: of the photo.
        width: of the photo.
    Returns:
        (1, 1, H, W), 1 on eyes and mouths, else 0.
    """
    marked = np.zeros((height, width), np.uint8)
    for face in faces:
        points = np.asarray(face["landmarks"], np.float64)
        eyes, mouth = points[1] - points[0], points[4] - points[3]
        x0, y0, x1, y1 = face["box"]
        unit = max(float(np.hypot(*eyes)), _EYES_OF_BOX * (x1 - x0 + y1 - y0) / 2.0)
        if not (np.isfinite(points).all() and np.isfinite(unit)):
            continue
        angle = math.degrees(math.atan2(eyes[1], eyes[0]))
        for eye in points[:2]:
            _fill_ellipse(marked, eye, (_EYE_AXES[0] * unit, _EYE_AXES[1] * unit), angle)
        half = float(np.hypot(*mouth)) / 2.0
        angle = math.degrees(math.atan2(mouth[1], mouth[0]))
        axes = (half + _MOUTH_AXES[0] * unit, _MOUTH_AXES[1] * unit)
        _fill_ellipse(marked, (points[3] + points[4]) / 2.0, axes, angle)
    return torch.from_numpy(marked)[None, None].float()


def _fill_ellipse(marked: Bytes, centre: npt.NDArray[np.float64], axes: tuple[float, float], angle: float) -> None:
    fine = 16  # OpenCV takes sixteenths of a pixel; its pixel centres are whole numbers, the faces' are halves
    x, y = (round((float(v) - 0.5) * fine) for v in centre)
    if max(abs(x), abs(y), *axes) < 2**26:
        size = (max(1, round(axes[0] * fine)), max(1, round(axes[1] * fine)))
        cv2.ellipse(marked, (x, y), size, angle, 0, 360, 1, -1, cv2.LINE_8, 4)


def _nothing() -> None:
    return None


def _levels(height: int, width: int) -> int:
    """How many times a photo is looked at, each time at half the size."""
    widest = max(_LEAST_WIDEST, _WIDEST * max(height, width))
    return 1 + math.ceil(math.log2(widest / _LEVEL_WIDTH))


def _score_one(luma: Plane, what: What, after_tile: Callable[[], None]) -> Bytes:
    """One photo's scores, 0 to 255."""
    height, width = luma.shape
    lines, specks = Lines.none(height, width), np.zeros((height, width), np.uint8)
    small = luma
    for level in range(_levels(height, width)):
        if level:
            small = _half(small)
        found_lines, found_specks = _score_level(small, what, after_tile)
        if found_lines is not None:
            lines.raise_to(found_lines)
        if found_specks is not None:
            for rows, found in enlarged(found_specks, height, width):
                np.maximum(specks[rows], found, out=specks[rows])
    if what == "dust":
        return specks
    scores = believe(lines)
    torn_corners.mark(scores, luma)
    return np.maximum(scores, specks)


def _half(image: Plane) -> Plane:
    height, width = image.shape
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA))


def _score_level(image: Plane, what: What, after_tile: Callable[[], None]) -> tuple[Lines | None, Bytes | None]:
    """Lines, and scores of specks, at one size; None for what is not asked for."""
    height, width = image.shape
    padded = image[np.ix_(_padded(height), _padded(width))]
    lines = None if what == "dust" else Lines.none(height, width)
    specks = None if what == "scratches" else np.zeros((height, width), np.uint8)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            bottom, right = min(height, top + _TILE), min(width, left + _TILE)
            tile = padded[top : bottom + 2 * REACH, left : right + 2 * REACH]
            inner = (slice(REACH, REACH + bottom - top), slice(REACH, REACH + right - left))
            here = (slice(top, bottom), slice(left, right))
            if lines is not None:
                strength, contrast, direction = look_along(tile)
                lines.strength[here] = np.minimum(255.0, 256.0 * strength[inner])
                lines.contrast[here] = np.minimum(255.0, 256.0 * contrast[inner])
                lines.direction[here] = direction[inner]
            if specks is not None:
                specks[here] = np.minimum(255.0, 256.0 * _score_specks(tile)[inner])
            after_tile()
    return lines, specks


def _padded(length: int) -> npt.NDArray[np.intp]:
    """Which of ``length`` rows or columns to take, so that there are ``REACH`` more on both sides.

    Outside, what is some pixels inside is repeated: a scratch along the border has a second flank then, and one that
    crosses it goes on. Were the outermost pixels repeated, the former would be as wide as the border.
    """
    before, after = np.full(REACH, _BORDER), np.full(REACH, length - 1 - _BORDER)
    return np.asarray(np.clip(np.concatenate((before, np.arange(length), after)), 0, length - 1), np.intp)


def _score_specks(tile: Plane) -> Plane:
    """A speck is brighter, or darker, than everything on a ring around it, which is itself even."""
    y, x = np.mgrid[-_RING : _RING + 1, -_RING : _RING + 1]
    ring = (np.abs(np.hypot(x, y) - _RING) < 0.6).astype(np.uint8)
    highest, lowest = (op(tile, ring, borderType=cv2.BORDER_REPLICATE) for op in (cv2.dilate, cv2.erode))
    beyond = np.maximum(np.maximum(tile - highest, lowest - tile), 0.0)
    stands_out = beyond / (_SPECK_CONTRAST + _SPECK_FLATNESS * (highest - lowest))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _SPECK_RADIUS + 1, 2 * _SPECK_RADIUS + 1))
    return np.asarray(cv2.dilate(stands_out / (1.0 + stands_out), disc), np.float32)
