"""Nodes that make pictures, and batches of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import check_size, checked_image, checked_mask
from ._declare import IMAGE, LARGEST_SIDE, MASK, grown, integer, side
from ._resample import resized, resized_mask

if TYPE_CHECKING:
    import torch

_MOST_PICTURES = 4096


class EmptyImage:
    """A picture of one colour."""

    NODE_ID = "EmptyImage"
    DISPLAY_NAME = "Empty Image"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": side(),
                "height": side(),
                "batch_size": integer(1, 1, _MOST_PICTURES),
                "color": integer(0, 0, 0xFFFFFF, step=1, display="color"),
            }
        }

    def run(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[torch.Tensor]:
        """(batch_size, height, width, 3) of 0xRRGGBB."""
        import torch

        check_size(batch_size, height, width)
        channels = torch.tensor([((color >> shift) & 0xFF) / 0xFF for shift in (16, 8, 0)], dtype=torch.float32)
        return (channels.repeat(batch_size, height, width, 1),)


class ImageBatch:
    """Two pictures, or batches, as one; the second is brought to the size of the first."""

    NODE_ID = "ImageBatch"
    DISPLAY_NAME = "Batch Images (DEPRECATED)"
    CATEGORY = "image/batch"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    def run(self, image1: torch.Tensor, image2: torch.Tensor) -> tuple[torch.Tensor]:
        """See ``joined``."""
        return (joined([checked_image(image1, "image1"), checked_image(image2, "image2")]),)


class BatchImagesNode:
    """Any number of pictures as one batch; all are brought to the size of the first."""

    NODE_ID = "BatchImagesNode"
    DISPLAY_NAME = "Batch Images"
    CATEGORY = "image/batch"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        template = {"input": {"required": {"image": IMAGE}}, "prefix": "image", "min": 1, "max": 50}
        return {"required": {"images": ("COMFY_AUTOGROW_V3", {"template": template})}}

    def run(self, **inputs: Any) -> tuple[torch.Tensor]:
        """See ``joined``; the pictures come as ``images.image0`` and so on."""
        images = [checked_image(image, f"picture {i + 1}") for i, image in enumerate(grown(inputs, "images"))]
        if not images:
            raise NodeInputError("there is no picture to make a batch of", hint="Connect at least one.")
        return (joined(images),)


def joined(images: list[torch.Tensor]) -> torch.Tensor:
    """One batch of (B, H, W, C) pictures: opaque alpha is added where another has one, sizes become the first one's.

    Raises:
        NodeInputError: gray and colour, or more than can be held.
    """
    import torch
    from torch.nn import functional

    channels = max(each.shape[-1] for each in images)
    if any(each.shape[-1] < channels - 1 for each in images):
        raise NodeInputError("gray and colour pictures make no batch", hint="Connect pictures of one kind.")
    images = [functional.pad(each, (0, channels - each.shape[-1]), value=1.0) for each in images]
    height, width = images[0].shape[1:3]
    check_size(sum(len(each) for each in images), height, width, channels)
    return torch.cat(
        [
            each if each.shape[1:3] == (height, width) else resized(each, width, height, "bilinear", "center")
            for each in images
        ]
    )


class BatchMasksNode:
    """Any number of masks as one batch; all are brought to the size of the first."""

    NODE_ID = "BatchMasksNode"
    DISPLAY_NAME = "Batch Masks"
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        template = {"input": {"required": {"mask": MASK}}, "prefix": "mask", "min": 1, "max": 50}
        return {"required": {"masks": ("COMFY_AUTOGROW_V3", {"template": template})}}

    def run(self, **inputs: Any) -> tuple[torch.Tensor]:
        """(B, H, W); the masks come as ``masks.mask0`` and so on."""
        import torch

        masks = [checked_mask(mask, f"mask {i + 1}") for i, mask in enumerate(grown(inputs, "masks"))]
        if not masks:
            raise NodeInputError("there is no mask to make a batch of", hint="Connect at least one.")
        height, width = masks[0].shape[1:]
        check_size(sum(len(each) for each in masks), height, width, 1)
        fitted = [
            each if each.shape[1:] == (height, width) else resized_mask(each, width, height, "bilinear", "center")
            for each in masks
        ]
        return (torch.cat(fitted),)


class RepeatImageBatch:
    """A batch several times over."""

    NODE_ID = "RepeatImageBatch"
    DISPLAY_NAME = "Repeat Image Batch"
    CATEGORY = "image/batch"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE, "amount": integer(1, 1, _MOST_PICTURES)}}

    def run(self, image: torch.Tensor, amount: int) -> tuple[torch.Tensor]:
        """(B * amount, H, W, C)."""
        image = checked_image(image)
        batch, height, width, channels = image.shape
        check_size(batch * amount, height, width, channels)
        return (image.repeat(amount, 1, 1, 1),)


class ImageFromBatch:
    """Some pictures of a batch."""

    NODE_ID = "ImageFromBatch"
    DISPLAY_NAME = "Get Image from Batch"
    CATEGORY = "image/batch"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "batch_index": integer(0, -LARGEST_SIDE, LARGEST_SIDE),
                "length": integer(1, 1, _MOST_PICTURES),
            }
        }

    def run(self, image: torch.Tensor, batch_index: int, length: int) -> tuple[torch.Tensor]:
        """Up to ``length`` pictures from ``batch_index`` on, which is moved into the batch; -1 is the last one."""
        image = checked_image(image)
        if length < 1:
            raise NodeInputError(f"{length} pictures cannot be taken", hint="Choose 1 or more.")
        first = batch_index + len(image) if batch_index < 0 else batch_index
        first = max(0, min(first, len(image) - 1))
        return (image[first : first + length].clone(),)


class GetImageSize:
    """How large a picture is, and how many there are."""

    NODE_ID = "GetImageSize"
    DISPLAY_NAME = "Get Image Size"
    CATEGORY = "image"
    RETURN_TYPES = ("INT", "INT", "INT")
    RETURN_NAMES = ("width", "height", "batch_size")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": IMAGE}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def run(self, image: torch.Tensor, unique_id: str | None = None) -> tuple[int, int, int]:  # noqa: ARG002 - the host shows the size on the node
        """Width and height in pixels, and the number of pictures."""
        batch, height, width, _ = checked_image(image).shape
        return width, height, batch
