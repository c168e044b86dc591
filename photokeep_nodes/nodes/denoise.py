"""Denoise: remove film grain and sensor noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch

_WORTH_IT = 1.5  # below this noise level, in 8-bit units, denoising only costs detail
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
                    {"default": "auto", "tooltip": "auto: estimate the noise level. manual: use sigma."},
                ),
                "sigma": (
                    "FLOAT",
                    {
                        "default": 15.0,
                        "min": 0.0,
                        "max": 75.0,
                        "step": 0.5,
                        "tooltip": "Noise level for manual, in 8-bit steps (0 to 255 scale).",
                    },
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "0 keeps the photo, 1 removes all noise; between, some grain stays.",
                    },
                ),
            },
            "optional": {
                "analysis": ("PHOTOKEEP_ANALYSIS", {"tooltip": "From Analyze; saves estimating the noise again."}),
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
    ) -> tuple[torch.Tensor]:
        """Denoise (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import images, inference

        spec = inference.spec_for(model, "denoise")
        photo = images.to_bchw(image)
        levels = _levels(photo, analysis) if noise == "auto" else [sigma] * photo.shape[0]
        levels = [min(level, _STRONGEST) for level in levels]
        if strength == 0.0 or all(level < _WORTH_IT for level in levels):
            return (image,)
        restored = []
        for index, level in enumerate(levels):
            one = photo[index : index + 1]
            if level >= _WORTH_IT:
                clean = inference.apply_tiled(spec, one, arguments=(torch.tensor([level / 255.0]),))
                one = one + strength * (clean - one)
            restored.append(one)
        return (images.to_bhwc(torch.cat(restored)),)


def _levels(photo: torch.Tensor, analysis: dict[str, Any] | None) -> list[float]:
    if analysis is None:
        from ..ops.analysis import estimate_noise

        return [estimate_noise(photo[index : index + 1]) for index in range(photo.shape[0])]
    try:
        found = [float(entry["noise_sigma"]) for entry in analysis["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NodeInputError("the analysis holds no noise levels", hint="Connect the output of Analyze.") from error
    if len(found) != photo.shape[0]:
        raise NodeInputError(
            f"the analysis is of {len(found)} images, but {photo.shape[0]} came in",
            hint="Connect Analyze to the same image as Denoise.",
        )
    return found
