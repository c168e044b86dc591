"""RestoreColors: undo the fading of old prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _analysis, _colours, _tiles

if TYPE_CHECKING:
    import torch


class RestoreColors:
    """Give each dye its density back, and the paper its white."""

    NODE_ID = "PhotokeepRestoreColors"
    DISPLAY_NAME = "Restore Colors"
    CATEGORY = "PhotoKeep/Colour"
    DESCRIPTION = (
        "Undoes fading: each of the three dyes of a colour print gets its black and its contrast back, and yellowed"
        " paper its white. Black-and-white and sepia photos get their contrast back and keep their tone. With when ="
        " auto only photos in which nothing is dark any more, or whose white border has yellowed, are touched; a"
        " connected analysis decides, or a look at the photo. Needs no model."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The restored photo, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                **_tiles.strength_widget("keeps the photo", "restores it in full"),
                "contrast": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.5,
                        "step": 0.05,
                        "tooltip": "How far black comes back: 0 leaves the contrast, 1 is the black of a new print.",
                    },
                ),
                "white_balance": (
                    ["auto", "off", "paper", "pick"],
                    {
                        "default": "auto",
                        "tooltip": "auto: by the darkest and the brightest parts, and a white border if there is one."
                        " off: the cast stays. paper: the border is white, whatever else; without one as auto."
                        " pick: the colour in neutral is gray.",
                    },
                ),
                "neutral": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "For pick: the colour, #rrggbb, that something gray or white has in the photo now.",
                    },
                ),
                "saturation": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 2.0,
                        "step": 0.05,
                        "tooltip": "1: as restored; a photo that is still pale is raised to a natural level.",
                    },
                ),
                "toned": (
                    ["keep", "neutralise", "as_colour"],
                    {
                        "default": "keep",
                        "tooltip": "Sepia and other tones: keep, or make them neutral black and white. as_colour:"
                        " for colour photos so faded that they look toned.",
                    },
                ),
                "when": (
                    ["auto", "always"],
                    {
                        "default": "auto",
                        "tooltip": "auto: only faded photos, and only as much as is sure. always: take for granted that"
                        " every photo has faded.",
                    },
                ),
            },
            "optional": {
                "analysis": (_analysis.ANALYSIS, {"tooltip": "From Analyze; decides which photos have faded."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, white_balance: str | None = None, neutral: str | None = None) -> bool | str:
        from ..errors import NodeInputError

        try:
            if white_balance is not None and neutral is not None:  # None where they come from other nodes
                _picked(white_balance, neutral)
        except NodeInputError as error:
            return f"{error.message}. {error.hint}"
        return True

    def run(
        self,
        image: torch.Tensor,
        strength: float,
        contrast: float,
        white_balance: str,
        neutral: str,
        saturation: float,
        toned: str,
        when: str,
        analysis: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor]:
        """Restore (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        from .. import host
        from ..ops import restore_colours

        picked = _picked(white_balance, neutral)
        if strength == 0.0:
            return (image,)
        # What is asked for by name is done, whether or not the photo has faded.
        asked = picked is not None or saturation != 1.0 or toned != "keep"
        chosen = _analysis.chosen(
            image, "always" if asked else when, analysis, "restore_colors", node=self.DISPLAY_NAME
        )

        def restore(photo: torch.Tensor, _: int) -> torch.Tensor:
            host.check_interrupted()
            return restore_colours.restore_colours(
                photo,
                contrast=contrast,
                white_balance=white_balance,  # type: ignore[arg-type]
                neutral=picked,
                saturation=saturation,
                toned=toned,  # type: ignore[arg-type]
                cautious=when == "auto",
            )

        return (_tiles.restore_each(image, chosen, strength, restore),)


def _picked(white_balance: str, neutral: str) -> tuple[float, float, float] | None:
    from ..errors import NodeInputError

    if white_balance != "pick":
        return None
    if not neutral.strip():
        raise NodeInputError(
            "neutral is empty, so nothing is picked to balance by",
            hint="Write the colour that something gray or white has in the photo, such as #d8cbb0.",
        )
    colour = _colours.parse(neutral)
    if min(colour) < 0.02:
        raise NodeInputError(
            f"{neutral} is too dark, or too pure a colour, to tell the cast by",
            hint="Pick something gray or white in the photo.",
        )
    return colour
