"""Find scratches with a leased model: sizes from `ops.scratch_network`, tiles from `tiled_inference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import images, tiled_inference
from .errors import NodeInputError
from .ops import scratch_network

if TYPE_CHECKING:
    from .model_spec import ModelSpec


def find_scratches(
    spec: ModelSpec,
    image: torch.Tensor,
    *,
    threshold: float = scratch_network.THRESHOLD,
    finest: int = 0,
    tile: int = 0,
) -> torch.Tensor:
    """Look for scratches, in photos of any size.

    Args:
        spec: a model that finds them.
        image: (B, 3 or 1, H, W) sRGB in [0, 1].
        threshold: see ``ops.scratch_network.find``.
        finest: longest short side of the copies that are looked at, in pixels; 0 goes up to the photo itself. Each
            halving takes a quarter of the time, and loses the finest hairlines.
        tile: side of a tile in pixels; 0 chooses it from the free memory.
    Returns:
        (B, 1, H, W) probability on the CPU; ``ops.scratch_network.to_mask`` makes a mask of it.
    Raises:
        WeightsError, VramError: see ``tiled_inference.apply_tiled``.
        NodeInputError: the photo holds values that are not numbers, or has another number of channels.
    """
    if image.ndim != 4 or image.shape[1] not in {1, 3} or 0 in image.shape:
        raise NodeInputError(f"a photo must be (batch, 1 or 3 channels, height, width), not {tuple(image.shape)}")

    def detect(gray: torch.Tensor) -> torch.Tensor:
        return tiled_inference.apply_tiled(spec, gray, tile=tile)

    found = torch.empty(len(image), 1, *image.shape[-2:])
    for index in range(len(image)):
        one = image[index : index + 1]
        gray = images.luminance(one) if image.shape[1] == 3 else one
        found[index] = scratch_network.find(gray, detect, finest=finest, threshold=threshold)[0]
    return found
