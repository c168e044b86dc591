"""Deblur: sharpen what was out of focus or moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _analysis, _tiles

if TYPE_CHECKING:
    import torch


class Deblur:
    """Restore edges that camera shake, motion or a lens have softened."""

    NODE_ID = "PhotokeepDeblur"
    DISPLAY_NAME = "Deblur"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Sharpens photos that are blurred by camera shake, motion or focus. With when = auto a photo whose edges are"
        " sharp passes through unchanged; a connected analysis decides, or a look at the photo."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The sharper photo, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("deblur"), {"tooltip": "A deblurring model, such as NAFNet."}),
                "when": (
                    ["auto", "always"],
                    {
                        "default": "auto",
                        "tooltip": "auto: only where even the sharpest edges are soft. always: every photo.",
                    },
                ),
                **_tiles.strength_widget("keeps the photo", "is the model's result in full"),
            },
            "optional": {
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze; saves measuring the blur again."}),
                **_tiles.TILE_WIDGETS,
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        when: str,
        strength: float,
        analysis: dict[str, Any] | None = None,
        tile: int = 0,
        overlap: int = 0,
    ) -> tuple[torch.Tensor]:
        """Deblur (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import inference

        spec = inference.spec_for(model, "deblur")
        if strength == 0.0:
            return (image,)
        chosen = _analysis.chosen(image, when, analysis, "deblur", node=self.DISPLAY_NAME)
        return (
            _tiles.restore_each(
                image, chosen, strength, lambda photo, _: _tiles.apply(spec, photo, tile=tile, overlap=overlap)
            ),
        )
