"""What the face restorers have in common: aligned faces in [0, 1] outside, [-1, 1] inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NodeInputError

if TYPE_CHECKING:
    import torch

SIDE = 512


def to_network(face: torch.Tensor) -> torch.Tensor:
    """Bring faces into the range that the networks were trained on.

    Args:
        face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
    Returns:
        The same in [-1, 1], with its channels in planes: some networks fold them with ``view()``.
    Raises:
        NodeInputError: another shape; the networks hold tables for this one.
    """
    if face.ndim != 4 or face.shape[1:] != (3, SIDE, SIDE):
        raise NodeInputError(f"faces to restore must be (batch, 3, {SIDE}, {SIDE}), not {tuple(face.shape)}")
    return face.contiguous() * 2 - 1


def from_network(restored: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to [0, 1]; what goes beyond is clamped."""
    return ((restored + 1) / 2).clamp(0.0, 1.0)
