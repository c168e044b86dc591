"""Upscale: enlarge a photo with a super-resolution model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch

_MOST_PIXELS = 1_000_000_000  # 12 GB as floats


class Upscale:
    """Enlarge by any factor from 1 to 8: the model's own factor, then resampling."""

    NODE_ID = "PhotokeepUpscale"
    DISPLAY_NAME = "Upscale"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Enlarges and sharpens with a super-resolution model. The model works at its own factor (mostly 4);"
        " other factors are resampled from its result. Large photos run in tiles without visible seams."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The enlarged photo.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("upscale"), {"tooltip": "A super-resolution model, such as Real-ESRGAN."}),
                "scale": (
                    "FLOAT",
                    {
                        "default": 4.0,
                        "min": 1.0,
                        "max": 8.0,
                        "step": 0.25,
                        "tooltip": "Output side over input side. At 1 the photo is only sharpened.",
                    },
                ),
                "tile": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 4096,
                        "step": 32,
                        "tooltip": "Side of a tile in pixels; 0 chooses it from the free memory. A tile that would"
                        " be mostly margin is enlarged to the smallest the model can use.",
                    },
                ),
            }
        }

    def run(self, image: torch.Tensor, model: ModelHandle, scale: float, tile: int) -> tuple[torch.Tensor]:
        """Enlarge (B, H, W, C) in [0, 1] to (B, round(H * scale), round(W * scale), 3); see INPUT_TYPES."""
        from torch.nn import functional

        from .. import images, inference

        spec = inference.spec_for(model, "upscale")
        photo = images.to_bchw(image)
        size = [max(1, round(side * scale)) for side in photo.shape[-2:]]
        # The model's own result comes first, however small the photo is to be in the end.
        height, width = (max(side * spec.scale, final) for side, final in zip(photo.shape[-2:], size, strict=True))
        if height * width > _MOST_PIXELS:
            raise NodeInputError(
                f"{spec.title} would have to make {width} x {height} pixels of this photo",
                hint="Use a model or a scale with a smaller factor, or crop first.",
            )
        large = inference.apply_tiled(spec, photo, tile=tile).clamp_(0.0, 1.0)
        if list(large.shape[-2:]) != size:
            large = functional.interpolate(large, size=size, mode="bicubic", antialias=True, align_corners=False)
        return (images.to_bhwc(large),)
