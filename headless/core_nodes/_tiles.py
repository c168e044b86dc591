"""Run an upscale network over a photo in the tiles that the host lays, so that seams come out as they do there.

Tiles of 512 pixels overlap by 32, fade linearly over the overlap on all four sides and are divided by the sum of their
weights; our own stages have tiles that fit the network (``photokeep_nodes.ops.tiling``).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES = (512, 256, 128)
"""Sides of tiles to try; the smaller ones where memory runs out."""

_OVERLAP = 32


def count(height: int, width: int, tile: int) -> int:
    """How many tiles a photo has."""
    return len(_starts(height, tile)) * len(_starts(width, tile))


def _starts(length: int, tile: int) -> range:
    return range(0, length - _OVERLAP, tile - _OVERLAP) if length > tile else range(1)


def upscaled(
    image: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor], tile: int, scale: int
) -> torch.Tensor:
    """Enlarge one photo.

    Args:
        image: (1, 3, H, W).
        network: takes a tile (1, 3, h, w) to (1, 3, h * scale, w * scale) on the CPU.
        tile: side, in pixels.
        scale: output side over input side.
    Returns:
        (1, 3, H * scale, W * scale).
    """
    height, width = image.shape[-2:]
    if height <= tile and width <= tile:
        return network(image)
    total = torch.zeros(1, 3, height * scale, width * scale)
    weight = torch.zeros(1, 1, height * scale, width * scale)
    for top, left in product(_starts(height, tile), _starts(width, tile)):
        part = network(image[..., top : top + tile, left : left + tile])
        fade = _fade(part.shape[-2], part.shape[-1], _OVERLAP * scale)
        rows = slice(top * scale, top * scale + part.shape[-2])
        columns = slice(left * scale, left * scale + part.shape[-1])
        total[..., rows, columns] += part * fade
        weight[..., rows, columns] += fade
    return total.div_(weight)


def _fade(height: int, width: int, overlap: int) -> torch.Tensor:
    """(height, width) weights of a tile: a ramp from each side, multiplied in the order that rounds as the host's."""
    near_y, far_y = _ramps(height, overlap)
    near_x, far_x = _ramps(width, overlap)
    return (near_y * far_y)[:, None] * near_x * far_x


def _ramps(length: int, overlap: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight by the distance from the nearer end, and from the other one."""
    if overlap >= length:  # a sliver at the edge, all of it shared with its neighbour, does not fade
        return torch.ones(length), torch.ones(length)
    places = torch.arange(length, dtype=torch.float64)
    near = torch.minimum(places, length - 1 - places)

    def ramp(distance: torch.Tensor) -> torch.Tensor:
        return ((distance + 1) / overlap).clamp_(max=1.0).float()

    return ramp(near), ramp(length - 1 - near)


def padded(image: torch.Tensor, minimum: int, multiple: int) -> torch.Tensor:
    """The tile grown at its right and lower edges to a size that a network takes: mirrored, then repeated."""
    sides = [max(minimum, -(-each // multiple) * multiple) for each in image.shape[-2:]]
    missing = [side - each for side, each in zip(sides, image.shape[-2:], strict=True)]
    if any(missing):
        mirrored = [min(more, each - 1) for more, each in zip(missing, image.shape[-2:], strict=True)]
        image = functional.pad(image, (0, mirrored[1], 0, mirrored[0]), mode="reflect")
        rest = [more - done for more, done in zip(missing, mirrored, strict=True)]
        image = functional.pad(image, (0, rest[1], 0, rest[0]), mode="replicate")
    return image
