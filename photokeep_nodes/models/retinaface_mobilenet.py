"""RetinaFace on MobileNet 0.25: finds faces and five landmarks on each.

The module takes (1, 3, H, W) RGB in [0, 1], of any size, and returns boxes (N, 4), probabilities (N,) and landmarks
(N, 5, 2) in its pixels, one per anchor; ``ops.detect_faces.detect`` merges them into faces. It is run on a reduced copy
of the photo, never in tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Bundled, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load, retinaface

    return _load.build(retinaface.mobilenet, state, what="RetinaFace MobileNet 0.25")


SPEC = ModelSpec(
    id="retinaface-mobilenet",
    title="RetinaFace MobileNet 0.25",
    node_name="RetinaFaceMobileNet",
    role="face_detect",
    architecture="RetinaFace",
    weights=(
        WeightFile(
            Bundled("retinaface_mobilenet.safetensors"),
            size_bytes=1_703_424,
            sha256="a2c9e5f78f7be62cf77d2c1286247aa8aeaa6a6ea6f98769b39ad002ce3560c6",
            licence=Licence(
                "MIT", commercial=True, url="https://github.com/biubug6/Pytorch_Retinaface/blob/master/LICENSE.MIT"
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 423_264,
    bytes_per_pixel=120,
    dtypes=("float32",),
    description="Finds faces and their eyes, nose and mouth corners; fast on a CPU.",
    source="Deng et al. 2019, arXiv:1905.00641; https://github.com/biubug6/Pytorch_Retinaface",
)
