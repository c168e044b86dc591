"""ArcFace on IR-SE50: tells whether two faces are one person's, more sharply than dlib's network does.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and returns embeddings (B, 512) of unit length, whose
product is the higher the more alike two persons look. ``ops.face_identity`` keeps restored faces who they were by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.arcface import ArcFace
    from .._arch.batch_norm import without_counters

    return _load.build(ArcFace, without_counters(state), what="ArcFace IR-SE50")


SPEC = ModelSpec(
    id="arcface-ir-se50",
    title="ArcFace IR-SE50",
    node_name="ArcFaceIrSe50",
    role="face_identity",
    architecture="IR-SE50",
    weights=(
        WeightFile(
            Download(
                "recognition_arcface_ir_se50.pth",
                "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
            ),
            size_bytes=175_367_323,
            sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
            licence=Licence(
                "MIT",
                commercial=True,
                url="https://github.com/TreB1eN/InsightFace_Pytorch/blob/master/LICENSE",
                note="the terms of the code; trained on MS1MV2 (emore), a data set for non-commercial research",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 43_824_064,
    bytes_per_pixel=150,
    multiple_of=512,
    minimum=512,
    receptive_field=0,
    native_side=512,
    # Its trainers' own threshold, a squared distance of 1.5 (config.py of InsightFace_Pytorch), which for vectors of
    # unit length is a cosine of 1 - 1.5 / 2. Not measured here.
    same_person=0.25,
    dtypes=("float32",),
    description="Tells whether a restored face is still the same person.",
    source="Deng et al. 2019, arXiv:1801.07698; https://github.com/TreB1eN/InsightFace_Pytorch",
)
