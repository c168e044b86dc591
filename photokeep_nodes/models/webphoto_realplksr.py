"""NomosWebPhoto, RealPLKSR: upscales photos from the web by four with large convolutions.

The module takes (B, 3, H, W) RGB in [0, 1] and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

_RELEASES = "https://github.com/Phhofm/models/releases/download"

SPEC = ModelSpec(
    id="webphoto-realplksr",
    title="NomosWebPhoto x4 (RealPLKSR)",
    node_name="RealPLKSRWebPhotox4",
    role="upscale",
    architecture="RealPLKSR",
    weights=(
        WeightFile(
            Download(
                "4xNomosWebPhoto_RealPLKSR.pth",
                f"{_RELEASES}/4xNomosWebPhoto_RealPLKSR/4xNomosWebPhoto_RealPLKSR.pth",
                folder="upscale_models",
            ),
            size_bytes=29_683_482,
            sha256="a9db66c9b674c6a5025b6ef3bee71a57c33b8605d8a2de0980470f89002efbbe",
            licence=_licences.PHILIP_HOFMANN,
        ),
    ),
    build=partial(_spandrel.load, architecture="PLKSR", scale=4),
    weight_bytes=4 * 7_389_680,
    bytes_per_pixel=2_000,
    scale=4,
    # A pixel can see 310 px. With random weights a crop differs from the whole photo by 4 % of the result's spread at
    # 32 px from its edge, and no less further in: that is the group normalisation, which measures the whole tile.
    receptive_field=32,
    # Half precision overflows in the variant with group normalisation, which this is.
    dtypes=("bfloat16", "float32"),
    description="Upscales x4 photos that were saved, shrunk and saved again; quick on a GPU.",
    source="Lee et al. 2024, arXiv:2404.11848; https://openmodeldb.info/models/4x-NomosWebPhoto-RealPLKSR",
)
