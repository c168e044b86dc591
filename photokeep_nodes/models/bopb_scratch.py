"""Bringing Old Photos Back to Life, the detector: finds scratches, creases and lost emulsion.

The module takes a gray photo, (B, 1, H, W) in [0, 1], and returns the probability of a scratch, of the same shape. It
was trained on copies whose short side has 256 pixels; `ops.scratch_network` has it look at larger ones, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.scratch_unet import ScratchUNet

    used = {name: tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}
    return _load.build(ScratchUNet, used, what="the scratch detector")


_RELEASE = "https://github.com/microsoft/Bringing-Old-Photos-Back-to-Life/releases/download/v1.0"
_MIRROR = "https://huggingface.co/MonsterMMORPG/SECourses/resolve/a02cc948f84e742b51f5a3c564392506604115df"

SPEC = ModelSpec(
    id="bopb-scratch",
    title="Old Photos scratch detector",
    node_name="BopbScratch",
    role="scratch_detect",
    architecture="ScratchUNet",
    weights=(
        WeightFile(
            Download(
                "FT_Epoch_latest.pt",
                f"{_RELEASE}/global_checkpoints.zip",
                mirrors=(f"{_MIRROR}/FT_Epoch_latest.pt",),
                member="checkpoints/detection/FT_Epoch_latest.pt",
            ),
            size_bytes=451_663_663,
            sha256="b2d7ab04e9b3885c6b1991bb7a0b823129dd6e3ac078a9fd059ebd2a7ba59a95",
            licence=Licence(
                "MIT",
                commercial=True,
                url="https://github.com/microsoft/Bringing-Old-Photos-Back-to-Life/blob/master/LICENSE",
            ),
        ),
    ),
    build=_build,
    # Two thirds of the file is what its training left.
    weight_bytes=4 * 37_648_257,
    bytes_per_pixel=2_600,
    channels=1,
    multiple_of=16,
    minimum=32,
    receptive_field=169,
    dtypes=("float32",),
    description="Finds scratches, creases and lost emulsion; looks at the photo in several sizes.",
    source="Wan et al. 2020, arXiv:2004.09484; https://github.com/microsoft/Bringing-Old-Photos-Back-to-Life",
)
