"""SwinIR-L, real-world: upscales by four with attention inside shifted windows.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 8, and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

_FILE = "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN.pth"

SPEC = ModelSpec(
    id="swinir-l-real",
    title="SwinIR-L real x4",
    node_name="SwinIRLRealx4",
    role="upscale",
    architecture="SwinIR",
    weights=(
        WeightFile(
            Download(
                _FILE,
                f"https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/{_FILE}",
                folder="upscale_models",
            ),
            size_bytes=142_473_939,
            sha256="99adfa91350a84c99e946c1eb3d8fce34bc28f57d807b09dc8fe40a316328c0a",
            licence=_licences.SWINIR,
        ),
    ),
    build=partial(_spandrel.load_swinir, scale=4),
    # Beside the parameters: masks of shifted windows, and tables of positions, which are 64-bit integers.
    weight_bytes=4 * (28_013_059 + 7_077_888) + 8 * 221_184,
    bytes_per_pixel=20_000,
    scale=4,
    # Windows of 8 px, whose grid must lie in every tile as it lies in the whole photo.
    multiple_of=8,
    minimum=16,
    # Four windows. The authors' own tiles share 32 px in all, ours 80.
    receptive_field=32,
    dtypes=("bfloat16", "float32"),
    description="Upscales x4 and cleans up real-world damage; fine detail, very slow.",
    source="Liang et al. 2021, arXiv:2108.10257; https://github.com/JingyunLiang/SwinIR",
)
