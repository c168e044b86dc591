"""ScratchDetect: find scratches, creases, dust and torn corners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _faces

if TYPE_CHECKING:
    import torch

    from ..ops.scratches import What

_IMPLAUSIBLE = 0.25  # of a photo: more is a texture that was mistaken, or a photo that no inpainting saves


class ScratchDetect:
    """Mark damage, with a network or without."""

    NODE_ID = "PhotokeepScratchDetect"
    DISPLAY_NAME = "Find Scratches"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Marks scratches, creases, dust and torn corners for Inpaint. Works without a model; with one it also finds"
        " what is no thin line. Connect faces to keep eyes and mouths out of the mask."
    )
    RETURN_TYPES = ("MASK", "IMAGE", "STRING")
    RETURN_NAMES = ("mask", "preview", "report")
    OUTPUT_TOOLTIPS = ("White where damage was found.", "The photo with the damage in red.", "How much was found.")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "sensitivity": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "More finds fainter and shorter scratches, and takes more for one that is none.",
                    },
                ),
                "grow": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 64,
                        "tooltip": "Pixels by which the mask is widened over soft rims. 0 goes by the photo's size.",
                    },
                ),
                "what": (
                    ["all", "scratches", "dust"],
                    {"default": "all", "tooltip": "scratches: lines, creases and torn corners. dust: small specks."},
                ),
            },
            "optional": {
                "model": (
                    socket_type("scratch_detect"),
                    {"tooltip": "A scratch model. Without one the photo is searched for thin lines and specks."},
                ),
                "faces": (_faces.FACES, {"tooltip": "From Find Faces: their eyes and mouths are left out."}),
            },
        }

    def run(
        self,
        image: torch.Tensor,
        sensitivity: float,
        grow: int,
        what: What,
        model: ModelHandle | None = None,
        faces: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Mark the damage in (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import host, images
        from ..ops import masks, scratches

        photo = images.to_bchw(image)
        found_faces = None if faces is None else _faces.unpack(faces, photo, node=self.DISPLAY_NAME)
        height, width = photo.shape[-2:]
        if model is not None:
            mask = _by_network(photo, model, sensitivity, what)
        else:
            progress = host.Progress(photo.shape[0] * scratches.steps(height, width), "tiles")
            mask = scratches.select(scratches.score(photo, what, progress.advance), sensitivity)
        mask = masks.grow(mask, grow or masks.auto_grow(height, width))
        for index, one in enumerate(found_faces or ()):
            mask[index : index + 1] *= 1.0 - scratches.face_keep_out(one, height, width)
        host.check_interrupted()
        return masks.to_host(mask), images.to_bhwc(masks.overlay(photo, mask)), _report(mask)


def _by_network(photo: torch.Tensor, model: ModelHandle, sensitivity: float, what: What) -> torch.Tensor:
    from .. import inference, scratch_inference
    from ..ops import scratch_network, scratches

    spec = inference.spec_for(model, "scratch_detect")
    # The authors' threshold in the middle, 1 and 0 at the ends.
    threshold = scratch_network.THRESHOLD ** (sensitivity / max(1e-3, 1.0 - sensitivity))
    threshold = min(0.999, max(0.01, threshold))
    found = scratch_inference.find_scratches(spec, photo, threshold=threshold)
    return scratches.only(scratch_network.to_mask(found, threshold), what)


def _report(mask: torch.Tensor) -> str:
    """Tell what was marked on each photo of (B, 1, H, W)."""
    from ..ops import scratches

    lines = []
    for index, one in enumerate(mask):
        long, specks = scratches.count(one)
        share = float((one > 0).float().mean())
        if long + specks == 0:
            line = "no scratches found"
        else:
            line = f"{_number(long, 'scratch', 'scratches')}, {_number(specks, 'speck', 'specks')}"
            line += f": {share:.2%} of the photo"
        if share > _IMPLAUSIBLE:
            line += ". That is more than scratches are: look at the preview, and lower the sensitivity"
        lines.append(line if mask.shape[0] == 1 else f"photo {index + 1}: {line}")
    return "\n".join(lines)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
