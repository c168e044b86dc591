"""DDColor: a U-Net draws what is where, a transformer mixes a hundred colours from it, their products are the colours.

Source: Kang et al. 2023, "DDColor: Towards photo-realistic image colorization via dual decoders", arXiv:2212.11613, and
the behaviour of https://github.com/piddnad/DDColor (Apache-2.0). Tensor names are those of the published files, with
spectral normalisation folded into the weights (``fold_spectral_norms``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import nn

from ..errors import NodeInputError, WeightsFormatError
from .convnext import FACTOR, ConvNeXt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUERIES = 100
_CHANNELS = 512  # of the U-Net's first two sizes; half of it at the third
_EMBEDDING = 256
_HEADS, _HIDDEN, _LAYERS = 8, 2048, 9
_LAST_FACTOR = 4  # by which the last enlarging folds channels out into pixels
_BAND = (
    8  # rows of the largest map that are drawn at once: all of them take 268 MB at 512 px, and each copy as much again
)


def gray_srgb(lightness: torch.Tensor) -> torch.Tensor:
    """Turn CIE L, 0 to 100, into the value that all three channels of a gray pixel have in sRGB; any shape.

    The true curves, not a power of 2.2: CIE 15:2004 and IEC 61966-2-1.
    """
    cube = ((lightness + 16.0) / 116.0) ** 3
    linear = torch.where(lightness > 8.0, cube, lightness * (27.0 / 24389.0))
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curve)


def fold_spectral_norms(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Divide weights by the spectral norms that training kept them at, as every run of the network would.

    Args:
        state: tensors of a published file: ``weight_orig`` beside ``weight_u`` and ``weight_v``, the estimates of its
            first singular vectors. Weights without such company are left as they are.
    Returns:
        The same, with one ``weight`` for each three.
    Raises:
        WeightsFormatError: a norm is zero, or no number.
    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks", arXiv:1802.05957, eq. 17.
    """
    folded = dict(state)
    for name, weight in state.items():
        if not name.endswith("_orig"):
            continue
        stem = name.removesuffix("_orig")
        left, right = state.get(f"{stem}_u"), state.get(f"{stem}_v")
        if left is None or right is None or weight.ndim < 2:
            continue
        rows = weight.float().flatten(1)
        if (left.shape, right.shape) != (rows.shape[:1], rows.shape[1:]):
            continue  # whoever reads the result says that these are left over
        norm = torch.dot(left.float(), rows @ right.float())
        if not bool(torch.isfinite(norm)) or norm == 0:
            raise WeightsFormatError(
                f"the weights are not those of DDColor: the spectral norm of {stem} is {float(norm)}",
                hint="The file is damaged. Delete it and get it again.",
                wanted="DDColor",
            )
        for used in (name, f"{stem}_u", f"{stem}_v"):
            del folded[used]
        folded[stem] = weight.float() / norm
    return folded


