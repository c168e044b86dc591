"""Real-ESRGAN x2plus: upscales by two and repairs blur, noise and JPEG damage on the way.

The module takes (B, 3, H, W) RGB in [0, 1], H and W even, and returns (B, 3, 2H, 2W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..model_spec import Download, WeightFile
from . import _licences, _spandrel, realesrgan_x4plus

SPEC = replace(
    realesrgan_x4plus.SPEC,
    id="realesrgan-x2plus",
    title="Real-ESRGAN x2plus",
    node_name="RealESRGANx2plus",
    weights=(
        WeightFile(
            Download(
                "RealESRGAN_x2plus.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.1/RealESRGAN_x2plus.pth",
                folder="upscale_models",
            ),
            size_bytes=67_061_725,
            sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    build=partial(_spandrel.load_rrdbnet, scale=2),
    weight_bytes=4 * 16_703_171,
    bytes_per_pixel=3_750,
    scale=2,
    # It is the x4 network on the photo folded to half its sides: cells of 2 x 2 must begin where the whole photo's do,
    # and what is 48 px of context there is 96 px here.
    multiple_of=2,
    minimum=2,
    receptive_field=96,
    blend=None,
    description="Upscales x2 and cleans up real-world damage; may invent fine texture.",
)
