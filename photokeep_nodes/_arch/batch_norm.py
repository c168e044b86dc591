"""Batch normalisation as networks have it that are no longer trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTER = ".num_batches_tracked"


class Norm(nn.Module):
    """Batch normalisation with what training measured; without the counter of steps, which not every checkpoint has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return nnf.batch_norm(x, mean, var, self.weight, self.bias, training=False)


def without_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without what ``Norm`` does not have."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
