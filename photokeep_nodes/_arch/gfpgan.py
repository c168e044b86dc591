"""GFPGAN behind the contract of the face restorers: RGB in [0, 1] in and out, the same result every time.

The network itself is spandrel's GFPGANv1Clean. Source: Wang et al. 2021, "Towards real-world blind face restoration
with generative facial prior", arXiv:2101.04061.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from .aligned_faces import from_network, to_network

if TYPE_CHECKING:
    import torch


class FaceRestorer(nn.Module):
    """Normalises for GFPGAN and back.

    Args:
        network: GFPGANv1Clean for 512 px.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """Restore aligned faces.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
        Returns:
            Shape, dtype and device of ``face``, [0, 1].
        Raises:
            NodeInputError: another shape; the style code is read off a map of fixed size.
        """
        # spandrel's descriptor would not scale, and clamp. The noise is the stored one, so that a face comes out the
        # same twice.
        return from_network(self.network(to_network(face), return_rgb=False, randomize_noise=False)[0])

    def to(self, *args: Any, **kwargs: Any) -> FaceRestorer:
        """As ``nn.Module.to``, but without ``memory_format``: kernels of five dimensions cannot take it."""
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs) if args or kwargs else self
