"""Layouts of images and masks: the only place where dimensions are permuted.

A ComfyUI IMAGE is (B, H, W, C) float32 in [0, 1], sRGB; networks take (B, C, H, W).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NodeInputError

if TYPE_CHECKING:
    import torch


def to_bchw(image: torch.Tensor) -> torch.Tensor:
    """Turn a ComfyUI IMAGE into what networks take.

    Args:
        image: (B, H, W, C), any floating dtype, any device, C = 1, 3 or 4; alpha is dropped, gray is expanded.
    Returns:
        (B, 3, H, W) float32 in [0, 1] on the CPU: photos stay there, only tiles of them go to the device.
    Raises:
        NodeInputError: another shape or an integer dtype.
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
    rgb = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]
    return rgb.permute(0, 3, 1, 2).clamp(0.0, 1.0)  # BHWC -> BCHW


def to_bhwc(image: torch.Tensor) -> torch.Tensor:
    """Turn a network's (B, C, H, W) into a ComfyUI IMAGE: float32 on the CPU, contiguous, in [0, 1]."""
    return image.detach().permute(0, 2, 3, 1).to(device="cpu").float().clamp(0.0, 1.0).contiguous()  # BCHW -> BHWC


def luminance(image: torch.Tensor) -> torch.Tensor:
    """Rec. 601 luma of (B, 3, H, W) sRGB, as (B, 1, H, W)."""
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True)
