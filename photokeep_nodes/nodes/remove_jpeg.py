"""RemoveJPEGArtifacts: take away blocks and ringing of strong compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, ModelSpec, socket_type
from . import _analysis, _tiles

if TYPE_CHECKING:
    import torch

_BLOCK = 8
_REGION = 512  # px a side: the quality is that of the whole file, so a part of the photo tells it


class RemoveJPEGArtifacts:
    """Smooth away the blocks and the ringing that JPEG leaves, and nothing else."""

    NODE_ID = "PhotokeepRemoveJPEGArtifacts"
    DISPLAY_NAME = "Remove JPEG Artifacts"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Removes the blocks and the ringing of strong JPEG compression. Run it first, before anything moves the blocks."
        " With when = auto a photo without visible blocks passes through unchanged."
    )
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "quality")
    OUTPUT_TOOLTIPS = (
        "The photo without JPEG artifacts, same size.",
        "The JPEG quality that was found or set for each photo, to read.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("jpeg"), {"tooltip": "A model that removes JPEG artifacts, such as FBCNN."}),
                "when": (
                    ["auto", "always"],
                    {"default": "auto", "tooltip": "auto: only where blocks show. always: every photo."},
                ),
                "quality": (
                    ["auto", "manual"],
                    {
                        "default": "auto",
                        "tooltip": "auto: the model finds the JPEG quality, once for the whole photo. manual: use"
                        " jpeg_quality. Models that are not told the quality ignore both.",
                    },
                ),
                "jpeg_quality": (
                    "INT",
                    {
                        "default": 40,
                        "min": 1,
                        "max": 100,
                        "tooltip": "Quality for manual, 1 to 100 as cameras and editors count it. Lower smooths more.",
                    },
                ),
                **_tiles.strength_widget("keeps the photo", "is the model's result in full"),
            },
            "optional": {
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze; saves looking for blocks again."}),
                **_tiles.TILE_WIDGETS,
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        when: str,
        quality: str,
        jpeg_quality: int,
        strength: float,
        analysis: dict[str, Any] | None = None,
        tile: int = 0,
        overlap: int = 0,
    ) -> tuple[torch.Tensor, str]:
        """Clean (B, H, W, C) in [0, 1], and say at which quality; see INPUT_TYPES."""
        import torch

        from .. import inference

        spec = inference.spec_for(model, "jpeg")
        count = image.shape[0]
        if strength == 0.0:
            return image, _report(["unchanged, the strength is 0"] * count)
        chosen = _analysis.chosen(image, when, analysis, "remove_jpeg", node=self.DISPLAY_NAME)
        said = ["unchanged, no JPEG blocks show"] * count

        def restore(photo: torch.Tensor, index: int) -> torch.Tensor:
            told: tuple[torch.Tensor, ...] = ()
            if spec.condition != "jpeg_quality":
                said[index] = f"cleaned; {spec.title} is not told the quality"
            else:
                share = jpeg_quality / 100.0 if quality == "manual" else _predicted(spec, photo)
                whence = "set by hand" if quality == "manual" else f"found by {spec.title}"
                said[index] = f"quality {100.0 * share:.0f}, {whence}"
                told = (torch.tensor([share]),)
            return _tiles.apply(spec, photo, tile=tile, overlap=overlap, arguments=told)

        return _tiles.restore_each(image, chosen, strength, restore), _report(said)


def _report(said: list[str]) -> str:
    if len(said) == 1:
        return said[0]
    return "\n".join(f"Photo {number} of {len(said)}: {each}" for number, each in enumerate(said, 1))


def _predicted(spec: ModelSpec, photo: torch.Tensor) -> float:
    """Ask the model for the quality, 0 to 1, of one photo (1, 3, H, W): once, so that all tiles are treated alike."""
    if spec.condition_required:
        raise NodeInputError(
            f"{spec.title} cannot find the JPEG quality by itself", hint="Set quality to manual, and jpeg_quality."
        )
    import torch

    from .. import images, inference, precision

    part = _middle(images.luminance(photo) if spec.channels == 1 else photo, spec)

    def ask(network: inference.Network) -> float:
        # Not counted as a use that teaches how much memory the network takes: it runs half of it.
        with torch.no_grad(), precision.computing(network.device, network.dtype):
            placed = part.to(network.device, precision.stored(network.dtype))
            found = network.module.predict_quality(placed)  # type: ignore[operator]
            return float(found.float().clamp(0.0, 1.0).mean())

    return inference.run(spec, ask, height=part.shape[-2], width=part.shape[-1])


def _middle(photo: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Cut the middle out of a large photo, its corner on the grid of JPEG blocks; enlarge one too small to be run."""
    from ..ops import tiling

    height, width = photo.shape[-2:]
    top, left = (max(0, side - _REGION) // 2 // _BLOCK * _BLOCK for side in (height, width))
    part = photo[:, :, top : top + _REGION, left : left + _REGION]
    least, unit = spec.minimum, spec.multiple_of
    tall, wide = (-(-max(least, side) // unit) * unit for side in part.shape[-2:])
    return tiling.pad_to(part, tall, wide)
