"""FaceRestore: rebuild the faces of a photo and blend them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, socket_type
from . import _faces

if TYPE_CHECKING:
    import torch


class FaceRestore:
    """Restore each face at the network's size and put the change back into the photo."""

    NODE_ID = "PhotokeepFaceRestore"
    DISPLAY_NAME = "Restore Faces"
    CATEGORY = "PhotoKeep/Faces"
    DESCRIPTION = (
        "Rebuilds each face with a face model and blends it in. Nothing off the faces changes, and a black-and-white"
        " photo stays black and white. With an identity model connected, the strength is lowered face by face until the"
        " person is still the person."
    )
    RETURN_TYPES = ("IMAGE", "MASK", "IMAGE", "STRING")
    RETURN_NAMES = ("image", "mask", "before_after", "report")
    OUTPUT_TOOLTIPS = (
        "The photo with restored faces, same size.",
        "Where the photo may have changed.",
        "Every face before and after, one picture each; a gray picture where there is none.",
        "What became of each face, and how alike it stayed.",
    )
    SEARCH_ALIASES = ("GFPGAN", "CodeFormer", "RestoreFormer", "face restoration", "identity")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("face_restore"), {"tooltip": "A face model, such as GFPGAN."}),
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
                        "tooltip": "How sure the detector must be, where one is connected here instead of faces.",
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
            },
            "optional": {
                "fidelity": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "0 is the most beautiful face, 1 the most alike. CodeFormer is told; under the other"
                        " models' detail the photo's own coarse shapes are kept to this degree.",
                    },
                ),
                "below_sharpness": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.05,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "Restore only faces less sharp than this, as Analyze measures it; 1 restores all.",
                    },
                ),
                "skip_detailed": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Leave faces alone of which the photo shows more than the model's 512 px can: large"
                        " and sharp ones.",
                    },
                ),
                "keep_gray": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "In black-and-white and sepia photos change the lightness of faces only: the models"
                        " know colour, and would tint them.",
                    },
                ),
                "likeness": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "How alike a face must stay, where an identity model is connected; 0 takes what that"
                        " model needs to call two pictures the same person.",
                    },
                ),
                "faces": (_faces.FACES, {"tooltip": "From Find Faces or Select Faces: the faces to restore."}),
                "detector": (
                    socket_type("face_detect"),
                    {"tooltip": "A face detector, where no faces are connected; it takes every face it is sure of."},
                ),
                "parser": (
                    socket_type("face_parse"),
                    {"tooltip": "A face parsing model: only skin and features change then, not hair or background."},
                ),
                "identity": (
                    socket_type("face_identity"),
                    {"tooltip": "A face identity model: lowers the strength until the person is still the person."},
                ),
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        strength: float,
        min_score: float,
        feather: float,
        fidelity: float = 0.5,
        below_sharpness: float = 1.0,
        skip_detailed: bool = True,
        keep_gray: bool = True,
        likeness: float = 0.0,
        faces: dict[str, Any] | None = None,
        detector: ModelHandle | None = None,
        parser: ModelHandle | None = None,
        identity: ModelHandle | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
        """Restore the faces of (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import face_inference, host, images, inference
        from ..ops import face_restore

        spec = inference.spec_for(model, "face_restore")
        parsing = None if parser is None else inference.spec_for(parser, "face_parse")
        person = None if identity is None else inference.spec_for(identity, "face_identity")
        photo = images.to_bchw(image)
        found = _faces.in_photo(photo, faces, detector, node=self.DISPLAY_NAME, min_score=min_score)
        if found is None:
            raise NodeInputError(
                "no faces and no detector are connected",
                hint="Connect Find Faces, or a face detector such as RetinaFace.",
            )
        if strength == 0.0 or not any(found):
            why = "No faces." if strength else "Strength 0: every face stays as it is."
            nothing = photo.new_zeros((photo.shape[0], *photo.shape[-2:]))
            return image, nothing, images.to_bhwc(face_restore.before_and_after([])), why
        host.check_interrupted()
        told = spec.condition == "fidelity"
        settings = face_restore.FaceSettings(
            strength=strength,
            own_shapes=0.0 if told else fidelity,
            feather=feather,
            keep_gray=keep_gray,
            below_sharpness=below_sharpness,
            skip_detailed=skip_detailed,
        )
        needed = likeness or (0.0 if person is None else person.same_person)
        restored, mask, outcomes = face_inference.restore_faces(
            spec, photo, found, settings, fidelity=fidelity, parsing=parsing, identity=person, likeness=needed
        )
        return (
            images.to_bhwc(restored),
            mask.cpu(),
            images.to_bhwc(face_restore.before_and_after(outcomes)),
            face_restore.report(outcomes, photos=photo.shape[0], asked=strength, needed=needed, own=not likeness),
        )
