"""MaskFeather: give a mask a soft edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..ops.masks import Where


class MaskFeather:
    """Soften the edge of a mask."""

    NODE_ID = "PhotokeepMaskFeather"
    DISPLAY_NAME = "Feather Mask"
    CATEGORY = "PhotoKeep/Mask"
    DESCRIPTION = "Gives a mask a soft edge, inside it, outside it, or half on either side."
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("The mask with a soft edge.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask."}),
                "pixels": (
                    "FLOAT",
                    {"default": 8.0, "min": 0.0, "max": 512.0, "step": 0.5, "tooltip": "Width of the soft edge."},
                ),
                "where": (
                    ["both", "inside", "outside"],
                    {
                        "default": "both",
                        "tooltip": "outside: all that was white stays white. inside: all that was black stays black.",
                    },
                ),
            }
        }

    def run(self, mask: torch.Tensor, pixels: float, where: Where) -> tuple[torch.Tensor]:
        """Soften (B, H, W) in [0, 1]; see INPUT_TYPES."""
        from ..ops import masks

        return (masks.to_host(masks.feather(masks.from_host(mask), pixels, where)),)
