"""Upscale: enlarge a photo with a super-resolution model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, socket_type
from . import _analysis, _tiles

if TYPE_CHECKING:
    import torch

_MOST_PIXELS = 1_000_000_000  # 12 GB as floats


class Upscale:
    """Enlarge by any factor from 1 to 8: the model's own factor, then resampling."""

    NODE_ID = "PhotokeepUpscale"
    DISPLAY_NAME = "Upscale"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Enlarges and sharpens with a super-resolution model, ours or one that ComfyUI has loaded. The model works at"
        " its own factor (mostly 4); other factors are resampled from its result. Large photos run in tiles without"
        " visible seams. With factor = auto a photo that is large enough passes through unchanged."
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
                "model": (
                    f"{socket_type('upscale')},UPSCALE_MODEL",
                    {"tooltip": "A super-resolution model, such as Real-ESRGAN; ComfyUI's own upscale models fit too."},
                ),
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
                "tile": _tiles.TILE_WIDGETS["tile"],
            },
            "optional": {
                **_tiles.strength_widget("is a plain bicubic enlargement", "the model's result in full"),
                "overlap": _tiles.TILE_WIDGETS["overlap"],
                "factor": (
                    ["manual", "auto"],
                    {
                        "default": "manual",
                        "tooltip": "manual: use scale. auto: enlarge small photos, by 4 or by 2, as Analyze"
                        " recommends; one factor for a whole batch.",
                    },
                ),
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze, for factor = auto."}),
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: Any,
        scale: float,
        tile: int,
        strength: float = 1.0,
        overlap: int = 0,
        factor: str = "manual",
        analysis: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor]:
        """Enlarge (B, H, W, C) in [0, 1] to (B, round(H * scale), round(W * scale), 3); see INPUT_TYPES.

        ``model`` is a ModelHandle, or what the host's own loader of upscale models returns.
        """
        from .. import exchange, images, inference, tiled_inference

        spec = inference.spec_for(model, "upscale") if isinstance(model, ModelHandle) else exchange.borrowed(model)
        photo = images.to_bchw(image)
        if factor == "auto":
            scale = _recommended_scale(photo, analysis)
            if scale == 1.0:
                return (image,)
        size = [max(1, round(side * scale)) for side in photo.shape[-2:]]
        # A whole factor is reached tile by tile; for another the model's own result comes first, however large it is.
        whole = int(scale) if scale == int(scale) and scale < spec.scale else spec.scale
        height, width = (max(side * whole, final) for side, final in zip(photo.shape[-2:], size, strict=True))
        if height * width > _MOST_PIXELS:
            raise NodeInputError(
                f"{spec.title} would have to make {width} x {height} pixels of this photo",
                hint="Use a model or a scale with a smaller factor, or crop first.",
            )
        if strength == 0.0:
            return (images.to_bhwc(_resampled(photo, size)),)
        large = tiled_inference.apply_tiled(spec, photo, tile=tile, overlap=overlap, scale=whole).clamp_(0.0, 1.0)
        large = _resampled(large, size)
        if strength < 1.0:
            large = _resampled(photo, size).lerp(large, strength)
        return (images.to_bhwc(large),)


def _resampled(image: torch.Tensor, size: list[int]) -> torch.Tensor:
    from torch.nn import functional

    if list(image.shape[-2:]) == size:
        return image
    # Bicubic overshoots at edges.
    return functional.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False).clamp_(
        0.0, 1.0
    )


def _recommended_scale(photo: torch.Tensor, analysis: dict[str, Any] | None) -> float:
    """Factor for a batch: photos of a batch are of one size, and so must be what becomes of them."""
    if analysis is None:
        from ..ops.analysis import upscale_factor

        return upscale_factor(*photo.shape[-2:])

    def of_one(entry: dict[str, Any]) -> float:
        advice = _analysis.recommended(entry, "upscale")
        return 1.0 if advice is None else float(advice["scale"])

    factors = _analysis.read(analysis, photo.shape[0], of_one, what="recommended factors", node=Upscale.DISPLAY_NAME)
    return max(factors)
