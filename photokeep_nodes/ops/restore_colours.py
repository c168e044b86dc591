"""Faded photos: give each dye layer its black and white back, and the paper its white.

The dyes of a colour print fade by a share of their density, each by another one, and the paper yellows: the density
that is measured is ``scale * density + stain``, for each of red, green and blue. In a photo with a black and a white
in it both are known: the darkest parts were black, the brightest were paper. So the curve undone here is a straight
line in density (-log10 of linear light), which is a power in linear light: mid-tones follow by themselves.

What a photo never had cannot be told from what it lost by its histogram: a fog, a stained microscope slide. The rule
is therefore to believe in fading only where no part of the photo is dark any more; clean photos keep parts darker than
L = 8, night scenes, sunsets and meadows too.
Source: that the degree of fading shows in the neutral blacks is also the ground of Chatterjee, Trumpy, Ruedel 2023,
"Digital unfading of chromogenic film informed by its spectral densities", Heritage 6(4), doi 10.3390/heritage6040181;
the curves and the measures are our own, in the three channels of a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from . import colour

if TYPE_CHECKING:
    from collections.abc import Callable

WhiteBalance = Literal["auto", "off", "paper", "pick"]
Toned = Literal["keep", "neutralise", "as_colour"]
RGB = tuple[float, float, float]

_SIDE = 384  # pixels of the longer side of the copy that is measured
_DARK, _LIGHT = (0.002, 0.01), (0.001, 0.01)  # shares of the pixels, from the end: dust and lamps are left out
_BLACK, _LIFTED = 8.0, 14.0  # L of the darkest parts: clean photos reach up to 8; from the second on it is fading
_VISIBLE = 0.25  # amount from which restoring shows
_LEAST_RANGE, _RANGE = 6.0, 16.0  # of L; a photo of one colour has no black that it lost
_WHITE_CAST, _COLOURED = 18.0, 32.0  # chroma of the brightest parts: the first is still paper, the second a lamp
_WHITE = (74.0, 86.0)  # L of the brightest parts: below the first there is no white in the photo
_PAPER_CAST = 4.0  # chroma from which a border of paper has yellowed visibly
_FULL_BLACK = 2.1  # density of a good print's black: sRGB 0.085
_STEEPEST = 2.8  # a dye that lost more than two thirds is mostly noise
_DULL = 0.08  # density by which gray whites are made brighter: about 7 of L
_PALE, _NATURAL, _RICHEST = 4.0, 18.0, 1.35  # chroma that a tenth of the pixels exceed; greatest factor on chroma
_KNEE = 0.85  # linear light above which what would be clipped is compressed
_CLIPPED = 0.999  # share of the pixels that stay below white
_FLOOR = 1e-5

_BORDER_SHARE = 0.3  # of a side: what is uniform beyond that is the subject
_ALIKE = 0.04  # sRGB by which the pixels of a border differ
_STEP = 0.1  # sRGB by which what lies inside differs, in half of the next line
_LINE_SHARE = 0.95  # of a line's pixels that are alike
_BLACK_EDGE, _PAPER = 0.2, 0.6  # sRGB: a border is darker or brighter than these
_LUMA = (0.2126729, 0.7151522, 0.0721750)


@dataclass(frozen=True)
class Fading:
    """What tells whether a photo has faded.

    Attributes:
        tone: as ``colour.tones`` has it.
        dark: Lab of the darkest parts, borders left out.
        bright: Lab of the brightest parts.
        paper: Lab of the border of paper around the photo; None without one.
        amount: 0 = as new, 1 = faded beyond doubt.
    """

    tone: colour.Tone
    dark: RGB
    bright: RGB
    paper: RGB | None
    amount: float

    @property
    def yellowed(self) -> bool:
        """Whether the border shows that the paper of a colour photo has a cast."""
        return self.tone == "colour" and self.paper is not None and _chroma(self.paper) >= _PAPER_CAST

    @property
    def worthwhile(self) -> bool:
        """Whether restoring would show."""
        return self.amount >= _VISIBLE or self.yellowed


@dataclass(frozen=True)
class _Curves:
    """Density d of a channel becomes ``scale * (d - stain) - lift``; then chroma is multiplied by ``chroma``."""

    scale: torch.Tensor
    stain: torch.Tensor
    lift: float
    top: float
    chroma: float


@dataclass(frozen=True)
class _Measures:
    inner: torch.Tensor  # (1, 3, h, w) sRGB, small, without borders
    dark: torch.Tensor  # (3,) linear light
    bright: torch.Tensor
    paper: torch.Tensor | None


def fading(image: torch.Tensor, tone: colour.Tone | None = None) -> Fading:
    """Tell whether a photo has faded.

    Args:
        image: (1, 3, H, W) in [0, 1].
        tone: as ``colour.tones`` has it, where that is known already.
    """
    return _judge(_measure(image), tone or colour.tones(image)[0])


def restore_colours(
    image: torch.Tensor,
    *,
    contrast: float = 1.0,
    white_balance: WhiteBalance = "auto",
    neutral: RGB | None = None,
    saturation: float = 1.0,
    toned: Toned = "keep",
    cautious: bool = True,
) -> torch.Tensor:
    """Undo the fading of each photo of a batch.

    Black-and-white and toned photos get their contrast back, by one curve of lightness; gray ones stay exactly gray.

    Args:
        image: (B, 3, H, W) in [0, 1].
        contrast: how far the black point comes back: 0 = not, 1 = to a print's black.
        white_balance: of colour photos. "auto": by the dark and the bright parts, or the paper; "off": the cast stays,
            one curve for the three colours; "paper": the border of paper becomes white, and where there is none as
            "auto"; "pick": ``neutral`` becomes gray.
        neutral: sRGB of something in the photo that should be gray.
        saturation: factor on chroma; 1 leaves it as the curves have it, or raises it to a natural level where a faded
            photo stays pale.
        toned: what becomes of a tone such as sepia: "keep", "neutralise", or "as_colour": treat every photo as one in
            colour.
        cautious: weigh every change by how sure it is that the photo has faded; else take that for granted.
    Returns:
        New tensor of the same shape; photos in which nothing is to be changed keep their values exactly.
    """
    result = [
        _restore(one, contrast, white_balance, neutral, saturation, toned, cautious) for one in torch.split(image, 1)
    ]
    return torch.cat(result)


def _restore(
    photo: torch.Tensor,
    contrast: float,
    white_balance: WhiteBalance,
    neutral: RGB | None,
    saturation: float,
    toned: Toned,
    cautious: bool,
) -> torch.Tensor:
    tone = "colour" if toned == "as_colour" else colour.tones(photo)[0]
    measures = _measure(photo)
    found = _judge(measures, tone)
    sure = found.amount if cautious else _has_range(found)
    if tone == "colour":
        curves = _colour_curves(measures, found, sure, contrast, white_balance, neutral, saturation)
        return photo if _idle(curves) else _in_bands(photo, lambda band: _through(band, curves))
    curves = _tone_curves(measures, sure, contrast)
    if colour.is_gray(photo):
        return photo if _idle(curves) else _in_bands(photo, lambda band: _through(band[:, :1], curves).expand_as(band))
    if toned == "keep" and _idle(curves):
        return photo
    chroma = saturation if toned == "keep" else 0.0
    return _in_bands(photo, lambda band: _toned(band, curves, chroma))


# --- measuring ---


def _measure(photo: torch.Tensor) -> _Measures:
    height, width = photo.shape[-2:]
    scale = min(1.0, _SIDE / max(height, width))
    small = colour.resize(photo, (max(1, round(height * scale)), max(1, round(width * scale)))).clamp(0.0, 1.0)
    inner, paper = without_borders(small)
    linear = colour.srgb_to_linear(inner)[0].flatten(1)
    order = (linear * linear.new_tensor(_LUMA)[:, None]).sum(0).argsort()
    count = order.numel()
    low = int(_DARK[0] * count)
    high = int(_LIGHT[0] * count)
    dark = order[low : max(low + 1, int(_DARK[1] * count))]
    bright = order[count - max(high + 1, int(_LIGHT[1] * count)) : count - high]
    return _Measures(
        inner,
        linear[:, dark].mean(1),
        linear[:, bright].mean(1),
        None if paper is None else colour.srgb_to_linear(paper),
    )


def _lab(linear: torch.Tensor) -> RGB:
    l, a, b = colour.srgb_to_lab(colour.linear_to_srgb(linear).view(1, 3, 1, 1)).flatten().tolist()  # noqa: E741
    return l, a, b


def _chroma(lab: RGB) -> float:
    return float((lab[1] ** 2 + lab[2] ** 2) ** 0.5)


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    at = min(1.0, max(0.0, (value - low) / (high - low)))
    return at * at * (3.0 - 2.0 * at)


def _judge(measures: _Measures, tone: colour.Tone) -> Fading:
    dark, bright = _lab(measures.dark), _lab(measures.bright)
    paper = None if measures.paper is None else _lab(measures.paper)
    found = Fading(tone, dark, bright, paper, _ramp(dark[0], _BLACK, _LIFTED))
    return Fading(tone, dark, bright, paper, found.amount * _has_range(found))


def _has_range(found: Fading) -> float:
    return _ramp(found.bright[0] - found.dark[0], _LEAST_RANGE, _RANGE)


def without_borders(small: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Leave out a scanner's black edges and margins of paper.

    Args:
        small: (1, 3, h, w) sRGB.
    Returns:
        What is inside, and the colour (3,) of the paper where it shows on three sides or more.
    """
    paper = None
    for _ in range(3):  # a black edge may lie around the paper, and the paper around a black frame
        depths, colours = zip(*(_border(small, side) for side in range(4)), strict=True)
        top, bottom, left, right = (depth + 1 if depth > 1 else 0 for depth in depths)  # one more: it is half subject
        height, width = small.shape[-2:]
        if not any((top, bottom, left, right)) or height - top - bottom < 2 or width - left - right < 2:
            break
        white = [one for depth, one in zip(depths, colours, strict=True) if depth > 1 and float(one.min()) > 0.3]
        if len(white) >= 3 and paper is None:
            mean = torch.stack(white).mean(0)
            if all(float((one - mean).abs().max()) < _ALIKE for one in white):
                paper = mean
        small = small[:, :, top : height - bottom, left : width - right]
    return small, paper


