"""Run a network over a photo in overlapping tiles whose seams cannot be seen.

Every tile has the same shape. Neighbours overlap by two margins plus a ramp: within ``margin`` of its edge a tile lacks
context and is not used, across the ramp the two are blended with weights that add up to one. With ``margin`` at the
network's (effective) receptive field the result equals the untiled one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..errors import NodeInputError

Network = Callable[[torch.Tensor], torch.Tensor]
"""(1, C, h, w) to (1, C', h * scale, w * scale)."""

TileProgress = Callable[[int, int], None]
"""Takes (tiles done, tiles in all); may raise to stop."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in input pixels.

    Attributes:
        start: first pixel of the tile.
        weights: (tile,) blending weight of each of its pixels; over all spans they add up to one everywhere.
    """

    start: int
    weights: torch.Tensor


def spans(length: int, tile: int, margin: int, multiple: int = 1) -> list[Span]:
    """Lay tiles along one axis.

    Args:
        length: pixels to cover; at least ``tile``.
        tile: pixels of a tile.
        margin: pixels at an inner tile edge that are not used.
        multiple: every start is a multiple of this.
    Raises:
        NodeInputError: the tile has no room for its margins.
    """
    if length <= tile:
        return [Span(0, torch.ones(tile))]
    ramp = max(2, margin // 2)
    step = tile - 2 * margin - ramp
    if step < multiple:
        raise NodeInputError(
            f"a tile of {tile} px has no room for margins of {margin} px",
            hint=f"Use tiles of at least {2 * margin + ramp + multiple} px.",
        )
    count = math.ceil((length - tile) / step) + 1
    last = length - tile
    starts = [min(last, round(i * last / (count - 1)) // multiple * multiple) for i in range(count)]
    starts[-1] = last
    result = []
    for i, start in enumerate(starts):
        weights = torch.ones(tile)
        if i > 0:
            weights *= _ramp_up(tile, margin, starts[i - 1] + tile - start)
        if i + 1 < count:
            # The mirror image of the next tile's ramp, so that the two add up to one.
            overlap = start + tile - starts[i + 1]
            weights[tile - overlap :] *= 1.0 - _ramp_up(tile, margin, overlap)[:overlap]
        result.append(Span(start, weights))
    return result


def _ramp_up(tile: int, margin: int, overlap: int) -> torch.Tensor:
    """0 over the margin, then a straight rise until ``overlap - margin``, then 1."""
    position = torch.arange(tile) + 0.5
    return ((position - margin) / (overlap - 2 * margin)).clamp(0.0, 1.0)


def pad_to(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pad (B, C, H, W) at the bottom and right: reflected as far as the photo reaches, then replicated.

    Reflection alone fails when the pad is as long as the side.
    """
    for axis_pad, side, target in (((0, 0, 0, 1), image.shape[2], height), ((0, 1, 0, 0), image.shape[3], width)):
        reflect = min(target - side, side - 1)
        if reflect > 0:
            image = functional.pad(image, tuple(p * reflect for p in axis_pad), mode="reflect")
        replicate = target - side - max(0, reflect)
        if replicate > 0:
            image = functional.pad(image, tuple(p * replicate for p in axis_pad), mode="replicate")
    return image


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def run_tiled(
    network: Network,
    image: torch.Tensor,
    *,
    tile: int,
    margin: int,
    scale: int = 1,
    multiple: int = 1,
    minimum: int = 1,
    progress: TileProgress | None = None,
) -> torch.Tensor:
    """Apply ``network`` to ``image`` tile by tile.

    Args:
        network: takes and returns one tile; where it computes is its own affair.
        image: (B, C, H, W).
        tile: side of a tile in pixels; rounded up to ``multiple``.
        margin: see the module's docstring.
        scale: output side over input side.
        multiple: the network's input sides, and the tiles' offsets, are multiples of this.
        minimum: smallest input side the network takes.
        progress: told at the start and after each tile.
    Returns:
        (B, C', H * scale, W * scale) float32 on the CPU.
    Raises:
        NodeInputError: the tile is too small for the margin.
    """
    batch, _, height, width = image.shape
    tile_h = _round_up(max(minimum, min(tile, height)), multiple)
    tile_w = _round_up(max(minimum, min(tile, width)), multiple)
    padded = pad_to(image, max(tile_h, _round_up(height, multiple)), max(tile_w, _round_up(width, multiple)))
    rows = spans(padded.shape[2], tile_h, margin, multiple)
    columns = spans(padded.shape[3], tile_w, margin, multiple)
    total = batch * len(rows) * len(columns)
    done = 0
    output: torch.Tensor | None = None
    if progress is not None:
        progress(0, total)
    for index in range(batch):
        for row in rows:
            for column in columns:
                part = padded[
                    index : index + 1, :, row.start : row.start + tile_h, column.start : column.start + tile_w
                ]
                result = network(part).float().cpu()
                _check_shape(result, tile_h * scale, tile_w * scale)
                if total == 1:
                    output = result
                else:
                    if output is None:
                        shape = (batch, result.shape[1], padded.shape[2] * scale, padded.shape[3] * scale)
                        output = torch.zeros(shape)
                    _blend(output[index], result[0], row, column, scale)
                done += 1
                if progress is not None:
                    progress(done, total)
    if output is None:
        raise NodeInputError("the batch holds no image")
    return output[:, :, : height * scale, : width * scale]


def _check_shape(result: torch.Tensor, height: int, width: int) -> None:
    if result.shape[-2:] != (height, width):
        raise NodeInputError(f"the network returned {tuple(result.shape[-2:])} pixels where {(height, width)} were due")


def _blend(output: torch.Tensor, result: torch.Tensor, row: Span, column: Span, scale: int) -> None:
    weight = _stretch(row.weights, scale)[:, None] * _stretch(column.weights, scale)[None, :]
    top, left = row.start * scale, column.start * scale
    output[:, top : top + result.shape[1], left : left + result.shape[2]] += result * weight


def _stretch(weights: torch.Tensor, scale: int) -> torch.Tensor:
    # Repeating, unlike interpolating, keeps the sum of neighbouring weights at exactly one.
    return weights.repeat_interleave(scale)
