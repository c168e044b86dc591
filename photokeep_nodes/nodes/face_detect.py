"""FaceDetect: find the faces of a photo once, for every stage that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _faces

if TYPE_CHECKING:
    import torch


class FaceDetect:
    """Find faces, with five landmarks and a score each."""

    NODE_ID = "PhotokeepFaceDetect"
    DISPLAY_NAME = "Find Faces"
    CATEGORY = "PhotoKeep/Faces"
    DESCRIPTION = (
        "Finds the faces of each photo. Connect them to Analyze, Select Faces, Find Scratches and Restore Faces: they"
        " stay right when the photo is enlarged on the way, so that one search serves all."
    )
    RETURN_TYPES = (_faces.FACES, "IMAGE", "STRING")
    RETURN_NAMES = ("faces", "preview", "report")
    OUTPUT_TOOLTIPS = (
        "Boxes, landmarks and scores, largest face first.",
        "The photo with the faces marked and numbered.",
        "The same, to read.",
    )
    SEARCH_ALIASES = ("face detection", "RetinaFace", "YuNet")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "detector": (socket_type("face_detect"), {"tooltip": "A face detector, such as RetinaFace."}),
                "min_score": (
                    "FLOAT",
                    {
                        "default": _faces.MIN_SCORE,
                        "min": 0.05,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "How sure the detector must be. Lower it where faces are missed.",
                    },
                ),
                "turned": (
                    list(_faces.TURNED),
                    {
                        "default": "auto",
                        "tooltip": "Whether to look for faces that lie on their side or head too, as in scans that"
                        " nobody has turned. auto: in photos without a face, or with one that seems to lie.",
                    },
                ),
            }
        }

    def run(
        self, image: torch.Tensor, detector: ModelHandle, min_score: float, turned: _faces.Turned
    ) -> tuple[dict[str, Any], torch.Tensor, str]:
        """Find the faces of (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import host, images
        from ..ops import annotate

        photo = images.to_bchw(image)
        faces = _faces.find(photo, detector, min_score, turned)
        host.check_interrupted()
        marked = [annotate.draw_faces(one, at) for one, at in zip(torch.split(photo, 1), faces, strict=True)]
        return _faces.pack(photo, faces), images.to_bhwc(torch.cat(marked)), annotate.list_faces(faces)
