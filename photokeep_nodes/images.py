"""Layouts of images and masks: the only place where dimensions are permuted.

A ComfyUI IMAGE is (B, H, W, C) float32 in [0, 1], sRGB; networks take (B, C, H, W).
"""

from __future__ import annotations

import torch

from .errors import NodeInputError


def to_bchw(image: torch.Tensor) -> torch.Tensor:
    """Turn a ComfyUI IMAGE into what networks take.

    Args:
        image: (B, H, W, C), any floating dtype, any device, C = 1, 3 or 4; alpha is dropped, gray is expanded.
    Returns:
        (B, 3, H, W) float32 in [0, 1] on the CPU: photos stay there, only tiles of them go to the device.
    Raises:
        NodeInputError: another shape, an integer dtype, or values that are not numbers.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise NodeInputError(
            f"an image must be (batch, height, width, 1, 3 or 4 channels), not {tuple(image.shape)}",
            hint="Connect an IMAGE output here.",
        )
    if image.shape[1] == 0 or image.shape[2] == 0 or image.shape[0] == 0:
        raise NodeInputError(f"the image is empty: {tuple(image.shape)}")
    if not image.is_floating_point():
        raise NodeInputError(
            f"an image must hold numbers from 0 to 1, not {str(image.dtype).removeprefix('torch.')}",
            hint="Divide 8-bit values by 255 first.",
        )
    image = image.detach().to(device="cpu").float()
    # Of the sum, not of each value: no mask as large as the photo.
    if bool(torch.isnan(image.sum(dtype=torch.float64))):
        raise NodeInputError(
            "the photo holds values that are not numbers", hint="Look at the node that this image comes from."
        )
    rgb = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]
    return rgb.permute(0, 3, 1, 2).clamp(0.0, 1.0)  # BHWC -> BCHW


def to_bhwc(image: torch.Tensor) -> torch.Tensor:
    """Turn a network's (B, C, H, W) into a ComfyUI IMAGE: float32 on the CPU, contiguous, in [0, 1].

    The same memory where it is that already, laid out channels last: a photo of 12 million pixels, enlarged four
    times, takes 2.3 GB.
    """
    image = image.detach().to(device="cpu").float()
    if image.numel():
        low, high = torch.aminmax(image)
        if not (low >= 0.0 and high <= 1.0):  # in this form, for NaN
            image = image.clamp(0.0, 1.0)
    return image.permute(0, 2, 3, 1).contiguous()  # BCHW -> BHWC


def luminance(image: torch.Tensor) -> torch.Tensor:
    """Rec. 601 luma of (B, 3, H, W) sRGB, as (B, 1, H, W)."""
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True)
