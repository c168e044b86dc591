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
from .ops import colour, tiling

if TYPE_CHECKING:
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
    half precision that is not finite with a second run in float32. A black-and-white photo stays one: trained on
    colour, the networks would tint it, by up to 35 of 255 steps where it is noisy. A network for black-and-white photos
    is given a colour photo's luminance, and the photo keeps its colours.

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
    height, width = image.shape[-2:]
    margin = tiling.margin_of(overlap, spec.multiple_of) if overlap else spec.receptive_field
    tiles = _tile_ladder(spec, tile, height, width, margin)
    bar = host.Progress(1, "tiles")
    job = _Job(spec, image, arguments, margin, spec.scale if scale is None else scale, tiles[0], bar)
    dtype: torch.dtype | None = None
    while True:
        try:
            return _without_tint(image, inference.run_on_ladder(spec, job.attempt, tiles, job.size_of, dtype))
        except _NotFiniteError as error:
            if error.computed_in == torch.float32:
                raise _not_finite(spec, image) from None
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
    bar: host.Progress

    def size_of(self, tile: int) -> tuple[int, int]:
        """Height and width of what the network is given at once."""
        height, width = self.image.shape[-2:]
        return min(tile, height), min(tile, width)

    def attempt(self, network: inference.Network, tile: int) -> torch.Tensor:
        """Run the whole photo in tiles of this side."""
        spec = self.spec

        def call(parts: torch.Tensor) -> torch.Tensor:
            return self._checked(network, parts)

        with layer_progress.Meter(self.bar, network.module) as meter:
            return tiling.run_tiled(
                call,
                self.image,
                tile=tile,
                margin=self.margin,
                scale=self.scale,
                multiple=spec.multiple_of,
                minimum=spec.minimum,
                per_call=self._tiles_per_call(network, tile),
                progress=meter.after_tile,
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


def _tile_ladder(spec: ModelSpec, tile: int, height: int, width: int, margin: int) -> list[int]:
    """Sides to try, largest first; a photo smaller than a tile gains nothing from half of that tile."""
    smallest = smallest_tile(spec, margin)
    sides = [max(tile, smallest) if tile else auto_tile(spec, height, width, margin)]
    while (whole := min(sides[-1], max(height, width))) > smallest:
        sides.append(max(smallest, whole // 2))
    return sides


def _without_tint(image: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    if image.shape[1] == result.shape[1] == 3:
        for index, tone in enumerate(colour.tones(image)):
            if tone == "gray":
                result[index] = images.luminance(result[index : index + 1])[0]
    return result


def _not_finite(spec: ModelSpec, image: torch.Tensor) -> NodeInputError:
    if not bool(torch.isfinite(image).all()):
        return NodeInputError(
            "the photo holds values that are not numbers", hint="Look at the node that this image comes from."
        )
    return NodeInputError(
        f"{spec.title} returned values that are not numbers", hint="Its weights do not suit this photo."
    )
