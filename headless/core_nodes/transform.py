"""Nodes that cut, turn, frame and join pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import check_size, checked_image, chosen
from ._declare import IMAGE, LARGEST_SIDE, combo, integer, offset, side
from ._resample import resized

if TYPE_CHECKING:
    import torch


def cropped(image: torch.Tensor, x: int, y: int, width: int, height: int) -> torch.Tensor:
    """A part of (B, H, W, C); a corner outside is moved to the last pixel, what lies beyond the edge is left out.

    Raises:
        NodeInputError: the part has no pixels, or begins before the picture.
    """
    if x < 0 or y < 0 or width < 1 or height < 1:
        raise NodeInputError(
            f"a part of {width} x {height} pixels at {x}, {y} cannot be cut out",
            hint="Choose a part that begins in the picture and has pixels.",
        )
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    # A copy: a small part does not keep a large photo in memory.
    return image[:, y : y + height, x : x + width].clone()


class ImageCrop:
    """Cut out a part."""

    NODE_ID = "ImageCrop"
    DISPLAY_NAME = "Crop Image (DEPRECATED)"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "width": side(), "height": side(), "x": offset(), "y": offset()}}

    def run(self, image: torch.Tensor, width: int, height: int, x: int, y: int) -> tuple[torch.Tensor]:
        """Cut (B, height, width, C) out of (B, H, W, C); see ``cropped``."""
        return (cropped(checked_image(image), x, y, width, height),)


class ImageCropV2:
    """Cut out a part that a box names."""

    NODE_ID = "ImageCropV2"
    DISPLAY_NAME = "Crop Image"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        box = {"x": 0, "y": 0, "width": 512, "height": 512}
        options = {"default": box, "socketless": True, "component": "ImageCrop"}
        return {"required": {"image": IMAGE, "crop_region": ("BOUNDING_BOX", options)}}

    def run(self, image: torch.Tensor, crop_region: Any) -> tuple[torch.Tensor]:
        """Cut the box out of (B, H, W, C); see ``cropped``."""
        defaults = {"x": 0, "y": 0, "width": 512, "height": 512}
        if not isinstance(crop_region, dict) or not all(isinstance(crop_region.get(each, 0), int) for each in defaults):
            raise NodeInputError(
                f"crop_region must be a box with x, y, width and height, not {str(crop_region)[:80]!r}",
                hint="Connect Bounding Box here, or draw the box in the editor.",
            )
        return (cropped(checked_image(image), **{name: crop_region.get(name, defaults[name]) for name in defaults}),)


class ImageFlip:
    """Mirror."""

    NODE_ID = "ImageFlip"
    DISPLAY_NAME = "Flip Image"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    _WAYS = ("x-axis: vertically", "y-axis: horizontally")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "flip_method": combo(*cls._WAYS)}}

    def run(self, image: torch.Tensor, flip_method: str) -> tuple[torch.Tensor]:
        """Mirror (B, H, W, C) top to bottom, or left to right."""
        way = self._WAYS.index(chosen(flip_method, self._WAYS, "flip_method"))
        return (checked_image(image).flip(1 + way),)


class ImageRotate:
    """Turn by right angles, clockwise."""

    NODE_ID = "ImageRotate"
    DISPLAY_NAME = "Rotate Image"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    _TURNS = ("none", "90 degrees", "180 degrees", "270 degrees")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "rotation": combo(*cls._TURNS)}}

    def run(self, image: torch.Tensor, rotation: str) -> tuple[torch.Tensor]:
        """Turn (B, H, W, C)."""
        import torch

        turns = self._TURNS.index(chosen(rotation, self._TURNS, "rotation"))
        return (torch.rot90(checked_image(image), turns, (2, 1)),)


class ImagePadForOutpaint:
    """Lay a gray frame around a picture, and a mask over it that fades into the picture."""

    NODE_ID = "ImagePadForOutpaint"
    DISPLAY_NAME = "Pad Image for Outpainting"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        margin = integer(0, 0, LARGEST_SIDE, step=8)
        return {
            "required": {
                "image": ("IMAGE",),
                "left": margin,
                "top": margin,
                "right": margin,
                "bottom": margin,
                "feathering": integer(40, 0, LARGEST_SIDE, step=1, advanced=True),
            }
        }

    def run(
        self, image: torch.Tensor, left: int, top: int, right: int, bottom: int, feathering: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad (B, H, W, C); the mask is (1, H', W'), 1 on the frame."""
        import torch

        image = checked_image(image)
        if min(left, top, right, bottom) < 0:
            raise NodeInputError("a frame cannot be narrower than nothing", hint="Choose margins of 0 or more.")
        batch, height, width, channels = image.shape
        check_size(batch, height + top + bottom, width + left + right, channels)
        framed = torch.full((batch, height + top + bottom, width + left + right, channels), 0.5)
        framed[:, top : top + height, left : left + width] = image
        mask = torch.ones(1, *framed.shape[1:3])
        mask[:, top : top + height, left : left + width] = _fading(
            height, width, (top > 0, bottom > 0), (left > 0, right > 0), feathering
        )
        return framed, mask


