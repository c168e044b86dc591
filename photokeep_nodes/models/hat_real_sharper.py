"""HAT, real-world, trained against sharpened photos: upscales by four.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 16, and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, hat_real

SPEC = replace(
    hat_real.SPEC,
    id="hat-real-sharper",
    title="Real HAT GAN x4 sharper",
    node_name="HATSharper",
    weights=(
        WeightFile(
            Download(
                "Real_HAT_GAN_sharper.pth",
                "https://huggingface.co/Acly/hat/resolve/main/Real_HAT_GAN_sharper.pth",
                mirrors=(
                    "https://github.com/TensoRaws/ccrestoration/releases/download/model_zoo/HAT_Real_GAN_sharper_4x.pth",
                ),
                folder="upscale_models",
            ),
            size_bytes=170_277_017,
            sha256="5800b67136006eb8cab3b4ed7c8d73b6a195bb18e6cc709b674f9aa069c00271",
            licence=_licences.of_copy(_licences.HAT, "Real_HAT_GAN_sharper.pth", by="Acly"),
        ),
    ),
    description="Upscales x4 and cleans up real-world damage; crisper than Real HAT GAN, less faithful, very slow.",
)
