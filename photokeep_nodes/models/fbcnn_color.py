"""FBCNN, colour: removes JPEG artefacts of a quality it reads from the photo, or is told.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 8, and, if it is to be told, the JPEG quality over
100, (B,). It returns the shape of the image, not clamped. Its ``predict_quality`` reads the quality.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

SPEC = ModelSpec(
    id="fbcnn-color",
    title="FBCNN colour",
    node_name="FBCNNColor",
    role="jpeg",
    architecture="FBCNN",
    weights=(
        WeightFile(
            Download(
                "fbcnn_color.pth",
                "https://github.com/jiaxi-jiang/FBCNN/releases/download/v1.0/fbcnn_color.pth",
                folder="upscale_models",
            ),
            size_bytes=287_755_111,
            sha256="8b0e4ef23d59cf7ac934a342cb31a17619e4fa4a0b3374a9d78c5174312387e8",
            licence=_licences.FBCNN,
        ),
    ),
    build=partial(_spandrel.load_fbcnn, channels=3),
    weight_bytes=4 * 71_921_796,
    bytes_per_pixel=1_900,
    # Three halvings; JPEG's own blocks are 8 px too, and must lie in every tile as they lie in the whole photo.
    multiple_of=8,
    minimum=8,
    # With random weights, and told the quality, a crop differs from the whole photo by 1 % of the result's spread at
    # 64 px from its edge, by 13 % at 32 px.
    receptive_field=64,
    dtypes=("float16", "float32"),
    condition="jpeg_quality",
    description="Removes JPEG artefacts, as much as the photo's own quality asks for, or as told; faithful.",
    source="Jiang et al. 2021, arXiv:2109.14573; https://github.com/jiaxi-jiang/FBCNN",
)
