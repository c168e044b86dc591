"""Make face_identity.npz: embeddings by the authors' own networks of what tests/support/identity_faces.py shows them.

    python tests/data/make_face_identity.py PACKAGE

PACKAGE is the unpacked npm package @vladmandic/face-api (`npm pack`), whose own code is run by Node. ArcFace's is
facexlib's, which the `reference` extra brings.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from facexlib.recognition.arcface_arch import Backbone

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from identity_faces import GOLDEN, arcface_crops, arcface_tensor, dlib_chips


def dlib(package: Path) -> dict[str, np.ndarray]:
    """face-api.js' descriptors."""
    script = Path(__file__).with_name("face_api_descriptors.mjs")
    with tempfile.TemporaryDirectory() as folder:
        chips, found = Path(folder) / "chips", Path(folder) / "found"
        dlib_chips().astype(np.float32).tofile(chips)
        subprocess.run(["node", script, package, chips, found], check=True)
        return {"dlib/descriptors": np.fromfile(found, np.float32).reshape(-1, 128)}


def arcface() -> dict[str, np.ndarray]:
    """facexlib's embeddings with random weights, and what its state dict is made of."""
    network = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").eval()
    template = network.state_dict()
    network.load_state_dict({name: arcface_tensor(name, tuple(tensor.shape)) for name, tensor in template.items()})
    with torch.no_grad():
        embeddings = network(arcface_crops())
    rows = [f"{name} {' '.join(map(str, tensor.shape))}".strip() for name, tensor in template.items()]
    return {"arcface/embeddings": embeddings.numpy(), "arcface/state": np.array(rows)}


def main() -> None:
    arrays = {**dlib(Path(sys.argv[1])), **arcface()}
    for name in ("dlib/descriptors", "arcface/embeddings"):
        vectors = arrays[name] / np.linalg.norm(arrays[name], axis=1, keepdims=True)
        print(f"{name}: spread {arrays[name].std():.3f}, products {np.round(vectors @ vectors.T, 3).tolist()}")
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
