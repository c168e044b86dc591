"""The other end of Real-ESRGAN General x4 v3's denoise slider: upscales by four and leaves grain in.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, realesr_general_x4v3

SPEC = replace(
    realesr_general_x4v3.SPEC,
    id="realesr-general-wdn-x4v3",
    title="Real-ESRGAN General WDN x4 v3",
    node_name="RealESRGeneralWDNx4v3",
    weights=(
        WeightFile(
            Download(
                "realesr-general-wdn-x4v3.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.5.0/realesr-general-wdn-x4v3.pth",
                folder="upscale_models",
            ),
            size_bytes=4_885_111,
            sha256="1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    blend=None,
    description="Upscales x4, small and quick on a CPU; keeps noise and grain.",
)