def _border(small: torch.Tensor, side: int) -> tuple[int, torch.Tensor]:
    """How many lines from one side (top, bottom, left, right) are of one border, and its colour (3,)."""
    lines = small[0] if side < 2 else small[0].transpose(1, 2)
    lines = lines.flip(1) if side % 2 else lines
    limit = max(1, int(_BORDER_SHARE * lines.shape[1]))
    lines = lines[:, : limit + 3]
    middles = lines.median(2).values  # (3, n)
    first = middles[:, 0]
    alike = ((lines - middles[:, :, None]).abs().amax(0) < _ALIKE).float().mean(1) >= _LINE_SHARE
    alike &= (middles - first[:, None]).abs().amax(0) < _ALIKE
    depth = int(alike.long().cumprod(0).sum())
    edge = middles[:, : max(1, depth)].mean(1)
    beyond = lines[:, depth + 1 : depth + 2]
    # A border ends in a step; ground that is dark, or a sky that is light, fades into the subject.
    ends = (
        depth <= limit
        and beyond.numel()
        and float(((beyond - edge[:, None, None]).abs().amax(0) > _STEP).float().mean()) > 0.5
    )
    if not ends or not (float(first.max()) < _BLACK_EDGE or float(first.max()) > _PAPER):
        depth = 0
    return depth, edge


