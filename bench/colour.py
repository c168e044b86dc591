"""How much colour runs over edges when a small prediction is laid over a large photo, and whether lightness stays.

    python bench/colour.py [--shrink 4 8] [--json FILE]

Needs scikit-image; takes some two minutes. Photos whose colours are known are made gray, in 8 bits, and coloured from
their own ab, made as small against them as networks are against scans (12 MP over 512 px is 8): once exactly, once
blurred by a pixel, since networks draw softly. So what is measured is the enlarging, not any network. Beside ours: the
nearest pixel, which is what DDColor's own pipeline takes; bilinear, which is siggraph17's; and the guided filter over
bilinear, once with our window and eps, once with those of twelve that give it the least error on these very photos.
Error is the root mean square distance in ab; "at edges", of pixels within one of the prediction's of the 5 % that have
the steepest true colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import skimage.data
import torch
import torch.nn.functional as F  # noqa: N812
from _figures import Figure, argument_parser, at_most, report
from _progress import steps

from photokeep_nodes.ops import colour, colourise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
EDGES = 0.05
WINDOWS, EPS = (
    (0.5, 1.0, 2.0, 4.0),
    (1e-4, 1e-3, 1e-2),
)  # of the guided filter: in pixels of the prediction, of (L/100)²
OUR_EPS = 3e-3
KINDS = {"exact": 0, "soft": 1}  # and how often they are blurred


def photo(name: str) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    pixels = torch.from_numpy(getattr(skimage.data, name)())
    return pixels.permute(2, 0, 1)[None].float() / 255  # HWC -> BCHW


def eight_bits(image: torch.Tensor) -> torch.Tensor:
    """As it is saved."""
    return (image.clamp(0, 1) * 255).round() / 255


def gray(lightness: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) sRGB of CIE L (1, 1, H, W)."""
    return colour.lab_to_srgb(torch.cat((lightness, 0 * lightness, 0 * lightness), 1))


def predicted(ab: torch.Tensor, side: int, blurs: int) -> torch.Tensor:
    """The true colours as a network of ``side`` px could know them: (1, 2, side, side)."""
    small = colour.resize(ab, (side, side))
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # one pixel of standard deviation
    kernel = (kernel[:, None] * kernel).expand(2, 1, 5, 5)
    for _ in range(blurs):
        small = F.conv2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), kernel, groups=2)
    return small


def guided(ab: torch.Tensor, lightness: torch.Tensor, radius: int, eps: float) -> torch.Tensor:
    """The guided filter: He, Sun, Tang 2013, eq. 5 to 8."""
    guide = lightness / 100
    slope = colour.local_slope(guide, ab, radius=radius, eps=eps)
    offset = colour.box_mean(ab, radius) - slope * colour.box_mean(guide, radius)
    return colour.box_mean(slope, radius) * guide + colour.box_mean(offset, radius)


def edges(ab: torch.Tensor, reach: int) -> torch.Tensor:
    """Which pixels lie near a steep change of the true colours: (1, 1, H, W)."""
    across = F.pad(ab[..., :, 2:] - ab[..., :, :-2], (1, 1, 0, 0))
    down = F.pad(ab[..., 2:, :] - ab[..., :-2, :], (0, 0, 1, 1))
    steep = (across.square() + down.square()).sum(1, keepdim=True)
    strong = steep >= steep.flatten().kthvalue(round((1 - EDGES) * steep.numel())).values
    return F.max_pool2d(strong.float(), 2 * reach + 1, stride=1, padding=reach) > 0


@dataclass(frozen=True)
class Case:
    """One photo, and what would be predicted for it.

    Attributes:
        lab: the truth, (1, 3, H, W).
        scan: the photo made gray, (1, 3, H, W).
        prediction: ab, (1, 2, side, side).
        shrink: the photo's longer side over the prediction's.
    """

    lab: torch.Tensor
    scan: torch.Tensor
    prediction: torch.Tensor
    shrink: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.lab.shape[-2], self.lab.shape[-1]

    @property
    def lightness(self) -> torch.Tensor:
        """CIE L of the gray photo."""
        return colour.lightness(self.scan)

    def ours(self) -> torch.Tensor:
        """The photo coloured by this package."""
        side = self.prediction.shape[-1]
        return colourise.colourise(self.scan, lambda _: self.prediction, net_size=side)

    def plain(self, mode: str) -> torch.Tensor:
        """The prediction at the photo's size, as upstream enlarges."""
        return F.interpolate(
            self.prediction, size=self.size, mode=mode, align_corners=None if mode == "nearest" else False
        )

    def filtered(self, window: float, eps: float) -> torch.Tensor:
        """The same with the guided filter over it; ``window`` is half a side, in pixels of the prediction."""
        return guided(self.plain("bilinear"), self.lightness, max(1, round(window * self.shrink)), eps)

    def shown(self, ab: torch.Tensor) -> torch.Tensor:
        """The photo with these colours, as far as sRGB has them."""
        return colour.fit_gamut(torch.cat((self.lightness, ab), 1))

    def errors(self, result: torch.Tensor) -> tuple[float, float]:
        """Distance in ab of a coloured photo from the truth: everywhere, and at edges."""
        squared = (colour.srgb_to_lab(result) - self.lab)[:, 1:].square().sum(1, keepdim=True)
        return float(squared.mean().sqrt()), float(squared[edges(self.lab[:, 1:], self.shrink)].mean().sqrt())


