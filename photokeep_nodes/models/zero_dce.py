"""Zero-DCE: brightens photos taken in the dark.

The module takes (B, 3, H, W) RGB in [0, 1] and returns the same shape, in [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Bundled, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.zero_dce import ZeroDCE

    return _load.build(ZeroDCE, state, what="Zero-DCE")


SPEC = ModelSpec(
    id="zero-dce",
    title="Zero-DCE",
    node_name="ZeroDCE",
    role="low_light",
    architecture="ZeroDCE",
    weights=(
        WeightFile(
            Bundled("zero_dce.safetensors"),
            size_bytes=319_040,
            sha256="d921ddbcf1b8e154cab829bb4bcf5ee335e21963aa9b4830684f21e94c6b32a7",
            licence=Licence("MIT", commercial=True, url="https://github.com/Parshva2605/neuro-low-light"),
        ),
    ),
    build=_build,
    weight_bytes=4 * 79_416,
    bytes_per_pixel=1_500,
    # Seven 3 x 3 convolutions; a pixel sees nothing beyond.
    receptive_field=7,
    dtypes=("float32",),
    description="Brightens dark photos by a curve per pixel.",
    source="Guo et al. 2020, arXiv:2001.06826; weights: neuro-low-light 0.1.0",
)
