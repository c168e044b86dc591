"""Real-ESRNet x4plus: Real-ESRGAN x4plus before its adversarial training.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, realesrgan_x4plus

SPEC = replace(
    realesrgan_x4plus.SPEC,
    id="realesrnet-x4plus",
    title="Real-ESRNet x4plus",
    node_name="RealESRNetx4plus",
    weights=(
        WeightFile(
            Download(
                "RealESRNet_x4plus.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.1/RealESRNet_x4plus.pth",
                folder="upscale_models",
            ),
            size_bytes=67_040_989,
            sha256="a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    blend=None,
    description="Upscales x4 and cleans up real-world damage; invents nothing, so it stays soft. Slow on a CPU.",
)
