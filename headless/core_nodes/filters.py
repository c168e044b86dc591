"""Nodes that blur, sharpen, invert and blend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import checked_image, chosen
from ._composite import same_channels
from ._declare import IMAGE, combo, integer, number
from ._resample import resized

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class ImageInvert:
    """The negative."""

    NODE_ID = "ImageInvert"
    DISPLAY_NAME = "Invert Image Colors"
    CATEGORY = "image/color"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """1 - image, of alpha too, as the host has it."""
        return (1.0 - checked_image(image),)


class ImageBlur:
    """A Gaussian blur; sigma is in kernel radii, not in pixels."""

    NODE_ID = "ImageBlur"
    DISPLAY_NAME = "Blur Image"
    CATEGORY = "image/filters"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "blur_radius": integer(1, 1, 31, step=1),
                "sigma": number(1.0, 0.1, 10.0, 0.1),
            }
        }

    def run(self, image: torch.Tensor, blur_radius: int, sigma: float) -> tuple[torch.Tensor]:
        """Blur (B, H, W, C)."""
        image = checked_image(image)
        if not blur_radius:
            return (image,)
        return (_filtered(image, _gaussian(blur_radius, sigma)),)


class ImageSharpen:
    """An unsharp mask in one kernel; ``alpha`` is its strength."""

    NODE_ID = "ImageSharpen"
    DISPLAY_NAME = "Sharpen Image"
    CATEGORY = "image/filters"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "sharpen_radius": integer(1, 1, 31, step=1, advanced=True),
                "sigma": number(1.0, 0.1, 10.0, 0.01, advanced=True),
                "alpha": number(1.0, 0.0, 5.0, 0.01, advanced=True),
            }
        }

    def run(self, image: torch.Tensor, sharpen_radius: int, sigma: float, alpha: float) -> tuple[torch.Tensor]:
        """Sharpen (B, H, W, C); the result is cut off at 0 and 1."""
        image = checked_image(image)
        if not sharpen_radius:
            return (image,)
        kernel = _gaussian(sharpen_radius, sigma) * -(alpha * 10)
        middle = (sharpen_radius, sharpen_radius)
        kernel[middle] = kernel[middle] - kernel.sum() + 1.0  # its sum is 1: brightness stays
        return (_filtered(image, kernel).clamp(0, 1),)


def _gaussian(radius: int, sigma: float) -> torch.Tensor:
    """(2 * radius + 1) squared, of sum 1.

    Args:
        radius: in pixels.
        sigma: in radii.
    Raises:
        NodeInputError: one of them is not above 0.
    """
    import torch

    if radius < 1 or not sigma > 0:
        raise NodeInputError(f"a radius of {radius} and a sigma of {sigma} make no blur", hint="Choose more than 0.")
    places = torch.linspace(-1, 1, 2 * radius + 1)
    distance = torch.sqrt(places[:, None] * places[:, None] + places * places)
    weights = torch.exp(-(distance * distance) / (2.0 * sigma * sigma))
    return weights / weights.sum()


def _filtered(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) through one kernel, channel by channel, mirrored at the edges."""
    from torch.nn import functional

    radius, channels = kernel.shape[0] // 2, image.shape[-1]
    if min(image.shape[1:3]) <= radius:
        raise NodeInputError(
            f"a picture of {image.shape[2]} x {image.shape[1]} pixels is too small for a radius of {radius}",
            hint="Choose a smaller radius.",
        )
    planes = functional.pad(image.permute(0, 3, 1, 2), (radius,) * 4, mode="reflect")  # BHWC -> BCHW
    weights = kernel.to(image.dtype).repeat(channels, 1, 1).unsqueeze(1)
    return functional.conv2d(planes, weights, groups=channels).permute(0, 2, 3, 1)  # BCHW -> BHWC


def _soft_light(base: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    import torch

    curve = torch.where(base <= 0.25, ((16 * base - 12) * base + 4) * base, torch.sqrt(base))
    darker = base - (1 - 2 * over) * base * (1 - base)
    return torch.where(over <= 0.5, darker, base + (2 * over - 1) * (curve - base))


def _overlay(base: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.where(base <= 0.5, 2 * base * over, 1 - 2 * (1 - base) * (1 - over))


_BLENDS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "normal": lambda _base, over: over,
    "multiply": lambda base, over: base * over,
    "screen": lambda base, over: 1 - (1 - base) * (1 - over),
    "overlay": _overlay,
    "soft_light": _soft_light,
    "difference": lambda base, over: base - over,
}
"""The W3C's blend modes (Compositing and Blending Level 1), but for "difference", which keeps its sign in the host."""


class ImageBlend:
    """Mix two pictures."""

    NODE_ID = "ImageBlend"
    DISPLAY_NAME = "Blend Images"
    CATEGORY = "image/filters"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": IMAGE,
                "image2": IMAGE,
                "blend_factor": number(0.5, 0.0, 1.0, 0.01),
                "blend_mode": combo(*_BLENDS),
            }
        }

    def run(
        self, image1: torch.Tensor, image2: torch.Tensor, blend_factor: float, blend_mode: str
    ) -> tuple[torch.Tensor]:
        """Blend ``image2`` over ``image1``, to whose size it is brought; the result is cut off at 0 and 1."""
        blend = _BLENDS[chosen(blend_mode, tuple(_BLENDS), "blend_mode")]
        base = checked_image(image1, "image1")
        over = same_channels(base, checked_image(image2, "image2"))
        if len(base) != len(over) and 1 not in (len(base), len(over)):
            raise NodeInputError(
                f"{len(base)} pictures cannot be blended with {len(over)}", hint="Give both the same number, or one."
            )
        if base.shape != over.shape:
            over = resized(over, base.shape[2], base.shape[1], "bicubic", "center")
        return ((base * (1 - blend_factor) + blend(base, over) * blend_factor).clamp(0, 1),)
