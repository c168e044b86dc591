"""NAFNet, GoPro: sharpens photos blurred by a moving camera or subject.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 16, and returns the same shape, not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, nafnet_sidd64

SPEC = replace(
    nafnet_sidd64.SPEC,
    id="nafnet-gopro64",
    title="NAFNet GoPro width 64",
    node_name="NAFNetGoPro64",
    role="deblur",
    weights=(
        WeightFile(
            Download(
                "NAFNet-GoPro-width64.pth",
                "https://huggingface.co/mikestealth/nafnet-models/resolve/main/NAFNet-GoPro-width64.pth",
                mirrors=("https://huggingface.co/nyanko7/nafnet-models/resolve/main/NAFNet-GoPro-width64.pth",),
                folder="upscale_models",
            ),
            size_bytes=271_778_961,
            sha256="329d3ab4077b8d6b7ff61de376e483714667960bf85be027bf4335cda701196f",
            licence=_licences.of_copy(_licences.NAFNET, "NAFNet-GoPro-width64.pth", by="mikestealth"),
        ),
    ),
    weight_bytes=4 * 67_888_835,
    bytes_per_pixel=2_700,
    description="Sharpens motion blur of a few pixels' length; leaves what is out of focus mostly as it is.",
)
