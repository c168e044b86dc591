"""RestoreFormer: rebuilds faces from a codebook of the parts of good ones.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and returns the same shape in [0, 1]. How much of the
result is used is the caller's blend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.restoreformer import RestoreFormer

    return _load.build(RestoreFormer, state, what="RestoreFormer")


SPEC = ModelSpec(
    id="restoreformer",
    title="RestoreFormer",
    node_name="RestoreFormer",
    role="face_restore",
    architecture="RestoreFormer",
    weights=(
        WeightFile(
            # The authors' weights as the GFPGAN project released them.
            Download(
                "RestoreFormer.pth", "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/RestoreFormer.pth"
            ),
            size_bytes=290_785_322,
            sha256="07404d446d62ca3d5ed38b1de09a947a1e77d46dbccec961a74d713a8f24ace0",
            licence=Licence(
                "Apache-2.0", commercial=True, url="https://github.com/wzhouxiff/RestoreFormer/blob/main/LICENSE"
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 72_680_003,
    bytes_per_pixel=3_500,
    multiple_of=512,
    minimum=512,
    native_side=512,
    receptive_field=0,
    # In bfloat16 other codes win: with random weights the faces are off by up to a sixth of the range.
    dtypes=("float32",),
    description="Rebuilds faces from parts of good ones; freer with features than GFPGAN, steady on heavy damage.",
    source="Wang et al. 2022, CVPR; https://github.com/wzhouxiff/RestoreFormer",
)
