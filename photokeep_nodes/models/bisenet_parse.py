"""BiSeNet: which part of an aligned face each pixel shows, so that restoring leaves hair and background alone.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and returns the probabilities of nineteen classes,
(B, 19, 512, 512); ``ops.face_parsing.face_mask`` makes a mask of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load, bisenet

    return _load.build(bisenet.BiSeNet, bisenet.used(state), what="BiSeNet for faces")


SPEC = ModelSpec(
    id="bisenet-parse",
    title="BiSeNet Face Parsing",
    node_name="BiSeNetParse",
    role="face_parse",
    architecture="BiSeNet",
    weights=(
        WeightFile(
            Download(
                "parsing_bisenet.pth",
                "https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
            ),
            size_bytes=53_289_463,
            sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            licence=Licence(
                "MIT",
                commercial=True,
                url="https://github.com/zllrunning/face-parsing.PyTorch/blob/master/LICENSE",
                note="the terms of the code; trained on CelebAMask-HQ, a data set for non-commercial research",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 13_162_688,
    bytes_per_pixel=300,
    multiple_of=512,
    minimum=512,
    receptive_field=0,
    native_side=512,
    dtypes=("float32",),
    description="Tells skin, eyes, hair and background of a face apart, so that only the face is restored.",
    source="Yu et al. 2018, arXiv:1808.00897; https://github.com/zllrunning/face-parsing.PyTorch",
)
