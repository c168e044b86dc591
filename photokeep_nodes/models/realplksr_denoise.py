"""DeNoise, RealPLKSR: removes noise of an unknown strength, and some JPEG damage.

The module takes (B, 3, H, W) RGB in [0, 1] and returns the same shape, not clamped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..model_spec import Download, WeightFile
from . import _licences, _spandrel, webphoto_realplksr

_RELEASES = "https://github.com/Phhofm/models/releases/download"

SPEC = replace(
    webphoto_realplksr.SPEC,
    id="realplksr-denoise",
    title="DeNoise (RealPLKSR)",
    node_name="RealPLKSRDeNoise",
    role="denoise",
    weights=(
        WeightFile(
            Download(
                "1xDeNoise_realplksr_otf.pth",
                f"{_RELEASES}/1xDeNoise_realplksr_otf/1xDeNoise_realplksr_otf.pth",
                folder="upscale_models",
            ),
            size_bytes=29_559_554,
            sha256="f4774fbe13ceaa9df390343c2baaa980061458ef27292fa6aca6740d87608a8e",
            licence=_licences.PHILIP_HOFMANN,
        ),
    ),
    build=partial(_spandrel.load, architecture="PLKSR"),
    weight_bytes=4 * 7_363_715,
    bytes_per_pixel=1_800,
    scale=1,
    description="Removes noise of unknown strength and light JPEG damage; sharpens a little.",
    source="Lee et al. 2024, arXiv:2404.11848; https://openmodeldb.info/models/1x-DeNoise-realplksr-otf",
)
