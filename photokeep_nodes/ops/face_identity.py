"""Keep a restored face the person it was: how alike two faces are, and how much restoring a likeness bears.

Faces are crops aligned to the FFHQ template, as ``faces.align`` cuts them. Embeddings come from a network of the role
``face_identity``; what similarity still means one person is its ``ModelSpec.same_person``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as nnf

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Embedder = Callable[[torch.Tensor], torch.Tensor]
    """(1, 3, 512, 512) RGB in [0, 1] to (1, D); on any device."""

_HALVINGS = 4  # so a sixteenth of the strength that was asked for is the step, and six embeddings are the cost


class GuardedStrength(NamedTuple):
    """What a face may be restored by.

    Attributes:
        strength: 0 to the strength that was asked for.
        similarity: to the face before, at this strength; 1 at strength 0. NaN where the network returned no numbers.
        similarity_at_requested: the same at the strength that was asked for.
    """

    strength: float
    similarity: float
    similarity_at_requested: float


def similarity(embed: Embedder, a: torch.Tensor, b: torch.Tensor) -> float:
    """How alike two faces are.

    Args:
        embed: see the module.
        a: (1, 3, S, S) RGB, [0, 1].
        b: of the same shape.
    Returns:
        Cosine of the angle between their embeddings, -1 to 1; NaN where an embedding has values that are not numbers.
    Raises:
        NodeInputError: the faces are not of one shape, or the network does not return one embedding of each.
    """
    _check_shapes(a, b)
    return _cosine(_embedding(embed, a), _embedding(embed, b))


def guarded_strength(
    embed: Embedder, crop: torch.Tensor, restored: torch.Tensor, *, strength: float, least: float
) -> GuardedStrength:
    """Find how much a face can be restored and still be the same person.

    Halves the interval between a strength that is known to keep the likeness and one that does not, so that what is
    returned has been looked at itself, whatever the curve between them. Takes six embeddings at most, and two where the
    strength asked for is fine.

    Args:
        embed: see the module.
        crop: the face before, (1, 3, S, S) RGB, [0, 1].
        restored: the face after, of the same shape; may go beyond [0, 1].
        strength: what is asked for, 0 or more: ``crop + strength * (restored - crop)`` is pasted.
        least: similarity to keep, -1 to 1.
    Returns:
        The strength, never more than asked for, and 0 where no strength that was tried keeps the likeness or the
        network cannot tell.
    Raises:
        NodeInputError: the faces are not of one shape, a value is out of range or not a number, or the network does not
            return one embedding of each.
    """
    _check_shapes(crop, restored)
    if not (math.isfinite(strength) and strength >= 0.0):
        raise NodeInputError(f"the strength of a face restoration must be 0 or more, not {strength:g}")
    if not -1.0 <= least <= 1.0:
        raise NodeInputError(f"the similarity to keep must be between -1 and 1, not {least:g}")
    if strength == 0.0 or torch.equal(crop, restored):
        return GuardedStrength(strength, 1.0, 1.0)

    before = _embedding(embed, crop)
    if not bool(torch.isfinite(before).all()):
        return GuardedStrength(0.0, math.nan, math.nan)

    def kept_at(tried: float) -> float:
        # What is pasted is clamped too, in the end.
        return _cosine(before, _embedding(embed, (crop + tried * (restored - crop)).clamp(0.0, 1.0)))

    at_requested = kept_at(strength)
    if at_requested >= least:
        return GuardedStrength(strength, at_requested, at_requested)
    good, similarity_there, bad = 0.0, 1.0, strength
    for _ in range(_HALVINGS):
        middle = (good + bad) / 2
        found = kept_at(middle)
        # Not a number is not alike.
        if found >= least:
            good, similarity_there = middle, found
        else:
            bad = middle
    return GuardedStrength(good, similarity_there, at_requested)


def _check_shapes(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[:2] != (1, 3):
        raise NodeInputError(f"two faces (1, 3, side, side) are compared, not {tuple(a.shape)} and {tuple(b.shape)}")


def _embedding(embed: Embedder, face: torch.Tensor) -> torch.Tensor:
    """(D,) float32 on the CPU."""
    found = embed(face)
    if found.ndim != 2 or found.shape[0] != 1:
        raise NodeInputError(f"the face identity network returned {tuple(found.shape)}, not (1, features)")
    return found[0].detach().float().cpu()


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    cosine = float(nnf.cosine_similarity(a, b, dim=0))
    return cosine if math.isnan(cosine) else min(1.0, max(-1.0, cosine))
