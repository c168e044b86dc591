"""What the stages that run a network over a whole photo share: widgets, tiles, and the blend with the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..model_spec import ModelSpec

TILE_WIDGETS: dict[str, Any] = {
    "tile": (
        "INT",
        {
            "default": 0,
            "min": 0,
            "max": 4096,
            "step": 32,
            "tooltip": "Side of a tile in pixels; 0 (auto) takes the largest that fits the free memory, by what earlier"
            " runs of the model took. A tile that would be mostly margin is enlarged to the smallest that is of use.",
        },
    ),
    "overlap": (
        "INT",
        {
            "default": 0,
            "min": 0,
            "max": 512,
            "step": 8,
            "tooltip": "Pixels that neighbouring tiles share; 0 (auto) takes as many as the model makes use of. Fewer"
            " are quicker and may show seams.",
        },
    ),
}
"""Optional widgets of every stage that runs in tiles, in this order."""


def strength_widget(none: str, full: str) -> dict[str, Any]:
    """Widget that says how much of the result is used.

    Args:
        none: what 0 does.
        full: what 1 does.
    """
    options = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": f"0 {none}, 1 {full}."}
    return {"strength": ("FLOAT", options)}


def apply(
    spec: ModelSpec, photo: torch.Tensor, *, tile: int, overlap: int, arguments: tuple[torch.Tensor, ...] = ()
) -> torch.Tensor:
    """Run a model over (B, 3, H, W) as the tile widgets say; see ``tiled_inference``."""
    from .. import tiled_inference

    return tiled_inference.apply_tiled(spec, photo, tile=tile, overlap=overlap, arguments=arguments)


def restore_each(
    image: torch.Tensor,
    chosen: Sequence[bool],
    strength: float,
    restore: Callable[[torch.Tensor, int], torch.Tensor],
) -> torch.Tensor:
    """Restore the chosen photos of a batch, each by itself; the others keep their pixels.

    Args:
        image: (B, H, W, C) in [0, 1].
        chosen: for each photo, whether it is restored.
        strength: 0 = the photo, 1 = the result.
        restore: takes a photo (1, 3, H, W) and its place in the batch.
    Returns:
        (B, H, W, 3); ``image`` itself where nothing is to be done.
    """
    import torch

    from .. import images

    if strength == 0.0 or not any(chosen):
        return image
    photos = list(torch.split(images.to_bchw(image), 1))
    for index, photo in enumerate(photos):
        if chosen[index]:
            photos[index] = photo + strength * (restore(photo, index) - photo)
    return images.to_bhwc(torch.cat(photos))
