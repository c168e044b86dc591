"""Residual dense blocks that join their features in memory they keep.

Each of a block's convolutions takes all features before it, joined. Joined anew each time, as the plain
implementation does, that is 50 MB at a time for a 256 px tile, which the C library fetches from the system and
gives back at every step: clearing those pages costs a CPU several times what the copy does, and a fifth of the
whole network's time. Here one buffer serves every block of a call. Results are the same to rounding.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Scratch:
    """Memory for joined features, one buffer per thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Scratch:
        return Scratch()  # a copied network works on its own; buffers are no part of it

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features joined along the channels, in the layout of the first; valid until the next call.

        Args:
            parts: (B, C, H, W) each.
        """
        first = parts[0]
        if first.device.type != "cpu":
            return torch.cat(tuple(parts), 1)  # torch keeps accelerator memory by itself
        batch, _, height, width = first.shape
        channels = sum(part.shape[1] for part in parts)
        size = math.prod((batch, channels, height, width))
        buffer: torch.Tensor | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.numel() < size or buffer.dtype != first.dtype:
            buffer = self._local.buffer = torch.empty(size, dtype=first.dtype)
        flat = buffer[:size]
        if first.is_contiguous(memory_format=torch.channels_last):
            out = flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
        else:
            out = flat.view(batch, channels, height, width)
        return torch.cat(tuple(parts), 1, out=out)

    def release(self) -> None:
        """Give this thread's buffer back."""
        self._local.buffer = None


class DenseBlock(nn.Module):
    """Five convolutions, each fed by all before it, scaled and added to the input.

    Args:
        convolutions: with their activations; the last returns as many channels as the block takes.
        scratch: shared by the blocks of one network.
    Source: Wang et al. 2018, arXiv:1809.00219 (ESRGAN), 3.1.
    """

    def __init__(self, convolutions: Sequence[nn.Module], scratch: Scratch) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self._scratch = scratch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        # Rounded once for all five convolutions; what is added to is not.
        parts = [x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x]
        for convolution in self.convolutions:
            parts.append(convolution(parts[0] if len(parts) == 1 else self._scratch.joined(parts)))
        return torch.add(x, parts[-1], alpha=0.2)


class DenseNetwork(nn.Module):
    """A network of dense blocks that gives its scratch memory back after each call."""

    def __init__(self, network: nn.Module, scratch: Scratch) -> None:
        super().__init__()
        self.network = network
        self._scratch = scratch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the network inside."""
        try:
            result: torch.Tensor = self.network(x)
        finally:
            self._scratch.release()
        return result


def reuse_memory(network: nn.Module) -> nn.Module:
    """Let the dense blocks of spandrel's RRDBNet share one buffer.

    Args:
        network: changed in place: its dense blocks are replaced by ours around the same convolutions.
    """
    scratch = Scratch()
    for parent in list(network.modules()):
        for name, block in list(parent.named_children()):
            # By name: spandrel keeps the class private. The "plus" variant has a sixth convolution and stays as it is.
            if type(block).__name__ == "ResidualDenseBlock_5C" and getattr(block, "conv1x1", None) is None:
                convolutions = [getattr(block, f"conv{number}") for number in range(1, 6)]
                setattr(parent, name, DenseBlock(convolutions, scratch))
    return DenseNetwork(network, scratch).train(network.training)
