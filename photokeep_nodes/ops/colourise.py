"""Colour laid over a photo: predicted by a network, or asked for in places; the photo's own lightness stays.

Images are (B, 3, H, W) float32 sRGB in [0, 1]; lightness is CIE L in 0..100, a and b are in CIE units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import NodeInputError
from . import colour
from .restore_colours import without_borders

if TYPE_CHECKING:
    from collections.abc import Callable

_WORK_SIDE = 1024  # colour edges are found at this size; lightness stays at full size
_GUIDE_EPS = 3e-3  # variance of lightness / 100 below which a step counts as noise; 1e-3 to 1e-2 differ little

_ENDS = (0.005, 0.995)  # shares of the pixels that count as black and as white
_BLACK, _WHITE = 8.0, 90.0  # L that these have in a good print; a photo that reaches them is shown as it is
_STEEPEST = 2.5

_HINT_REACH = 32  # longer side over the radius within which a hint's border is moved to meet an edge
_HINT_EPS = 4e-4  # variance of lightness / 100: a step of 4 of L is an edge already
_HINT_RISE = (0.35, 0.65)  # the filtered mask rises over this range: its soft skirts are cut
_NOTHING = 1e-3  # of a hint's mask: below it is the rest of a soft border
_HINT_SHARE = 0.5  # of a network's pixel that a hint must cover to be told


@dataclass(frozen=True)
class Hints:
    """Colours that are known in places.

    Attributes:
        image: (B, 3, H, W) sRGB; its hue and chroma count, its lightness does not.
        mask: (B, 1, H, W) in [0, 1]: where they count, and how much.
    """

    image: torch.Tensor
    mask: torch.Tensor

    def of(self, index: int) -> Hints:
        """The hints for one photo of a batch; one set of hints serves every photo."""
        at = slice(index, index + 1)
        image = self.image if self.image.shape[0] == 1 else self.image[at]
        return Hints(image, self.mask if self.mask.shape[0] == 1 else self.mask[at])


def neutralise(image: torch.Tensor) -> torch.Tensor:
    """Lightness of a toned or faded black-and-white photo as a good print of it would have it.

    Networks were trained on the lightness of photos in colour, whose black is black. Borders of paper and a scanner's
    edges do not decide what that is.

    Args:
        image: (B, 3, H, W) sRGB in [0, 1].
    Returns:
        (B, 1, H, W) CIE L; as it is where black and white are there already.
    """
    return torch.cat([_neutralise(one) for one in torch.split(image, 1)])


def _neutralise(image: torch.Tensor) -> torch.Tensor:
    light = colour.lightness(image)
    inner = colour.lightness(without_borders(colour.resize(image, _within(image, 256)).clamp(0.0, 1.0))[0])
    low, high = (float(inner.flatten().quantile(at)) for at in _ENDS)
    black, white = min(low, _BLACK), max(high, _WHITE)
    if (black, white) == (low, high) or high - low < 1.0:
        return light
    gain = min(_STEEPEST, (white - black) / (high - low))
    # With the gain held back, the middle between black and white goes where it would have gone.
    return ((light - (low + high) / 2) * gain + (black + white) / 2).clamp(0.0, 100.0)


def _within(image: torch.Tensor, side: int) -> tuple[int, int]:
    height, width = image.shape[-2:]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def colourise(
    image: torch.Tensor,
    predictor: Callable[..., torch.Tensor],
    *,
    net_size: int = 256,
    strength: float = 1.0,
    neutralise_for_network: bool = True,
    hints: Hints | None = None,
    takes_hints: bool = False,
) -> torch.Tensor:
    """Lay predicted colour over a photo; its lightness stays as it is, at full resolution.

    Any tint it has (sepia, yellowed paper) is dropped first. The prediction is small and soft, and colour that is
    merely enlarged bleeds over edges. So in each window a linear model from lightness, made as soft as the prediction,
    to ab is fitted, and the detail that softening took from the lightness is added to ab by that model's slope. Unlike
    the plain guided filter this never smooths the prediction: on photos with known colour it lowers the error of
    enlarging by 5 to 7 %, where the guided filter at best does not raise it (``bench/colour.py``).

    Args:
        image: (B, 3, H, W) in [0, 1].
        predictor: (1, 1, S, S) lightness in 0..100 to (1, 2, h, w) ab. With ``takes_hints`` it is also given known ab
            (1, 2, S, S), 0 where nothing is known, and where they are known (1, 1, S, S), 0 or 1.
        net_size: S, the side the network was trained at.
        strength: factor on predicted chroma; 0 leaves a neutral black-and-white photo, 1 is as predicted.
        neutralise_for_network: show the network a good print of a faded photo; see ``neutralise``. The result keeps the
            photo's own lightness either way.
        hints: colours that are known; they get into the result as they are, where the photo's lightness can have them.
        takes_hints: whether the predictor does.
    Returns:
        Shape, dtype and device as ``image``; L as before, except that values outside [0, 1] are cut.
    Raises:
        NodeInputError: the predictor returned another shape, or values that are not numbers; hints of another size.
    """
    if hints is not None:
        _check(hints, image)
    coloured = []
    for index, one in enumerate(torch.split(image, 1)):
        own = None if hints is None else hints.of(index)
        if own is not None and not bool((own.mask > 0.0).any()):
            own = None
        shown = colour.resize(one, (net_size, net_size)).clamp(0.0, 1.0)
        shown = neutralise(shown) if neutralise_for_network else colour.lightness(shown)
        ab = predictor(shown, *_told(own, net_size, shown)) if takes_hints else predictor(shown)
        coloured.append(_lay_over(one, _checked(ab).to(image), net_size, strength, own))
    return torch.cat(coloured)


def _checked(ab: torch.Tensor) -> torch.Tensor:
    if ab.ndim != 4 or ab.shape[:2] != (1, 2):
        raise NodeInputError(f"the colour network returned {tuple(ab.shape)}, not (1, 2, height, width)")
    if not bool(torch.isfinite(ab).all()):
        raise NodeInputError("the colour network returned values that are not numbers")
    return ab


def _lay_over(
    image: torch.Tensor, ab: torch.Tensor, net_size: int, strength: float, hints: Hints | None
) -> torch.Tensor:
    height, width = image.shape[-2:]
    work = _within(image, _WORK_SIDE)
    soft = colour.resize(_soften(colour.lightness(colour.resize(image, (ab.shape[-2], ab.shape[-1])))), work) / 100.0
    ab = colour.resize(ab, work)
    # Twice the prediction's own pixel: as far as its blur reaches.
    radius = max(2, round(2 * max(work) / net_size))
    slope = colour.local_slope(soft, ab, radius=radius, eps=_GUIDE_EPS)
    fields = [slope, ab - slope * soft]
    if hints is not None:
        fields += _hint_fields(image, hints, work)
    coefficients = F.interpolate(torch.cat(fields, 1), size=(work[0], width), mode="bilinear", align_corners=False)
    result = torch.empty_like(image)
    rows = max(1, colour.BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        lightness = colour.lightness(image[:, :, top:bottom])
        here = colour.resized_rows(coefficients, top, bottom, height)
        chroma = (here[:, :2] * (lightness / 100.0) + here[:, 2:4]) * strength
        if hints is not None:
            chroma = _hinted(chroma, lightness / 100.0, here[:, 4:])
        result[:, :, top:bottom] = colour.fit_gamut(torch.cat((lightness, chroma), 1))
    return result


def _soften(image: torch.Tensor) -> torch.Tensor:
    """Blur with a standard deviation of half a pixel: about as soft as colour networks draw.

    More would pay where a network draws softer, and make it worse than plain enlarging where one draws sharply
    (``bench/colour.py``).
    """
    kernel = image.new_tensor((1.0, 6.0, 1.0)) / 8.0
    image = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(F.conv2d(image, kernel.view(1, 1, 1, 3)), kernel.view(1, 1, 3, 1))


# --- hints ---


def _check(hints: Hints, photo: torch.Tensor) -> None:
    for what, value, channels in (("colours", hints.image, 3), ("mask", hints.mask, 1)):
        if value.ndim != 4 or value.shape[1] != channels or value.shape[-2:] != photo.shape[-2:]:
            raise NodeInputError(
                f"the hints' {what} are {value.shape[-1]} x {value.shape[-2]} px,"
                f" the photo is {photo.shape[-1]} x {photo.shape[-2]} px",
                hint="Paint the hints on the photo that is coloured, at its size.",
            )
        if value.shape[0] not in {1, photo.shape[0]}:
            raise NodeInputError(
                f"hints for {value.shape[0]} photos were given, but {photo.shape[0]} came in",
                hint="Give one set of hints, or one for each photo.",
            )
        if not bool(torch.isfinite(value).all()):
            raise NodeInputError("the hints hold values that are not numbers")


def _averaged(hints: Hints, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The hints' colours (1, 3, h, w), averaged where they count, and how much of each pixel does (1, 1, h, w)."""
    mask = colour.resize(hints.mask.clamp(0.0, 1.0), size).clamp(0.0, 1.0)
    painted = colour.resize(hints.image * hints.mask.clamp(0.0, 1.0), size) / mask.clamp(min=1e-6)
    return painted.clamp(0.0, 1.0), mask


