"""A black-and-white photo keeps its own tint, and what it has of colour, whatever a network made of them.

Trained on colour, the networks tint a black-and-white photo, by up to 35 of 255 steps where it is noisy: only their
lightness is wanted. But a photo that reads as black and white as a whole may have yellowed evenly, or have been
coloured by hand in places: cheeks, lips, a coat. There the network's colours are right, and between such places the
photo's own tint, freed of noise, is.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from ..images import luminance
from .colour import (
    ACCENT,
    BAND_PIXELS,
    GRAY_CHROMA,
    box_mean,
    exposure_gain,
    is_gray,
    resize,
    resized_rows,
    srgb_to_lab,
)
from .colour import tones as tones_of

_WORK_SIDE = 1024  # colour is looked for at this size
_TINT_SHARE = 32  # the longer side over the radius of the windows whose average is the tint: paper ages slowly across
_PLACES = ((8, GRAY_CHROMA, ACCENT), (2, 12.0, 20.0))
"""Radius of a window in the photo's pixels, and chroma of its average, in Lab units, from which on colour is believed a
little, and wholly. The small window finds thin lines."""
_SURE = 3.0  # times what is left of the noise in a window's average is added to both


def keep_own_tint(photo: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Undo the tint that a network gave to a black-and-white photo.

    Args:
        photo: (B, 3, H, W) in [0, 1], before.
        result: (B, 3, H', W'), after; changed in place.
    Returns:
        ``result``: exactly gray where the photo is; other photos that read as gray get the network's lightness with
        their own tint, and keep the network's colours where they have some; toned and colour photos stay as they are.
    """
    for index, tone in enumerate(tones_of(photo)):
        one = photo[index : index + 1]
        if tone == "gray":
            tint = None if is_gray(one) else _tint_and_places(one)
            _retint(result[index : index + 1], tint)
    return result


def _tint_and_places(photo: torch.Tensor) -> torch.Tensor:
    """What is added to a gray photo for its tint, and how much of a place is colour, 0 to 1: (1, 4, h, w), small."""
    height, width = photo.shape[-2:]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    small = resize(photo, (max(1, round(height * scale)), max(1, round(width * scale)))).clamp(0.0, 1.0)
    ab = srgb_to_lab(small * exposure_gain(small))[:, 1:]
    places = torch.zeros_like(small[:, :1])
    noise = (ab - box_mean(ab, 1)).norm(dim=1).median()
    for pixels, little, wholly in _PLACES:
        radius = max(1, round(pixels * scale))
        chroma = box_mean(ab, radius).norm(dim=1, keepdim=True) - _SURE * noise / (2 * radius + 1)
        places = torch.maximum(places, ((chroma - little) / (wholly - little)).clamp(0.0, 1.0))
    radius = max(8, max(small.shape[-2:]) // _TINT_SHARE)
    plain = 1.0 - places
    tint = box_mean((small - luminance(small)) * plain, radius) / box_mean(plain, radius).clamp(min=1e-3)
    return torch.cat((tint, places), 1)


def _retint(result: torch.Tensor, tint: torch.Tensor | None) -> None:
    """Give one photo its lightness in gray, its tint and its coloured places; in bands of rows, to bound the memory."""
    height, width = result.shape[-2:]
    if tint is not None:
        tint = F.interpolate(tint, size=(tint.shape[-2], width), mode="bilinear", align_corners=False)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = result[:, :, top : top + rows]
        gray = luminance(band)
        if tint is None:
            band.copy_(gray.expand_as(band))
        else:
            here = resized_rows(tint, top, min(height, top + rows), height)
            band.copy_((gray + here[:, :3]).lerp(band, here[:, 3:]))
