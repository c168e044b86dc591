"""FaceSelect: choose among the faces that were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _faces

if TYPE_CHECKING:
    import torch


class FaceSelect:
    """Keep some of the faces: by size, by number, by score."""

    NODE_ID = "PhotokeepFaceSelect"
    DISPLAY_NAME = "Select Faces"
    CATEGORY = "PhotoKeep/Faces"
    DESCRIPTION = (
        "Keeps some of the faces that were found, for instance the largest, or those of people whose likeness suffers."
        " Filters by size and score first, then picks."
    )
    RETURN_TYPES = (_faces.FACES, "INT", "IMAGE")
    RETURN_NAMES = ("faces", "count", "preview")
    OUTPUT_TOOLTIPS = (
        "The faces that are left.",
        "How many, over all photos.",
        "The photo with these faces marked; a gray picture where no image is connected.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "faces": (_faces.FACES, {"tooltip": "From Find Faces."}),
                "keep": (
                    ["all", "largest", "by_number"],
                    {
                        "default": "all",
                        "tooltip": "all: every face that passes the filters. largest: the first so many of them."
                        " by_number: those in numbers, as in the preview of Find Faces.",
                    },
                ),
                "count": (
                    "INT",
                    {"default": 1, "min": 1, "max": 1000, "tooltip": "How many, where keep is largest."},
                ),
                "numbers": (
                    "STRING",
                    {"default": "1", "tooltip": 'Which, where keep is by_number: "1", "1, 3", "2-5, 8".'},
                ),
                "min_size": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 16384,
                        "tooltip": "Least height of a face in px of the photo in which it was found; 0 keeps all.",
                    },
                ),
                "max_size": (
                    "INT",
                    {"default": 0, "min": 0, "max": 16384, "tooltip": "Greatest height in px; 0 sets no limit."},
                ),
                "min_score": (
                    "FLOAT",
                    {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": "Least score of the detector."},
                ),
            },
            "optional": {"image": ("IMAGE", {"tooltip": "The photo, for the preview."})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, keep: str | None = None, numbers: str | None = None) -> bool | str:
        """Whether the numbers can be read."""
        from ..errors import NodeInputError
        from ..ops import choose_faces

        if keep != "by_number" or numbers is None:
            return True
        try:
            choose_faces.parse_numbers(numbers)
        except NodeInputError as error:
            return f"{error.message}. {error.hint}"
        return True

    def run(
        self,
        faces: dict[str, Any],
        keep: str,
        count: int,
        numbers: str,
        min_size: int,
        max_size: int,
        min_score: float,
        image: torch.Tensor | None = None,
    ) -> tuple[dict[str, Any], int, torch.Tensor]:
        """Choose; see INPUT_TYPES."""
        import torch

        from .. import images
        from ..ops import annotate, choose_faces

        picked = choose_faces.parse_numbers(numbers) if keep == "by_number" else None
        found = [
            {
                **entry,
                "faces": choose_faces.choose(
                    entry["faces"],
                    numbers=picked,
                    largest=count if keep == "largest" else None,
                    min_size=min_size,
                    max_size=max_size,
                    min_score=min_score,
                ),
            }
            for entry in _faces.entries(faces)
        ]
        chosen = {"images": found}
        number = sum(len(entry["faces"]) for entry in found)
        if image is None:
            return chosen, number, torch.full((1, 64, 64, 3), 0.5)
        photo = images.to_bchw(image)
        at = _faces.unpack(chosen, photo, node=self.DISPLAY_NAME)
        marked = [annotate.draw_faces(one, here) for one, here in zip(torch.split(photo, 1), at, strict=True)]
        return chosen, number, images.to_bhwc(torch.cat(marked))
