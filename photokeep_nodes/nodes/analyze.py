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
                    {"tooltip": "A face detector, such as RetinaFace. Without one no faces are looked for."},
                ),
            },
        }

    def run(self, image: torch.Tensor, detector: ModelHandle | None = None) -> tuple[dict[str, Any], str, torch.Tensor]:
        """Analyse (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import host, images
        from ..ops import analysis, annotate

        photo = images.to_bchw(image)
        faces = None if detector is None else _faces.find(photo, detector)
        host.check_interrupted()
        found = analysis.analyse(photo, faces)
        if faces is None:
            preview = photo
        else:
            marked = [annotate.draw_faces(one, at) for one, at in zip(torch.split(photo, 1), faces, strict=True)]
            preview = torch.cat(marked)
        return {"images": found}, analysis.report(found), images.to_bhwc(preview)
