"""Compare: see what a restoration changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Compare:
    """Two pictures side by side, and what differs between them."""

    NODE_ID = "PhotokeepCompare"
    DISPLAY_NAME = "Compare Photos"
    CATEGORY = "PhotoKeep/Photo"
    DESCRIPTION = "Puts the photo before and after next to each other, and shows where they differ."
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("side_by_side", "difference")
    OUTPUT_TOOLTIPS = (
        "Before on the left, after on the right; the smaller one is enlarged to the other's size.",
        "Black where nothing changed, brighter the more did.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "before": ("IMAGE", {"tooltip": "The photo as it was."}),
                "after": ("IMAGE", {"tooltip": "The restored photo."}),
                "gain": (
                    "FLOAT",
                    {
                        "default": 4.0,
                        "min": 0.1,
                        "max": 100.0,
                        "step": 0.1,
                        "tooltip": "How much the difference is amplified; 1 shows it as it is.",
                    },
                ),
            }
        }

    def run(self, before: torch.Tensor, after: torch.Tensor, gain: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare (B, H, W, C) pictures in [0, 1]; see ``ops.compare``."""
        from .. import images
        from ..ops import compare

        first, second = images.to_bchw(before), images.to_bchw(after)
        return (
            images.to_bhwc(compare.side_by_side(first, second)),
            images.to_bhwc(compare.difference(first, second, gain)),
        )
