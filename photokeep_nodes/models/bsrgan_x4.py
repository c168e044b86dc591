"""BSRGAN: upscales by four; Real-ESRGAN's network, trained on another mixture of damage.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, Licence, WeightFile
from . import realesrgan_x4plus

SPEC = replace(
    realesrgan_x4plus.SPEC,
    id="bsrgan-x4",
    title="BSRGAN x4",
    node_name="BSRGANx4",
    weights=(
        WeightFile(
            Download(
                "BSRGAN.pth",
                "https://github.com/cszn/KAIR/releases/download/v1.0/BSRGAN.pth",
                folder="upscale_models",
            ),
            size_bytes=67_046_751,
            sha256="5d505a0766160921e0388d76e1ddf08cb114303990f9080432bf2b1c988b1c54",
            licence=Licence("Apache-2.0", commercial=True, url="https://github.com/cszn/BSRGAN/blob/main/LICENSE"),
        ),
    ),
    blend=None,
    description="Upscales x4 and cleans up real-world damage; keeps closer to the photo than most. Slow on a CPU.",
    source="Zhang et al. 2021, arXiv:2103.14006; https://github.com/cszn/BSRGAN",
)
