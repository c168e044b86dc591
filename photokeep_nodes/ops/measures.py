"""What is wrong with a photo, in figures: noise, blur, JPEG blocks.

Every function takes (1, 3, H, W) sRGB in [0, 1] and looks at no more than about four megapixels of it, as whole tiles:
reducing the photo instead would average the noise away and move the JPEG grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from ..images import luminance
from .colour import is_gray, srgb_to_lab

_TILE = 512
_TILES = 16  # 16 * 512² = 4.2 megapixels

_SMOOTHING = 2.0  # deviation in pixels of the copy on which flatness is judged
_BLOCK = 16  # side of the blocks noise is read off
_FLAT_SHARE = 0.2  # of the unclipped blocks, the flattest: what the high-pass sees there is noise, not texture
_MIN_BLOCKS = 8
_HALF_BLOCK = 8  # the same for the photo at half size ...
_HALF_MIN = 150  # ... which needs this many blocks to contain quiet ones
_HALF_QUANTILE = 0.15
_HALF_GAIN = 2.2  # averaging 2 x 2 pixels halves white noise; the quantile lies a tenth below the mean
_HALF_LIMIT = 5.0
_CLIP_MARGIN = 1.6  # standard deviations that a block keeps from black and white, where clipping hides noise
_LUMA_GAIN = math.sqrt(0.299**2 + 0.587**2 + 0.114**2)  # of noise that differs between the channels

_EDGE_SHARE = 0.02  # of the pixels: the strongest edges tell the sharpness of the lens, the rest that of the subject
_FINE = (0.7, 1.4)  # blur widths that are compared: the first pair resolves sharp photos ...
_COARSE = (1.5, 3.0)  # ... the second still works on blurred and noisy ones
_BLUR_LIMIT = 8.0
_DIFFERENCE_VARIANCE = 1.0 / 3.0  # a central difference is itself a blur, by a box of two pixels

_GRID = 8
_STEP_LIMIT = 6.0  # 8-bit steps: a strong edge of the subject must not outweigh a hundred weak ones of the grid
_SIGNIFICANT = 3.0  # standard errors by which a phase must stand out


def tiles(image: torch.Tensor) -> list[torch.Tensor]:
    """The whole photo, or 16 tiles of 512 px spread evenly over a large one; corners on multiples of 8."""
    height, width = image.shape[-2:]
    if height * width <= _TILES * _TILE * _TILE:
        return [image]
    down = max(1, min(_TILES, round(math.sqrt(_TILES * height / width))))
    across = _TILES // down
    return [
        image[:, :, top : top + _TILE, left : left + _TILE]
        for top in _starts(height, down)
        for left in _starts(width, across)
    ]


def _starts(size: int, count: int) -> list[int]:
    room = max(0, size - _TILE)
    return sorted({round(room * (i + 0.5) / count) // _GRID * _GRID for i in range(count)})


def noise_sigma(image: torch.Tensor) -> float:
    """Standard deviation of the noise in each colour channel, in 8-bit steps.

    A Laplacian of two crossed directions (Immerkaer) passes noise and no plane or ramp. It is read on the flattest
    blocks that keep clear of black and white; "flat" is judged on a smoothed copy, so that choosing does not prefer
    blocks whose noise happens to be low.

    JPEG, a scanner's resampling and enlarging take the finest part of the noise away and leave the rest. So the photo
    is read at half size too, where texture is stronger and the level is taken from the quietest of the flat blocks; the
    higher answer counts, up to five times the lower: fur and grass have nothing at all on the finest scale. After JPEG
    at quality 50 or less, noise below about 5 is gone or hidden and reads as 0 to 2.

    Returns:
        Root mean square over the channels; 0.0 for a photo without a block to read.
    Source: Immerkaer 1996, "Fast noise variance estimation", CVIU 64(2).
    """
    parts = [tile * 255.0 for tile in tiles(image)]
    halves = [F.avg_pool2d(part, 2) for part in parts if min(part.shape[-2:]) > 1]
    full = _noise(parts, _BLOCK, 1, 0.5)
    half = _HALF_GAIN * _noise(halves, _HALF_BLOCK, _HALF_MIN, _HALF_QUANTILE)
    return max(full, min(half, _HALF_LIMIT * full))


def _noise(parts: list[torch.Tensor], side: int, least: int, quantile: float) -> float:
    """Level read from blocks of ``side`` pixels, or 0.0 where there are fewer than ``least``."""
    blocks = [_noise_blocks(part, side) for part in parts]
    if sum(block[0].shape[1] for block in blocks) < least:
        return 0.0
    local, texture, low, high = (torch.cat(values, 1) for values in zip(*blocks, strict=True))
    levels = [_noise_of_channel(*channel, quantile) for channel in zip(local, texture, low, high, strict=True)]
    return math.sqrt(sum(level * level for level in levels) / len(levels))


def _noise_blocks(image: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise, texture, least and greatest value of each block: (3, N) each."""
    channels = image.shape[1]
    margin = math.ceil(3 * _SMOOTHING)
    if min(image.shape[-2:]) < 2 * margin + 8:
        return (image.new_zeros((channels, 0)),) * 4
    kernel = image.new_tensor(((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))) / 6.0
    response = F.conv2d(image, kernel.expand(channels, 1, 3, 3), groups=channels)
    inner = margin - 1  # the smoothed copy is smaller by the margin, the response by one
    response = response[:, :, inner:-inner, inner:-inner]
    smooth = gaussian(image, _SMOOTHING)[:, :, margin:-margin, margin:-margin]
    side = min(side, smooth.shape[-2] - 1, smooth.shape[-1] - 1)
    slope = (smooth.diff(dim=-1)[:, :, 1:] ** 2) + (smooth.diff(dim=-2)[:, :, :, 1:] ** 2)
    smooth, response = smooth[:, :, 1:, 1:], response[:, :, 1:, 1:]
    # The mean absolute value of a Gaussian is sqrt(2 / pi) of its deviation; squares would follow stray edges.
    noise = F.avg_pool2d(response.abs(), side) * math.sqrt(math.pi / 2)
    texture = F.avg_pool2d(slope, side)
    low, high = -F.max_pool2d(-smooth, side), F.max_pool2d(smooth, side)
    return noise[0].flatten(1), texture[0].flatten(1), low[0].flatten(1), high[0].flatten(1)


