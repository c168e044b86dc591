"""What a node was given, refused in words before torch refuses it in its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

if TYPE_CHECKING:
    import torch

MAX_RESULT_PIXELS = 1_000_000_000
"""Largest result of one node, all pictures of a batch together: 12 GB as RGB. A 60 megapixel scan enlarged four times
has 960 million."""

_BYTES_PER_VALUE = 4


def checked_image(value: Any, name: str = "image") -> torch.Tensor:
    """The (B, H, W, C) image, C = 1 to 4, as it came.

    Raises:
        NodeInputError: another shape, no pixels, whole numbers, or values that are not numbers.
    """
    image = _tensor(value, name, "an image", "IMAGE")
    if image.ndim != 4 or not 1 <= image.shape[-1] <= 4:
        raise NodeInputError(
            f"{name} must be (batch, height, width, 1 to 4 channels), not {tuple(image.shape)}",
            hint="Connect an IMAGE output here; a mask becomes one with Convert Mask to Image.",
        )
    return _numbers(image, name)


def checked_mask(value: Any, name: str = "mask") -> torch.Tensor:
    """The mask as (B, H, W); a single (H, W) one gets its batch dimension.

    Raises:
        NodeInputError: another shape, no pixels, whole numbers, or values that are not numbers.
    """
    mask = _tensor(value, name, "a mask", "MASK")
    if mask.ndim not in (2, 3):
        raise NodeInputError(
            f"{name} must be (batch, height, width), not {tuple(mask.shape)}",
            hint="Connect a MASK output here; an image becomes one with Convert Image to Mask.",
        )
    return _numbers(mask[None] if mask.ndim == 2 else mask, name)


def _tensor(value: Any, name: str, what: str, socket: str) -> torch.Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise NodeInputError(f"{name} must be {what}, not {type(value).__name__}", hint=f"Connect {socket} here.")
    if not value.is_floating_point():
        raise NodeInputError(
            f"{name} must hold numbers from 0 to 1, not {str(value.dtype).removeprefix('torch.')}",
            hint="Divide 8-bit values by 255 first.",
        )
    return value.detach()


def _numbers(value: torch.Tensor, name: str) -> torch.Tensor:
    import torch

    if not value.numel():
        raise NodeInputError(f"{name} is empty: {tuple(value.shape)}", hint="Look at the node that it comes from.")
    # Of the sum, not of each value: no mask as large as the photo.
    if bool(torch.isnan(value.sum(dtype=torch.float64))):
        raise NodeInputError(
            f"{name} holds values that are not numbers", hint="Look at the node that this image comes from."
        )
    return value


def check_size(batch: int, height: int, width: int, channels: int = 3) -> None:
    """Refuse a result before memory is asked for.

    Raises:
        NodeInputError: it has no pixels, more than ``MAX_RESULT_PIXELS``, or does not fit into the memory that is free.
    """
    what = f"{width} x {height} pixels" + (f", {batch} times" if batch > 1 else "")
    if width < 1 or height < 1 or batch < 1:
        raise NodeInputError(f"the result would have {what}", hint="Choose a larger size.")
    pixels = batch * height * width
    if pixels > MAX_RESULT_PIXELS:
        raise NodeInputError(
            f"the result would have {what}: {pixels / 1e6:,.0f} megapixels, and at most"
            f" {MAX_RESULT_PIXELS / 1e6:,.0f} are made at once",
            hint="Choose a smaller size or fewer pictures.",
            pixels=pixels,
        )
    needed, free = pixels * channels * _BYTES_PER_VALUE, _free_bytes()
    if needed > free:
        # Asked before: Linux hands out memory that it does not have, and then ends the process that uses it.
        raise NodeInputError(
            f"the result would have {what}: {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free",
            hint="Choose a smaller size or fewer pictures, or close other programs.",
            pixels=pixels,
        )


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def chosen(value: str, choices: tuple[str, ...], name: str) -> str:
    """The value, if it is one of the choices: what comes over a link was compared with no list.

    Raises:
        NodeInputError: it is none of them.
    """
    if value not in choices:
        raise NodeInputError(f"{name} cannot be {str(value)[:80]!r}", hint=f"Choose one of: {', '.join(choices)}.")
    return value
