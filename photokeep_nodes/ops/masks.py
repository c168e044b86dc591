"""Masks: grow, shrink, soften and combine them, and bring them to a photo.

Masks are (B, 1, H, W) float32 in [0, 1]; the host's MASK is (B, H, W). What lies outside the photo is unknown, so a
mask that touches the border neither grows from there nor shrinks away from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Plane = npt.NDArray[np.float32]

Where = Literal["inside", "outside", "both"]
How = Literal["union", "intersection", "difference", "exclusive"]

EMPTY_SIDE = 64
"""Side of the empty mask that the host makes for a photo without one."""

_RED, _OPACITY = (1.0, 0.1, 0.1), 0.75
_LARGEST_DISC = 7  # larger discs are added up from such: the cost grows with the square of the radius
_AUTO_SHARE = 1500.0  # pixels of the longer side for each pixel that a detector's mask is grown by
_LEAST_AUTO = 1.0


def from_host(mask: torch.Tensor) -> torch.Tensor:
    """Bring a MASK to (B, 1, H, W) float32 in [0, 1] on the CPU.

    Args:
        mask: (B, H, W), (H, W) or (B, 1, H, W); numbers from 0 to 1, or true and false.
    Raises:
        NodeInputError: another shape, whole numbers, or values that are not numbers.
    """
    if not isinstance(mask, torch.Tensor):
        raise NodeInputError("this is no mask", hint="Connect a MASK output here.")
    shape = tuple(mask.shape)
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3 or 0 in mask.shape:
        raise NodeInputError(f"a mask must be (batch, height, width), not {shape}", hint="Connect a MASK output here.")
    if not mask.is_floating_point() and mask.dtype != torch.bool:
        raise NodeInputError(f"a mask must hold numbers from 0 to 1, not {str(mask.dtype).removeprefix('torch.')}")
    mask = mask.detach().to(device="cpu", dtype=torch.float32)
    if bool(torch.isnan(mask.sum(dtype=torch.float64))):
        raise NodeInputError("the mask holds values that are not numbers")
    return mask[:, None].clamp(0.0, 1.0)


def to_host(mask: torch.Tensor) -> torch.Tensor:
    """Bring (B, 1, H, W) to the host's (B, H, W)."""
    return mask[:, 0].contiguous()


def fit(mask: torch.Tensor, batch: int, height: int, width: int, *, resize: bool = False) -> torch.Tensor:
    """Bring a mask to a batch of photos.

    Args:
        mask: (B, 1, H, W), as many as photos or one for all. The host's empty mask fits every photo.
        batch: number of photos.
        height: of the photos.
        width: of the photos.
        resize: whether a mask of another size is resized; else it is an error.
    Returns:
        (``batch``, 1, ``height``, ``width``).
    Raises:
        NodeInputError: another number of masks, or another size.
    """
    if mask.shape[0] not in (1, batch):
        raise NodeInputError(
            f"{mask.shape[0]} masks came in for {batch} images", hint="Connect one mask, or as many as images."
        )
    if mask.shape[-2:] != (height, width):
        if is_empty_default(mask):
            mask = mask.new_zeros((mask.shape[0], 1, height, width))
        elif resize:
            mask = resized(mask, height, width)
        else:
            raise NodeInputError(
                f"the mask has {mask.shape[-1]} x {mask.shape[-2]} px, the image {width} x {height} px",
                hint="Make the mask from the same image, or resize it first, with Grow Mask and the image connected.",
            )
    return mask.expand(batch, -1, -1, -1)


