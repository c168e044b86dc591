"""AsUpscaleModel: hand one of our upscale models to the host's own upscale nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    from ..exchange import LentUpscaler


class AsUpscaleModel:
    """Make an UPSCALE_MODEL of a Photokeep model."""

    NODE_ID = "PhotokeepToUpscaleModel"
    DISPLAY_NAME = "As UPSCALE_MODEL"
    CATEGORY = "PhotoKeep/Models"
    DESCRIPTION = (
        "Makes a Photokeep upscale model usable by ComfyUI's own Upscale Image (using Model) and other nodes that take"
        " an UPSCALE_MODEL. The weights stay in Photokeep's memory pool, and each call borrows them."
    )
    RETURN_TYPES = ("UPSCALE_MODEL",)
    RETURN_NAMES = ("upscale_model",)
    OUTPUT_TOOLTIPS = ("Connect to nodes that take an UPSCALE_MODEL. Weights load when such a node runs.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": (socket_type("upscale"), {"tooltip": "A super-resolution model, such as Real-ESRGAN."}),
            }
        }

    def run(self, model: ModelHandle) -> tuple[LentUpscaler]:
        """Wrap the model's handle."""
        from ..exchange import LentUpscaler

        return (LentUpscaler(model),)
