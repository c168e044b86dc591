"""Analyze: find out what is wrong with a photo and which stages would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _faces

if TYPE_CHECKING:
    import torch


class Analyze:
    """Measure noise, blur, JPEG traces and tone, and look for faces."""

    NODE_ID = "PhotokeepAnalyze"
    DISPLAY_NAME = "Analyze Photo"
    CATEGORY = "PhotoKeep/Analyze"
    DESCRIPTION = (
        "Measures noise, blur and JPEG blocks, tells black-and-white, sepia and colour apart, finds faces if a detector"
        " is connected, and recommends stages. The photo itself is not changed."
    )
    RETURN_TYPES = ("PHOTOKEEP_ANALYSIS", "STRING", "IMAGE")
    RETURN_NAMES = ("analysis", "report", "preview")
    OUTPUT_TOOLTIPS = (
        "The figures, for stages that set themselves by them.",
        "The same, to read.",
        "The photo with the faces marked.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE", {"tooltip": "The photo."})},
            "optional": {
                "detector": (
                    socket_type("face_detect"),
                    {"tooltip": "A face detector, where no faces are connected. With neither, none are looked for."},
                ),
                "faces": (_faces.FACES, {"tooltip": "From Find Faces: then nothing is looked for again."}),
            },
        }

    def run(
        self, image: torch.Tensor, detector: ModelHandle | None = None, faces: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], str, torch.Tensor]:
        """Analyse (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import host, images
        from ..ops import analysis, annotate

        photo = images.to_bchw(image)
        found = _faces.in_photo(photo, faces, detector, node=self.DISPLAY_NAME)
        host.check_interrupted()
        measured = analysis.analyse(photo, found)
        if found is None:
            preview = photo
        else:
            marked = [annotate.draw_faces(one, at) for one, at in zip(torch.split(photo, 1), found, strict=True)]
            preview = torch.cat(marked)
        return {"images": measured}, analysis.report(measured), images.to_bhwc(preview)
