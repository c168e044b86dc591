"""RealWebPhoto v4, DAT-2: upscales photos from the web by four.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 32, and returns (B, 3, 4H, 4W), not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, ModelSpec, WeightFile
from . import _licences, _spandrel

_RELEASES = "https://github.com/Phhofm/models/releases/download"

SPEC = ModelSpec(
    id="dat2-realwebphoto",
    title="RealWebPhoto v4 x4 (DAT-2)",
    node_name="DAT2RealWebPhotox4",
    role="upscale",
    architecture="DAT-2",
    weights=(
        WeightFile(
            Download(
                "4xRealWebPhoto_v4_dat2.pth",
                f"{_RELEASES}/4xRealWebPhoto_v4_dat2/4xRealWebPhoto_v4_dat2.pth",
                folder="upscale_models",
            ),
            size_bytes=140_299_118,
            sha256="9b82f8f60826e59b9d2e56a6e6ad9a842b84d57a9ec5ed7377bf120032b2c4c9",
            licence=_licences.PHILIP_HOFMANN,
        ),
    ),
    build=partial(_spandrel.load_dat, scale=4),
    # Beside the parameters: masks of shifted windows, and tables of positions and counters, 64-bit integers.
    weight_bytes=4 * (11_212_131 + 18_957_744) + 8 * 2_359_404,
    bytes_per_pixel=23_000,
    scale=4,
    # Windows of 8 x 32 and 32 x 8 px, whose grid must lie in every tile as it lies in the whole photo.
    multiple_of=32,
    minimum=32,
    # One window's longer side. Every other block weighs channels by what the whole tile holds: tiles differ a little.
    receptive_field=32,
    dtypes=("bfloat16", "float32"),
    description="Upscales x4 photos that were saved, shrunk and saved again; strong on JPEG damage, very slow.",
    source="Chen et al. 2023, arXiv:2308.03364; https://openmodeldb.info/models/4x-RealWebPhoto-v4-dat2",
)
