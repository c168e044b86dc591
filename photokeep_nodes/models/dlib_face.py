"""dlib's face recognition network: tells whether two faces are one person's.

The module takes aligned faces, (B, 3, 512, 512) RGB in [0, 1], and returns embeddings (B, 128) of unit length, whose
product is the higher the more alike two persons look. ``ops.face_identity`` keeps restored faces who they were by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Bundled, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.dlib_face import DlibFace, unpacked

    return _load.build(DlibFace, unpacked(state), what="dlib face recognition")


SPEC = ModelSpec(
    id="dlib-face",
    title="dlib Face Recognition",
    node_name="DlibFace",
    role="face_identity",
    architecture="dlib ResNet",
    weights=(
        WeightFile(
            Bundled("dlib_face.safetensors"),
            size_bytes=6_464_656,
            sha256="cd51af8b6abcf5b813d4feee20588cff9ba4fce5615ac2fddc1b71613c89aea6",
            licence=Licence(
                "CC0-1.0",
                commercial=True,
                url="https://github.com/davisking/dlib-models/blob/master/LICENSE",
                note="about half of the photos it was trained on are from FaceScrub and VGG-Face",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 5_607_488,
    bytes_per_pixel=40,
    multiple_of=512,
    minimum=512,
    receptive_field=0,
    native_side=512,
    # The highest value at which none of 71 pairs of photos of one person was lost; of 3936 pairs of different people it
    # takes 0.4 % for one, of the 134 among them who stand together in one photo, mostly small, 9 %. dlib's own
    # criterion, descriptors less than 0.6 apart, comes to 0.913. Those of different people are about 0.83 here.
    same_person=0.92,
    dtypes=("float32",),
    description="Tells whether a restored face is still the same person; small, and fast on a CPU.",
    source="Davis King 2017, http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html",
)
