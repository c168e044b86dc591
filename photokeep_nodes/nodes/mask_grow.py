"""MaskGrow: make a mask larger or smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class MaskGrow:
    """Grow or shrink a mask by a round brush, and bring it to a photo's size."""

    NODE_ID = "PhotokeepMaskGrow"
    DISPLAY_NAME = "Grow Mask"
    CATEGORY = "PhotoKeep/Mask"
    DESCRIPTION = (
        "Grows a mask by some pixels, or shrinks it. With an image connected the mask is first resized to that image."
    )
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("The larger or smaller mask.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask."}),
                "pixels": (
                    "FLOAT",
                    {
                        "default": 4.0,
                        "min": -512.0,
                        "max": 512.0,
                        "step": 0.5,
                        "tooltip": "How far it grows; below 0 it shrinks.",
                    },
                ),
            },
            "optional": {"image": ("IMAGE", {"tooltip": "Resize the mask to this image first."})},
        }

    def run(self, mask: torch.Tensor, pixels: float, image: torch.Tensor | None = None) -> tuple[torch.Tensor]:
        """Grow (B, H, W) in [0, 1]; see INPUT_TYPES."""
        from .. import images
        from ..ops import masks

        planes = masks.from_host(mask)
        if image is not None:
            photo = images.to_bchw(image)
            planes = masks.fit(planes, photo.shape[0], *photo.shape[-2:], resize=True)
        return (masks.to_host(masks.grow(planes, pixels)),)
