"""Are scratches found, clean photos left alone, and repairs better than none? The detector beside a top-hat.

    python bench/scratches.py [--seeds 3] [--json FILE]

Needs scikit-image. Its photos are damaged with drawn scratches, film lines, a crease, dust and a torn corner, whose
masks are known. Precision and recall are by area. A found pixel counts as right up to three pixels off the damage, as
a mask has to be wider than what it covers; a damaged one as found only where it is covered. The share of a clean photo
that is marked is all false. The repair is judged in the damaged area alone. The peer marks what morphological top-hats
of nine pixels raise by a fixed amount, and is grown as much.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import skimage.data
import torch
from _figures import Figure, argument_parser, at_least, at_most, report
from _progress import steps

from photokeep_nodes.images import luminance
from photokeep_nodes.ops import inpaint, masks, scratches

if TYPE_CHECKING:
    from collections.abc import Callable

    Detector = Callable[[torch.Tensor], torch.Tensor]

PHOTOS = ("astronaut", "camera", "cat", "coffee", "rocket", "coins")
"""Photos such as people restore; judged."""
TEXTURES = ("brick", "grass", "gravel", "page", "text")
"""Nothing but what is mistaken for scratches; only told of."""
TOLERANCE = 3
GOAL_PRECISION, GOAL_RECALL, GOAL_CLEAN, GOAL_GAIN = 0.75, 0.45, 0.7, 5.0


def photo(name: str) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    pixels = getattr(skimage.data, name)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


class Damage:
    """Draws onto a photo, and keeps book of where."""

    _FINE = 4  # drawn at four times the size and averaged: antialiased

    def __init__(self, image: torch.Tensor, seed: int) -> None:
        self.image = image.clone()
        self.height, self.width = image.shape[-2:]
        self.mask = torch.zeros(1, 1, self.height, self.width)
        self.random = np.random.default_rng(seed)

    def line(
        self, start: tuple[float, float], angle: float, length: float, wide: float, value: float, opacity: float
    ) -> None:
        """Draw a wandering line; ``start`` is x, y in pixels."""
        points, turn = [start], 0.0
        for _ in range(round(length / 4)):
            turn = 0.9 * turn + self.random.normal(0, 0.02)
            angle += turn
            x, y = points[-1]
            points.append((x + 4 * math.cos(angle), y + 4 * math.sin(angle)))
        fine = np.zeros((self.height * self._FINE, self.width * self._FINE), np.uint8)
        cv2.polylines(
            fine,
            [np.round(np.array(points) * self._FINE).astype(np.int32)],
            isClosed=False,
            color=255,
            thickness=max(1, round(wide * self._FINE)),
        )
        self._lay(fine, value, opacity)

    def speck(self, radius: float, value: float) -> None:
        """Draw a speck of dust anywhere."""
        at = self.random.uniform((4, 4), (self.width - 4, self.height - 4))
        fine = np.zeros((self.height * self._FINE, self.width * self._FINE), np.uint8)
        axes = (round(radius * self._FINE), round(radius * self._FINE * self.random.uniform(0.7, 1)))
        cv2.ellipse(fine, [round(v * self._FINE) for v in at], axes, self.random.uniform(0, 180), 0, 360, 255, -1)
        self._lay(fine, value, 0.9)

    def torn_corner(self) -> None:
        """Tear off the upper right corner."""
        side = 0.12 * min(self.height, self.width)
        edge = [
            (self.width - side * (1 - t) + self.random.normal(0, 1.5), side * t + self.random.normal(0, 1.5))
            for t in np.linspace(0, 1, 12)
        ]
        fine = np.zeros((self.height * self._FINE, self.width * self._FINE), np.uint8)
        outline = [(self.width - side, -9.0), *edge, (self.width + 9.0, side), (self.width + 9.0, -9.0)]
        cv2.fillPoly(fine, [np.round(np.array(outline) * self._FINE).astype(np.int32)], 255)
        self._lay(fine, 0.98, 1.0)

    def _lay(self, fine: np.ndarray, value: float, opacity: float) -> None:
        cover = cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA)
        alpha = torch.from_numpy(cover)[None, None].float() / 255
        self.image = self.image.lerp(torch.full_like(self.image, value), alpha * opacity)
        self.mask = torch.maximum(self.mask, (alpha > 0.2).float())


def damaged(image: torch.Tensor, seed: int) -> Damage:
    """Everything that befalls a photo in a drawer."""
    damage = Damage(image, seed)
    random, side = damage.random, min(damage.height, damage.width)

    def somewhere() -> tuple[float, float]:
        x, y = random.uniform((0.05, 0.05), (0.95, 0.95))
        return x * damage.width, y * damage.height

    for wide, value, opacity in (
        (1.0, 0.95, 0.9), (1.5, 0.05, 0.9), (2.0, 0.97, 0.8), (3.0, 0.95, 0.9), (2.0, 0.0, 0.7), (1.5, 0.95, 0.4),
    ):  # fmt: skip
        damage.line(somewhere(), random.uniform(0, math.tau), random.uniform(0.25, 0.7) * side, wide, value, opacity)
    for wide in (1.0, 1.5):  # as film gets in a projector
        x = random.uniform(0.1, 0.9) * damage.width
        damage.line((x, 0.0), math.pi / 2, 1.2 * damage.height, wide, 0.95, 0.5)
    y = random.uniform(0.3, 0.7) * damage.height
    damage.line((0.0, y), random.normal(0, 0.05), 1.2 * damage.width, 5.0, 0.9, 0.6)  # the crease of a folded photo
    for _ in range(20):
        damage.speck(random.uniform(1.0, 2.5), random.choice([0.02, 0.97]))
    damage.torn_corner()
    return damage


def ours(image: torch.Tensor) -> torch.Tensor:
    """Mask of the detector with its defaults, grown as its node does."""
    return masks.grow(scratches.detect(image), masks.auto_grow(*image.shape[-2:]))


def top_hat(image: torch.Tensor) -> torch.Tensor:
    """Mask of the peer."""
    luma = luminance(image)[0, 0].numpy()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    raised = np.maximum(
        cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, disc), cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, disc)
    )
    return masks.grow(torch.from_numpy((raised > 0.15).astype(np.float32))[None, None], masks.auto_grow(*luma.shape))


def near(mask: torch.Tensor) -> torch.Tensor:
    """Everything up to ``TOLERANCE`` pixels off a mask."""
    return masks.grow(mask, TOLERANCE) > 0.5


def psnr(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean(1, keepdim=True)[where].mean()))


def measured(name: str, detector: Detector, seeds: int) -> dict[str, float]:
    """Figures of one detector on one photo, averaged over ``seeds`` damages."""
    image = photo(name)
    sums = {"precision": 0.0, "recall": 0.0, "before": 0.0, "after": 0.0, "known": 0.0}
    for seed in range(seeds):
        damage = damaged(image, seed)
        found = detector(damage.image) > 0.5
        wrong, hurt = found & ~near(damage.mask), damage.mask > 0.5
        sums["precision"] += 1 - float(wrong.sum() / found.sum().clamp(min=1))
        sums["recall"] += float((found & hurt).sum() / hurt.sum())
        sums["before"] += psnr(damage.image, image, hurt)
        sums["after"] += psnr(inpaint.inpaint_classical(damage.image, found.float()), image, hurt)
        sums["known"] += psnr(inpaint.inpaint_classical(damage.image, masks.grow(damage.mask, 1)), image, hurt)
    mean = {key: value / seeds for key, value in sums.items()}
    mean["F1"] = 2 * mean["precision"] * mean["recall"] / max(1e-9, mean["precision"] + mean["recall"])
    mean["clean"] = 100 * float((detector(image) > 0.5).float().mean())
    return mean


def main() -> None:
    parser = argument_parser("How well scratches are found and repaired.")
    parser.add_argument("--seeds", type=int, default=3, help="damages drawn on each photo")
    options = parser.parse_args()
    figures = []
    for title, detector in (("ours", ours), ("top-hat", top_hat)):
        each = {name: measured(name, detector, options.seeds) for name in steps(PHOTOS, "photos")}
        mean = {key: sum(one[key] for one in each.values()) / len(each) for key in each[PHOTOS[0]]}
        rows = [
            at_least(f"{title}: precision", mean["precision"], "of area", GOAL_PRECISION),
            at_least(f"{title}: recall", mean["recall"], "of area", GOAL_RECALL),
            Figure(f"{title}: F1", mean["F1"], ""),
            at_most(f"{title}: marked on clean photos", mean["clean"], "%", GOAL_CLEAN),
            Figure("damaged: PSNR there", mean["before"], "dB"),
            at_least(f"{title}: gain of the repair there", mean["after"] - mean["before"], "dB", GOAL_GAIN),
            Figure("gain with the true mask", mean["known"] - mean["before"], "dB"),
        ]
        if title != "ours":
            rows = [Figure(row.name, row.value, row.unit) for row in rows[:4] + rows[5:6]]
        figures += rows
        for name, one in each.items():
            figures += [
                Figure(f"{title}, {name}: {key}", one[key], unit)
                for key, unit in (("precision", "of area"), ("recall", "of area"), ("clean", "%"))
            ]
        for name in TEXTURES:
            figures.append(
                Figure(
                    f"{title}, {name}: marked on clean", 100 * float((detector(photo(name)) > 0.5).float().mean()), "%"
                )
            )
    report(figures, options.json)


if __name__ == "__main__":
    main()
