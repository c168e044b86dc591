"""Find scratches with a network that was trained on small copies, in photos of any size.

The network was trained on copies whose short side has 256 pixels. There a hairline of a large scan is gone, so it looks
at copies of twice, four times ... that size too, up to the photo itself. What it finds on the copy it was trained for
counts as it is. On finer ones, where grain, cloth and hair begin to look like scratches, less is believed: a place must
be surer, belong to something long, and have little of its kind around it. A wide scratch that fails this is thin on a
coarser copy; so the largest of what the copies say is the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Detector = Callable[[torch.Tensor], torch.Tensor]
    """(1, 1, h, w) gray in [0, 1] to the probability of a scratch of that shape, for any h and w."""

TRAINED_SIDE = 256
"""Pixels along the short side of the copies that the network was trained on."""
THRESHOLD = 0.4
"""Probability from which its authors take a place for scratched."""

_ENLARGED = 4096  # pixels along the long side of an enlarged copy
_STEP = 16  # sides of reduced copies are multiples of this, as in its training
_LEAST_STEP = math.sqrt(2)  # between two copies: nearer ones show the same
_DOUBT = (
    0.25  # log-odds that are taken off for each doubling of the size: 40 % on the coarsest is 62 % at 12 megapixels
)
_LEAST_LENGTH = 12  # pixels of the finer copy: less is grain or dust, which shows on a coarser copy if it is to count
_AROUND = 33  # pixels of the finer copy: side of the square in which there must be little else. A line 3 px wide ...
_FEW, _MANY = (
    0.2,
    0.35,
)  # ... fills 9 % of it, two that cross 18 %; up to the first share all counts, from the second none


@dataclass(frozen=True)
class Copy:
    """One size in which the network sees the photo.

    Attributes:
        height: in pixels.
        width: in pixels.
        octaves: how often the size it was trained for would have to be doubled to get there.
    """

    height: int
    width: int
    octaves: float


def copies(height: int, width: int, finest: int = 0) -> list[Copy]:
    """Sizes in which to look at a photo, coarsest first.

    Args:
        height: of the photo, in pixels.
        width: of the photo, in pixels.
        finest: no copy has a longer short side than this, but for the coarsest; 0 goes up to the photo itself.
    """
    short = min(height, width)
    largest = min(short, finest) if finest else short
    # What is smaller is enlarged to it, but a strip not beyond measure.
    smallest = (
        short if short >= TRAINED_SIDE else max(short, min(TRAINED_SIDE, _ENLARGED * short // max(height, width)))
    )
    sides = [min(TRAINED_SIDE, smallest)]
    while sides[-1] * 2 * _LEAST_STEP <= largest:
        sides.append(sides[-1] * 2)
    if largest > TRAINED_SIDE:
        sides.append(largest)
    return [_copy(height, width, side) for side in sides]


def _copy(height: int, width: int, side: int) -> Copy:
    short = min(height, width)
    octaves = max(0.0, math.log2(side / TRAINED_SIDE))
    if side == short:
        return Copy(height, width, octaves)
    height, width = (max(_STEP, round(each * side / short / _STEP) * _STEP) for each in (height, width))
    return Copy(height, width, octaves)


def find(gray: torch.Tensor, detect: Detector, *, finest: int = 0, threshold: float = THRESHOLD) -> torch.Tensor:
    """Look for scratches on every copy of one photo.

    Args:
        gray: (1, 1, H, W) Rec. 601 luma of sRGB values, [0, 1].
        detect: the network; cuts into tiles what is too large for it.
        finest: see ``copies``.
        threshold: from which probability a place counts when it is asked how long and how dense something is.
    Returns:
        (1, 1, H, W) probability, [0, 1].
    Raises:
        NodeInputError: another shape.
    """
    if gray.ndim != 4 or gray.shape[:2] != (1, 1):
        raise NodeInputError(f"one gray photo is looked at at a time, not {tuple(gray.shape)}")
    height, width = gray.shape[-2:]
    found = torch.zeros(1, 1, height, width)
    for copy in copies(height, width, finest):
        probability = detect(_resized(gray, copy.height, copy.width))
        if copy.octaves > 0:
            probability = believable(probability, copy.octaves, threshold)
        torch.maximum(found, _at_size(probability, height, width), out=found)
    return found.clamp_(0.0, 1.0)


def to_mask(
    probability: torch.Tensor, threshold: float = THRESHOLD, keep_out: torch.Tensor | None = None
) -> torch.Tensor:
    """Which places are scratched.

    Args:
        probability: (B, 1, H, W).
        threshold: from which one a place is.
        keep_out: (B or 1, 1, H, W), above 0 where nothing is, whatever the network says: eyes and mouths, which have
            bright and dark lines of their own.
    Returns:
        (B, 1, H, W), exactly 0 or 1.
    Raises:
        NodeInputError: ``keep_out`` is of another size.
    """
    mask = (probability >= threshold).float()
    if keep_out is not None:
        if keep_out.shape[-2:] != mask.shape[-2:] or keep_out.shape[0] not in {1, len(mask)} or keep_out.ndim != 4:
            raise NodeInputError(f"what is to be kept out is {tuple(keep_out.shape)}, the photo {tuple(mask.shape)}")
        mask *= keep_out.to(mask.device) <= 0
    return mask


def believable(probability: torch.Tensor, octaves: float, threshold: float = THRESHOLD) -> torch.Tensor:
    """What of a finding on a finer copy than the network was trained for is to be believed.

    Args:
        probability: (1, 1, h, w).
        octaves: how much finer, in doublings.
        threshold: see ``find``.
    Returns:
        (1, 1, h, w), what is left of ``probability``.
    """
    surer: torch.Tensor = torch.special.expit(torch.logit(probability, eps=1e-6) - _DOUBT * octaves)
    values: npt.NDArray[np.float32] = surer[0, 0].numpy()
    marked = (values >= threshold).astype(np.uint8)
    dense = cv2.boxFilter(marked, cv2.CV_32F, (_AROUND, _AROUND), borderType=cv2.BORDER_REFLECT_101)
    values *= np.clip((_MANY - dense) / (_MANY - _FEW), 0.0, 1.0)
    values[_short(marked)] = 0.0
    return surer


def _short(marked: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which marked places belong to nothing long."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8, ltype=cv2.CV_32S)
    longest = np.maximum(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])
    short = longest < _LEAST_LENGTH
    short[0] = False  # what is not marked
    found: npt.NDArray[np.bool_] = short[labels]
    return found


def _resized(gray: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if gray.shape[-2:] == (height, width):
        return gray
    resized = functional.interpolate(gray, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp_(0.0, 1.0)


def _at_size(probability: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Of a copy, at the photo's size; what is found on an enlarged one is not averaged away."""
    if probability.shape[-2] >= height and probability.shape[-1] >= width:
        return functional.adaptive_max_pool2d(probability, (height, width))
    return functional.interpolate(probability, size=(height, width), mode="bilinear", align_corners=False)