def _soften(x: torch.Tensor) -> torch.Tensor:
    """Mean of each pixel, those above and to the left: takes off the grid that folding channels out leaves."""
    return nnf.avg_pool2d(nnf.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class _Enlarge(nn.Module):
    """Twice the size, by folding channels out into pixels."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inputs, 4 * out, 1, bias=False), nn.BatchNorm2d(4 * out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _soften(nnf.pixel_shuffle(nnf.relu(self.conv(x)), 2))


class _Merge(nn.Module):
    """One step up in the U-Net: what came from below, with the encoder's map of that size."""

    def __init__(self, below: int, beside: int, out: int) -> None:
        super().__init__()
        self.shuf = _Enlarge(below, out)
        self.bn = nn.BatchNorm2d(beside)
        self.conv = nn.Sequential(
            nn.Conv2d(out + beside, out, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm2d(out)
        )

    def forward(self, below: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        merged: torch.Tensor = self.conv(nnf.relu(torch.cat((self.shuf(below), self.bn(beside)), 1)))
        return merged


class _SelfAttention(nn.Module):
    """Colours look at each other. All are (B, number, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(_EMBEDDING, _HEADS, batch_first=True)
        self.norm = nn.LayerNorm(_EMBEDDING)

    def forward(self, colours: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        asking = colours + places
        seen, _ = self.self_attn(asking, asking, colours, need_weights=False)
        out: torch.Tensor = self.norm(colours + seen)
        return out


class _CrossAttention(nn.Module):
    """Colours look at the image. All are (B, number, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(_EMBEDDING, _HEADS, batch_first=True)
        self.norm = nn.LayerNorm(_EMBEDDING)

    def forward(
        self, colours: torch.Tensor, places: torch.Tensor, pixels: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        seen, _ = self.multihead_attn(colours + places, pixels + positions, pixels, need_weights=False)
        out: torch.Tensor = self.norm(colours + seen)
        return out


class _FeedForward(nn.Module):
    """Each colour by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(_EMBEDDING, _HIDDEN), nn.Linear(_HIDDEN, _EMBEDDING)
        self.norm = nn.LayerNorm(_EMBEDDING)

    def forward(self, colours: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(colours + self.linear2(nnf.relu(self.linear1(colours))))
        return out


class _ThreeLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(_EMBEDDING, _EMBEDDING) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        out: torch.Tensor = last(nnf.relu(second(nnf.relu(first(x)))))
        return out


def positions(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sines and cosines that tell pixels apart by where they are: half the channels for the row, half for the column.

    Returns:
        (height * width, channels), row by row, in the type and on the device of ``like``.
    Source: Carion et al. 2020, "End-to-end object detection with transformers", arXiv:2005.12872, appendix A.4.
    """
    half = _EMBEDDING // 2
    wavelengths = 10_000.0 ** (torch.arange(0, half, 2, device=like.device, dtype=torch.float32) / half)

    def along(size: int) -> torch.Tensor:
        turn = torch.arange(1, size + 1, device=like.device, dtype=torch.float32) * (2 * math.pi / (size + 1e-6))
        angle = turn[:, None] / wavelengths
        return torch.stack((angle.sin(), angle.cos()), 2).flatten(1)  # (size, half): sine, cosine, sine ...

    rows, columns = along(height)[:, None].expand(-1, width, -1), along(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), 2).flatten(0, 1).to(like.dtype)


class _ColourDecoder(nn.Module):
    """Mixes colours that suit an image, looking at its three sizes in turn."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.query_feat, self.query_embed = nn.Embedding(QUERIES, _EMBEDDING), nn.Embedding(QUERIES, _EMBEDDING)
        self.level_embed = nn.Embedding(len(widths), _EMBEDDING)
        self.input_proj = nn.ModuleList(nn.Conv2d(width, _EMBEDDING, 1) for width in widths)
        self.transformer_self_attention_layers = nn.ModuleList(_SelfAttention() for _ in range(_LAYERS))
        self.transformer_cross_attention_layers = nn.ModuleList(_CrossAttention() for _ in range(_LAYERS))
        self.transformer_ffn_layers = nn.ModuleList(_FeedForward() for _ in range(_LAYERS))
        self.decoder_norm = nn.LayerNorm(_EMBEDDING)
        self.color_embed = _ThreeLayers()

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mix colours.

        Args:
            maps: (B, widths[i], h, w).
        Returns:
            (B, QUERIES, channels).
        """
        levels = []
        for project, level, x in zip(self.input_proj, self.level_embed.weight, maps, strict=True):
            pixels = project(x).flatten(2).transpose(1, 2) + level  # BCHW -> (B, pixels, channels)
            height, width = x.shape[-2:]
            levels.append((pixels, positions(height, width, like=pixels)))
        batch = maps[0].shape[0]
        places = self.query_embed.weight.expand(batch, -1, -1)
        colours = self.query_feat.weight.expand(batch, -1, -1)
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (look, compare, think) in enumerate(layers):
            pixels, where = levels[index % len(levels)]
            colours = think(compare(look(colours, places, pixels, where), places))
        mixed: torch.Tensor = self.color_embed(self.decoder_norm(colours))
        return mixed


class _Decoder(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        quarter, eighth, sixteenth, deepest = widths
        self.layers = nn.ModuleList(
            [
                _Merge(deepest, sixteenth, _CHANNELS),
                _Merge(_CHANNELS, eighth, _CHANNELS),
                _Merge(_CHANNELS, quarter, _EMBEDDING),
            ]
        )
        folded = nn.Conv2d(_EMBEDDING, _EMBEDDING * _LAST_FACTOR**2, 1)
        self.last_shuf = nn.ModuleDict({"conv": nn.Sequential(folded)})
        self.color_decoder = _ColourDecoder((_CHANNELS, _CHANNELS, _EMBEDDING))


class DDColor(nn.Module):
    """Colours from lightness.

    Args:
        depths: blocks of each of the encoder's stages.
        widths: channels of each.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"arch": ConvNeXt(depths, widths)})
        self.decoder = _Decoder(widths)
        self.refine_net = nn.Sequential(nn.Sequential(nn.Conv2d(QUERIES + 3, 2, 1)))
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))

    def forward(self, lightness: torch.Tensor) -> torch.Tensor:
        """Guess colours.

        Args:
            lightness: (B, 1, H, W) CIE L, 0 to 100; made for 512 x 512, sides multiples of 32.
        Returns:
            (B, 2, H, W) CIE a and b.
        Raises:
            NodeInputError: another shape.
        """
        if (
            lightness.ndim != 4
            or lightness.shape[1] != 1
            or any(side % FACTOR or not side for side in lightness.shape[-2:])
        ):
            raise NodeInputError(
                f"lightness to colour must be (batch, 1, height, width), sides multiples of {FACTOR}, "
                f"not {tuple(lightness.shape)}"
            )
        gray = gray_srgb(lightness).expand(-1, 3, -1, -1)
        image = (gray - self.get_buffer("mean")) / self.get_buffer("std")
        quarter, eighth, sixteenth, deepest = self.encoder["arch"](image.contiguous(memory_format=torch.channels_last))
        first, second, third = self.decoder.layers
        small = first(deepest, sixteenth)
        middle = second(small, eighth)
        large = third(middle, quarter)
        return self._paint(large, self.decoder.color_decoder((small, middle, large)), image)

    def _paint(self, large: torch.Tensor, colours: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Weigh the colours at each pixel, and add them up to a and b.

        The authors enlarge the map first, which makes 256 channels of full size, soften it, take its products with the
        100 colours, and then two sums of these and the image. All but the enlarging's ReLU is linear and the same for
        every channel, so that another order gives the same: 0.3 GB in all at 512 px, where theirs takes 0.9 GB.
        """
        # These sums are what the photo shows: bfloat16 would round them to 1/256 of themselves, in bands.
        with torch.autocast(large.device.type, enabled=False):
            weight = self.get_parameter("refine_net.0.0.weight").flatten(1)  # (2, QUERIES + 3)
            bias = self.get_parameter("refine_net.0.0.bias")
            mixing = weight[:, :QUERIES] @ colours.to(weight.dtype)  # (B, 2, channels)
            fold, spots = self.decoder.last_shuf["conv"], _LAST_FACTOR**2
            bands = []
            for band in torch.split(large.to(weight.dtype), _BAND, dim=2):
                drawn = nnf.relu_(fold(band))
                batch, _, rows, width = drawn.shape
                spread = drawn.reshape(batch, -1, spots, rows, width)  # as pixel_shuffle takes channels apart
                bands.append(torch.einsum("bkc,bcshw->bkshw", mixing, spread).flatten(1, 2))
            ab = _soften(nnf.pixel_shuffle(torch.cat(bands, 2), _LAST_FACTOR))
            return ab + nnf.conv2d(image, weight[:, QUERIES:, None, None], bias)