def _fading(
    height: int, width: int, rows: tuple[bool, bool], columns: tuple[bool, bool], feathering: int
) -> torch.Tensor:
    """(height, width): the square of how far into the feathered margin a pixel lies, 0 further inside.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        rows: whether the picture fades at the top, and at the bottom.
        columns: the same of left and right.
        feathering: width of the margin; none where two of them would meet.
    """
    import torch

    if feathering < 1 or feathering * 2 >= height or feathering * 2 >= width:
        return torch.zeros(height, width)

    def distance(length: int, before: bool, after: bool) -> torch.Tensor:
        places = torch.arange(length, dtype=torch.float64)
        far = torch.full_like(places, float(length))
        return torch.minimum(places if before else far, length - places if after else far)

    nearest = torch.minimum(distance(height, *rows)[:, None], distance(width, *columns)[None, :])
    depth = ((feathering - nearest) / feathering).clamp_(min=0.0)
    return (depth * depth).float()


_SPACING = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


class ImageStitch:
    """Put two pictures side by side."""

    NODE_ID = "ImageStitch"
    DISPLAY_NAME = "Stitch Images"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    _DIRECTIONS = ("right", "down", "left", "up")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": IMAGE,
                "direction": combo(*cls._DIRECTIONS, default="right"),
                "match_image_size": ("BOOLEAN", {"default": True}),
                "spacing_width": integer(0, 0, 1024, step=2, advanced=True),
                "spacing_color": combo(*_SPACING, default="white", advanced=True),
            },
            "optional": {"image2": IMAGE},
        }

    def run(
        self,
        image1: torch.Tensor,
        direction: str,
        match_image_size: bool,
        spacing_width: int,
        spacing_color: str,
        image2: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        """Put ``image2`` on that side of ``image1``; the smaller batch repeats its last picture."""
        import torch

        first = checked_image(image1, "image1")
        if image2 is None:
            return (first,)
        second = checked_image(image2, "image2")
        chosen(direction, self._DIRECTIONS, "direction")
        colour = _SPACING[chosen(spacing_color, tuple(_SPACING), "spacing_color")]
        across = direction in {"left", "right"}
        batch = max(len(first), len(second))
        first, second = (_lengthened(each, batch) for each in (first, second))
        if match_image_size:
            second = _matched(second, first, across=across)
        else:
            fill = 1.0 if spacing_color == "white" else 0.0
            first, second = _aligned(first, second, fill, across=across)
        channels = max(first.shape[-1], second.shape[-1])
        parts = [_with_channels(each, channels) for each in (first, second)]
        if direction in {"left", "up"}:
            parts.reverse()
        if spacing_width > 0:
            parts.insert(1, _spacing(parts[0], spacing_width + spacing_width % 2, colour, across=across))
        along = 2 if across else 1
        check_size(batch, *_joined_size(parts, along), channels)
        return (torch.cat(parts, dim=along),)


def _joined_size(parts: list[torch.Tensor], along: int) -> tuple[int, int]:
    total = sum(each.shape[along] for each in parts)
    return (parts[0].shape[1], total) if along == 2 else (total, parts[0].shape[2])


def _lengthened(image: torch.Tensor, batch: int) -> torch.Tensor:
    """A batch of that many pictures, the last one repeated."""
    import torch

    missing = batch - len(image)
    return torch.cat([image, image[-1:].expand(missing, -1, -1, -1)]) if missing else image


def _matched(image: torch.Tensor, other: torch.Tensor, *, across: bool) -> torch.Tensor:
    """The picture in its own proportions with the side that touches the other one as long as that one's."""
    proportion = image.shape[2] / image.shape[1]
    height, width = other.shape[1:3]
    size = (int(height * proportion), height) if across else (width, int(width / proportion))
    return resized(image, *size, "lanczos")


def _aligned(
    first: torch.Tensor, second: torch.Tensor, fill: float, *, across: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the sides that touch as long as the longer one, in the middle of what is filled."""
    from torch.nn import functional

    along = 1 if across else 2
    length = max(first.shape[along], second.shape[along])

    def padded(image: torch.Tensor) -> torch.Tensor:
        before, odd = divmod(length - image.shape[along], 2)
        margins = (before, before + odd)
        # From the last dimension to the first: channels, columns, rows.
        return functional.pad(image, (0, 0, 0, 0, *margins) if across else (0, 0, *margins), value=fill)

    return padded(first), padded(second)


def _with_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    """The picture with channels of ones after its own, so that a photo without alpha is opaque."""
    from torch.nn import functional

    return functional.pad(image, (0, channels - image.shape[-1]), value=1.0)


def _spacing(image: torch.Tensor, width: int, colour: tuple[float, ...], *, across: bool) -> torch.Tensor:
    """A strip as long as the picture's side, opaque."""
    channels = image.shape[-1]
    shape = (len(image), image.shape[1], width) if across else (len(image), width, image.shape[2])
    return image.new_tensor((*colour, 1.0)[:channels]).expand(*shape, channels)
