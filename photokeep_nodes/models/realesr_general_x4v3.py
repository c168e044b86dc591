"""Real-ESRGAN's small general model: upscales by four, light enough for a CPU.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Blend, Download, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="realesr-general-x4v3",
    title="Real-ESRGAN General x4 v3",
    node_name="RealESRGeneralx4v3",
    role="upscale",
    architecture="SRVGGNetCompact",
    weights=(
        WeightFile(
            Download(
                "realesr-general-x4v3.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.5.0/realesr-general-x4v3.pth",
                folder="upscale_models",
            ),
            size_bytes=4_885_111,
            sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    build=partial(_spandrel.load, architecture="Compact", scale=4),
    weight_bytes=4 * 1_213_296,
    bytes_per_pixel=1_000,
    scale=4,
    # Thirty-four 3 x 3 convolutions; a pixel sees nothing beyond.
    receptive_field=34,
    dtypes=("float16", "bfloat16", "float32"),
    blend=Blend(
        partner="realesr-general-wdn-x4v3",
        widget="denoise",
        default=0.5,
        partner_at=0,
        tooltip="1: removes grain and noise. 0: leaves them in. Below 1 the file of the wdn model is needed too.",
    ),
    description="Upscales x4, small and quick on a CPU; how much grain stays is a slider.",
    source="Wang et al. 2021, arXiv:2107.10833; https://github.com/xinntao/Real-ESRGAN",
)
