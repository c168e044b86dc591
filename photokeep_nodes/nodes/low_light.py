"""LowLight: brighten an underexposed photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch


class LowLight:
    """Brighten dark parts by learnt tone curves."""

    NODE_ID = "PhotokeepLowLight"
    DISPLAY_NAME = "Low Light"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = "Brightens an underexposed photo by a tone curve for each pixel. Light parts stay as they are."
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
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "0 keeps the photo, 1 applies the curves in full.",
                    },
                ),
            }
        }

    def run(self, image: torch.Tensor, model: ModelHandle, strength: float) -> tuple[torch.Tensor]:
        """Brighten (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import images, inference

        spec = inference.spec_for(model, "low_light")
        if strength == 0.0:
            return (image,)
        photo = images.to_bchw(image)
        bright = inference.apply_tiled(spec, photo)
        return (images.to_bhwc(photo + strength * (bright - photo)),)
