"""Networks that spandrel found out by itself, called as this pack calls networks."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class SpandrelNetwork(torch.nn.Module):
    """An image in, an image out, not clamped: spandrel's own call clamps, and returns inference tensors.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``; what it says of sizes is left to the caller, but for squares.

    Attributes:
        smallest: side of the smallest image, and what sides have to be multiples of, as spandrel has them.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: torch.nn.Module = descriptor.model
        self.scale = int(descriptor.scale)
        # Some networks return more than the image, or want a range of their own; this is where spandrel knows it.
        self._call = descriptor._call_fn
        sizes = descriptor.size_requirements
        self.smallest = (max(1, int(sizes.minimum)), max(1, int(sizes.multiple_of)))
        self._square = bool(descriptor.size_requirements.square)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, H * scale, W * scale)."""
        # One by one, as spandrel's own call takes them: some of its networks are written for a single image.
        return torch.cat([self._one(each) for each in torch.split(image, 1)])

    def _one(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        if self._square and height != width:
            side = max(height, width)
            image = functional.pad(image, (0, side - width, 0, side - height), mode="replicate")
        # A copy: RGT takes the mean off its input in place.
        result: torch.Tensor = self._call(self.network, image.clone())
        return result[..., : height * self.scale, : width * self.scale]


class NoiseLevelNetwork(SpandrelNetwork):
    """DRUNet: takes a map of the noise's level beside the image."""

    def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        """As of the base class; ``sigma`` (B,) is the noise's standard deviation, in the image's units."""
        if sigma is None:
            return super().forward(image)
        level = sigma.view(-1, 1, 1, 1).expand(image.shape[0], 1, *image.shape[-2:])
        result: torch.Tensor = self.network(torch.cat([image, level], dim=1))
        return result