def _told(hints: Hints | None, side: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network that takes hints is told: ab and mask."""
    if hints is None:
        return torch.zeros_like(like).repeat(1, 2, 1, 1), torch.zeros_like(like)
    painted, share = _averaged(hints, (side, side))
    # A dab that is smaller than the network's pixel is told where it covers most, whatever other hints there are.
    known = ((share >= _highest(share, 2).clamp(max=_HINT_SHARE)) & (share > _NOTHING)).to(like)
    return colour.srgb_to_lab(painted)[:, 1:] * known, known


def _hint_fields(image: torch.Tensor, hints: Hints, work: tuple[int, int]) -> list[torch.Tensor]:
    """What ``_hinted`` needs at each pixel: ab, the share that is taken as it was drawn, and models of the rest.

    A guided filter moves the border of a broad region to the photo's edge. It would blur a thin one away, so regions
    are taken apart by their breadth, each is filtered within its own reach, and the thinnest stay as they are.
    """
    painted, mask = _averaged(hints, work)
    ab = colour.srgb_to_lab(painted)[:, 1:]
    light = colour.lightness(colour.resize(image, work)) / 100.0
    reach = max(2, round(max(work) / _HINT_REACH))
    # Of each hint by itself: a faint one counts beside a strong one.
    peak = _highest(mask, reach)
    left = ((mask >= peak / 2) & (mask > _NOTHING)).to(image)
    level, settled = peak * left, left > 0.0
    models = []
    for radius in sorted({reach, max(1, reach // 3), max(1, reach // 9)}, reverse=True):
        broad = _broad(left, 2 * radius)
        left = left - broad
        slope, offset = _follow(light, broad, radius)
        slope, offset = _follow(light, _rise(slope * light + offset), radius)
        models += [slope, offset]
    drawn = left
    # Beyond the border that was drawn, up to the edge, the nearest colours go on.
    for radius in (1, reach // 2, 2 * reach):
        near = colour.box_mean(mask, radius)
        reached, share = near > 1e-6, near.clamp(min=1e-6)
        ab = torch.where(settled, ab, colour.box_mean(ab * mask, radius) / share)
        level = torch.where(settled, level, reached * colour.box_mean(level * mask, radius) / share)
        mask = torch.where(reached, torch.maximum(mask, level), mask)
        settled = settled | reached
    return [ab, drawn, level, *models]


def _highest(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Highest value within a square about each pixel."""
    side = 2 * radius + 1
    rows = F.max_pool2d(image, (1, side), 1, (0, radius))
    return F.max_pool2d(rows, (side, 1), 1, (radius, 0))


def _broad(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """The parts of a mask of 0 and 1 into which a square of that radius fits, with their rounded sides."""
    core = (colour.box_mean(mask, radius) > 1.0 - 1e-4).to(mask)
    for step in (radius, radius):
        core = (colour.box_mean(core, step) > 1e-6).to(mask) * mask
    return core


def _follow(light: torch.Tensor, mask: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The guided filter's model of a mask over lightness: slope and offset."""
    slope = colour.local_slope(light, mask, radius=radius, eps=_HINT_EPS)
    offset = colour.box_mean(mask, radius) - slope * colour.box_mean(light, radius)
    return colour.box_mean(slope, radius), colour.box_mean(offset, radius)


def _rise(mask: torch.Tensor) -> torch.Tensor:
    at = ((mask - _HINT_RISE[0]) / (_HINT_RISE[1] - _HINT_RISE[0])).clamp(0.0, 1.0)
    return at * at * (3.0 - 2.0 * at)


def _hinted(chroma: torch.Tensor, light: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    """``chroma`` with the hints' laid over it; ``light`` is L / 100, ``fields`` are those of ``_hint_fields``."""
    ab, share, level = fields[:, :2], fields[:, 2:3], fields[:, 3:4]
    for at in range(4, fields.shape[1], 2):
        share = torch.maximum(share, _rise(fields[:, at : at + 1] * light + fields[:, at + 1 : at + 2]))
    return chroma.lerp(ab, share * level)
