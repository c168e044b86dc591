"""Nodes with which the editor shows pictures. Nobody looks at them here, so that nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._checks import checked_image, checked_mask
from ._declare import IMAGE, MASK

if TYPE_CHECKING:
    import torch

_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


class PreviewImage:
    """Show pictures."""

    NODE_ID = "PreviewImage"
    DISPLAY_NAME = "Preview Image"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}, "hidden": _HIDDEN}

    def run(self, images: torch.Tensor, **_hidden: Any) -> dict[str, Any]:
        """Hand the pictures on."""
        return {"ui": {"images": []}, "result": (checked_image(images, "images"),)}


class MaskPreview:
    """Show masks."""

    NODE_ID = "MaskPreview"
    DISPLAY_NAME = "Preview Mask"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": MASK}, "hidden": _HIDDEN}

    def run(self, mask: torch.Tensor, **_hidden: Any) -> dict[str, Any]:
        """Hand the mask on."""
        return {"ui": {"images": []}, "result": (checked_mask(mask),)}


class ImageCompare:
    """Show two pictures under a slider."""

    NODE_ID = "ImageCompare"
    DISPLAY_NAME = "Compare Images"
    CATEGORY = "image"
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"compare_view": ("IMAGECOMPARE", {"socketless": True})},
            "optional": {"image_a": IMAGE, "image_b": IMAGE},
            "hidden": _HIDDEN,
        }

    def run(
        self, image_a: torch.Tensor | None = None, image_b: torch.Tensor | None = None, **_view: Any
    ) -> dict[str, Any]:
        """Look at neither but for what is no picture."""
        for name, image in (("image_a", image_a), ("image_b", image_b)):
            if image is not None:
                checked_image(image, name)
        return {"ui": {"a_images": [], "b_images": []}, "result": ()}