# --- curves ---


def _density(linear: torch.Tensor) -> torch.Tensor:
    return -linear.clamp(min=1e-3).log10()


def _colour_curves(
    measures: _Measures,
    found: Fading,
    sure: float,
    contrast: float,
    white_balance: WhiteBalance,
    neutral: RGB | None,
    saturation: float,
) -> _Curves:
    dark, stain = _density(measures.dark), _stain(measures, found, sure, white_balance)
    luma = dark.new_tensor(_LUMA)
    common = _steeper(_density((measures.dark * luma).sum()), stain.min())
    each = _steeper(dark, stain) if white_balance != "off" else common.expand(3)
    scale = (1.0 + sure * contrast * (common - 1.0)) * (1.0 + sure * (each / common - 1.0))
    if white_balance == "pick" and neutral is not None:
        point = scale * _density(colour.srgb_to_linear(dark.new_tensor(neutral)))
        gray = _density((10.0**-point * luma).sum())
        stain = (point - gray) / scale
    lift = sure * contrast * min(_DULL, float(_density(measures.bright).min()))
    curves = _Curves(scale, stain, lift, 1.0, 1.0)
    pale = colour.srgb_to_lab(_through(measures.inner, curves))[:, 1:].norm(dim=1).flatten()
    natural = float(pale.quantile(0.9))
    factor = min(_RICHEST, max(1.0, _NATURAL / max(natural, _PALE))) if natural > _PALE else 1.0
    factor = saturation * (1.0 + sure * (factor - 1.0))
    return _Curves(scale, stain, lift, _top(measures.inner, curves), factor)


