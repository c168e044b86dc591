"""RetinaFace on ResNet-50: finds faces and five landmarks on each; slower and surer than the one on MobileNet.

The module takes (1, 3, H, W) RGB in [0, 1], of any size, and returns boxes (N, 4), probabilities (N,) and landmarks
(N, 5, 2) in its pixels, one per anchor; ``ops.detect_faces.detect`` merges them into faces. It is run on a reduced copy
of the photo, never in tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load, retinaface

    return _load.build(retinaface.resnet50, retinaface.from_published(state), what="RetinaFace ResNet-50")


SPEC = ModelSpec(
    id="retinaface-r50",
    title="RetinaFace ResNet-50",
    node_name="RetinaFaceR50",
    role="face_detect",
    architecture="RetinaFace",
    weights=(
        WeightFile(
            Download(
                "detection_Resnet50_Final.pth",
                "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
            ),
            size_bytes=109_497_761,
            sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
            licence=Licence(
                "MIT", commercial=True, url="https://github.com/biubug6/Pytorch_Retinaface/blob/master/LICENSE.MIT"
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 27_351_584,
    bytes_per_pixel=320,
    dtypes=("float32",),
    description="Finds faces and their eyes, nose and mouth corners; surer than the small one, and slower.",
    source="Deng et al. 2019, arXiv:1905.00641; https://github.com/biubug6/Pytorch_Retinaface",
)
