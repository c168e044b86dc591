"""GFPGAN 1.4: rebuilds faces that are small, blurred or damaged.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and returns the same shape in [0, 1]. How much of the
result is used is the caller's blend: the network has no strength of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    network = _spandrel.load(state, architecture="GFPGAN", scale=1)
    from .._arch.gfpgan import FaceRestorer

    return FaceRestorer(network).eval()


SPEC = ModelSpec(
    id="gfpgan-1.4",
    title="GFPGAN 1.4",
    node_name="GFPGANv14",
    role="face_restore",
    architecture="GFPGANv1Clean",
    weights=(
        WeightFile(
            Download("GFPGANv1.4.pth", "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth"),
            size_bytes=348_632_874,
            sha256="e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
            licence=Licence(
                "Apache-2.0",
                commercial=True,
                url="https://github.com/TencentARC/GFPGAN/blob/master/LICENSE",
                note="the licence file lists non-commercial parts: StyleGAN2 (NVIDIA), DFDNet (CC BY-NC-SA)",
            ),
        ),
    ),
    build=_build,
    # Parameters and the stored noise maps.
    weight_bytes=4 * 87_143_276,
    bytes_per_pixel=3_500,
    multiple_of=512,
    minimum=512,
    native_side=512,
    receptive_field=0,
    dtypes=("float32",),
    description="Rebuilds faces from their remains; plausible, not always a likeness.",
    source="Wang et al. 2021, arXiv:2101.04061; https://github.com/TencentARC/GFPGAN",
)
