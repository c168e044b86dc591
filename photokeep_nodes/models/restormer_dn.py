"""Restormer, blind Gaussian: removes even noise of an unknown strength, as of film grain.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 8, and returns the same shape, not clamped.
"""

from __future__ import annotations

from functools import partial

from ..model_spec import Download, Licence, ModelSpec, WeightFile
from . import _spandrel

SPEC = ModelSpec(
    id="restormer-dn",
    title="Restormer blind denoising",
    node_name="RestormerDenoise",
    role="denoise",
    architecture="Restormer",
    weights=(
        WeightFile(
            # The authors' own release; the mirror is a copy by deepinv, a library.
            Download(
                "gaussian_color_denoising_blind.pth",
                "https://github.com/swz30/Restormer/releases/download/v1.0/gaussian_color_denoising_blind.pth",
                mirrors=("https://huggingface.co/deepinv/Restormer/resolve/main/gaussian_color_denoising_blind.pth",),
                folder="upscale_models",
            ),
            size_bytes=104_611_957,
            sha256="4e2314dae77bb907184da6e2ac625b921491d6b33de26a52512eff1c6bb37fbd",
            licence=Licence(
                "Academic Public License",
                commercial=False,
                url="https://github.com/swz30/Restormer/blob/main/LICENSE.md",
            ),
        ),
    ),
    build=partial(_spandrel.load, architecture="Restormer", extra_arches=True),
    weight_bytes=4 * 26_111_668,
    bytes_per_pixel=10_500,
    # Three halvings, whose cells must begin where the whole photo's do.
    multiple_of=8,
    minimum=8,
    # The authors' own tiles share 32 px in all, ours 80.
    receptive_field=32,
    # Its attention is between channels, over all pixels of the tile, and training ended with 384 px of a photo.
    best_tile=384,
    # It runs in bfloat16 too, but strays there: with random weights by 10 % of the result's spread, where no other
    # network here strays by more than 2 %.
    dtypes=("float32",),
    requirement=_spandrel.EXTRA_ARCHES,
    description="Removes even noise of unknown strength, such as film grain; faithful, slow. Not for commercial use.",
    source="Zamir et al. 2022, arXiv:2111.09881; https://github.com/swz30/Restormer",
)
