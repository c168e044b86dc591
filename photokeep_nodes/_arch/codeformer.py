"""CodeFormer behind the contract of the face restorers, with its fidelity as the second argument.

The network itself is spandrel_extra_arches'. Source: Zhou et al. 2022, "Towards robust blind face restoration with
codebook lookup transformer", arXiv:2206.11253.
"""

from __future__ import annotations

import torch
from torch import nn

from ..errors import NodeInputError
from .aligned_faces import from_network, to_network

_USUAL_FIDELITY = 0.5


class FidelityRestorer(nn.Module):
    """Normalises for CodeFormer and back, and hands the fidelity on.

    Args:
        network: CodeFormer for 512 px. Statistics of the codes are always matched to those of the face (``adain``), as
            in the authors' own inference.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, face: torch.Tensor, fidelity: torch.Tensor | None = None) -> torch.Tensor:
        """Restore aligned faces.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
            fidelity: (B,) in [0, 1]: 0 takes faces from the codebook alone, 1 lays all that the encoder saw over it;
                None is a half, as in the authors' script.
        Returns:
            Shape, dtype and device of ``face``, [0, 1].
        Raises:
            NodeInputError: another shape, or fidelities that are not one number of that range for each face.
        """
        image = to_network(face)
        count = face.shape[0]
        shares = [_USUAL_FIDELITY] * count if fidelity is None else fidelity.flatten().tolist()
        if len(shares) != count or not all(0.0 <= share <= 1.0 for share in shares):  # false for NaN
            raise NodeInputError(
                f"a fidelity must be between 0 and 1, one for each of {count} faces, not {shares[:8]}",
                hint="0 restores most, 1 stays closest to the photo.",
            )
        # spandrel's descriptor would keep the fidelity at a half, not scale, and clamp. One by one, because the network
        # asks whether its one number is zero, and then leaves the encoder out.
        one_by_one = zip(torch.split(image, 1), shares, strict=True)
        return from_network(torch.cat([self.network(each, weight=share)[0] for each, share in one_by_one]))
