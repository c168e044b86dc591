"""Nodes that lay pictures over each other and deal with transparency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._checks import check_size, checked_image, checked_mask
from ._composite import repeated, same_channels
from ._declare import IMAGE, MASK, offset
from ._resample import resized, resized_mask

if TYPE_CHECKING:
    import torch


class ImageCompositeMasked:
    """Paste a picture into another one, through a mask."""

    NODE_ID = "ImageCompositeMasked"
    DISPLAY_NAME = "Image Composite Masked"
    CATEGORY = "image/compositing"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": IMAGE,
                "source": IMAGE,
                "x": offset(),
                "y": offset(),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": MASK},
        }

    def run(
        self,
        destination: torch.Tensor,
        source: torch.Tensor,
        x: int,
        y: int,
        resize_source: bool,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        """Paste ``source`` with its corner at (x, y); what lies outside ``destination`` is left out.

        Args:
            destination: (B, H, W, C).
            source: (b, h, w, c), repeated for each picture of ``destination``.
            x: in pixels; negative is left of the picture, which no widget gives but a link can.
            y: the same downwards.
            resize_source: bring it to the size of ``destination`` first.
            mask: 1 where ``source`` shows; brought to its size.
        """
        below = checked_image(destination, "destination")
        above = same_channels(below, checked_image(source, "source"))
        height, width = below.shape[1:3]
        if resize_source:
            above = resized(above, width, height, "bilinear")
        result = below.clone()
        left, top = max(0, x), max(0, y)
        right, bottom = min(width, x + above.shape[2]), min(height, y + above.shape[1])
        if left >= right or top >= bottom:
            return (result,)
        inside = (slice(None), slice(top - y, bottom - y), slice(left - x, right - x))
        place = (slice(None), slice(top, bottom), slice(left, right))
        shown = repeated(above, len(below))[inside]
        if mask is not None:
            cover = resized_mask(checked_mask(mask), above.shape[2], above.shape[1], "bilinear")
            cover = repeated(cover, len(below))[inside].unsqueeze(-1)
            shown = cover * shown + (1.0 - cover) * below[place]
        result[place] = shown
        return (result,)


class JoinImageWithAlpha:
    """Make parts of a picture transparent: where the mask is 1."""

    NODE_ID = "JoinImageWithAlpha"
    DISPLAY_NAME = "Join Image with Alpha"
    CATEGORY = "image/compositing"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "alpha": MASK}}

    def run(self, image: torch.Tensor, alpha: torch.Tensor) -> tuple[torch.Tensor]:
        """(B, H, W, 4); the shorter of the two batches is repeated."""
        import torch

        image, mask = checked_image(image), checked_mask(alpha, "alpha").to(image.dtype)
        batch = max(len(image), len(mask))
        check_size(batch, image.shape[1], image.shape[2], 4)
        opaque = 1.0 - resized_mask(mask, image.shape[2], image.shape[1], "bilinear")
        return (torch.cat([repeated(image, batch)[..., :3], repeated(opaque, batch).unsqueeze(-1)], dim=-1),)


class SplitImageWithAlpha:
    """Take a picture's transparency off as a mask."""

    NODE_ID = "SplitImageWithAlpha"
    DISPLAY_NAME = "Split Image with Alpha"
    CATEGORY = "image/compositing"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE}}

    def run(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The colours, and 1 - alpha: zeros of the picture's size where it has none."""
        image = checked_image(image)
        if image.shape[-1] == 4:
            return image[..., :3].clone(), 1.0 - image[..., 3]
        return image, image.new_zeros(image.shape[:3])
