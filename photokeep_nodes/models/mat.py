"""MAT (Places): fills large tears and missing corners.

The module takes a photo (1, 3, 512, 512) RGB in [0, 1] and a mask (1, 1, 512, 512) that is exactly 0 or 1, 1 where the
photo is to be filled; it returns the filled photo, with all other pixels as they were. It takes no other size: run it
on a copy of the part around the hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    network = _spandrel.load(state, architecture="MAT", extra_arches=True)
    from .._arch.inpainter import MatInpainter

    return MatInpainter(network).eval()


SPEC = ModelSpec(
    id="mat",
    title="MAT",
    node_name="Mat",
    role="inpaint",
    architecture="MAT",
    weights=(
        WeightFile(
            # The generator out of the authors' pickled training state, as IOPaint's author took it out.
            Download(
                "Places_512_FullData_G.pth",
                "https://github.com/Sanster/models/releases/download/add_mat/Places_512_FullData_G.pth",
                mirrors=("https://huggingface.co/fofr/comfyui/resolve/main/inpaint/Places_512_FullData_G.pth",),
            ),
            size_bytes=250_619_359,
            sha256="0512e37ebba3986b0355130b2e2c1f95736d0778ac82e91b1212b4b21c231312",
            licence=Licence(
                "CC-BY-NC-4.0",
                commercial=False,
                url="https://github.com/fenglinglwb/MAT/blob/main/LICENSE",
                note="Places_512_FullData_G.pth is a copy by Sanster; the authors publish a pickled program."
                " Built on NVIDIA's StyleGAN2, whose licence is for research or evaluation only",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 62_790_464,
    # Measured on a CPU: 4,515.
    bytes_per_pixel=5_000,
    multiple_of=512,
    minimum=512,
    receptive_field=0,
    native_side=512,
    dtypes=("float32",),
    requirement=_spandrel.EXTRA_ARCHES,
    description="Fills large tears and missing corners, inventing what was there. Not for commercial use.",
    source="Li et al. 2022, arXiv:2203.15270; https://github.com/fenglinglwb/MAT",
)
