"""Does Restore Colors bring faded photos nearer to what they were, and does it leave the others alone?

    python bench/restore_colors.py [--side 384] [--json FILE]

Needs scikit-image. Photos with known colours are faded by the density model of dyes (each of the three layers keeps a
share of its density, and the paper gains some), and stored in 8 or 16 bits. Printed is the mean CIE76 difference from
the original, before and after, beside peers: gray world, each channel stretched (Pillow's autocontrast, which is
ImageMagick's -channel RGB -normalize), equalised lightness (OpenCV), and adaptive equalisation (scikit-image).
The microscope slide has colours that fading would explain as well; it shows what cannot be told apart.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import skimage.data
import skimage.exposure
import torch
from _figures import Figure, argument_parser, at_most, report
from _progress import steps
from PIL import Image, ImageOps

from photokeep_nodes.ops import colour, restore_colours

if TYPE_CHECKING:
    from collections.abc import Callable

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "retina")
HARD = "immunohistochemistry"
FADES = {
    "cyan faded": ((0.50, 0.75, 0.70), (0.00, 0.02, 0.06)),
    "magenta faded": ((0.70, 0.50, 0.65), (0.03, 0.02, 0.12)),
    "yellow faded": ((0.80, 0.70, 0.45), (0.02, 0.04, 0.10)),
    "evenly faded": ((0.60, 0.60, 0.60), (0.05, 0.06, 0.10)),
    "badly faded": ((0.35, 0.55, 0.50), (0.02, 0.06, 0.14)),
}
"""Share of its density that each of red, green and blue keeps, and density that it gains."""
DARKEST = 2.2  # density of the deepest black of a print
GOAL_CLEAN, GOAL_LEFT = 1.0, 0.5


@cache
def photo(name: str, side: int) -> torch.Tensor:
    """A photo of scikit-image, (1, 3, H, W), its longer side at most ``side``."""
    image = torch.from_numpy(getattr(skimage.data, name)().copy()).float().permute(2, 0, 1)[None] / 255
    scale = min(1.0, side / max(image.shape[-2:]))
    return colour.resize(image, (round(image.shape[-2] * scale), round(image.shape[-1] * scale))).clamp(0, 1)


def faded(image: torch.Tensor, fade: str, bits: int) -> torch.Tensor:
    """The photo as an old print of it would be scanned."""
    scale, stain = (torch.tensor(values).view(1, 3, 1, 1) for values in FADES[fade])
    density = -colour.srgb_to_linear(image).clamp(min=10**-DARKEST).log10()
    levels = 2**bits - 1
    return (colour.linear_to_srgb(10 ** -(density * scale + stain)).clamp(0, 1) * levels).round() / levels


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean CIE76 colour difference."""
    return float((colour.srgb_to_lab(one) - colour.srgb_to_lab(other)).norm(dim=1).mean())


def gray_world(image: torch.Tensor) -> torch.Tensor:
    """Scale linear light so that the three means are one (Buchsbaum 1980)."""
    linear = colour.srgb_to_linear(image)
    means = linear.mean((-2, -1), keepdim=True)
    return colour.linear_to_srgb(linear * means.mean(1, keepdim=True) / means).clamp(0, 1)


def autocontrast(image: torch.Tensor) -> torch.Tensor:
    return from_8_bits(np.array(ImageOps.autocontrast(Image.fromarray(in_8_bits(image)), cutoff=0.5)))


def equalise(image: torch.Tensor) -> torch.Tensor:
    lab = cv2.cvtColor(in_8_bits(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.equalizeHist(lab[..., 0])
    return from_8_bits(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def adaptive(image: torch.Tensor) -> torch.Tensor:
    return from_8_bits(skimage.exposure.equalize_adapthist(image[0].permute(1, 2, 0).numpy()) * 255)


def in_8_bits(image: torch.Tensor) -> np.ndarray:
    return (image[0].permute(1, 2, 0) * 255).round().byte().contiguous().numpy()


def from_8_bits(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32)).permute(2, 0, 1)[None].clamp(0, 255) / 255


PEERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gray world": gray_world,
    "autocontrast": autocontrast,
    "equalised": equalise,
    "adaptive": adaptive,
}


def of_fade(fade: str, side: int) -> list[Figure]:
    """Means over the photos for one kind of fading."""
    figures = []
    originals = [photo(name, side) for name in PHOTOS]
    scans = {bits: [faded(image, fade, bits) for image in originals] for bits in (8, 16)}

    def mean(method: Callable[[torch.Tensor], torch.Tensor], bits: int) -> float:
        return float(np.mean([difference(method(s), o) for s, o in zip(scans[bits], originals, strict=True)]))

    before = mean(lambda scan: scan, 16)
    figures.append(Figure(f"{fade}: as scanned", before, "delta E"))
    for bits in (16, 8):
        title = f"{fade}: restored, {bits} bits"
        figures.append(at_most(title, mean(restore_colours.restore_colours, bits), "delta E", GOAL_LEFT * before))
    figures += [Figure(f"{fade}: {name}", mean(peer, 16), "delta E") for name, peer in PEERS.items()]
    return figures


def of_clean(name: str, side: int) -> list[Figure]:
    """What becomes of a photo that has not faded."""
    image = photo(name, side)
    changed = difference(restore_colours.restore_colours(image), image)
    title = f"not faded, {name}"
    ours = Figure(title, changed, "delta E") if name == HARD else at_most(title, changed, "delta E", GOAL_CLEAN)
    return [
        ours,
        *(Figure(f"{title}: {peer}", difference(call(image), image), "delta E") for peer, call in PEERS.items()),
    ]


def main() -> None:
    parser = argument_parser("Whether faded photos get nearer to what they were.")
    parser.add_argument("--side", type=int, default=384, help="longer side of the photos")
    options = parser.parse_args()
    figures = [figure for name in steps((*PHOTOS, HARD), "photos") for figure in of_clean(name, options.side)]
    figures += [figure for fade in steps(FADES, "fades") for figure in of_fade(fade, options.side)]
    report(figures, options.json)


if __name__ == "__main__":
    main()
