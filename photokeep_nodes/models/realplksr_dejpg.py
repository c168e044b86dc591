"""DeJPG, RealPLKSR: removes JPEG artefacts down to about quality 40.

The module takes (B, 3, H, W) RGB in [0, 1] and returns the same shape, not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, realplksr_denoise

_RELEASES = "https://github.com/Phhofm/models/releases/download"

SPEC = replace(
    realplksr_denoise.SPEC,
    id="realplksr-dejpg",
    title="DeJPG (RealPLKSR)",
    node_name="RealPLKSRDeJPG",
    role="jpeg",
    weights=(
        WeightFile(
            Download(
                "1xDeJPG_realplksr_otf.pth",
                f"{_RELEASES}/1xDeJPG_realplksr_otf/1xDeJPG_realplksr_otf.pth",
                folder="upscale_models",
            ),
            size_bytes=29_559_554,
            sha256="3bf4959fbd4b39b8877e73ea97a54d4280755371fe4bd64a2836c707d7fd485b",
            licence=_licences.PHILIP_HOFMANN,
        ),
    ),
    description="Removes JPEG artefacts down to about quality 40; quick, sharpens a little.",
    source="Lee et al. 2024, arXiv:2404.11848; https://openmodeldb.info/models/1x-DeJPG-realplksr-otf",
)
