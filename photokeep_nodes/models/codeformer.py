"""CodeFormer: rebuilds faces from a codebook, as freely or as faithfully as it is told.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and the fidelity of each, (B,) in [0, 1]; it returns
the shape of the faces in [0, 1]. Not for commercial use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    network = _spandrel.load(state, architecture="CodeFormer", extra_arches=True)
    from .._arch.codeformer import FidelityRestorer

    return FidelityRestorer(network).eval()


SPEC = ModelSpec(
    id="codeformer",
    title="CodeFormer",
    node_name="CodeFormer",
    role="face_restore",
    architecture="CodeFormer",
    weights=(
        WeightFile(
            Download("codeformer.pth", "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth"),
            size_bytes=376_637_898,
            sha256="1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
            licence=Licence(
                "S-Lab-1.0", commercial=False, url="https://github.com/sczhou/CodeFormer/blob/master/LICENSE"
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 94_112_707,
    bytes_per_pixel=3_500,
    multiple_of=512,
    minimum=512,
    native_side=512,
    receptive_field=0,
    # In bfloat16 other codes win: with random weights by 37 % of the result's spread.
    dtypes=("float32",),
    condition="fidelity",
    requirement=_spandrel.EXTRA_ARCHES,
    description="Rebuilds faces freely or faithfully, as told; strong on heavy damage. Not for commercial use.",
    source="Zhou et al. 2022, arXiv:2206.11253; https://github.com/sczhou/CodeFormer",
)
