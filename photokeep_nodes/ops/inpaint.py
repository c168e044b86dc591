"""Fill the damaged parts of a photo: with OpenCV, or with a network, crop by crop.

Wherever the mask is 0 the photo is returned to the last bit; a soft mask blends. Masks are (B, 1, H, W) in [0, 1] as
`ops.masks` makes them, photos (B, 3, H, W) in [0, 1]. All that is masked, however little, is unknown to the fill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import NodeInputError
from ..images import luminance
from . import colour, tint
from .grain import add_grain
from .inpaint_regions import Region, regions
from .tiling import pad_to

if TYPE_CHECKING:
    from collections.abc import Callable

    Inpainter = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(1, 3, h, w) and a mask (1, 1, h, w) of exactly 0 or 1, 1 where to fill, to (1, 3, h, w)."""

Method = Literal["telea", "ns"]

RADIUS = 3.0
"""Pixels around the hole that the classical methods look at."""

# Telea's code adds a direction of length 1 to each value: nothing at this scale, a bright or dark stripe on 0 to 1.
_VALUES = 65535.0
_METHODS = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}
_CLASSICAL_SIDE = 1024  # of the crops; holes are filled from what is next to them
_CLASSICAL_CONTEXT = 16


def inpaint_classical(
    image: torch.Tensor,
    mask: torch.Tensor,
    method: Method = "telea",
    radius: float = RADIUS,
    *,
    grain: float = 0.0,
    after_region: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Continue what surrounds each hole into it.

    Args:
        image: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W), above 0 where to fill.
        method: "telea" marches inwards with weighted means, "ns" carries edges on by fluid dynamics.
        radius: see ``RADIUS``.
        grain: share of the photo's own noise that the fill gets back.
        after_region: called after each part that is filled, see ``inpaint_regions.regions``.
    Returns:
        Shape and type as ``image``; ``image`` itself where nothing is masked.
    Raises:
        NodeInputError: shapes that do not match, values that are not numbers, or nothing left to fill from.
    Source: Telea 2004, J. Graphics Tools 9(1); Bertalmio et al. 2001, CVPR.
    """
    if method not in _METHODS:
        raise NodeInputError(f"{method!r} is no way of inpainting", hint=f"Ways are {' and '.join(_METHODS)}.")
    radius = max(1.0, radius)

    def fill(canvas: torch.Tensor, unknown: torch.Tensor) -> None:
        for region in classical_regions(unknown, radius):
            rows, columns = region.crop
            crop, here = canvas[..., rows, columns], unknown[..., rows, columns]
            holes = here[0, 0].numpy().astype(np.uint8)
            for plane in crop[0]:
                values = np.ascontiguousarray(plane.numpy() * np.float32(_VALUES))
                filled = torch.from_numpy(cv2.inpaint(values, holes, radius, _METHODS[method]) / np.float32(_VALUES))
                plane.copy_(torch.where(here[0, 0], filled, plane))
            here.zero_()  # the next one builds on it
            if after_region is not None:
                after_region()

    return _inpainted(image, mask, fill, grain)


def classical_regions(unknown: torch.Tensor, radius: float = RADIUS) -> list[Region]:
    """The parts in which ``inpaint_classical`` fills one photo; (1, 1, H, W), true where to fill."""
    return regions(unknown, side=_CLASSICAL_SIDE, context=_CLASSICAL_CONTEXT + round(radius), keep_whole=True)


def inpaint_with(
    image: torch.Tensor,
    mask: torch.Tensor,
    network: Inpainter,
    *,
    multiple_of: int = 1,
    minimum: int = 1,
    square_side: int = 0,
    grain: float = 0.0,
    after_region: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Fill with a network.

    The mask is taken part by part, each with a generous crop around it, at the photo's own size; a hole too large for
    that is filled on a reduced copy, of which only the hole is taken. See ``inpaint_regions``.

    Args:
        image: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W), above 0 where to fill.
        network: fills a crop.
        multiple_of: of which the sides of its inputs must be multiples.
        minimum: least side of its inputs.
        square_side: side of its inputs where it takes one size only, else 0.
        grain: share of the photo's own noise that the fill gets back.
        after_region: called after each part.
    Returns:
        Shape and type as ``image``; ``image`` itself, and no call of the network, where nothing is masked.
    Raises:
        NodeInputError: as ``inpaint_classical``; or the network returned another shape, or no numbers.
    """

    def fill(canvas: torch.Tensor, unknown: torch.Tensor) -> None:
        for region in network_regions(unknown, minimum=minimum, square_side=square_side):
            _fill_region(canvas, unknown, region, network, multiple_of, minimum, square_side)
            if after_region is not None:
                after_region()

    return _inpainted(image, mask, fill, grain)


NETWORK_SIDE = 1024
"""Longest side in pixels of the crops that a network without a size of its own is given."""


