"""Nodes that change a picture's size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import check_size, checked_image, chosen
from ._declare import IMAGE, RESAMPLING, combo, integer, number, side
from ._resample import CROPS, resized

if TYPE_CHECKING:
    import torch

_MEGAPIXEL = 1024 * 1024  # the host's


class ImageScale:
    """To a width and a height; one of them 0 follows from the other, both 0 leave the picture as it is."""

    NODE_ID = "ImageScale"
    DISPLAY_NAME = "Upscale Image"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (list(RESAMPLING),),
                "width": side(low=0),
                "height": side(low=0),
                "crop": (list(CROPS),),
            }
        }

    def run(self, image: torch.Tensor, upscale_method: str, width: int, height: int, crop: str) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C)."""
        image = checked_image(image)
        width, height = with_missing_side(image.shape[2], image.shape[1], width, height)
        return (image if not width else resized(image, width, height, upscale_method, crop),)


def with_missing_side(own_width: int, own_height: int, width: int, height: int) -> tuple[int, int]:
    """The size that is asked for, a side of 0 filled in so that the proportions stay; (0, 0) stays what it is.

    Raises:
        NodeInputError: a side is negative.
    """
    if width < 0 or height < 0:
        raise NodeInputError(f"a picture cannot be {width} x {height} pixels", hint="Choose 0 or more.")
    if not width and height:
        width = max(1, round(own_width * height / own_height))
    elif width and not height:
        height = max(1, round(own_height * width / own_width))
    return width, height


class ImageScaleBy:
    """By a factor."""

    NODE_ID = "ImageScaleBy"
    DISPLAY_NAME = "Upscale Image By"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (list(RESAMPLING),),
                "scale_by": number(1.0, 0.01, 8.0, 0.01),
            }
        }

    def run(self, image: torch.Tensor, upscale_method: str, scale_by: float) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C)."""
        image = checked_image(image)
        return (resized(image, *times(image.shape[2], image.shape[1], scale_by), upscale_method),)


def times(width: int, height: int, factor: float) -> tuple[int, int]:
    """A size enlarged, in whole pixels.

    Raises:
        NodeInputError: the factor is no finite number.
    """
    if not math.isfinite(factor):
        raise NodeInputError(f"a picture cannot be enlarged {factor} times", hint="Choose a finite number.")
    return round(width * factor), round(height * factor)


class ImageScaleToTotalPixels:
    """To so many megapixels of 1024 x 1024, the sides rounded to multiples."""

    NODE_ID = "ImageScaleToTotalPixels"
    DISPLAY_NAME = "Scale Image to Total Pixels"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "upscale_method": combo(*RESAMPLING),
                "megapixels": number(1.0, 0.01, 16.0, 0.01),
                "resolution_steps": integer(1, 1, 256, advanced=True),
            }
        }

    def run(
        self, image: torch.Tensor, upscale_method: str, megapixels: float, resolution_steps: int = 1
    ) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C); files of older hosts have no ``resolution_steps``."""
        image = checked_image(image)
        height, width = image.shape[1:3]
        if resolution_steps < 1:
            raise NodeInputError(f"resolution_steps cannot be {resolution_steps}", hint="Choose 1 or more.")
        factor = factor_to_megapixels(width, height, megapixels)
        wide, high = (round(each * factor / resolution_steps) * resolution_steps for each in (width, height))
        return (resized(image, wide, high, upscale_method),)


def factor_to_megapixels(width: int, height: int, megapixels: float, *, whole: bool = False) -> float:
    """What to enlarge the sides by so that the picture has so many pixels.

    Args:
        width: in pixels.
        height: in pixels.
        megapixels: of 1024 x 1024.
        whole: round the number of pixels down first.
    Raises:
        NodeInputError: none, or no finite number.
    """
    if not (math.isfinite(megapixels) and megapixels > 0):
        raise NodeInputError(f"a picture cannot have {megapixels} megapixels", hint="Choose more than 0.")
    total = megapixels * _MEGAPIXEL
    return math.sqrt((int(total) if whole else total) / (width * height))


class ImageScaleToMaxDimension:
    """So that the longer side gets a length."""

    NODE_ID = "ImageScaleToMaxDimension"
    DISPLAY_NAME = "Scale Image to Max Dimension"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # One of them stands there twice in the host, too.
        methods = ("area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic")
        return {
            "required": {
                "image": IMAGE,
                "upscale_method": combo(*methods),
                "largest_size": side(low=0),
            }
        }

    def run(self, image: torch.Tensor, upscale_method: str, largest_size: int) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C)."""
        image = checked_image(image)
        return (resized(image, *with_longer_side(image.shape[2], image.shape[1], largest_size), upscale_method),)


def with_longer_side(width: int, height: int, length: int) -> tuple[int, int]:
    """A size of the same proportions with the longer side this long."""
    if height > width:
        return round((width / height) * length), length
    return length, round((height / width) * length) if width > height else length


def with_shorter_side(width: int, height: int, length: int) -> tuple[int, int]:
    """A size of the same proportions with the shorter side this long."""
    if height < width:
        return round((width / height) * length), length
    return length, round((height / width) * length) if width < height else length


class ResizeAndPadImage:
    """Into a frame, the proportions kept and what is left over filled."""

    NODE_ID = "ResizeAndPadImage"
    DISPLAY_NAME = "Resize And Pad Image"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    _COLOURS = ("white", "black")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        methods = ("area", "bicubic", "nearest-exact", "bilinear", "lanczos")
        return {
            "required": {
                "image": IMAGE,
                "target_width": side(),
                "target_height": side(),
                "padding_color": combo(*cls._COLOURS, advanced=True),
                "interpolation": combo(*methods, advanced=True),
            }
        }

    def run(
        self, image: torch.Tensor, target_width: int, target_height: int, padding_color: str, interpolation: str
    ) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C) and lay it in the middle of (B, target_height, target_width, C)."""
        image = checked_image(image)
        chosen(padding_color, self._COLOURS, "padding_color")
        batch, height, width, channels = image.shape
        check_size(batch, target_height, target_width, channels)
        factor = min(target_width / width, target_height / height)
        inner = resized(image, int(width * factor), int(height * factor), interpolation)
        frame = image.new_full((batch, target_height, target_width, channels), float(padding_color == "white"))
        top, left = (target_height - inner.shape[1]) // 2, (target_width - inner.shape[2]) // 2
        frame[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
        return (frame,)
