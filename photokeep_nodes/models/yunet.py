"""YuNet: finds faces and five landmarks on each in milliseconds, on the CPU.

The module takes (1, 3, H, W) RGB in [0, 1], of any size, and returns boxes (N, 4), scores (N,) and landmarks (N, 5, 2)
in its pixels; ``ops.detect_faces.detect`` merges them into faces. OpenCV runs the published ONNX file as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


# Not the page's own address, which hands out a pointer to the file.
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet"


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import yunet

    return yunet.build(state)


SPEC = ModelSpec(
    id="yunet",
    title="YuNet",
    node_name="YuNet",
    role="face_detect",
    architecture="YuNet",
    weights=(
        WeightFile(
            Download(
                "face_detection_yunet_2023mar.onnx",
                "https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",
                mirrors=(f"{_ZOO}/face_detection_yunet_2023mar.onnx",),
            ),
            size_bytes=232_589,
            sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            licence=Licence(
                "MIT",
                commercial=True,
                url="https://github.com/opencv/opencv_zoo/blob/main/models/face_detection_yunet/LICENSE",
            ),
        ),
    ),
    build=_build,
    # The file's bytes; OpenCV holds what it makes of them while it works.
    weight_bytes=232_589,
    bytes_per_pixel=200,
    dtypes=("float32",),
    description="Finds faces and their eyes, nose and mouth corners; tiny and very fast, always on the CPU.",
    source="Wu et al. 2023, doi:10.1007/s11633-023-1423-y; https://github.com/opencv/opencv_zoo",
)
