"""Colour: sRGB, CIE Lab, the tone of a photo, and what the colour stages share.

Images are (B, 3, H, W) float32 sRGB in [0, 1]; Lab is (B, 3, H, W) with L in 0..100 and a, b in CIE units, white D65.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812

Tone = Literal["gray", "sepia", "colour"]

# IEC 61966-2-1 primaries, in digits whose rows add up to the white below: a gray then has no chroma at all.
_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)
_EPSILON = 216.0 / 24389.0  # CIE 15: where the cube root becomes a line
_KAPPA = 24389.0 / 27.0

_TONE_SIDE = 128  # pixels along the longer side on which the tint is fitted ...
_TONE_CELL = 8  # ... and side of the cells over which what is left is averaged: noise and JPEG's chroma blocks vanish
_TONE_BINS = 24
GRAY_CHROMA = 5.0  # Lab units that 95 % of a gray photo's cells stay below, yellowed paper included ...
_TONED_SPREAD = 2.1  # Lab units about the curve lightness -> tint: toned scans reach 2.0, faded colour starts at 2.2
_BRIGHT, _LARGEST_GAIN = 0.8, 10.0  # in the dark every chroma is small: judge an underexposed photo as if it were not
ACCENT = 9.0  # of chroma or spread in 2 % of the cells: a lamp in a night scene makes it a colour photo

BAND_PIXELS = 1 << 20  # full-size work goes in bands of rows, so that a 50 MP scan needs no gigabytes
_GAMUT_STEPS = 12
_GAMUT_SLACK = 1e-5


def srgb_to_linear(image: torch.Tensor) -> torch.Tensor:
    """Decode the sRGB curve (IEC 61966-2-1); any shape."""
    curve = ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(image <= 0.04045, image / 12.92, curve)


def linear_to_srgb(linear: torch.Tensor) -> torch.Tensor:
    """Encode with the sRGB curve; any shape. Values outside [0, 1] stay outside."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curve)


def _apply(matrix: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix, image)


def srgb_to_lab(image: torch.Tensor) -> torch.Tensor:
    """Turn sRGB into CIE Lab.

    Args:
        image: (B, 3, H, W) in [0, 1].
    Returns:
        (B, 3, H, W): L in 0..100, a, b.
    Source: CIE 15:2004, 8.2.1.
    """
    white = image.new_tensor(_WHITE).view(1, 3, 1, 1)
    xyz = _apply(image.new_tensor(_RGB_TO_XYZ), srgb_to_linear(image)) / white
    root = xyz.clamp(min=_EPSILON) ** (1.0 / 3.0)
    f = torch.where(xyz > _EPSILON, root, (_KAPPA * xyz + 16.0) / 116.0)
    x, y, z = f.unbind(1)
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), 1)


def lab_to_srgb(lab: torch.Tensor) -> torch.Tensor:
    """Turn CIE Lab into sRGB.

    Args:
        lab: (B, 3, H, W).
    Returns:
        (B, 3, H, W); colours that sRGB cannot show lie outside [0, 1].
    """
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16.0) / 116.0
    f = torch.stack((fy + a / 500.0, fy, fy - b / 200.0), 1)
    cube = f**3
    xyz = torch.where(cube > _EPSILON, cube, (116.0 * f - 16.0) / _KAPPA) * lab.new_tensor(_WHITE).view(1, 3, 1, 1)
    to_rgb = torch.linalg.inv(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)).to(lab)
    return linear_to_srgb(_apply(to_rgb, xyz))


def fit_gamut(lab: torch.Tensor) -> torch.Tensor:
    """Turn Lab into sRGB within [0, 1], reducing chroma where needed; lightness and hue stay.

    Clipping the channels instead would shift both, most of all in bright skies and dark reds.
    """
    rgb = lab_to_srgb(lab)
    outside = ((rgb < -_GAMUT_SLACK) | (rgb > 1.0 + _GAMUT_SLACK)).any(dim=1)
    if bool(outside.any()):
        picked = lab.transpose(0, 1)[:, outside][None, :, None, :]  # (1, 3, 1, N): a row of pixels
        low = torch.zeros_like(picked[:, :1])
        high = torch.ones_like(low)
        for _ in range(_GAMUT_STEPS):
            middle = (low + high) / 2
            tried = lab_to_srgb(_scale_chroma(picked, middle))
            fits = ((tried >= -_GAMUT_SLACK) & (tried <= 1.0 + _GAMUT_SLACK)).all(dim=1, keepdim=True)
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        rgb.transpose(0, 1)[:, outside] = lab_to_srgb(_scale_chroma(picked, low))[0, :, 0]
    return rgb.clamp(0.0, 1.0)


def _scale_chroma(lab: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.cat((lab[:, :1], lab[:, 1:] * factor), 1)


def tones(image: torch.Tensor) -> list[Tone]:
    """Tell black-and-white, toned (sepia, cyanotype) and colour photos apart.

    In a toned photo the tint is a function of lightness alone; in a colour photo, however faded and whatever its cast,
    things of one lightness differ in colour. That spread decides. A photo that has lost more than about two thirds of
    its saturation, or never had more than one hue, can read as toned.

    Args:
        image: (B, 3, H, W) in [0, 1].
    Returns:
        One of "gray", "sepia" (any single tint), "colour" per image.
    """
    return [_tone(one) for one in torch.split(image, 1)]


def is_gray(image: torch.Tensor) -> bool:
    """Whether the three channels of every pixel are equal: no tint, however faint."""
    return torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 1], image[:, 2])