def _noise_of_channel(
    local: torch.Tensor, texture: torch.Tensor, low: torch.Tensor, high: torch.Tensor, quantile: float
) -> float:
    level = 5.0
    for _ in range(4):  # which blocks are clear of clipping depends on the answer
        margin = min(_CLIP_MARGIN * level, 100.0)
        clear = (low > margin) & (high < 255.0 - margin)
        if int(clear.sum()) < _MIN_BLOCKS:
            # None is: take those nearest to middle gray.
            distance = ((low + high) / 2.0 - 127.5).abs()
            clear = (
                distance <= distance.kthvalue(min(distance.numel(), max(_MIN_BLOCKS, distance.numel() // 10))).values
            )
        count = max(_MIN_BLOCKS, int(_FLAT_SHARE * int(clear.sum())))
        flattest = texture[clear].argsort()[:count]
        level = float(local[clear][flattest].quantile(quantile))
    return level


def gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur (B, C, H, W), borders repeated; the kernel reaches three deviations."""
    radius = math.ceil(3 * sigma)
    at = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-(at**2) / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    channels = image.shape[1]
    image = F.pad(image, (radius, radius, radius, radius), mode="replicate")
    image = F.conv2d(image, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(image, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def blur_sigma(image: torch.Tensor, noise: float) -> float | None:
    """How blurred a photo's strongest edges are: a further blur takes much slope from a sharp edge, little from a soft.

    Args:
        image: (1, 3, H, W).
        noise: from ``noise_sigma``; its share is subtracted.
    Returns:
        Standard deviation in pixels of the Gaussian that would make ideal edges as soft: up to 1.3 in a sharp photo, at
        most 8. None where no edge stands out of the noise.
    Source: the ratio of gradients is Zhuo, Sim 2011, "Defocus map estimation from a single image".
    """
    lumas = [luminance(tile) * 255.0 for tile in tiles(image)]
    in_luma = noise * (1.0 if is_gray(image) else _LUMA_GAIN)
    fine, coarse = _blur(lumas, _FINE, in_luma), _blur(lumas, _COARSE, in_luma)
    if fine is None or coarse is None:
        return coarse if fine is None else fine
    share = min(1.0, max(0.0, (coarse - 1.0) / 1.5))
    return (1.0 - share) * fine + share * coarse


def _gradient(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    across = (image[..., 1:-1, 2:] - image[..., 1:-1, :-2]) / 2.0
    down = (image[..., 2:, 1:-1] - image[..., :-2, 1:-1]) / 2.0
    return across, down


def _blur(lumas: list[torch.Tensor], widths: tuple[float, float], noise: float) -> float | None:
    """Median blur over the strongest edges, or None where there are none above the noise."""
    # Power that white noise leaves in a squared gradient after each blur.
    less, more = (2.0 * noise * noise / (8.0 * math.pi * width**4) for width in widths)
    pairs = [_edges(luma, widths) for luma in lumas]
    sharper, softer = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    wanted = int(_EDGE_SHARE * sum(luma.numel() for luma in lumas))
    floor = max(0.5, 6.0 * math.sqrt(more)) ** 2
    if softer.numel() > wanted > 0:
        floor = max(floor, float(softer.kthvalue(softer.numel() - wanted).values))
    strong = softer >= floor
    if int(strong.sum()) < 20:
        return None
    ratio = (sharper[strong] - less) / (softer[strong] - more).clamp(min=1e-6)
    # Slope of a blurred step: 1 / sqrt(blur² + width²), hence ratio = (blur² + wide²) / (blur² + narrow²).
    narrow, wide = (width * width for width in widths)
    squared = (wide - ratio * narrow) / (ratio - 1.0) - _DIFFERENCE_VARIANCE
    squared = torch.where(ratio <= 1.01, torch.full_like(squared, _BLUR_LIMIT**2), squared)
    return math.sqrt(min(max(0.0, float(squared.median())), _BLUR_LIMIT**2))


def _edges(luma: torch.Tensor, widths: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared gradients after the narrow and the wide blur, at the crests of the wide one: (N,) each."""
    if min(luma.shape[-2:]) < 8:
        return luma.new_zeros(0), luma.new_zeros(0)
    across, down = _gradient(gaussian(luma, widths[0]))
    sharper = across * across + down * down
    across, down = _gradient(gaussian(luma, widths[1]))
    softer = across * across + down * down
    # Crests are sought after the wide blur: after the narrow one, noise would choose where it is highest.
    around = F.pad(softer, (1, 1, 1, 1))
    left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
    above, below = around[..., :-2, 1:-1], around[..., 2:, 1:-1]
    upright = (softer > left) & (softer >= right)
    level = (softer > above) & (softer >= below)
    crest = torch.where(across.abs() >= down.abs(), upright, level)
    return sharper[crest], softer[crest]


def lightness_quantiles(image: torch.Tensor, quantiles: tuple[float, ...]) -> list[float]:
    """L (0 to 100) that these shares of the pixels stay below; the photo is averaged to at most 256 px a side."""
    height, width = image.shape[-2:]
    reduced = F.adaptive_avg_pool2d(image, (min(256, height), min(256, width)))
    lightness = srgb_to_lab(reduced)[:, 0].flatten()
    return [float(lightness.quantile(q)) for q in quantiles]


@dataclass(frozen=True)
class Blocks:
    """Traces of JPEG compression.

    Attributes:
        strength: excess in 8-bit steps of what the luma jumps at every eighth pixel, beyond what chance gives; 0 in a
            photo without blocks, about 0.5 at quality 80, 1 at 60, 2 at 20.
        grid: columns and rows (0 to 7) at which blocks begin; None without blocks.
    """

    strength: float
    grid: tuple[int, int] | None


def jpeg_blocks(image: torch.Tensor) -> Blocks:
    """Look for a grid of eight pixels, whatever its phase, so that cropped photos show theirs too."""
    lumas = [luminance(tile)[0, 0] * 255.0 for tile in tiles(image)]
    across, left = _grid(lumas)
    down, top = _grid([luma.T for luma in lumas])
    # Blocks have four sides: blinds or a brick wall rarely repeat at eight pixels in both directions.
    strength = math.sqrt(across * down)
    return Blocks(strength, (left, top) if strength > 0.0 else None)


def _grid(lumas: list[torch.Tensor]) -> tuple[float, int]:
    """Excess of the strongest of eight phases of columns, and which it is."""
    excess: list[torch.Tensor] = []
    phase: list[torch.Tensor] = []
    for luma in lumas:
        if luma.shape[1] < 4 * _GRID or luma.shape[0] < _GRID:
            continue
        jump = luma.diff(dim=1).abs()
        # Against both neighbours, which a ramp or a texture moves alike.
        beyond = (jump[:, 1:-1] - (jump[:, :-2] + jump[:, 2:]) / 2.0).clamp(-_STEP_LIMIT, _STEP_LIMIT)
        excess.append(beyond.mean(0))
        phase.append((torch.arange(beyond.shape[1], device=luma.device) + 2) % _GRID)
    if not excess:
        return 0.0, 0
    value, at = torch.cat(excess), torch.cat(phase)
    means = torch.stack([value[at == p].mean() for p in range(_GRID)])
    best = int(means.argmax())
    error = float((value - means[at]).std(correction=0)) / math.sqrt(value.numel() / _GRID)
    others = float((means.sum() - means[best]) / (_GRID - 1))
    return max(0.0, float(means[best]) - others - _SIGNIFICANT * error), best
