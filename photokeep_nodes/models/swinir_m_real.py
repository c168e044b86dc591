"""SwinIR-M, real-world: SwinIR-L with less than half the weights.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 8, and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, swinir_l_real

_FILE = "003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth"

SPEC = replace(
    swinir_l_real.SPEC,
    id="swinir-m-real",
    title="SwinIR-M real x4",
    node_name="SwinIRMRealx4",
    weights=(
        WeightFile(
            Download(
                _FILE,
                f"https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/{_FILE}",
                folder="upscale_models",
            ),
            size_bytes=67_129_861,
            sha256="b9afb61e65e04eb7f8aba5095d070bbe9af28df76acd0c9405aeb33b814bcfc6",
            licence=_licences.SWINIR,
        ),
    ),
    weight_bytes=4 * (11_715_559 + 4_718_592) + 8 * 147_456,
    bytes_per_pixel=20_000,
    description="Upscales x4 and cleans up real-world damage; a smaller SwinIR-L, trained on fewer photos. Slow.",
)
