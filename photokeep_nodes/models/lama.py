"""LaMa (big-lama): fills scratches, tears and stains.

The module takes a photo (1, 3, H, W) RGB in [0, 1], H and W multiples of 8 from 16 on, and a mask (1, 1, H, W) that is
exactly 0 or 1, 1 where the photo is to be filled; it returns the filled photo, with all other pixels as they were. It
was trained on 256 x 256: run it on a crop around the hole, with some of what surrounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_WRAPPER = "model."
_GENERATOR = "generator."


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    if all(name.startswith(_WRAPPER + _GENERATOR) for name in state):
        # The published file is the trace of a wrapper around the authors' training class; spandrel knows the latter.
        state = {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}
    if any(name.startswith(_GENERATOR) for name in state):
        # The authors' own checkpoints hold the discriminator and the losses' networks too.
        state = {name: tensor for name, tensor in state.items() if name.startswith(_GENERATOR)}
    network = _spandrel.load(state, architecture="LaMa")
    from .._arch.inpainter import LamaInpainter

    return LamaInpainter(network).eval()


SPEC = ModelSpec(
    id="lama",
    title="LaMa",
    node_name="Lama",
    role="inpaint",
    architecture="LaMa",
    weights=(
        WeightFile(
            # The authors' weights as IOPaint's author exported them: a TorchScript program, of which only the tensors
            # are read.
            Download(
                "big-lama.pt",
                "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
                mirrors=("https://huggingface.co/fofr/comfyui/resolve/main/inpaint/big-lama.pt",),
            ),
            size_bytes=205_669_692,
            sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
            licence=Licence(
                "Apache-2.0",
                commercial=True,
                url="https://github.com/advimman/lama/blob/main/LICENSE",
                note="big-lama.pt is a copy by Sanster; the authors publish on Google Drive, as a training checkpoint",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 51_057_179,
    # Measured on a CPU, the first time that a process does it: 1,070 with 256 x 256, 870 with 512 x 512.
    bytes_per_pixel=1_200,
    multiple_of=8,
    minimum=16,
    receptive_field=0,
    # Half precision takes no Fourier transform of a size that is no power of two, and bfloat16 none at all.
    dtypes=("float32",),
    description="Fills scratches, tears and stains from what surrounds them; quick, at any size.",
    source="Suvorov et al. 2022, arXiv:2109.07161; https://github.com/advimman/lama",
)