def _tone(image: torch.Tensor) -> Tone:
    if is_gray(image):
        return "gray"
    height, width = image.shape[-2:]
    scale = min(1.0, _TONE_SIDE / max(height, width))
    small = resize(image, (max(1, round(height * scale)), max(1, round(width * scale)))).clamp(0.0, 1.0)
    lab = srgb_to_lab(small * exposure_gain(small))
    chroma = _cells(lab[:, 1:]).norm(dim=1).flatten()
    accent = bool(chroma.quantile(0.98) >= ACCENT)
    if not accent and chroma.quantile(0.95) < GRAY_CHROMA:
        return "gray"
    if accent and chroma.median() < GRAY_CHROMA / 2:
        return "colour"  # toning tints the middle tones too
    spread = _cells(_beside_tint(lab)).norm(dim=1).flatten()
    return "sepia" if spread.quantile(0.9) < _TONED_SPREAD and spread.quantile(0.98) < ACCENT else "colour"


def exposure_gain(small: torch.Tensor) -> torch.Tensor:
    """Factor at which a photo, made small, is bright enough for its colours to be judged; 1 for one that is."""
    return _BRIGHT / small.quantile(0.99).clamp(min=_BRIGHT / _LARGEST_GAIN, max=_BRIGHT)


def _cells(image: torch.Tensor) -> torch.Tensor:
    side = [min(_TONE_CELL, size) for size in image.shape[-2:]]
    return F.avg_pool2d(image, side, ceil_mode=True)


def _beside_tint(lab: torch.Tensor) -> torch.Tensor:
    """What of each pixel's ab is not explained by its lightness: (1, 3, h, w) to (1, 2, h, w).

    In each slice of lightness a line is fitted robustly, so that a minority of coloured things stands out against the
    tint instead of moving it.
    """
    lightness, ab = lab[0, 0].flatten(), lab[0, 1:].flatten(1)
    left = torch.zeros_like(ab)
    for at in lightness.argsort().tensor_split(min(_TONE_BINS, max(1, lightness.numel() // 8))):
        here, target = lightness[at], ab[:, at]
        weight = torch.ones_like(here)
        for _ in range(5):  # iteratively reweighted: towards the least sum of distances
            share = weight / weight.sum()
            centred = here - (share * here).sum()
            middle = (share * target).sum(1, keepdim=True)
            # Pixels of one lightness leave the slope free: the small addend sets it to 0.
            slope = (share * centred * target).sum(1, keepdim=True) / ((share * centred * centred).sum() + 1e-3)
            beside = target - middle - slope * centred
            weight = 1.0 / (beside.norm(dim=0) + 0.5)
        left[:, at] = beside
    return left.view_as(lab[:, 1:])


def local_slope(guide: torch.Tensor, target: torch.Tensor, *, radius: int, eps: float) -> torch.Tensor:
    """Least-squares slope of ``target`` over ``guide`` in the window about each pixel: the guided filter's model.

    Args:
        guide: (B, 1, H, W).
        target: (B, C, H, W).
        radius: half side of the windows, in pixels.
        eps: variance of the guide below which it is taken for flat and the slope goes to 0.
    Returns:
        (B, C, H, W), in units of target per unit of guide.
    Source: He, Sun, Tang 2013, "Guided image filtering", eq. 5.
    """
    mean_guide = box_mean(guide, radius)
    covariance = box_mean(guide * target, radius) - mean_guide * box_mean(target, radius)
    variance = box_mean(guide * guide, radius) - mean_guide * mean_guide
    return covariance / (variance.clamp(min=0.0) + eps)


def box_mean(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over (2 radius + 1)² windows, cut off at the borders: O(pixels) for any radius.

    Args:
        image: (B, C, H, W).
        radius: at least 0.
    """
    for dim in (-2, -1):
        image = _running_mean(image, radius, dim)
    return image


def _running_mean(image: torch.Tensor, radius: int, dim: int) -> torch.Tensor:
    size = image.shape[dim]
    # float64: the difference of two long float32 sums would lose the variance that a guided filter lives on.
    sums = F.pad(image.transpose(dim, -1).double().cumsum(-1), (1, 0))
    at = torch.arange(size, device=image.device)
    first, last = (at - radius).clamp(min=0), (at + radius + 1).clamp(max=size)
    mean = (sums[..., last] - sums[..., first]) / (last - first)
    return mean.to(image.dtype).transpose(dim, -1)


def lightness(image: torch.Tensor) -> torch.Tensor:
    """CIE L, 0 to 100, of (B, 3, H, W) sRGB, as (B, 1, H, W)."""
    return srgb_to_lab(image.clamp(0.0, 1.0))[:, :1]


def resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring (B, C, H, W) to ``size``; made smaller, each pixel is an average."""
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)


def resized_rows(image: torch.Tensor, top: int, bottom: int, height: int) -> torch.Tensor:
    """Rows ``top`` to ``bottom`` of ``image`` as if interpolated to ``height`` rows (half-pixel centres).

    Args:
        image: (B, C, h, W).
        top: first row.
        bottom: row after the last.
        height: of the whole that is not made.
    """
    at = (torch.arange(top, bottom, device=image.device, dtype=torch.float64) + 0.5) * image.shape[-2] / height - 0.5
    at = at.clamp(0, image.shape[-2] - 1)
    above = at.floor().long()
    below = (above + 1).clamp(max=image.shape[-2] - 1)
    share = (at - above).to(image.dtype)[:, None]
    return image[:, :, above] * (1.0 - share) + image[:, :, below] * share
