"""Nodes that move and soften the edges of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError

from ._checks import checked_mask
from ._declare import LARGEST_SIDE, MASK, integer, offset

if TYPE_CHECKING:
    import torch


class GrowMask:
    """Make what is masked wider, or narrower."""

    NODE_ID = "GrowMask"
    DISPLAY_NAME = "Grow Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": MASK,
                "expand": integer(0, -LARGEST_SIDE, LARGEST_SIDE, step=1),
                "tapered_corners": ("BOOLEAN", {"advanced": True, "default": True}),
            }
        }

    def run(self, mask: torch.Tensor, expand: int, tapered_corners: bool) -> tuple[torch.Tensor]:
        """Give each pixel the largest value within ``expand`` pixels of it, or for a negative one the smallest.

        Args:
            mask: (B, H, W).
            expand: in pixels.
            tapered_corners: count pixels along rows and columns, which makes diamonds, not squares.
        """
        mask = checked_mask(mask)
        # Beyond the far side there is nothing to be found; what a link brings may be any number.
        steps = min(abs(expand), sum(mask.shape[1:]))
        if expand < 0:
            return (-_spread(-mask, steps, diamond=tapered_corners),)
        return (_spread(mask, steps, diamond=tapered_corners),)


def _spread(mask: torch.Tensor, steps: int, *, diamond: bool) -> torch.Tensor:
    """The largest value around each pixel of (B, H, W), step by step."""
    for _ in range(steps):
        host.check_interrupted()
        wider = _with_neighbours(mask.clone(), mask, 1)
        wider = _with_neighbours(wider, mask if diamond else wider.clone(), 2)
        if wider.equal(mask):
            break
        mask = wider
    return mask


def _with_neighbours(result: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Raise ``result`` in place to the values that lie before and behind in ``mask``; quicker than pooling."""
    import torch

    length = mask.shape[dim] - 1
    for place, source in ((1, 0), (0, 1)):
        target = result.narrow(dim, place, length)
        torch.maximum(target, mask.narrow(dim, source, length), out=target)
    return result


class FeatherMask:
    """Fade a mask out towards its edges."""

    NODE_ID = "FeatherMask"
    DISPLAY_NAME = "Feather Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK, "left": offset(), "top": offset(), "right": offset(), "bottom": offset()}}

    def run(self, mask: torch.Tensor, left: int, top: int, right: int, bottom: int) -> tuple[torch.Tensor]:
        """Multiply (B, H, W) by ramps that many pixels long, which reach 1 at their inner end."""
        import torch

        if min(left, top, right, bottom) < 0:
            raise NodeInputError("a margin cannot be negative", hint="Choose 0 or more.")
        faded = checked_mask(mask).clone()
        height, width = faded.shape[1:]

        def ramp(length: int, side: int) -> torch.Tensor:
            length = min(length, side)
            return (torch.arange(1, length + 1, dtype=torch.float64) / length).to(faded.dtype)

        from_left, from_right = ramp(left, width), ramp(right, width)
        from_top, from_bottom = ramp(top, height), ramp(bottom, height)
        faded[:, :, : len(from_left)] *= from_left
        faded[:, :, width - len(from_right) :] *= from_right.flip(0)
        faded[:, : len(from_top)] *= from_top[:, None]
        faded[:, height - len(from_bottom) :] *= from_bottom.flip(0)[:, None]
        return (faded,)
