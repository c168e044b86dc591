"""Bring an FFHQ-aligned face of 512 px to the crop another face network was trained on.

Both crops hold the face upright with the eyes level, so that what lies between them is a scale and a shift: a square
window of the larger crop, reduced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 512

# Mean landmarks of FFHQ at 512 px: eyes, tip of the nose, corners of the mouth. Published for pixel centres at whole
# numbers; here, as in ``ops.faces``, the centre of the first pixel is at 0.5.
_LANDMARKS = ((193.48, 240.45), (319.40, 240.69), (257.13, 314.52), (201.76, 371.91), (313.59, 371.65))


class Window(NamedTuple):
    """A square of the aligned face.

    Attributes:
        left: of its left edge, in pixels of the face, continuous.
        top: of its upper edge.
        side: of the square.
    """

    left: float
    top: float
    side: float


def window_for(landmarks: Sequence[tuple[float, float]], size: int) -> Window:
    """The window that best brings the five landmarks to where another network wants them.

    Least squares over scale and shift. The turn that a full similarity would add is half a degree at most for the
    templates in use, less than detectors disagree by.

    Args:
        landmarks: where the network wants left eye, right eye, tip of the nose and corners of the mouth, as (x, y) in
            pixels of its input, continuous.
        size: side of its input.
    """
    count = len(_LANDMARKS)
    here = [sum(axis) / count for axis in zip(*_LANDMARKS, strict=True)]
    there = [sum(axis) / count for axis in zip(*landmarks, strict=True)]
    shared = spread = 0.0
    for source, goal in zip(_LANDMARKS, landmarks, strict=True):
        for axis in (0, 1):
            shared += (source[axis] - here[axis]) * (goal[axis] - there[axis])
            spread += (source[axis] - here[axis]) ** 2
    step = spread / shared  # pixels of the face for one of the network's
    return Window(here[0] - there[0] * step, here[1] - there[1] * step, size * step)


def cut(face: torch.Tensor, window: Window, size: int) -> torch.Tensor:
    """Reduce a window of aligned faces to a network's input.

    With a triangle filter as wide as the pixels that are made, as ``interpolate(antialias=True)`` has it: detail that
    the smaller picture cannot hold would otherwise come and go with where the pixels happen to lie.

    Args:
        face: (B, 3, 512, 512).
        window: what to cut out.
        size: side of the result.
    Returns:
        (B, 3, size, size).
    Raises:
        NodeInputError: another shape.
    """
    if face.ndim != 4 or face.shape[1:] != (3, SIDE, SIDE):
        raise NodeInputError(f"faces to tell apart must be (batch, 3, {SIDE}, {SIDE}), not {tuple(face.shape)}")
    rows, columns = (_filter(start, window.side, size, face) for start in (window.top, window.left))
    return rows @ face @ columns.mT


def _filter(start: float, side: float, size: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (size, 512) of the face's pixels in each pixel made, along one axis."""
    step = side / size
    centres = start + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    # A window may reach over the edge a little; the outermost pixels go on there.
    centres = centres.clamp(0.5, SIDE - 0.5)
    distance = (torch.arange(SIDE, dtype=torch.float64) + 0.5 - centres[:, None]).abs()
    weights = (1.0 - distance / max(1.0, step)).clamp(min=0.0)
    return (weights / weights.sum(1, keepdim=True)).to(like)
