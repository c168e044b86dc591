"""Lay pictures over each other: shared by the nodes that do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from photokeep_nodes.errors import NodeInputError

if TYPE_CHECKING:
    import torch


def same_channels(below: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    """``above`` with as many channels as ``below``: alpha is left out, or added opaque.

    Raises:
        NodeInputError: gray and colour.
    """
    from torch.nn import functional

    have, wanted = above.shape[-1], below.shape[-1]
    if have == wanted + 1:
        return above[..., :wanted]
    if have + 1 == wanted:
        return functional.pad(above, (0, 1), value=1.0)
    if have != wanted:
        raise NodeInputError(
            f"a picture of {have} channels cannot be laid over one of {wanted}", hint="Connect two colour pictures."
        )
    return above


def repeated(batch: torch.Tensor, count: int) -> torch.Tensor:
    """So many pictures or masks: the batch over and over, or its beginning."""
    if len(batch) < count:
        batch = batch.repeat(math.ceil(count / len(batch)), *[1] * (batch.ndim - 1))
    return batch[:count]
