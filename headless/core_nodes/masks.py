"""Nodes that make masks, and change what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import check_size, checked_image, checked_mask, chosen
from ._declare import IMAGE, MASK, combo, integer, number, offset, side

if TYPE_CHECKING:
    import torch


class MaskToImage:
    """A mask as a gray picture."""

    NODE_ID = "MaskToImage"
    DISPLAY_NAME = "Convert Mask to Image"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK}}

    def run(self, mask: torch.Tensor) -> tuple[torch.Tensor]:
        """(B, H, W) to (B, H, W, 3)."""
        return (checked_mask(mask).unsqueeze(-1).expand(-1, -1, -1, 3),)


class ImageToMask:
    """One channel of a picture as a mask."""

    NODE_ID = "ImageToMask"
    DISPLAY_NAME = "Convert Image to Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"
    _CHANNELS = ("red", "green", "blue", "alpha")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "channel": combo(*cls._CHANNELS)}}

    def run(self, image: torch.Tensor, channel: str) -> tuple[torch.Tensor]:
        """(B, H, W) as it is: alpha is not turned into transparency.

        Raises:
            NodeInputError: the picture has no such channel.
        """
        image = checked_image(image)
        index = self._CHANNELS.index(chosen(channel, self._CHANNELS, "channel"))
        if index >= image.shape[-1]:
            raise NodeInputError(
                f"a picture of {image.shape[-1]} channels has no {channel} one", hint="Choose another channel."
            )
        return (image[..., index].clone(),)


class ImageColorToMask:
    """Where a picture has exactly one colour, in 8 bits."""

    NODE_ID = "ImageColorToMask"
    DISPLAY_NAME = "Convert Image Color to Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "color": integer(0, 0, 0xFFFFFF, step=1, display="number")}}

    def run(self, image: torch.Tensor, color: int) -> tuple[torch.Tensor]:
        """(B, H, W), 1 where the colour is 0xRRGGBB."""
        import torch

        image = checked_image(image)
        if image.shape[-1] < 3:
            raise NodeInputError("a gray picture has no colours", hint="Connect a colour picture.")
        steps = (image[..., :3].clamp(0.0, 1.0) * 255.0).round()
        wanted = torch.tensor([(color >> 16) & 0xFF, (color >> 8) & 0xFF, color & 0xFF], dtype=steps.dtype)
        return ((steps == wanted).all(dim=-1).float(),)


class SolidMask:
    """A mask of one value."""

    NODE_ID = "SolidMask"
    DISPLAY_NAME = "Create Solid Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": number(1.0, 0.0, 1.0, 0.01), "width": side(), "height": side()}}

    def run(self, value: float, width: int, height: int) -> tuple[torch.Tensor]:
        """(1, height, width)."""
        import torch

        check_size(1, height, width, 1)
        return (torch.full((1, height, width), value, dtype=torch.float32),)


class InvertMask:
    """The opposite of a mask."""

    NODE_ID = "InvertMask"
    DISPLAY_NAME = "Invert Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK}}

    def run(self, mask: torch.Tensor) -> tuple[torch.Tensor]:
        """1 - mask."""
        return (1.0 - checked_mask(mask),)


class ThresholdMask:
    """Everything or nothing."""

    NODE_ID = "ThresholdMask"
    DISPLAY_NAME = "Threshold Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK, "value": number(0.5, 0.0, 1.0, 0.01)}}

    def run(self, mask: torch.Tensor, value: float) -> tuple[torch.Tensor]:
        """1 where the mask is above ``value``, else 0."""
        return ((checked_mask(mask) > value).float(),)


class CropMask:
    """Cut a part out of a mask."""

    NODE_ID = "CropMask"
    DISPLAY_NAME = "Crop Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK, "x": offset(), "y": offset(), "width": side(), "height": side()}}

    def run(self, mask: torch.Tensor, x: int, y: int, width: int, height: int) -> tuple[torch.Tensor]:
        """Cut (B, height, width) out of (B, H, W), less where that reaches beyond the edge.

        Raises:
            NodeInputError: nothing of the part lies in the mask.
        """
        mask = checked_mask(mask)
        if not (0 <= x < mask.shape[2] and 0 <= y < mask.shape[1] and width > 0 and height > 0):
            raise NodeInputError(
                f"{width} x {height} pixels at {x}, {y} lie outside a mask of {mask.shape[2]} x {mask.shape[1]}",
                hint="Choose a part that begins in the mask and has pixels.",
            )
        return (mask[:, y : y + height, x : x + width].clone(),)


class MaskComposite:
    """Combine two masks, one laid on the other at a place."""

    NODE_ID = "MaskComposite"
    DISPLAY_NAME = "Combine Masks"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"
    _OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": MASK,
                "source": MASK,
                "x": offset(),
                "y": offset(),
                "operation": combo(*cls._OPERATIONS),
            }
        }

    def run(
        self, destination: torch.Tensor, source: torch.Tensor, x: int, y: int, operation: str
    ) -> tuple[torch.Tensor]:
        """(B, H, W) like ``destination``, cut off at 0 and 1; "and", "or" and "xor" first round both.

        Args:
            destination: (B, H, W).
            source: (B or 1, h, w); what lies outside ``destination`` is left out.
            x: of the corner of ``source``, in pixels; a link can make it negative.
            y: the same downwards.
            operation: what becomes of the two values.
        """
        below, above = checked_mask(destination, "destination").clone(), checked_mask(source, "source")
        chosen(operation, self._OPERATIONS, "operation")
        if len(above) not in (1, len(below)):
            raise NodeInputError(
                f"{len(above)} masks cannot be laid on {len(below)}", hint="Give both the same number, or one source."
            )
        left, top = max(0, x), max(0, y)
        right, bottom = min(below.shape[2], x + above.shape[2]), min(below.shape[1], y + above.shape[1])
        if left < right and top < bottom:
            place = below[:, top:bottom, left:right]
            place.copy_(_combined(place, above[:, top - y : bottom - y, left - x : right - x], operation))
        return (below.clamp_(0.0, 1.0),)


def _combined(below: torch.Tensor, above: torch.Tensor, operation: str) -> torch.Tensor:
    if operation == "multiply":
        return below * above
    if operation == "add":
        return below + above
    if operation == "subtract":
        return below - above
    first, second = below.round().bool(), above.round().bool()
    if operation == "and":
        return (first & second).float()
    return ((first | second) if operation == "or" else (first ^ second)).float()
