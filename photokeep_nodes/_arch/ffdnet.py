"""FFDNet, colour: removes noise of a given strength.

Source: Zhang, Zuo, Zhang 2018, "FFDNet: Toward a fast and flexible solution for CNN-based image denoising",
arXiv:1710.04026. Tensor names are those of the published ``ffdnet_color.pth``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn


class FFDNet(nn.Module):
    """Twelve convolutions on the image folded to half its sides, with the noise level as a further channel.

    Args:
        channels: colours in and out.
        features: width of the hidden layers.
        depth: number of convolutions.
    """

    def __init__(self, channels: int = 3, features: int = 96, depth: int = 12) -> None:
        super().__init__()
        folded = 4 * channels
        layers: list[nn.Module] = [nn.Conv2d(folded + 1, features, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(features, folded, 3, padding=1))
        self.model = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Remove noise.

        Args:
            image: (B, C, H, W), [0, 1]; odd sides are padded inside.
            sigma: (B,) standard deviation of the noise, in the units of ``image``.
        Returns:
            Shape, dtype and device of ``image``; not clamped.
        """
        height, width = image.shape[-2:]
        padded = nnf.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        folded = nnf.pixel_unshuffle(padded, 2)
        level = sigma.to(image.dtype).view(-1, 1, 1, 1).expand(folded.shape[0], 1, *folded.shape[-2:])
        out: torch.Tensor = self.model(torch.cat((folded, level), dim=1))
        return nnf.pixel_shuffle(out, 2)[..., :height, :width]
