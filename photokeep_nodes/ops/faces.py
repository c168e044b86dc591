"""Faces: bring each to the place and size a face network expects, and lay what changed there back into the photo.

Faces are those of ``detect_faces``. Coordinates are continuous, as there: pixel column j spans x in [j, j + 1) and its
centre is at j + 0.5.

What is pasted is the difference between the restored and the unrestored crop, never the crop itself. So resampling
costs no sharpness, a network that changes nothing leaves the photo as it was to the last bit, and so is every pixel off
the faces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import NodeInputError

if TYPE_CHECKING:
    from .detect_faces import Face

CROP = 512
"""Side in pixels of the crops that GFPGAN, CodeFormer and RestoreFormer take."""

# Mean landmarks of FFHQ at 512 px. Published for pixel centres at whole numbers: half a pixel is added below.
_TEMPLATE = ((192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15))
_BOX_CENTRE = (256.0, 292.0)  # where the middle of a detector's box lies in such a crop, and the box's side
_BOX_SIDE = 330.0

_OUTLIER_PX = 25.0  # in the crop; the eyes are 126 px apart
_OUTLIER_GAIN = 0.35  # dropping the outlier must leave less than this share of the error
_SQUIRCLE = 4.0  # exponent of the mask's outline: 2 is a circle, infinity the whole crop
_MIN_FEATHER = 0.02  # about 5 px of a crop: a hard edge would show as a staircase


def template() -> torch.Tensor:
    """Where the five landmarks belong in a crop of 512 px: (5, 2) float64, continuous coordinates."""
    return torch.tensor(_TEMPLATE, dtype=torch.float64) + 0.5


def face_transform(face: Face, size: int = CROP) -> torch.Tensor:
    """Similarity (rotation, scale, shift) that takes a face to its crop.

    Least squares over the landmarks, without the one that contradicts the four others if there is such a one; from the
    box where the landmarks say nothing.

    Args:
        face: see the module.
        size: side of the crop.
    Returns:
        (2, 3) float64: photo to crop.
    Raises:
        NodeInputError: neither the landmarks nor the box have a size.
    """
    goal = torch.view_as_complex(template() * (size / CROP))
    points = torch.tensor(face["landmarks"], dtype=torch.float64)
    if points.shape != (5, 2):
        raise NodeInputError(f"a face must have five landmarks (x, y), not {tuple(points.shape)}")
    x0, y0, x1, y1 = (float(v) for v in face["box"])
    fit = _fit(torch.view_as_complex(points.contiguous()), goal) if bool(torch.isfinite(points).all()) else None
    if fit is None:
        side = math.sqrt(max(0.0, x1 - x0) * max(0.0, y1 - y0))
        if not side > 0.0 or not math.isfinite(side):
            raise NodeInputError("a face has neither distinct landmarks nor a box with a size", face=face)
        turn = complex(_BOX_SIDE / side)
        shift = complex(*_BOX_CENTRE) - turn * complex((x0 + x1) / 2, (y0 + y1) / 2)
        fit = (turn * (size / CROP), shift * (size / CROP))
    turn, shift = fit
    return torch.tensor([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], dtype=torch.float64)


def _fit(points: torch.Tensor, goal: torch.Tensor) -> tuple[complex, complex] | None:
    """Similarity ``turn * point + shift`` on complex (5,) points, or None where they coincide."""
    best = _least_squares(points, goal)
    if best is None:
        return None
    error = _rms(points, goal, best)
    for out in range(points.numel()):
        keep = [i for i in range(points.numel()) if i != out]
        fit = _least_squares(points[keep], goal[keep])
        if fit is None:
            continue
        miss = abs(fit[0] * complex(points[out]) + fit[1] - complex(goal[out]))
        left = _rms(points[keep], goal[keep], fit)
        if miss > _OUTLIER_PX and left < _OUTLIER_GAIN * error:
            best, error = fit, left / _OUTLIER_GAIN
    return best


def _least_squares(points: torch.Tensor, goal: torch.Tensor) -> tuple[complex, complex] | None:
    centre, goal_centre = points.mean(), goal.mean()
    spread = float((points - centre).abs().square().sum())
    if spread < 1e-6:
        return None
    # In complex numbers a similarity is one multiplication and cannot mirror.
    turn = complex(((points - centre).conj() * (goal - goal_centre)).sum()) / spread
    if abs(turn) < 1e-9:
        return None
    return turn, complex(goal_centre) - turn * complex(centre)


def _rms(points: torch.Tensor, goal: torch.Tensor, fit: tuple[complex, complex]) -> float:
    return float((fit[0] * points + fit[1] - goal).abs().square().mean().sqrt())


def _inverse(transform: torch.Tensor) -> torch.Tensor:
    linear = torch.linalg.inv(transform[:, :2])
    return torch.cat((linear, -linear @ transform[:, 2:]), 1)


def face_scale(transform: torch.Tensor) -> float:
    """Crop pixels per pixel of the photo."""
    return math.sqrt(abs(float(torch.linalg.det(transform[:, :2]))))


def _bounds(transform: torch.Tensor, size: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Photo rows and columns (top, bottom, left, right) under the crop, at least one of each."""
    back = _inverse(transform)
    corners = torch.tensor([[0, 0, size, size], [0, size, 0, size]], dtype=torch.float64)
    x, y = back[:, :2] @ corners + back[:, 2:]
    margin = 2.0 + 1.0 / face_scale(transform)  # what interpolation and the pre-filter look at beyond the crop
    left, top = (max(0, math.floor(float(v.min()) - margin)) for v in (x, y))
    right, bottom = math.ceil(float(x.max()) + margin), math.ceil(float(y.max()) + margin)
    left, top = min(left, width - 1), min(top, height - 1)
    return top, max(top + 1, min(height, bottom)), left, max(left + 1, min(width, right))


