"""Run a model over a photo of any size: which tiles, how many at once, and what becomes of their results.

``inference`` finds the device and the memory, ``ops.tiling`` lays the tiles and blends them; here is what lies between.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from . import host, images, inference, layer_progress
from .errors import NodeInputError
from .ops import tiling, tint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model_spec import ModelSpec

_LARGEST_TILE = 1024  # beyond this a tile gains nothing and a cancelled run waits for longer
_SMALLEST_TILE = 64
_PIXELS_PER_CALL = 512 * 512  # a GPU has enough to do with these, and a cancelled run does not wait for longer


class _NotFiniteError(Exception):
    """A tile's result holds values that are not numbers; never leaves this module.

    Args:
        computed_in: what the network computed in.
    """

    def __init__(self, computed_in: torch.dtype) -> None:
        super().__init__()
        self.computed_in = computed_in


def smallest_tile(spec: ModelSpec, margin: int | None = None) -> int:
    """Side of the smallest tile the model is run in, in pixels; of smaller ones more than three quarters is margin."""
    margin = spec.receptive_field if margin is None else margin
    least = tiling.smallest_tile(margin, spec.multiple_of)
    side = max(_SMALLEST_TILE, 4 * margin, least)
    return -(-side // spec.multiple_of) * spec.multiple_of


def auto_tile(spec: ModelSpec, height: int, width: int, margin: int | None = None) -> int:
    """Largest tile side whose working memory fits the device, no larger than the photo needs or is good for the model.

    Args:
        spec: gives what is known of its memory, the margin and the best side.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
        margin: see ``ops.tiling``; None means the model's receptive field.
    """
    device = host.compute_device()
    free = inference.free_bytes(spec, device)
    smallest = smallest_tile(spec, margin)
    largest = min(spec.best_tile or _LARGEST_TILE, max(height, width))
    sides = range(smallest, largest + 1)
    # What was learnt need not grow evenly with the side; even then the side found is one that fits.
    fitting = bisect.bisect_right(
        sides, free, key=lambda side: inference.working_bytes(spec, side, side, device=device)
    )
    return sides[fitting - 1] if fitting else smallest


def apply_tiled(
    spec: ModelSpec,
    image: torch.Tensor,
    *,
    tile: int = 0,
    overlap: int = 0,
    scale: int | None = None,
    arguments: tuple[torch.Tensor, ...] = (),
) -> torch.Tensor:
    """Run a whole-image model over a photo of any size.

    Out of memory, and a tile that the pool cannot lend memory for, is answered by giving up what is only kept for
    later, with tiles of half the side down to ``smallest_tile``, on another accelerator, and on the CPU; a result in
    half precision that is not finite with a second run in float32. A black-and-white photo stays one, see `ops.tint`.
    A network for black-and-white photos is given a colour photo's luminance, and the photo keeps its colours.

    Args:
        spec: the model.
        image: (B, 3, H, W) float32 in [0, 1].
        tile: side of a tile in pixels, raised to ``smallest_tile``; 0 chooses it from the free memory.
        overlap: pixels that neighbouring tiles share; 0 means as many as the model's receptive field asks for.
        scale: output side over input side, at most the model's own, which None means. Less is resampled tile by tile,
            so that the model's whole result is never held.
        arguments: what the network takes after the image, the same for each tile.
    Returns:
        (B, C, H * scale, W * scale) float32 on the CPU, not clamped, laid out channels last.
    Raises:
        WeightsError: see ``inference.run``.
        VramExhaustedError: not even the smallest tile fits anywhere.
        NodeInputError: the photo or the result holds values that are not numbers.
    """
    if spec.channels == 1 and image.shape[1] == 3:
        return _keeping_colours(spec, image, tile=tile, overlap=overlap, scale=scale, arguments=arguments)
    margin = tiling.margin_of(overlap, spec.multiple_of) if overlap else spec.receptive_field
    tiles = _tile_ladder(spec, tile, image, margin)
    bar = host.Progress(1, "tiles")
    result = _run(_Job(spec, image, arguments, margin, spec.scale if scale is None else scale, tiles[0], bar), tiles)
    return tint.keep_own_tint(image, result) if image.shape[1] == result.shape[1] == 3 else result


def apply_to_part(spec: ModelSpec, image: torch.Tensor) -> torch.Tensor:
    """Run a model over a part of a photo as a whole, if it fits in memory.

    As ``apply_tiled``, but nothing is judged by what the photo as a whole looks like, and nothing shown of how far it
    is: that is up to whoever has cut it.

    Args:
        spec: the model.
        image: (B, 3, H, W) float32 in [0, 1].
    """
    tiles = _tile_ladder(spec, max(image.shape[-2:]), image, spec.receptive_field)
    return _run(_Job(spec, image, (), spec.receptive_field, spec.scale, tiles[0], None), tiles)


def _run(job: _Job, tiles: Sequence[int]) -> torch.Tensor:
    """Run a photo's tiles, once more in float32 where half precision gave values that are not numbers."""
    dtype: torch.dtype | None = None
    while True:
        try:
            return inference.run_on_ladder(job.spec, job.attempt, tiles, job.size_of, dtype)
        except _NotFiniteError as error:
            if error.computed_in == torch.float32:
                raise _not_finite(job.spec, job.image) from None
            dtype = torch.float32


