"""SCUNet, PSNR-trained: removes noise of unknown kind and strength, faithfully.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 64, and returns the same shape, not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="scunet-psnr",
    title="SCUNet PSNR",
    node_name="SCUNetPSNR",
    role="denoise",
    architecture="SCUNet",
    weights=(
        WeightFile(
            Download(
                "scunet_color_real_psnr.pth",
                "https://github.com/cszn/KAIR/releases/download/v1.0/scunet_color_real_psnr.pth",
                folder="upscale_models",
            ),
            size_bytes=71_982_841,
            sha256="fa78899ba2caec9d235a900e91d96c689da71c42029230c2028b00f09f809c2e",
            licence=_licences.SCUNET,
        ),
    ),
    build=partial(_spandrel.load, architecture="SCUNet"),
    weight_bytes=4 * 17_946_072,
    bytes_per_pixel=5_000,
    # Windows of 8 px on an eighth of the photo, whose grid must lie in every tile as it lies in the whole photo.
    multiple_of=64,
    minimum=64,
    # One window at the deepest level: what the authors' own tiles share. With random weights a crop differs from the
    # whole photo by 0.03 % of the result's spread at that distance from its edge, by 3 % at 32 px.
    receptive_field=64,
    dtypes=("float16", "bfloat16", "float32"),
    description="Removes noise of unknown kind and strength, and light JPEG damage; faithful.",
    source="Zhang et al. 2022, arXiv:2203.13278; https://github.com/cszn/SCUNet",
)
