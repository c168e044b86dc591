"""ColorHint: say which colour a part of a photo has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _colours

if TYPE_CHECKING:
    import torch


class ColorHint:
    """Paint one colour where a mask is; several of these in a row make a palette for Colorize."""

    NODE_ID = "PhotokeepColorHint"
    DISPLAY_NAME = "Color Hint"
    CATEGORY = "PhotoKeep/Colour"
    DESCRIPTION = (
        "Says which colour a part of a photo has: a red coat, blue eyes. Connect both outputs to Colorize, or to the"
        " next Color Hint to add more. Of the colour, hue and saturation count; how light it is, the photo says."
    )
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("hint_image", "hint_mask")
    OUTPUT_TOOLTIPS = ("The colours.", "Where they count.")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": (
                    "MASK",
                    {"tooltip": "The part, painted on the photo. It need not be exact: the colour ends at edges."},
                ),
                "color": (
                    "STRING",
                    {"default": "#c83c28", "tooltip": "Its colour: #rrggbb, or a name such as skyblue or brown."},
                ),
            },
            "optional": {
                "hint_image": ("IMAGE", {"tooltip": "From another Color Hint, to add to it."}),
                "hint_mask": ("MASK", {"tooltip": "From the same Color Hint."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, color: str | None = None) -> bool | str:
        from ..errors import NodeInputError

        try:
            if color is not None:  # it is None where it comes from another node
                _colours.parse(color)
        except NodeInputError as error:
            return f"{error.message}. {error.hint}"
        return True

    def run(
        self,
        mask: torch.Tensor,
        color: str,
        hint_image: torch.Tensor | None = None,
        hint_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint; see INPUT_TYPES."""
        import torch

        from .. import images
        from ..errors import NodeInputError
        from ..ops import masks

        red_green_blue = torch.tensor(_colours.parse(color)).view(1, 3, 1, 1)
        where = masks.from_host(mask)
        batch, _, height, width = where.shape
        if (hint_image is None) != (hint_mask is None):
            raise NodeInputError(
                "only one of hint_image and hint_mask is connected",
                hint="Connect both outputs of the other Color Hint.",
            )
        if hint_image is None or hint_mask is None:
            painted = red_green_blue.expand(batch, 3, height, width)
            return images.to_bhwc(painted), masks.to_host(where)
        before, known = images.to_bchw(hint_image), masks.from_host(hint_mask)
        if masks.is_empty_default(where):  # nobody painted: the other hints stay as they are
            return images.to_bhwc(before), masks.to_host(known)
        if masks.is_empty_default(known):
            return images.to_bhwc(red_green_blue.expand(batch, 3, height, width)), masks.to_host(where)
        batch = max(batch, before.shape[0])
        if before.shape[-2:] != (height, width) or before.shape[0] not in {1, batch}:
            raise NodeInputError(
                f"the mask is {where.shape[0]} of {width} x {height} px, the other hints are"
                f" {before.shape[0]} of {before.shape[-1]} x {before.shape[-2]} px",
                hint="Paint every hint on the same photos.",
            )
        where = masks.fit(where, batch, height, width)
        known = masks.fit(known, batch, height, width)
        rest = (1.0 - where) * known
        total = where + rest
        painted = (red_green_blue * where + before * rest) / total.clamp(min=1e-6)
        painted = torch.where(total > 0.0, painted, before)
        return images.to_bhwc(painted), masks.to_host(total)
