"""Change the size of pictures as the host does it, bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._checks import check_size, chosen
from ._declare import RESAMPLING

if TYPE_CHECKING:
    import numpy as np
    import torch

CROPS = ("disabled", "center")


def resized(image: torch.Tensor, width: int, height: int, method: str, crop: str = "disabled") -> torch.Tensor:
    """Resample (B, H, W, C) to another size.

    Args:
        image: in [0, 1]; Lanczos cuts off what lies outside and works in 8 bits, as Pillow and so the host does.
        width: of the result, in pixels.
        height: of the result, in pixels.
        method: one of ``RESAMPLING``.
        crop: "center" cuts the sides off that the new proportions leave no room for, "disabled" distorts.
    Returns:
        (B, height, width, C). The cubic method overshoots [0, 1], as in the host.
    Raises:
        NodeInputError: no pixels, too many, or no such method.
    """
    from torch.nn import functional

    chosen(method, RESAMPLING, "the resampling method")
    chosen(crop, CROPS, "crop")
    check_size(image.shape[0], height, width, image.shape[-1])
    if crop == "center":
        image = _cropped(image, width / height)
    if method == "lanczos":
        return _lanczos(image, width, height)
    # Not made contiguous: which of torch's kernels computes, and so the last bit, depends on the layout.
    planes = image.movedim(-1, 1)  # BHWC -> BCHW
    return functional.interpolate(planes, size=(height, width), mode=method).movedim(1, -1)  # BCHW -> BHWC


def resized_mask(mask: torch.Tensor, width: int, height: int, method: str, crop: str = "disabled") -> torch.Tensor:
    """Resample (B, H, W) to another size; see ``resized``."""
    return resized(mask.unsqueeze(-1), width, height, method, crop).squeeze(-1)


def _cropped(image: torch.Tensor, aspect: float) -> torch.Tensor:
    """The middle of the picture in these proportions; margins are whole pixels and the same on both sides."""
    height, width = image.shape[1:3]
    own = width / height
    across = round((width - width * (aspect / own)) / 2) if own > aspect else 0
    down = round((height - height * (own / aspect)) / 2) if own < aspect else 0
    return image[:, down : height - down, across : width - across]


def _lanczos(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    import numpy as np
    import torch
    from PIL import Image

    gray = image.shape[-1] == 1
    results = []
    for picture in image.float().cpu().numpy():
        small = Image.fromarray(eight_bits(picture[..., 0] if gray else picture))
        large = np.asarray(small.resize((width, height), resample=Image.Resampling.LANCZOS))
        results.append(torch.from_numpy(large.astype(np.float32) / np.float32(255.0)))
    stacked = torch.stack(results).to(image.dtype)
    return stacked.unsqueeze(-1) if gray else stacked


def eight_bits(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Floats in [0, 1] as bytes; cut off and not rounded, as the host does."""
    import numpy as np

    return np.clip(255.0 * picture, 0, 255).astype(np.uint8)