@dataclass(frozen=True)
class _Job:
    """One photo's way through a model."""

    spec: ModelSpec
    image: torch.Tensor
    arguments: tuple[torch.Tensor, ...]
    margin: int
    scale: int
    first_tile: int
    bar: host.Progress | None

    def size_of(self, tile: int) -> tuple[int, int]:
        """Height and width of what the network is given at once."""
        height, width = self.image.shape[-2:]
        return min(tile, height), min(tile, width)

    def attempt(self, network: inference.Network, tile: int) -> torch.Tensor:
        """Run the whole photo in tiles of this side."""
        if self.bar is None:
            return self._in_tiles(network, tile, None)
        with layer_progress.Meter(self.bar, network.module) as meter:
            return self._in_tiles(network, tile, meter.after_tile)

    def _in_tiles(self, network: inference.Network, tile: int, progress: tiling.TileProgress | None) -> torch.Tensor:
        return tiling.run_tiled(
            lambda parts: self._checked(network, parts),
            self.image,
            tile=tile,
            margin=self.margin,
            scale=self.scale,
            multiple=self.spec.multiple_of,
            minimum=self.spec.minimum,
            per_call=self._tiles_per_call(network, tile),
            progress=progress,
        )

    def _checked(self, network: inference.Network, parts: torch.Tensor) -> torch.Tensor:
        arguments = (each.expand(len(parts)) if each.shape == (1,) else each for each in self.arguments)
        result = network(parts.clamp(*self.spec.value_range), *arguments)
        # Tile by tile: a mask of the whole result would take a quarter of its memory once more.
        if not bool(torch.isfinite(result).all()):
            raise _NotFiniteError(network.dtype)
        if self.scale != self.spec.scale:
            size = [side * self.scale for side in parts.shape[-2:]]
            result = functional.interpolate(result, size=size, mode="bicubic", antialias=True, align_corners=False)
        return result

    def _tiles_per_call(self, network: inference.Network, tile: int) -> int:
        """How many tiles go to the network at once: small ones keep a GPU waiting for its orders.

        One on a CPU, which gains nothing (bench/vs_reference.py), and one after running out of memory.
        """
        if network.device.type == "cpu" or tile != self.first_tile:
            return 1
        height, width = self.size_of(tile)
        each = inference.working_bytes(self.spec, height, width, device=network.device, dtype=network.dtype)
        fitting = int(inference.free_bytes(self.spec, network.device)) // max(1, each)
        return max(1, min(fitting, _PIXELS_PER_CALL // (height * width)))


def _keeping_colours(
    spec: ModelSpec,
    image: torch.Tensor,
    *,
    tile: int,
    overlap: int,
    scale: int | None,
    arguments: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    gray = images.luminance(image)
    restored = apply_tiled(spec, gray, tile=tile, overlap=overlap, scale=scale, arguments=arguments)
    colours = image - gray
    if restored.shape[-2:] != image.shape[-2:]:
        size = list(restored.shape[-2:])
        colours = functional.interpolate(colours, size=size, mode="bicubic", align_corners=False)
    return restored + colours


def _tile_ladder(spec: ModelSpec, tile: int, image: torch.Tensor, margin: int) -> list[int]:
    """Sides to try, largest first; a photo smaller than a tile gains nothing from half of that tile."""
    height, width = image.shape[-2:]
    smallest = smallest_tile(spec, margin)
    sides = [max(tile, smallest) if tile else auto_tile(spec, height, width, margin)]
    while (whole := min(sides[-1], max(height, width))) > smallest:
        sides.append(max(smallest, whole // 2))
    return sides


def _not_finite(spec: ModelSpec, image: torch.Tensor) -> NodeInputError:
    if not bool(torch.isfinite(image).all()):
        return NodeInputError(
            "the photo holds values that are not numbers", hint="Look at the node that this image comes from."
        )
    return NodeInputError(
        f"{spec.title} returned values that are not numbers", hint="Its weights do not suit this photo."
    )
