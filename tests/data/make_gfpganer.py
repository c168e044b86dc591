"""Make gfpganer.npz: the steps of the gfpgan package's GFPGANer on a photo, with weights that the tests have too.

    python tests/data/make_gfpganer.py

Needs the `reference` extra (gfpgan, facexlib, basicsr). The detector is facexlib's RetinaFace mobile0.25 with the
weights that ship in photokeep_nodes/bundled, whose normalisations are folded into the convolutions: facexlib's are set
to change nothing. GFPGAN's weights are those of tests/support/restorers.py, and its noise the stored one: GFPGANer
draws another each time. The mask is facexlib's square one, without a parsing network. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import runpy
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from skimage import data
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from restorers import STEP, random_weights, with_waves  # noqa: E402

TARGET = Path(__file__).with_name("gfpganer.npz")
WINDOW = (slice(60, 190), slice(160, 290))
"""Rows and columns of the photo around the face."""

BUNDLED = ROOT / "photokeep_nodes" / "bundled" / "retinaface_mobilenet.safetensors"


def _detector_state(template: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The bundled weights under facexlib's names.

    Args:
        template: facexlib's own state dict.
    """
    bundled = load_file(BUNDLED)
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in bundled.items():
        layer, _, leaf = name.rpartition(".")
        layers.setdefault(layer, {})[leaf] = tensor
    names = {"ClassHead": "score_head", "BboxHead": "box_head", "LandmarkHead": "landmark_head"}
    parts = {
        "conv3X3": "conv3", "conv5X5_1": "reduce", "conv5X5_2": "conv5", "conv7X7_2": "conv7a", "conv7x7_3": "conv7b",
    }  # fmt: skip
    filled = {}
    for name, tensor in template.items():
        if not name.endswith("weight") or tensor.ndim != 4:
            continue
        path = name.split(".")
        if path[0] in names:
            layer = f"{names[path[0]]}.{path[1]}"
        elif path[0] == "fpn":
            kind, number = path[1][:-1], int(path[1][-1]) - 1
            layer = f"pyramid.{'lateral' if kind == 'output' else 'merge'}.{number}"
        elif path[0].startswith("ssh"):
            layer = f"context.{int(path[0][3:]) - 1}.{parts[path[1]]}"
        elif path[1] == "stage1" and path[2] == "0":
            layer = "body.stem"
        else:
            block = int(path[2]) - (1 if path[1] == "stage1" else 0)
            layer = f"body.{path[1]}.{block}.{'depthwise' if path[3] == '0' else 'pointwise'}"
        filled[name] = layers.pop(layer)
    if layers:
        raise SystemExit(f"left over: {sorted(layers)}")
    state = {}
    for name, tensor in template.items():
        layer, _, leaf = name.rpartition(".")
        weight = f"{layer}.weight"
        if weight in filled:
            state[name] = filled[weight][leaf]
            continue
        # A normalisation, right behind its convolution: times one, plus the folded bias.
        *rest, index = layer.split(".")
        convolution = ".".join([*rest, str(int(index) - 1), "weight"])
        values = {
            "weight": torch.ones_like(tensor), "bias": filled[convolution]["bias"],
            "running_mean": torch.zeros_like(tensor), "running_var": torch.ones_like(tensor),
            "num_batches_tracked": torch.zeros_like(tensor),
        }  # fmt: skip
        state[name] = values[leaf]
    return state


def _detector() -> nn.Module:
    network = importlib.import_module("facexlib.detection.retinaface").RetinaFace("mobile0.25", device="cpu")
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.eps = 0.0
    network.load_state_dict(_detector_state(network.state_dict()))
    return network.eval()


def gfpganer() -> Any:
    """GFPGANer at upscale 1, with our weights."""
    runpy.run_path(str(ROOT / "bench" / "_basicsr_compat.py"))["install"]()
    helper = importlib.import_module("facexlib.utils.face_restoration_helper")
    helper.init_detection_model = lambda *_args, **_kwargs: _detector()
    helper.init_parsing_model = lambda *_args, **_kwargs: nn.Identity()
    utils = importlib.import_module("gfpgan.utils")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "GFPGANv1.4.pth"
        torch.save({"params_ema": random_weights("gfpgan-1.4")}, path)
        made = utils.GFPGANer(str(path), upscale=1, arch="clean", channel_multiplier=2, device=torch.device("cpu"))
    made.gfpgan.forward = partial(made.gfpgan.forward, randomize_noise=False)
    made.face_helper.use_parse = False
    return made


def main() -> None:
    made = gfpganer()
    photo = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    (crop,), (restored,), pasted = made.enhance(photo)
    found = made.face_helper
    print("box", found.det_faces, "landmarks", found.all_landmarks_5, "matrix", found.affine_matrices, sep="\n")

    def rgb(image: np.ndarray, step: int) -> np.ndarray:
        return np.ascontiguousarray(image[::step, ::step, ::-1])

    print("restored: mean, spread, at an end", restored.mean(), restored.std(), np.isin(restored, (0, 255)).mean())
    found.restored_faces = [with_waves(crop)]
    waves = found.paste_faces_to_input_image()
    np.savez_compressed(
        TARGET,
        box=np.asarray(found.det_faces[0]),
        landmarks=np.asarray(found.all_landmarks_5[0]),
        matrix=found.affine_matrices[0],
        crop=rgb(crop, STEP),
        restored=rgb(restored, STEP),
        pasted=rgb(pasted[WINDOW], 3),
        waves=rgb(waves[WINDOW], 3),
    )


if __name__ == "__main__":
    main()
