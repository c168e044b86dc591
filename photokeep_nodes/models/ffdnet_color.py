"""FFDNet, colour: removes noise of a strength that is told, or measured by the analysis.

The module takes (B, 3, H, W) RGB in [0, 1] and ``sigma`` (B,), the noise's standard deviation in the same units, and
returns the shape of the image, not clamped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Bundled, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.ffdnet import FFDNet

    return _load.build(FFDNet, state, what="FFDNet colour")


SPEC = ModelSpec(
    id="ffdnet-color",
    title="FFDNet colour",
    node_name="FFDNet",
    role="denoise",
    architecture="FFDNet",
    weights=(
        WeightFile(
            Bundled("ffdnet_color.safetensors"),
            size_bytes=3_410_552,
            sha256="b8b34ad92d0b07b3709785789bddec980425d8dc4e3e9a59e09a538d4af3408a",
            licence=Licence("MIT", commercial=True, url="https://github.com/cszn/KAIR/blob/master/LICENSE"),
        ),
    ),
    build=_build,
    weight_bytes=4 * 852_108,
    bytes_per_pixel=400,
    # Tiles must begin at even pixels, where the network's 2 x 2 folding of the whole photo begins its cells.
    multiple_of=2,
    minimum=2,
    # Twelve 3 x 3 convolutions at half size.
    receptive_field=26,
    dtypes=("float16", "float32"),
    condition="noise_sigma",
    condition_required=True,
    description="Removes noise of a known strength; fast, faithful, keeps what it is not sure about.",
    source="Zhang, Zuo, Zhang 2018, arXiv:1710.04026; https://github.com/cszn/KAIR",
)
