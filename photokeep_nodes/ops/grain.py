"""Give filled places the grain of the photo around them, without which they look waxy."""

from __future__ import annotations

import math
import zlib

import cv2
import numpy as np
import torch

from ..images import luminance
from .colour import is_gray
from .measures import noise_sigma

_FINE = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))  # passes noise and no plane
_FINE_GAIN = 6.0
_MEDIAN_OF_NORMAL = 0.6745  # of the absolute value, in standard deviations
_LUMA_GAIN = math.sqrt(0.299**2 + 0.587**2 + 0.114**2)  # of noise that differs between the channels
_LEAST_PIXELS = 64  # fewer say nothing of the noise they have


def add_grain(canvas: torch.Tensor, filled: torch.Tensor, photo: torch.Tensor, share: float) -> None:
    """Add as much noise to what was filled as it lacks; in place.

    What the fill has already, as a network's often has, is not added again. The noise is the same for the same photo
    and mask.

    Args:
        canvas: (1, 3, H, W) in [0, 1] on the CPU.
        filled: (1, 1, H, W), true where.
        photo: (1, 3, H, W) as it was: smooth fills would be taken for its flattest parts.
        share: of the photo's noise, 0 to 1.
    """
    sigma = share * noise_sigma(photo) / 255.0
    missing = math.sqrt(max(0.0, sigma * sigma - _own_noise(canvas, filled) ** 2))
    if missing == 0.0:
        return
    at = filled[0, 0].nonzero(as_tuple=True)
    gray = is_gray(canvas)
    seed = zlib.crc32(at[0].numpy().tobytes(), zlib.crc32(canvas[0, :, at[0], at[1]].numpy().tobytes()))
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn((1 if gray else 3, len(at[0])), generator=random) * missing
    canvas[0, :, at[0], at[1]] = (canvas[0, :, at[0], at[1]] + noise).clamp(0.0, 1.0)


def _own_noise(canvas: torch.Tensor, filled: torch.Tensor) -> float:
    """Standard deviation, [0, 1], of what looks like noise well inside the filled places; 0 where they are too thin."""
    # Zeros beyond the border: what lies there is not filled.
    inside = cv2.erode(filled[0, 0].numpy().astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    if int(inside.sum()) < _LEAST_PIXELS:
        return 0.0
    fine = cv2.filter2D(luminance(canvas)[0, 0].numpy(), -1, np.array(_FINE, np.float32))
    # The middle, not the mean: a few edges that the fill carries on are no noise.
    level = float(np.median(np.abs(fine[inside]))) / _MEDIAN_OF_NORMAL / _FINE_GAIN
    return level / (1.0 if is_gray(canvas) else _LUMA_GAIN)