def network_regions(unknown: torch.Tensor, *, minimum: int = 1, square_side: int = 0) -> list[Region]:
    """The parts in which ``inpaint_with`` fills one photo; (1, 1, H, W), true where to fill."""
    side = square_side or max(NETWORK_SIDE, minimum)
    return regions(unknown, side=side, context=side // 4, least=square_side or minimum)


def input_side(
    unknown: torch.Tensor, *, multiple_of: int = 1, minimum: int = 1, square_side: int = 0
) -> tuple[int, int]:
    """Height and width that hold each of the network's inputs for one photo; 0 and 0 where nothing is masked."""
    sizes = [
        _padded_size(*region.work, multiple_of, minimum, square_side)
        for region in network_regions(unknown, minimum=minimum, square_side=square_side)
    ]
    return max((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)


def unknown_of(mask: torch.Tensor) -> torch.Tensor:
    """What of (1, 1, H, W) is unknown: everything that is masked at all."""
    return mask > 0.0


def _inpainted(
    image: torch.Tensor, mask: torch.Tensor, fill: Callable[[torch.Tensor, torch.Tensor], None], grain: float
) -> torch.Tensor:
    """Have each photo filled in place where its mask is above 0, and blend."""
    check(image, mask)
    if not bool(mask.any()):
        return image
    result = image.clone()
    for index in range(image.shape[0]):
        photo, soft = image[index : index + 1], mask[index : index + 1].to(device="cpu", dtype=torch.float32)
        unknown = unknown_of(soft)
        if not bool(unknown.any()):
            continue
        canvas = photo.detach().to(device="cpu", dtype=torch.float32).contiguous().clone()
        fill(canvas, unknown.clone())
        _keep_gray(photo, canvas, unknown)
        if grain > 0.0:
            add_grain(canvas, unknown, photo.float().cpu(), grain)
        weight = soft.to(photo)
        blended = photo + weight * (canvas.to(photo) - photo) if bool((soft[unknown] < 1.0).any()) else canvas.to(photo)
        # Chosen, not blended with a weight of 0: that would not be exact where the fill is no number.
        result[index : index + 1] = torch.where(unknown.to(photo.device), blended.clamp(0.0, 1.0), photo)
    return result


def check(image: torch.Tensor, mask: torch.Tensor) -> None:
    """Look over what is to be inpainted, before a model is brought for it.

    Raises:
        NodeInputError: shapes that do not match, values that are not numbers, or nothing left to fill from.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise NodeInputError(f"photos to inpaint must be (batch, 3, height, width), not {tuple(image.shape)}")
    if mask.shape != (image.shape[0], 1, *image.shape[-2:]):
        raise NodeInputError(
            f"the mask is {tuple(mask.shape)}, for photos of {tuple(image.shape)}",
            hint="A mask has one value for each pixel of each photo.",
        )
    for what, values in (("photo", image), ("mask", mask)):
        if not bool(torch.isfinite(values.sum(dtype=torch.float64))):
            raise NodeInputError(f"the {what} holds values that are not numbers")
    if bool((mask.flatten(1) > 0.0).all(1).any()):
        raise NodeInputError(
            "the mask covers the whole photo: there is nothing to inpaint from",
            hint="Look at the mask; shrink or invert it, or lower the sensitivity of what found it.",
        )


def _keep_gray(photo: torch.Tensor, canvas: torch.Tensor, unknown: torch.Tensor) -> None:
    """Give the fill of a black-and-white photo its own tint, or none; in place."""
    if colour.is_gray(photo):
        canvas.copy_(torch.where(unknown, luminance(canvas), canvas))
    elif colour.tones(photo.float())[0] == "gray":
        canvas.copy_(torch.where(unknown, tint.keep_own_tint(photo.float().cpu(), canvas.clone()), canvas))


def _padded_size(height: int, width: int, multiple_of: int, minimum: int, square_side: int) -> tuple[int, int]:
    if square_side:
        return square_side, square_side
    up = (-(-max(side, minimum) // multiple_of) * multiple_of for side in (height, width))
    return next(up), next(up)


def _fill_region(
    canvas: torch.Tensor,
    unknown: torch.Tensor,
    region: Region,
    network: Inpainter,
    multiple_of: int,
    minimum: int,
    square_side: int,
) -> None:
    rows, columns = region.crop
    crop, holes = canvas[..., rows, columns], unknown[..., rows, columns]
    size, work = tuple(crop.shape[-2:]), region.work
    photo, marked = crop, holes.float()
    if work != size:
        photo = F.interpolate(crop, size=work, mode="bilinear", antialias=True, align_corners=False)
        # Grown by a pixel: averaging has mixed the damage into its neighbours.
        marked = F.max_pool2d(F.adaptive_max_pool2d(marked, work), 3, stride=1, padding=1)
        if bool(marked.all()):
            marked = F.adaptive_max_pool2d(holes.float(), work)
    height, width = _padded_size(*work, multiple_of, minimum, square_side)
    filled = network(pad_to(photo, height, width), pad_to(marked, height, width))
    if tuple(filled.shape) != (1, 3, height, width):
        raise NodeInputError(f"the inpainting network returned {tuple(filled.shape)}, not (1, 3, {height}, {width})")
    filled = filled[..., : work[0], : work[1]].detach().to(canvas)
    if not bool(torch.isfinite(filled).all()):
        raise NodeInputError(
            "the inpainting network returned values that are not numbers", hint="Its weights do not suit this photo."
        )
    if work != size:
        filled = F.interpolate(filled, size=size, mode="bicubic", align_corners=False)
    top, left, bottom, right = region.core
    core = torch.zeros_like(holes)
    core[..., top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = True
    core &= holes if region.mine is None else holes & region.mine
    crop.copy_(torch.where(core, filled.clamp(0.0, 1.0), crop))
    holes &= ~core  # the next one builds on it