def matched(first: torch.Tensor, second: torch.Tensor, *, resize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring two masks to one size: the host's empty mask always, another only if ``resize``, to the first's."""
    if first.shape[-2:] == second.shape[-2:]:
        return first, second
    if is_empty_default(first):
        return first.new_zeros((first.shape[0], 1, *second.shape[-2:])), second
    if is_empty_default(second):
        return first, second.new_zeros((second.shape[0], 1, *first.shape[-2:]))
    return first, resized(second, *first.shape[-2:]) if resize else second


def is_empty_default(mask: torch.Tensor) -> bool:
    """Whether (B, 1, H, W) is what the host makes for photos that nobody painted on: it fits every photo."""
    return mask.shape[-2:] == (EMPTY_SIDE, EMPTY_SIDE) and not bool(mask.any())


def resized(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A soft mask of another size; made smaller, each pixel is an average."""
    return F.interpolate(mask, size=(height, width), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def auto_grow(height: int, width: int) -> float:
    """Pixels by which to grow a detector's mask, so that it covers the soft rim of what it found."""
    return max(_LEAST_AUTO, float(round(max(height, width) / _AUTO_SHARE)))


def grow(mask: torch.Tensor, pixels: float) -> torch.Tensor:
    """Grow, or shrink, by a round brush.

    Args:
        mask: (B, 1, H, W) in [0, 1]; soft ones are grown value by value.
        pixels: radius; negative ones shrink. Fractions matter for hard masks only.
    Returns:
        Shape as ``mask``; hard where it is hard.
    """
    if pixels == 0:
        return mask
    return _each(mask, lambda plane: _grown(plane, pixels) if pixels > 0 else 1.0 - _grown(1.0 - plane, -pixels))


def _grown(plane: Plane, radius: float) -> Plane:
    if _is_hard(plane):
        return np.asarray(_distance(plane < 0.5) <= radius, np.float32)
    left = round(radius)
    while left > 0:
        step = min(left, _LARGEST_DISC)
        y, x = np.mgrid[-step : step + 1, -step : step + 1]
        disc = (np.hypot(x, y) <= step + 0.25).astype(np.uint8)
        plane = np.asarray(cv2.dilate(plane, disc))
        left -= step
    return plane


def feather(mask: torch.Tensor, pixels: float, where: Where = "both") -> torch.Tensor:
    """Soften the edge.

    Args:
        mask: (B, 1, H, W) in [0, 1]; the edge of a soft one is where it passes a half.
        pixels: width of the soft edge.
        where: it falls off inside the mask, which then reaches 0 at its edge; outside, which leaves the mask as it is;
            or half on either side.
    Returns:
        Shape as ``mask``. What was soft already is never made harder.
    """
    if pixels <= 0:
        return mask

    def softened(plane: Plane) -> Plane:
        inside = plane >= 0.5
        if not inside.any():
            return plane
        # Of pixel centres: the edge lies half a pixel before the first one beyond it.
        within = np.maximum(_distance(inside) - 0.5, 0.0) if not inside.all() else np.full_like(plane, np.inf)
        beyond = np.maximum(_distance(~inside) - 0.5, 0.0)
        if where == "inside":
            return np.minimum(plane, _smooth(within / pixels))
        if where == "outside":
            return np.maximum(plane, _smooth(1.0 - beyond / pixels))
        ramp = _smooth(0.5 + np.asarray(np.where(inside, within, -beyond), np.float32) / pixels)
        return np.where(inside, np.minimum(plane, ramp), np.maximum(plane, ramp))

    return _each(mask, softened)


def combine(first: torch.Tensor, second: torch.Tensor, how: How) -> torch.Tensor:
    """Combine masks of one size; a single one is combined with each of a batch.

    Raises:
        NodeInputError: other sizes or numbers, or an unknown way.
    """
    if first.shape[-2:] != second.shape[-2:]:
        sizes = " and ".join(f"{mask.shape[-1]} x {mask.shape[-2]} px" for mask in (first, second))
        raise NodeInputError(
            f"masks of {sizes} cannot be combined",
            hint="Make both from images of one size, or have the second resized.",
        )
    if first.shape[0] != second.shape[0] and 1 not in (first.shape[0], second.shape[0]):
        raise NodeInputError(f"{first.shape[0]} masks cannot be combined with {second.shape[0]}")
    if how == "union":
        return torch.maximum(first, second)
    if how == "intersection":
        return torch.minimum(first, second)
    if how == "difference":
        return torch.minimum(first, 1.0 - second)
    if how == "exclusive":
        return (first - second).abs()
    raise NodeInputError(f"masks cannot be combined by {how!r}")


def overlay(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Lay a mask over photos in red: (B, 3, H, W) and (B, 1, H, W), both in [0, 1]."""
    red = image.new_tensor(_RED).view(1, 3, 1, 1)
    return image + _OPACITY * mask.to(image) * (red - image)


def _each(mask: torch.Tensor, change: Callable[[Plane], Plane]) -> torch.Tensor:
    planes = [torch.from_numpy(change(np.ascontiguousarray(one[0].numpy()))) for one in mask.float().cpu()]
    return torch.stack(planes)[:, None].to(torch.float32)


def _is_hard(plane: Plane) -> bool:
    return bool(np.all((plane == 0.0) | (plane == 1.0)))


def _distance(where: npt.NDArray[np.bool_]) -> Plane:
    """How far each pixel of ``where`` is from the nearest that is not, 0 there; infinite where there is none."""
    if where.all():
        return np.full(where.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _smooth(share: Plane) -> Plane:
    """An S from 0 to 1 without a kink at either end."""
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), np.float32)
