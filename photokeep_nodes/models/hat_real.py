"""HAT, real-world: upscales by four with window and channel attention.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 16, and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="hat-real",
    title="Real HAT GAN x4",
    node_name="HAT",
    role="upscale",
    architecture="HAT",
    weights=(
        WeightFile(
            Download(
                "Real_HAT_GAN_SRx4.pth",
                "https://github.com/TensoRaws/ccrestoration/releases/download/model_zoo/HAT_Real_GAN_4x.pth",
                mirrors=("https://huggingface.co/datasets/dputilov/exp/resolve/main/Real_HAT_GAN_SRx4.pth",),
                folder="upscale_models",
            ),
            size_bytes=170_277_017,
            sha256="f5b1e3bbbb05147ca2beefcc715279cb647d7976cbda67d62ea7e6e20d5ffcc7",
            licence=_licences.of_copy(_licences.HAT, "Real_HAT_GAN_SRx4.pth", by="TensoRaws"),
        ),
    ),
    build=partial(_spandrel.load, architecture="HAT", scale=4),
    # The second summand is tables of positions, 64-bit integers.
    weight_bytes=4 * 20_772_507 + 8 * 212_992,
    bytes_per_pixel=55_000,
    scale=4,
    # Windows of 16 px, whose grid must lie in every tile as it lies in the whole photo.
    multiple_of=16,
    minimum=16,
    # Two windows: what the authors pad tiles by. Attention reaches further, but not with much weight.
    receptive_field=32,
    dtypes=("bfloat16", "float32"),
    description="Upscales x4 and cleans up real-world damage; the most detailed here, true to the photo, very slow.",
    source="Chen et al. 2023, arXiv:2309.05239; https://github.com/XPixelGroup/HAT",
)
