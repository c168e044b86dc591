"""The colouriser of Zhang et al. 2017: lightness in, with or without known colours, two colour channels out.

Source: Zhang, Zhu, Isola, Geng, Lin, Yu, Efros 2017, "Real-time user-guided image colorization with learned deep
priors", arXiv:1705.02999. Tensor names are those of the published ``siggraph17-df00044c.pth``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as nnf
from torch import nn

from .batch_norm import Norm

_L_MIDDLE, _L_RANGE, _AB_RANGE = 50.0, 100.0, 110.0
_FACTOR = 8  # three halvings


def _block(*channels: int, dilation: int = 1, activated: bool = False) -> nn.Sequential:
    """3x3 convolutions, each with a ReLU behind it, and a normalisation at the end.

    Args:
        channels: in, then out of each convolution.
        dilation: of every convolution.
        activated: put a ReLU in front, for sums that come in without one.
    """
    layers: list[nn.Module] = [nn.ReLU()] if activated else []
    for inputs, out in pairwise(channels):
        layers += [nn.Conv2d(inputs, out, 3, padding=dilation, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers, Norm(channels[-1]))


def _up(inputs: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, out, 4, stride=2, padding=1))


def _shortcut(inputs: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, out, 3, padding=1))


class Siggraph17(nn.Module):
    """A U-Net with dilated convolutions at an eighth of the size.

    Args:
        classes: bins of the colour classifier, which only training used; its weights are part of the published file.
    """

    def __init__(self, classes: int = 529) -> None:
        super().__init__()
        self.model1 = _block(4, 64, 64)
        self.model2 = _block(64, 128, 128)
        self.model3 = _block(128, 256, 256, 256)
        self.model4 = _block(256, 512, 512, 512)
        self.model5 = _block(512, 512, 512, 512, dilation=2)
        self.model6 = _block(512, 512, 512, 512, dilation=2)
        self.model7 = _block(512, 512, 512, 512)
        self.model8up, self.model3short8 = _up(512, 256), _shortcut(256, 256)
        self.model8 = _block(256, 256, 256, activated=True)
        self.model9up, self.model2short9 = _up(256, 128), _shortcut(128, 128)
        self.model9 = _block(128, 128, activated=True)
        self.model10up, self.model1short10 = _up(128, 128), _shortcut(64, 128)
        self.model10 = nn.Sequential(nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.LeakyReLU(0.2))
        self.model_class = nn.Sequential(nn.Conv2d(256, classes, 1))
        self.model_out = nn.Sequential(nn.Conv2d(128, 2, 1), nn.Tanh())

    def forward(
        self, lightness: torch.Tensor, hints: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Guess colours.

        Args:
            lightness: (B, 1, H, W) CIE L, 0 to 100; made for 256 x 256. Sides are padded inside to
                multiples of 8.
            hints: (B, 2, H, W) known a and b; zero where nothing is known. None: nothing is known.
            mask: (B, 1, H, W), 1 where ``hints`` hold, else 0. None: nowhere.
        Returns:
            (B, 2, H, W) CIE a and b, within -110 to 110.
        """
        height, width = lightness.shape[-2:]
        known = torch.zeros_like(lightness) if mask is None else mask
        ab = torch.zeros_like(lightness).expand(-1, 2, -1, -1) if hints is None else hints / _AB_RANGE
        x = torch.cat(((lightness - _L_MIDDLE) / _L_RANGE, ab, known), dim=1)
        x = nnf.pad(x, (0, -width % _FACTOR, 0, -height % _FACTOR), mode="replicate")

        c1 = self.model1(x)
        c2 = self.model2(c1[..., ::2, ::2])
        c3 = self.model3(c2[..., ::2, ::2])
        deep = self.model7(self.model6(self.model5(self.model4(c3[..., ::2, ::2]))))
        u3 = self.model8(self.model8up(deep) + self.model3short8(c3))
        u2 = self.model9(self.model9up(u3) + self.model2short9(c2))
        u1 = self.model10(self.model10up(u2) + self.model1short10(c1))
        out: torch.Tensor = self.model_out(u1)
        return out[..., :height, :width] * _AB_RANGE