def _stain(measures: _Measures, found: Fading, sure: float, white_balance: WhiteBalance) -> torch.Tensor:
    """Density (3,) that the paper gained, beyond what it gained in all three colours."""
    if measures.paper is not None and white_balance in {"auto", "paper"}:
        stain, share = _density(measures.paper), 1.0
    else:
        stain = _density(measures.bright)
        share = sure * (1.0 - _ramp(_chroma(found.bright), _WHITE_CAST, _COLOURED)) * _ramp(found.bright[0], *_WHITE)
    if white_balance in {"off", "pick"}:
        share = 0.0
    return (stain - stain.min()) * share


def _steeper(dark: torch.Tensor, stain: torch.Tensor) -> torch.Tensor:
    return (_FULL_BLACK / (dark - stain).clamp(min=0.3)).clamp(1.0, _STEEPEST)


def _tone_curves(measures: _Measures, sure: float, contrast: float) -> _Curves:
    luma = measures.dark.new_tensor(_LUMA)
    dark, bright = (_density((value * luma).sum()) for value in (measures.dark, measures.bright))
    steep = _steeper(dark, torch.zeros_like(dark))
    scale = 1.0 + sure * contrast * (steep - 1.0)
    # The white stays where it is, or becomes brighter: gray paper is old paper.
    lift = sure * contrast * min(_DULL, float(bright)) + float((scale - 1.0) * bright)
    curves = _Curves(scale.expand(1), torch.zeros(1), lift, 1.0, 1.0)
    gray = colour.linear_to_srgb((colour.srgb_to_linear(measures.inner) * luma.view(1, 3, 1, 1)).sum(1, keepdim=True))
    return _Curves(curves.scale, curves.stain, lift, _top(gray, curves), 1.0)


def _top(inner: torch.Tensor, curves: _Curves) -> float:
    """Linear light that all but one in a thousand pixels stay below, in every channel, after the curves; at least 1."""
    linear = _light(inner, curves)[0].flatten(1)
    return max(1.0, float(linear.quantile(_CLIPPED, dim=1).max()))


def _idle(curves: _Curves) -> bool:
    unchanged = float((curves.scale - 1.0).abs().max()) < 1e-4 and float(curves.stain.abs().max()) < 1e-4
    return unchanged and curves.lift < 1e-4 and abs(curves.chroma - 1.0) < 1e-4


# --- applying ---


def _in_bands(photo: torch.Tensor, restore: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    result = torch.empty_like(photo)
    rows = max(1, colour.BAND_PIXELS // photo.shape[-1])
    for top in range(0, photo.shape[-2], rows):
        result[:, :, top : top + rows] = restore(photo[:, :, top : top + rows])
    return result


def _light(image: torch.Tensor, curves: _Curves) -> torch.Tensor:
    """Linear light of (B, C, H, W) sRGB after the curves; may exceed 1."""
    scale, stain = (value.to(image).view(1, -1, 1, 1) for value in (curves.scale, curves.stain))
    linear = colour.srgb_to_linear(image).clamp(min=_FLOOR)
    result: torch.Tensor = (linear * 10.0**stain) ** scale * 10.0**curves.lift
    return result


def _through(image: torch.Tensor, curves: _Curves) -> torch.Tensor:
    """(B, C, H, W) sRGB through the curves, what would exceed white compressed, then chroma."""
    linear = _light(image, curves)
    if curves.top > 1.0:
        room = (curves.top - _KNEE) / (1.0 - _KNEE)
        over = ((linear - _KNEE) / (curves.top - _KNEE)).clamp(0.0, 1.0)
        bent = _KNEE + (1.0 - _KNEE) * room * over / (1.0 + (room - 1.0) * over)
        linear = torch.where(linear > _KNEE, bent, linear)
    result = colour.linear_to_srgb(linear).clamp(0.0, 1.0)
    if curves.chroma == 1.0 or image.shape[1] == 1:
        return result
    lab = colour.srgb_to_lab(result)
    return colour.fit_gamut(torch.cat((lab[:, :1], lab[:, 1:] * curves.chroma), 1))


def _toned(image: torch.Tensor, curves: _Curves, chroma: float) -> torch.Tensor:
    """(B, 3, H, W) with its lightness through the curves; the tint stays, times ``chroma``."""
    luma = image.new_tensor(_LUMA).view(1, 3, 1, 1)
    gray = colour.linear_to_srgb((colour.srgb_to_linear(image) * luma).sum(1, keepdim=True))
    gray = _through(gray.clamp(0.0, 1.0), curves).expand_as(image)
    if chroma == 0.0:
        return gray
    lightness = colour.srgb_to_lab(gray)[:, :1]
    return colour.fit_gamut(torch.cat((lightness, colour.srgb_to_lab(image)[:, 1:] * chroma), 1))
