"""MaskCombine: make one mask of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..ops.masks import How


class MaskCombine:
    """Add masks, take one from another, or keep what they share."""

    NODE_ID = "PhotokeepMaskCombine"
    DISPLAY_NAME = "Combine Masks"
    CATEGORY = "PhotoKeep/Mask"
    DESCRIPTION = "Makes one mask of two. The empty mask that comes with a photo without one fits any other."
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("The combined mask.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "first": ("MASK", {"tooltip": "A mask."}),
                "second": ("MASK", {"tooltip": "Another, of the same size."}),
                "how": (
                    ["union", "intersection", "difference", "exclusive"],
                    {
                        "default": "union",
                        "tooltip": "union: in either. intersection: in both. difference: in the first and not in the"
                        " second. exclusive: in one of them only.",
                    },
                ),
            },
            "optional": {
                "resize": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Resize the second to the first where their sizes differ."},
                ),
            },
        }

    def run(self, first: torch.Tensor, second: torch.Tensor, how: How, resize: bool = False) -> tuple[torch.Tensor]:
        """Combine (B, H, W) in [0, 1]; see INPUT_TYPES."""
        from ..ops import masks

        one, other = masks.from_host(first), masks.from_host(second)
        one, other = masks.matched(one, other, resize=resize)
        return (masks.to_host(masks.combine(one, other, how)),)