def _positions(transform: torch.Tensor, rows: range, columns: range, like: torch.Tensor) -> torch.Tensor:
    """Where ``transform`` takes the centres of those pixels: (rows, columns, 2), in the type of ``like``."""
    y = torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5
    x = torch.arange(columns.start, columns.stop, dtype=torch.float64) + 0.5
    (xx, xy, x0), (yx, yy, y0) = transform.tolist()
    across = xx * x[None, :] + xy * y[:, None] + x0
    down = yx * x[None, :] + yy * y[:, None] + y0
    return torch.stack((across, down), -1).to(like)


def _sample(source: torch.Tensor, at: torch.Tensor, step: float, *, mode: str, padding: str) -> torch.Tensor:
    """Read ``source`` (1, C, h, w) at continuous positions (H, W, 2) that lie ``step`` source pixels apart.

    Where pixels are skipped (step > 1) the source is averaged down first, or detail would turn into aliasing.
    """
    height, width = source.shape[-2:]
    if step > 1.0:
        reduced = (max(1, round(height / step)), max(1, round(width / step)))
        source = F.interpolate(source, size=reduced, mode="bilinear", antialias=True, align_corners=False)
    grid = at / at.new_tensor((width, height)) * 2.0 - 1.0
    return F.grid_sample(source, grid[None], mode=mode, padding_mode=padding, align_corners=False)


def align(image: torch.Tensor, transform: torch.Tensor, size: int = CROP) -> torch.Tensor:
    """Cut a face out, upright and at the network's scale.

    Beyond the photo's border the crop is filled by reflection, as the training set's was.

    Args:
        image: (1, 3, H, W).
        transform: from ``face_transform`` with the same size.
        size: side of the crop.
    Returns:
        (1, 3, size, size).
    """
    top, bottom, left, right = _bounds(transform, size, *image.shape[-2:])
    at = _positions(_inverse(transform), range(size), range(size), image) - image.new_tensor((left, top))
    region = image[:, :, top:bottom, left:right]
    return _sample(region, at, 1.0 / face_scale(transform), mode="bilinear", padding="reflection")


def _mask(at: torch.Tensor, size: int, feather: float) -> torch.Tensor:
    """1 inside the crop's rounded square, falling to 0 at its edge; (H, W) from crop positions (H, W, 2).

    Evaluated at the photo's own pixels: a mask that is resampled has steps.
    """
    from_centre = (at / (size / 2) - 1.0).abs()
    radius = (from_centre**_SQUIRCLE).sum(-1) ** (1.0 / _SQUIRCLE)
    ramp = ((1.0 - radius) / max(_MIN_FEATHER, feather)).clamp(0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)


class Canvas:
    """Collects the changes of all faces of one photo; where crops overlap they are averaged by their masks."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image
        self.change = torch.zeros_like(image)
        self.weight = torch.zeros_like(image[:, :1])

    def add(
        self, difference: torch.Tensor, transform: torch.Tensor, feather: float, where: torch.Tensor | None = None
    ) -> None:
        """Add the change of one face.

        Args:
            difference: (1, 3, size, size), in the crop of ``transform``.
            transform: photo to crop.
            feather: see ``paste``.
            where: (1, 1, size, size) in [0, 1], in the crop: what of it is face; None means all.
        """
        size = difference.shape[-1]
        top, bottom, left, right = _bounds(transform, size, *self.image.shape[-2:])
        at = _positions(transform, range(top, bottom), range(left, right), self.image)
        mask = _mask(at, size, feather)
        step = face_scale(transform)
        if where is not None:
            mask = mask * _sample(where, at, step, mode="bilinear", padding="zeros")[0, 0].clamp(0.0, 1.0)
        # Bicubic for enlarging: the kinks of bilinear show in smooth skin.
        moved = _sample(difference, at, step, mode="bicubic", padding="border")
        self.change[:, :, top:bottom, left:right] += mask * moved
        self.weight[:, :, top:bottom, left:right] += mask

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The photo with the changes, in [0, 1], and the mask (1, H, W)."""
        changed = (self.image + self.change / self.weight.clamp(min=1.0)).clamp(0.0, 1.0)
        # A pixel off the faces stays as it is, whatever its value.
        return torch.where(self.weight > 0.0, changed, self.image), self.weight[:, 0].clamp(max=1.0)


def paste(
    photo: torch.Tensor,
    restored: torch.Tensor,
    aligned: torch.Tensor,
    transform: torch.Tensor,
    *,
    feather: float = 0.25,
    strength: float = 1.0,
    where: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay what restoring changed back into the photo.

    Args:
        photo: (1, 3, H, W) in [0, 1].
        restored: (1, 3, S, S).
        aligned: what ``restored`` was made from, (1, 3, S, S).
        transform: photo to crop, (2, 3).
        feather: share of the crop's half side over which the change fades out, 0 to 1.
        strength: factor on the change.
        where: see ``Canvas.add``.
    Returns:
        The photo (1, 3, H, W) and the mask (1, H, W) of where it may have changed.
    """
    canvas = Canvas(photo)
    canvas.add((restored - aligned) * strength, transform, feather, where)
    return canvas.result()
