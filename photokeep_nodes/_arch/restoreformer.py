"""RestoreFormer and RestoreFormer++: an autoencoder over a codebook of face parts, whose decoder asks the encoder.

Source: Wang et al. 2022, "RestoreFormer: high-quality blind face restoration from undegraded key-value pairs",
CVPR 2022; Wang et al. 2023, arXiv:2308.07228 (++). Tensor names are those of the published ``RestoreFormer.pth``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as nnf
from torch import nn

from .aligned_faces import from_network, to_network

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTHS = (64, 64, 128, 128, 256, 256, 512)  # of what comes in, then of the levels at 512, 256, ... 16 px
_COARSEST = len(_WIDTHS) - 2
_BLOCKS = 2  # per level of the encoder; the decoder has one more
_CODES = 1024
_CODE_WIDTH = 256


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, out, 3, padding=1)
        self.norm2 = _norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if inputs != out:
            self.nin_shortcut = nn.Conv2d(inputs, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(nnf.silu(self.norm1(x)))
        h = self.conv2(nnf.silu(self.norm2(h)))
        result: torch.Tensor = h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)
        return result


class _Attention(nn.Module):
    """Attention between the pixels of a map, or from those of another map of its size to its own.

    Args:
        width: channels of either map.
        heads: among which they are divided.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = _norm(width)
        self.norm2 = _norm(width)  # in every file, of use only where another map asks
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: torch.Tensor, asking: torch.Tensor | None = None) -> torch.Tensor:
        own = self.norm1(x)
        query = self.q(own if asking is None else self.norm2(asking))
        query, key, value = (self._split(each) for each in (query, self.k(own), self.v(own)))
        found = nnf.scaled_dot_product_attention(query, key, value)
        result: torch.Tensor = x + self.proj_out(found.transpose(2, 3).reshape(x.shape))
        return result

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, heads, H * W, C / heads)."""
        batch, width, height, across = x.shape
        return x.reshape(batch, self.heads, width // self.heads, height * across).transpose(2, 3)


class _Middle(nn.Module):
    """Block, attention, block at 16 px."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.block_1 = _Block(width, width)
        self.attn_1 = _Attention(width, heads)
        self.block_2 = _Block(width, width)


class _Resample(nn.Module):
    """Half or twice the size, and a convolution."""

    def __init__(self, width: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv = nn.Conv2d(width, width, 3, stride=2) if halve else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nnf.pad(x, (0, 1, 0, 1)) if self.halve else nnf.interpolate(x, scale_factor=2.0, mode="nearest")
        result: torch.Tensor = self.conv(x)
        return result


class _Level(nn.Module):
    """Blocks at one size, each followed by attention where the level has it.

    ``downsample`` or ``upsample``, by its name in the file, leads to the next level; the last one has none.
    """

    downsample: _Resample
    upsample: _Resample

    def __init__(self, inputs: int, out: int, blocks: int, heads: int, *, attends: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(inputs if i == 0 else out, out) for i in range(blocks))
        self.attn = nn.ModuleList(_Attention(out, heads) for _ in range(blocks if attends else 0))

    def forward(self, x: torch.Tensor, asking: torch.Tensor | None = None) -> torch.Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x, asking)
        return x


class _Encoder(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, _WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, (inputs, out) in enumerate(pairwise(_WIDTHS)):
            part = _Level(inputs, out, _BLOCKS, heads, attends=level == _COARSEST)
            if level != _COARSEST:
                part.downsample = _Resample(out, halve=True)
            self.down.append(part)
        self.mid = _Middle(_WIDTHS[-1], heads)
        self.norm_out = _norm(_WIDTHS[-1])
        self.conv_out = nn.Conv2d(_WIDTHS[-1], _CODE_WIDTH, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor], torch.Tensor]:
        """Features (B, 256, 16, 16), and what the decoder will ask with: by level, and in its middle."""
        h = self.conv_in(x)
        asking = {}
        for level, each in enumerate(self.down):
            part = cast("_Level", each)
            h = part(h)
            if level != _COARSEST:
                asking[level] = h
                h = part.downsample(h)
        asking[_COARSEST] = h = self.mid.block_1(h)
        middle = self.mid.block_2(self.mid.attn_1(h))
        return self.conv_out(nnf.silu(self.norm_out(middle))), asking, middle


class _Decoder(nn.Module):
    def __init__(self, heads: int, asked: Iterable[int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(_CODE_WIDTH, _WIDTHS[-1], 3, padding=1)
        self.mid = _Middle(_WIDTHS[-1], heads)
        self.up = nn.ModuleList()
        for level in range(_COARSEST + 1):
            inputs, out = _WIDTHS[min(level + 2, _COARSEST + 1)], _WIDTHS[level + 1]
            part = _Level(inputs, out, _BLOCKS + 1, heads, attends=level in asked)
            if level != 0:
                part.upsample = _Resample(out, halve=False)
            self.up.append(part)
        self.norm_out = _norm(_WIDTHS[1])
        self.conv_out = nn.Conv2d(_WIDTHS[1], 3, 3, padding=1)

    def forward(self, codes: torch.Tensor, asking: dict[int, torch.Tensor], middle: torch.Tensor) -> torch.Tensor:
        h = self.mid.block_1(self.conv_in(codes))
        h = self.mid.block_2(self.mid.attn_1(h, middle))
        for level in range(_COARSEST, -1, -1):
            part = cast("_Level", self.up[level])
            h = part(h, asking[level])
            if level != 0:
                h = part.upsample(h)
        result: torch.Tensor = self.conv_out(nnf.silu(self.norm_out(h)))
        return result


class _Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_CODES, _CODE_WIDTH)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The nearest code in place of each pixel's features."""
        codes = self.embedding.weight
        pixels = features.permute(0, 2, 3, 1)  # BCHW -> BHWC
        # Squared distances, but for the length of the features, which is the same to all codes.
        distance = codes.square().sum(1) - 2 * pixels @ codes.t()
        nearest: torch.Tensor = self.embedding(distance.argmin(-1))
        return nearest.permute(0, 3, 1, 2)  # BHWC -> BCHW


class RestoreFormer(nn.Module):
    """Restores aligned faces; the same face always gives the same result.

    Args:
        heads: of each attention: 8 in RestoreFormer, 4 in ++. No tensor's shape tells.
        asked: levels, 0 at 512 px to 5 at 16 px, at which the decoder is asked by the encoder: (5,), in ++ (4, 5).
    """

    def __init__(self, heads: int = 8, asked: tuple[int, ...] = (_COARSEST,)) -> None:
        super().__init__()
        self.encoder = _Encoder(heads)
        self.decoder = _Decoder(heads, asked)
        self.quantize = _Codebook()
        self.quant_conv = nn.Conv2d(_CODE_WIDTH, _CODE_WIDTH, 1)
        self.post_quant_conv = nn.Conv2d(_CODE_WIDTH, _CODE_WIDTH, 1)

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """Restore aligned faces.

        Args:
            face: (B, 3, 512, 512) RGB, [0, 1], aligned to the FFHQ template.
        Returns:
            Shape, dtype and device of ``face``, [0, 1].
        Raises:
            NodeInputError: another shape.
        """
        features, asking, middle = self.encoder(to_network(face))
        codes = self.quantize(self.quant_conv(features))
        return from_network(self.decoder(self.post_quant_conv(codes), asking, middle))
