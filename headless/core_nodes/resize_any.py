"""ResizeImageMaskNode: every way to change the size of an image or a mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

from ._checks import checked_image, checked_mask
from ._declare import RESAMPLING, Declared, combo, number, side
from ._resample import CROPS, resized
from .scale import factor_to_megapixels, times, with_longer_side, with_missing_side, with_shorter_side

if TYPE_CHECKING:
    import torch

_CROP = combo(*CROPS, default="center")
_WAYS: dict[str, dict[str, Declared]] = {
    "scale dimensions": {"width": side(low=0), "height": side(low=0), "crop": _CROP},
    "scale by multiplier": {"multiplier": number(1.0, 0.01, 8.0, 0.01)},
    "scale longer dimension": {"longer_size": side(low=0)},
    "scale shorter dimension": {"shorter_size": side(low=0)},
    "scale width": {"width": side(low=0)},
    "scale height": {"height": side(low=0)},
    "scale total pixels": {"megapixels": number(1.0, 0.01, 16.0, 0.01)},
    "match size": {"match": ("IMAGE,MASK", {}), "crop": _CROP},
    "scale to multiple": {"multiple": side(8)},
}
"""Each way's name and its own inputs."""


class ResizeImageMaskNode:
    """Change the size of an image or a mask."""

    NODE_ID = "ResizeImageMaskNode"
    DISPLAY_NAME = "Resize Image/Mask"
    CATEGORY = "image/transform"
    RETURN_TYPES = ("COMFY_MATCHTYPE_V3",)
    RETURN_NAMES = ("resized",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        options = [{"key": key, "inputs": {"required": inputs}} for key, inputs in _WAYS.items()]
        return {
            "required": {
                "input": (
                    "COMFY_MATCHTYPE_V3",
                    {"template": {"template_id": "input_type", "allowed_types": "IMAGE,MASK"}},
                ),
                "resize_type": ("COMFY_DYNAMICCOMBO_V3", {"options": options}),
                "scale_method": combo(*RESAMPLING, default="area"),
            }
        }

    def run(self, **inputs: Any) -> tuple[torch.Tensor]:
        """Resample (B, H, W, C) or (B, H, W); what each way needs comes as ``resize_type.NAME``."""
        picture, is_image = _picture(inputs.get("input"), "input")
        way = inputs.get("resize_type")
        if way not in _WAYS:
            raise NodeInputError(f"resize_type cannot be {str(way)[:80]!r}", hint=f"Choose one of: {', '.join(_WAYS)}.")
        given: dict[str, Any] = {name: inputs.get(f"resize_type.{name}") for name in _WAYS[way]}
        if missing := [name for name, value in given.items() if value is None]:
            raise NodeInputError(f"{way!r} needs {' and '.join(missing)}", hint="Fill them in, or choose another way.")
        method = inputs.get("scale_method", "area")
        if way == "scale to multiple":
            result = _to_multiple(picture, given["multiple"], method)
        else:
            width, height = _size(way, picture, given)
            result = resized(picture, width, height, method, given.get("crop", "disabled")) if width else picture
        return (result if is_image else result.squeeze(-1),)


def _picture(value: Any, name: str) -> tuple[torch.Tensor, bool]:
    """An image, or a mask as an image of one channel, and which of them it is."""
    if getattr(value, "ndim", 0) == 4:
        return checked_image(value, name), True
    return checked_mask(value, name).unsqueeze(-1), False


def _size(way: str, picture: torch.Tensor, given: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the result; (0, 0) leaves the picture as it is."""
    height, width = picture.shape[1:3]
    if way == "scale by multiplier":
        return times(width, height, given["multiplier"])
    if way == "scale longer dimension":
        return with_longer_side(width, height, given["longer_size"])
    if way == "scale shorter dimension":
        return with_shorter_side(width, height, given["shorter_size"])
    if way == "scale total pixels":
        return times(width, height, factor_to_megapixels(width, height, given["megapixels"], whole=True))
    if way == "match size":
        other, _ = _picture(given["match"], "match")
        return other.shape[2], other.shape[1]
    return with_missing_side(width, height, given.get("width", 0), given.get("height", 0))


def _to_multiple(picture: torch.Tensor, multiple: int, method: str) -> torch.Tensor:
    """Sides cut down to multiples: the picture is made as small as still covers them, and its middle taken.

    A picture that is smaller than one multiple stays as it is, as in the host.
    """
    height, width = picture.shape[1:3]
    wide, high = ((each // multiple) * multiple if multiple > 1 else each for each in (width, height))
    if (wide, high) == (width, height) or not wide or not high:
        return picture
    across, down = wide / width, high / height
    if across >= down:
        size = (wide, max(high, math.ceil(height * across)))
    else:
        size = (max(wide, math.ceil(width * down)), high)
    large = resized(picture, *size, method)
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2
    return large[:, top : top + high, left : left + wide]
