"""NAFNet, SIDD: removes the noise of small camera sensors.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 16, and returns the same shape, not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="nafnet-sidd64",
    title="NAFNet SIDD width 64",
    node_name="NAFNetSIDD64",
    role="denoise",
    architecture="NAFNet",
    weights=(
        WeightFile(
            # The repository links to Google Drive, which has no direct addresses; this is a co-author's demonstration.
            Download(
                "NAFNet-SIDD-width64.pth",
                "https://huggingface.co/spaces/chuxiaojie/NAFNet/resolve/5964ed4955416df99210106b708e4a2df9e9eca0/"
                "NAFNet-SIDD-width64.pth",
                mirrors=("https://huggingface.co/mikestealth/nafnet-models/resolve/main/NAFNet-SIDD-width64.pth",),
                folder="upscale_models",
            ),
            size_bytes=464_154_961,
            sha256="cd685efaae01f7c4e9951f2deab05780079c8eb1e49ed664b72f6db04dabb445",
            licence=_licences.NAFNET,
        ),
    ),
    build=partial(_spandrel.load, architecture="NAFNet"),
    weight_bytes=4 * 115_982_915,
    bytes_per_pixel=3_100,
    # Four halvings, whose cells must begin where the whole photo's do.
    multiple_of=16,
    minimum=16,
    # With random weights a crop differs from the whole photo by 14 % of the result's spread at 32 px from its edge, and
    # no less further in: those are the means.
    receptive_field=32,
    # Every block weighs its channels by their mean over the tile, and training saw 256 px of a photo. The authors
    # take means over one and a half times that.
    best_tile=384,
    dtypes=("bfloat16", "float32"),
    description="Removes the noise of phone cameras in poor light; made for those alone, scans may come out wrong.",
    source="Chen et al. 2022, arXiv:2204.04676; https://github.com/megvii-research/NAFNet",
)
