"""Do tiles show? Each installed whole-photo model in tiles and as a whole; ours beside tiles that are cut, not blended.

    python bench/seams.py [--side 224] [--json FILE]

Needs scikit-image, and the starter extra for x4plus. Prints the largest difference from the untiled result, and the
seam: how much detail the worst column of pixels gains, as a share of the photo's own detail. The peer lays tiles of
half the photo beside each other with ten pixels of context, as RealESRGANer does. Models that are downloads join in
when they are installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import skimage.data
import torch
from _figures import Figure, argument_parser, at_most, report
from _progress import steps

from photokeep_nodes import models, tiled_inference, weights
from photokeep_nodes.ops import tiling

if TYPE_CHECKING:
    from photokeep_nodes.model_spec import ModelSpec

CONTEXT = 10
GOAL_SEAM, GOAL_DIFFERENCE = 0.05, 1.0
ROLES = {"denoise", "deblur", "jpeg", "low_light", "upscale"}


def call(module: torch.nn.Module, spec: ModelSpec, image: torch.Tensor) -> torch.Tensor:
    """Run a network as its stage does, on a photo in [0, 1]."""
    condition = torch.tensor([0.06 if spec.condition == "noise_sigma" else 0.5])
    arguments = (condition,) if spec.condition else ()
    with torch.no_grad():
        out: torch.Tensor = module(image, *arguments)
    return out.clamp(0, 1)


def measured(spec: ModelSpec, side: int) -> list[Figure]:
    """Figures of one model."""
    module = weights.load_module(spec).to(memory_format=torch.channels_last)
    step = spec.multiple_of
    height = -(-max(32, spec.minimum) // step) * step
    tile = tiled_inference.smallest_tile(spec)
    width = -(-max(side, int(1.6 * tile)) // step) * step
    part = skimage.data.astronaut()[60 : 60 + height, 100 : 100 + width]
    image = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float() / 255
    if spec.channels == 1:
        image = image.mean(1, keepdim=True)
    whole = call(module, spec, image)
    tiled = tiling.run_tiled(
        lambda tile_of: call(module, spec, tile_of), image, tile=tile, margin=spec.receptive_field, scale=spec.scale,
        multiple=step, minimum=spec.minimum,
    )  # fmt: skip
    half, context = -(-width // 2 // step) * step, -(-CONTEXT // step) * step
    left = call(module, spec, image[..., : half + context])[..., : half * spec.scale]
    right = call(module, spec, image[..., half - context :])[..., context * spec.scale :]
    cut = torch.cat([left, right], -1)
    figures = []
    for name, result in (("in tiles", tiled), ("cut", cut)):
        difference = (result - whole).abs().max() * 255
        added = (result.diff(dim=3) - whole.diff(dim=3)).abs().mean(dim=(0, 1, 2))
        seam = float(added.max() / whole.diff(dim=3).abs().mean())
        for label, value, unit, goal in (
            ("largest difference", float(difference), "/255", GOAL_DIFFERENCE),
            ("seam", seam, "of detail", GOAL_SEAM),
        ):
            title = f"{spec.id} {name}: {label}"
            figures.append(at_most(title, value, unit, goal) if result is tiled else Figure(title, value, unit))
    return figures


def main() -> None:
    parser = argument_parser("Whether tiles show, for each installed model.")
    parser.add_argument("--side", type=int, default=224, help="width of the strip, at least")
    options = parser.parse_args()
    installed = [
        spec for spec in models.catalogue().values() if spec.role in ROLES and weights.status(spec).state == "installed"
    ]
    figures = [figure for spec in steps(installed, "models") for figure in measured(spec, options.side)]
    report(figures, options.json)


if __name__ == "__main__":
    main()
