"""GFPGAN behind the contract of the face restorers: RGB in [0, 1] in and out, the same result every time.

The network itself is spandrel's GFPGANv1Clean. Source: Wang et al. 2021, "Towards real-world blind face restoration
with generative facial prior", arXiv:2101.04061.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import NodeInputError

if TYPE_CHECKING:
    import torch

SIDE = 512


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
        if face.ndim != 4 or face.shape[1:] != (3, SIDE, SIDE):
            raise NodeInputError(f"faces to restore must be (batch, 3, {SIDE}, {SIDE}), not {tuple(face.shape)}")
        # The network takes [-1, 1]; spandrel's descriptor would not scale, and clamp. The noise is the stored one, so
        # that a face comes out the same twice. Channels are folded with view(), for which they must lie in planes.
        restored = self.network(face.contiguous() * 2 - 1, return_rgb=False, randomize_noise=False)[0]
        out: torch.Tensor = ((restored + 1) / 2).clamp(0.0, 1.0)
        return out

    def to(self, *args: Any, **kwargs: Any) -> FaceRestorer:
        """As ``nn.Module.to``, but without ``memory_format``: kernels of five dimensions cannot take it."""
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs) if args or kwargs else self
