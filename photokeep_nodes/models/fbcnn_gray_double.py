"""FBCNN, gray: removes JPEG artefacts from black-and-white photos that were saved more than once.

The module takes (B, 1, H, W) in [0, 1], H and W multiples of 8, and, if it is to be told, the JPEG quality over
100, (B,). It returns the shape of the image, not clamped. Its ``predict_quality`` reads the quality.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..model_spec import Download, WeightFile
from . import _licences, _spandrel, fbcnn_color

SPEC = replace(
    fbcnn_color.SPEC,
    id="fbcnn-gray-double",
    title="FBCNN gray, double JPEG",
    node_name="FBCNNGrayDouble",
    weights=(
        WeightFile(
            # Not among the upscale models: ComfyUI's own loader gives those three channels.
            Download(
                "fbcnn_gray_double.pth",
                "https://github.com/jiaxi-jiang/FBCNN/releases/download/v1.0/fbcnn_gray_double.pth",
            ),
            size_bytes=287_745_895,
            sha256="4444b8b2393649a4acd5d8730410ec3106d15b6e262a49081e4e87b44cfa5cea",
            licence=_licences.FBCNN,
        ),
    ),
    build=partial(_spandrel.load_fbcnn, channels=1),
    weight_bytes=4 * 71_919_490,
    channels=1,
    description="Removes JPEG artefacts from black-and-white photos that were saved as JPEG more than once; faithful.",
)
