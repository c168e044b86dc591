"""Run a network over a photo in overlapping tiles whose seams cannot be seen.

Every tile has the same shape. Neighbours overlap by at least two margins plus a ramp: within ``margin`` of an inner
edge a tile lacks context and is not used; where several tiles can be used they are blended, each weighted by the
distance to the end of its usable part, in proportion, so that the weights add up to one wherever the tiles lie. With
``margin`` at the network's (effective) receptive field the result equals the untiled one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..errors import NodeInputError

Network = Callable[[torch.Tensor], torch.Tensor]
"""(N, C, h, w) to (N, C', h * scale, w * scale); N is 1 unless ``run_tiled`` is told otherwise."""

TileProgress = Callable[[int, int], None]
"""Takes (tiles done, tiles in all); may raise to stop."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Attributes:
        start: first pixel of the tile, in input pixels.
        weights: (tile * scale,) blending weight of each of its output pixels; over all spans they add up to one
            everywhere.
    """

    start: int
    weights: torch.Tensor


def smallest_tile(margin: int, multiple: int = 1) -> int:
    """Side of the smallest tile that has room for its margins, in pixels, where a photo needs more than one."""
    return _round_up(2 * margin + _ramp(margin) + multiple, multiple)


def margin_of(overlap: int, multiple: int = 1) -> int:
    """Largest margin with which neighbouring tiles share no more than ``overlap`` pixels."""
    margin = overlap // 2
    while margin > 0 and _overlap(margin, multiple) > overlap:
        margin -= 1
    return margin


def _overlap(margin: int, multiple: int) -> int:
    return _round_up(2 * margin + _ramp(margin), multiple)


def even_tile(length: int, tile: int, margin: int, multiple: int = 1) -> int:
    """Side of the smallest tile that covers ``length`` with no more tiles than ``tile`` does.

    An axis a little longer than a tile is then cut in two halves, not in two whole tiles that compute most of it twice.
    """
    overlap = _overlap(margin, multiple)
    if length <= tile or tile <= overlap:
        return tile
    count = math.ceil((length - tile) / (tile - overlap)) + 1
    return _round_up(math.ceil((length + (count - 1) * overlap) / count), multiple)


def _ramp(margin: int) -> int:
    return max(2, margin // 2)


def spans(length: int, tile: int, margin: int, multiple: int = 1, scale: int = 1) -> list[Span]:
    """Lay tiles along one axis, evenly, as few as cover it.

    Args:
        length: pixels to cover, at least ``tile``; it and ``tile`` are multiples of ``multiple``.
        tile: pixels of a tile.
        margin: pixels at an inner tile edge that are not used.
        multiple: every start is a multiple of this.
        scale: output pixels per input pixel.
    Raises:
        NodeInputError: the tile has no room for its margins.
    """
    if length <= tile:
        return [Span(0, torch.ones(tile * scale))]
    # Counted in multiples, so that rounding cannot part two tiles further than the overlap allows.
    step = (tile - 2 * margin - _ramp(margin)) // multiple
    if step < 1:
        raise NodeInputError(
            f"a tile of {tile} px has no room for margins of {margin} px",
            hint=f"Use tiles of at least {smallest_tile(margin, multiple)} px.",
        )
    last = (length - tile) // multiple
    count = math.ceil(last / step) + 1
    starts = [i * last // (count - 1) * multiple for i in range(count)]
    reach = [_reach(tile, margin, scale, first=i == 0, last=i == count - 1) for i in range(count)]
    total = torch.zeros(length * scale, dtype=torch.float64)
    for start, weight in zip(starts, reach, strict=True):
        total[start * scale : (start + tile) * scale] += weight
    return [
        Span(start, (weight / total[start * scale : (start + tile) * scale]).float())
        for start, weight in zip(starts, reach, strict=True)
    ]


def _reach(tile: int, margin: int, scale: int, *, first: bool, last: bool) -> torch.Tensor:
    """Distance of each output pixel's centre to the nearer end of the tile's usable part; 0 in the margins.

    The outer edge of the first and the last tile is no end: there is nothing beyond it to blend with.
    """
    centre = (torch.arange(tile * scale, dtype=torch.float64) + 0.5) / scale
    ahead, behind = centre - margin, tile - margin - centre
    return (behind if first else ahead if last else torch.minimum(ahead, behind)).clamp(min=0.0)


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
    per_call: int = 1,
    progress: TileProgress | None = None,
) -> torch.Tensor:
    """Apply ``network`` to ``image`` tile by tile.

    Args:
        network: takes and returns tiles; where it computes is its own affair.
        image: (B, C, H, W).
        tile: side of a tile in pixels, rounded up to ``multiple``; less where as many smaller ones cover the photo.
        margin: see the module's docstring.
        scale: output side over input side.
        multiple: the network's input sides, and the tiles' offsets, are multiples of this.
        minimum: smallest input side the network takes.
        per_call: most tiles the network is given at once.
        progress: told at the start and after each call.
    Returns:
        (B, C', H * scale, W * scale) float32 on the CPU, laid out channels last: as an IMAGE it needs no copy. It and
        one call's tiles are all the memory this takes beside the photo.
    Raises:
        NodeInputError: the tile is too small for the margin.
    """
    batch, _, height, width = image.shape
    tile_h = _round_up(max(minimum, min(tile, height)), multiple)
    tile_w = _round_up(max(minimum, min(tile, width)), multiple)
    padded = pad_to(image, max(tile_h, _round_up(height, multiple)), max(tile_w, _round_up(width, multiple)))
    tile_h = max(even_tile(padded.shape[2], tile_h, margin, multiple), _round_up(minimum, multiple))
    tile_w = max(even_tile(padded.shape[3], tile_w, margin, multiple), _round_up(minimum, multiple))
    rows = spans(padded.shape[2], tile_h, margin, multiple, scale)
    columns = spans(padded.shape[3], tile_w, margin, multiple, scale)
    places = [(index, row, column) for index in range(batch) for row in rows for column in columns]
    output: torch.Tensor | None = None
    if progress is not None:
        progress(0, len(places))
    for first in range(0, len(places), per_call):
        group = places[first : first + per_call]
        parts = [padded[i, :, r.start : r.start + tile_h, c.start : c.start + tile_w] for i, r, c in group]
        result = network(torch.stack(parts)).float().cpu()
        _check_shape(result, tile_h * scale, tile_w * scale)
        if output is None:
            # Of the photo's own size: what was padded is not kept.
            shape = (batch, result.shape[1], height * scale, width * scale)
            output = torch.zeros(shape).contiguous(memory_format=torch.channels_last)
        for (index, row, column), one in zip(group, result, strict=True):
            _blend(output[index], one, row, column, scale)
        if progress is not None:
            progress(first + len(group), len(places))
    if output is None:
        raise NodeInputError("the batch holds no image")
    return output


def _check_shape(result: torch.Tensor, height: int, width: int) -> None:
    if result.shape[-2:] != (height, width):
        raise NodeInputError(f"the network returned {tuple(result.shape[-2:])} pixels where {(height, width)} were due")


def _blend(output: torch.Tensor, result: torch.Tensor, row: Span, column: Span, scale: int) -> None:
    top, left = row.start * scale, column.start * scale
    height, width = min(result.shape[1], output.shape[1] - top), min(result.shape[2], output.shape[2] - left)
    part = result[:, :height, :width] * row.weights[:height, None]
    part *= column.weights[:width]
    output[:, top : top + height, left : left + width] += part
