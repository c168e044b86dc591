"""Real-ESRGAN's compact video model: upscales by four, some twenty times as fast as x4plus.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Bundled, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="realesr-animevideov3",
    title="Real-ESRGAN AnimeVideo v3 x4",
    node_name="RealESRAnimeVideoV3",
    role="upscale",
    architecture="SRVGGNetCompact",
    weights=(
        WeightFile(
            Bundled("realesr_animevideov3_x4.safetensors"),
            size_bytes=1_251_552,
            sha256="42a55a65ac48d0163221e13cfcb1cf53f6191a8127b1e985e9ca04d962b74d93",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    build=partial(_spandrel.load, architecture="Compact", scale=4),
    weight_bytes=4 * 621_424,
    bytes_per_pixel=900,
    scale=4,
    # Eighteen 3 x 3 convolutions; a pixel sees nothing beyond.
    receptive_field=18,
    dtypes=("float16", "bfloat16", "float32"),
    description="Upscales x4, small and quick on a CPU; trained on drawings, so skin and foliage come out smooth.",
    source="Wang et al. 2021, arXiv:2107.10833; https://github.com/xinntao/Real-ESRGAN",
)
