"""FaceRestore: rebuild the faces of a photo and blend them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type
from . import _faces

if TYPE_CHECKING:
    import torch


class FaceRestore:
    """Find faces, restore each at the network's size and put the change back into the photo."""

    NODE_ID = "PhotokeepFaceRestore"
    DISPLAY_NAME = "Restore Faces"
    CATEGORY = "PhotoKeep/Faces"
    DESCRIPTION = (
        "Finds the faces, rebuilds each with a face model and blends it in. Nothing off the faces changes, and a"
        " black-and-white photo stays black and white."
    )
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "faces")
    OUTPUT_TOOLTIPS = ("The photo with restored faces, same size.", "Where the photo may have changed.")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("face_restore"), {"tooltip": "A face model, such as GFPGAN."}),
                "detector": (socket_type("face_detect"), {"tooltip": "A face detector, such as RetinaFace."}),
                "strength": (
                    "FLOAT",
                    {
                        "default": 0.8,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "0 keeps the photo, 1 is the model's face. Less keeps more of a person's likeness.",
                    },
                ),
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
                "feather": (
                    "FLOAT",
                    {
                        "default": 0.25,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "Width of the soft edge around each face, as a share of its size.",
                    },
                ),
            }
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        detector: ModelHandle,
        strength: float,
        min_score: float,
        feather: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Restore the faces of (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import host, images, inference
        from ..ops.faces import CROP, restore_faces

        spec = inference.spec_for(model, "face_restore")
        photo = images.to_bchw(image)
        faces = _faces.find(photo, detector, min_score)
        count = sum(len(found) for found in faces)
        if count == 0 or strength == 0.0:
            return image, photo.new_zeros((photo.shape[0], *photo.shape[-2:]))
        host.check_interrupted()

        def restore(network: inference.Network) -> tuple[torch.Tensor, torch.Tensor]:
            progress = host.Progress(count, "faces")
            return restore_faces(photo, faces, network, strength=strength, feather=feather, after_face=progress.advance)

        restored, mask = inference.run(spec, restore, height=CROP, width=CROP)
        return images.to_bhwc(restored), mask.cpu()