def case(name: str, shrink: int, blurs: int, chroma: float = 1.0) -> Case:
    """One of the photos; its colours are known to be ``chroma`` times as strong as they are."""
    lab = colour.srgb_to_lab(photo(name))
    side = round(max(lab.shape[-2:]) / shrink)
    return Case(lab, eight_bits(gray(lab[:, :1])), chroma * predicted(lab[:, 1:], side, blurs), shrink)


def bleeding(shrink: int, kind: str) -> list[Figure]:
    """Figures of one size and kind of prediction, over all photos."""
    cases = [case(name, shrink, KINDS[kind]) for name in PHOTOS]

    def unlike(window: float, eps: float) -> float:
        return mean(float((one.filtered(window, eps) - one.lab[:, 1:]).square().mean().sqrt()) for one in cases)

    window, eps = min(product(WINDOWS, EPS), key=lambda setting: unlike(*setting))
    ways: dict[str, Callable[[Case], torch.Tensor]] = {
        "ours": Case.ours,
        "nearest": lambda one: one.shown(one.plain("nearest")),
        "bilinear": lambda one: one.shown(one.plain("bilinear")),
        f"guided filter, best ({window:g} px, eps {eps:g})": lambda one: one.shown(one.filtered(window, eps)),
        "guided filter, our 2 px": lambda one: one.shown(one.filtered(2.0, OUR_EPS)),
    }
    found = {way: [one.errors(coloured(one)) for one in cases] for way, coloured in ways.items()}
    figures = []
    for index, where in enumerate(("everywhere", "at edges")):
        title = f"1/{shrink}, {kind}, {where}"
        figures += [Figure(f"{title}: {way}", mean(each[index] for each in found[way]), "ab") for way in ways]
        shares = [ours[index] / plain[index] for ours, plain in zip(found["ours"], found["bilinear"], strict=True)]
        figures.append(at_most(f"{title}: ours over bilinear, worst photo", max(shares), "x", 1.0))
    return figures


def mean(values: Iterable[float]) -> float:
    """Of any number of values but none."""
    listed = list(values)
    return sum(listed) / len(listed)


def kept_lightness(shrink: int) -> list[Figure]:
    """How far L moves, and the photo made gray again after saving: ours, and with channels clipped as upstream does."""
    moved: dict[str, list[float]] = {"ours": [], "clipped": []}
    regrayed: dict[str, list[float]] = {"ours": [], "clipped": []}
    for name in PHOTOS:
        # Half as much colour again, as vivid networks give: some of it is more than sRGB can show.
        one = case(name, shrink, 1, chroma=1.5)
        clipped = colour.lab_to_srgb(torch.cat((one.lightness, one.plain("nearest")), 1)).clamp(0, 1)
        for way, result in (("ours", one.ours()), ("clipped", clipped)):
            moved[way].append(float((colour.lightness(result) - one.lightness).abs().max()))
            again = eight_bits(gray(colour.lightness(eight_bits(result))))
            regrayed[way].append(float((again - one.scan).abs().max() * 255))
    return [
        at_most("L moves by, ours", max(moved["ours"]), "of 100", 0.01),
        Figure("L moves by, channels clipped", max(moved["clipped"]), "of 100"),
        at_most("saved in 8 bits and made gray again: off by, ours", max(regrayed["ours"]), "/255", 1.001),
        Figure("saved in 8 bits and made gray again: off by, channels clipped", max(regrayed["clipped"]), "/255"),
    ]


def main() -> None:
    parser = argument_parser("How much colour runs over edges, and whether lightness stays.")
    parser.add_argument("--shrink", type=int, nargs="+", default=[4, 8], help="the photo's side over the prediction's")
    options = parser.parse_args()
    cases = list(product(options.shrink, KINDS))
    figures = [figure for shrink, kind in steps(cases, "cases") for figure in bleeding(shrink, kind)]
    report([*figures, *kept_lightness(max(options.shrink))], options.json)


if __name__ == "__main__":
    main()
