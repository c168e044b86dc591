"""Pictures that show what a restoration changed."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..errors import NodeInputError

_DIVIDER = 1.0


def _matched(before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both at the size of the larger, with the same batch."""
    batches = (before.shape[0], after.shape[0])
    if batches[0] != batches[1] and 1 not in batches:
        raise NodeInputError(
            f"{batches[0]} pictures cannot be compared with {batches[1]}",
            hint="Compare one picture with one, one with many, or equally many.",
        )
    sizes = [tuple(picture.shape[-2:]) for picture in (before, after)]
    size = max(sizes, key=lambda side: side[0] * side[1])
    n_pictures = max(batches)

    def fitted(picture: torch.Tensor) -> torch.Tensor:
        if tuple(picture.shape[-2:]) != size:
            # Bicubic like an image viewer: a photo enlarged by the viewer is what the restored one competes with.
            picture = functional.interpolate(picture, size=size, mode="bicubic", antialias=True, align_corners=False)
        return picture.clamp(0.0, 1.0).expand(n_pictures, -1, -1, -1)

    return fitted(before), fitted(after)


def side_by_side(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Put two pictures next to each other, a thin white line between them.

    Args:
        before: (B or 1, 3, h, w) in [0, 1].
        after: (B or 1, 3, H, W) in [0, 1]; the smaller of the two is enlarged to the other's size.

    Returns:
        (B, 3, H, 2 * W + line), the line 1/200 of the width and at least 2 pixels wide; dtype and device as ``before``.

    Raises:
        NodeInputError: different numbers of pictures, neither of them 1.
    """
    left, right = _matched(before, after)
    line = left.new_full((*left.shape[:3], max(2, left.shape[3] // 200)), _DIVIDER)
    return torch.cat([left, line, right], dim=3)


def difference(before: torch.Tensor, after: torch.Tensor, gain: float) -> torch.Tensor:
    """Where and how much two pictures differ: black where they agree.

    Args:
        before: (B or 1, 3, h, w) in [0, 1].
        after: (B or 1, 3, H, W) in [0, 1]; the smaller of the two is enlarged to the other's size.
        gain: factor that makes small differences visible.

    Returns:
        (B, 3, H, W) in [0, 1]: the absolute difference of each channel times ``gain``.

    Raises:
        NodeInputError: different numbers of pictures, neither of them 1.
    """
    left, right = _matched(before, after)
    return (left - right).abs().mul(gain).clamp(0.0, 1.0)
