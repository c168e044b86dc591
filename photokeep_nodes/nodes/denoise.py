"""Denoise: remove film grain and sensor noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _analysis, _tiles

if TYPE_CHECKING:
    import torch

_WORTH_IT = 1.5  # 8-bit steps; a model that is told of less noise removes no more, but costs detail
_STRONGEST = 75.0  # denoisers are not trained for more, and return artefacts


class Denoise:
    """Remove noise of a given or an estimated level."""

    NODE_ID = "PhotokeepDenoise"
    DISPLAY_NAME = "Denoise"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Removes film grain and sensor noise. With noise = auto the level is taken from a connected analysis, or"
        " estimated from the photo; a clean photo passes through unchanged."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The photo without noise, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("denoise"), {"tooltip": "A denoising model, such as FFDNet."}),
                "noise": (
                    ["auto", "manual"],
                    {
                        "default": "auto",
                        "tooltip": "auto: estimate the noise level, and pass clean photos through. manual: use sigma.",
                    },
                ),
                "sigma": (
                    "FLOAT",
                    {
                        "default": 15.0,
                        "min": 0.0,
                        "max": 75.0,
                        "step": 0.5,
                        "tooltip": "Noise level for manual, in 8-bit steps (0 to 255 scale). Only models that are told"
                        " the level, such as FFDNet, use it; the others find it by themselves.",
                    },
                ),
                **_tiles.strength_widget("keeps the photo", "removes all noise; between, some grain stays"),
            },
            "optional": {
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze; saves estimating the noise again."}),
                **_tiles.TILE_WIDGETS,
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        noise: str,
        sigma: float,
        strength: float,
        analysis: dict[str, Any] | None = None,
        tile: int = 0,
        overlap: int = 0,
    ) -> tuple[torch.Tensor]:
        """Denoise (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import inference

        spec = inference.spec_for(model, "denoise")
        if strength == 0.0:
            return (image,)
        told = spec.condition == "noise_sigma"
        levels = _levels(image, analysis) if noise == "auto" else [sigma] * image.shape[0]
        least = _WORTH_IT if told else _least_for_blind(noise)
        chosen = [level >= least for level in levels]

        def restore(photo: torch.Tensor, index: int) -> torch.Tensor:
            level = (torch.tensor([min(levels[index], _STRONGEST) / 255.0]),) if told else ()
            return _tiles.apply(spec, photo, tile=tile, overlap=overlap, arguments=level)

        return (_tiles.restore_each(image, chosen, strength, restore),)


def _least_for_blind(noise: str) -> float:
    """Least noise for which a model that is not told of it is run: by itself where Analyze advises it, by hand any."""
    from ..ops.analysis import NOISY

    return NOISY if noise == "auto" else 0.0


def _levels(image: torch.Tensor, analysis: dict[str, Any] | None) -> list[float]:
    import torch

    if analysis is not None:
        return _analysis.read(
            analysis,
            image.shape[0],
            lambda entry: float(entry["noise_sigma"]),
            what="noise levels",
            node=Denoise.DISPLAY_NAME,
        )
    from .. import images
    from ..ops.analysis import estimate_noise

    return [estimate_noise(photo) for photo in torch.split(images.to_bchw(image), 1)]
