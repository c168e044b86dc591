"""FBCNN's two outputs taken apart: the cleaned image, and the JPEG quality the network reads from the photo.

Source: Jiang, Zhang, Timofte 2021, "Towards flexible blind JPEG artifacts removal", arXiv:2109.14573.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as nnf
from torch import nn

if TYPE_CHECKING:
    import torch

_FACTOR = 8  # three halvings


class JpegRemover(nn.Module):
    """The network behind one output.

    The quality is averaged over whatever the network is shown, so tiles of one photo would each find another: predict
    it once, and tell it to every tile.

    Args:
        network: spandrel's FBCNN. It takes and returns one less the quality.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, quality: torch.Tensor | None = None) -> torch.Tensor:
        """Remove JPEG artefacts.

        Args:
            image: (B, C, H, W), [0, 1], any size. JPEG's grid of 8 px should begin at its corner.
            quality: (B,), [0, 1], JPEG quality over 100: lower removes more. None: the network predicts it.
        Returns:
            Shape, dtype and device of ``image``; not clamped.
        """
        if quality is None:
            result: torch.Tensor = self.network(image)[0]
            return result
        told: torch.Tensor = self.network(image, 1.0 - quality.to(image.dtype).view(-1, 1))[0]
        return told

    def predict_quality(self, image: torch.Tensor) -> torch.Tensor:
        """Read the JPEG quality from the photo; costs a third of ``forward``.

        Args:
            image: (B, C, H, W), [0, 1].
        Returns:
            (B,), [0, 1], quality over 100.
        """
        height, width = image.shape[-2:]
        x = nnf.pad(image, (0, -width % _FACTOR, 0, -height % _FACTOR), mode="replicate")
        for name in ("m_head", "m_down1", "m_down2", "m_down3", "m_body_encoder", "qf_pred"):
            x = self.network.get_submodule(name)(x)
        return 1.0 - x.flatten()
