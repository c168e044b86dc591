"""LowLight: brighten an underexposed photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _analysis, _tiles

if TYPE_CHECKING:
    import torch


class LowLight:
    """Brighten dark parts by learnt tone curves."""

    NODE_ID = "PhotokeepLowLight"
    DISPLAY_NAME = "Low Light"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Brightens an underexposed photo by a tone curve for each pixel. Light parts stay as they are. With when = auto"
        " only a photo that is dark as a whole is touched; a connected analysis decides, or a look at the photo."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The brightened photo, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("low_light"), {"tooltip": "A low-light model, such as Zero-DCE."}),
                **_tiles.strength_widget("keeps the photo", "applies the curves in full"),
            },
            "optional": {
                "when": (
                    ["always", "auto"],
                    {"default": "always", "tooltip": "always: brighten every photo. auto: only dark ones."},
                ),
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze; decides which photos are dark."}),
                **_tiles.TILE_WIDGETS,
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        strength: float,
        when: str = "always",
        analysis: dict[str, Any] | None = None,
        tile: int = 0,
        overlap: int = 0,
    ) -> tuple[torch.Tensor]:
        """Brighten (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import inference

        spec = inference.spec_for(model, "low_light")
        if strength == 0.0:
            return (image,)
        chosen = _analysis.chosen(image, when, analysis, "low_light", node=self.DISPLAY_NAME)
        return (
            _tiles.restore_each(
                image, chosen, strength, lambda photo, _: _tiles.apply(spec, photo, tile=tile, overlap=overlap)
            ),
        )
