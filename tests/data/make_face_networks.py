"""Make face_networks.npz: facexlib's outputs for the weights and photos of tests/support/face_networks.py.

    python tests/data/make_face_networks.py

Needs facexlib, which the `reference` extra brings. What the networks return is kept every few anchors or pixels, and
with it the names and shapes of their state dicts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from facexlib.detection.retinaface import RetinaFace
from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm
from facexlib.parsing.bisenet import BiSeNet

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from face_networks import FACES, GOLDEN, random_values, shown


def filled(network: torch.nn.Module, name: str) -> tuple[torch.nn.Module, np.ndarray]:
    """The network with its random weights, and what its state dict is made of."""
    template = network.state_dict()
    network.load_state_dict({key: random_values(key, tuple(tensor.shape), name) for key, tensor in template.items()})
    rows = [f"{key} {' '.join(map(str, tensor.shape))}".strip() for key, tensor in template.items()]
    return network.eval(), np.array(rows)


def detector() -> dict[str, np.ndarray]:
    """Raw outputs, and facexlib's own decoding of them."""
    layout = FACES["retinaface-r50"]
    network, rows = filled(RetinaFace("resnet50", device="cpu"), "retinaface-r50")
    rgb = (shown("retinaface-r50")[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    image, _ = network.transform(np.ascontiguousarray(rgb[..., ::-1]), use_origin_size=True)
    with torch.no_grad():
        offsets, scores, landmarks = network(image - network.mean_tensor)
    priors = PriorBox(network.cfg, image_size=image.shape[2:]).forward()
    size = torch.tensor([layout.width, layout.height] * 5, dtype=torch.float32)
    boxes = decode(offsets[0], priors, network.cfg["variance"]) * size[:4]
    points = decode_landm(landmarks[0], priors, network.cfg["variance"]) * size
    found = {
        "offsets": offsets[0],
        "scores": scores[0],
        "landmarks": landmarks[0],
        "boxes": boxes,
        "points": points.view(-1, 5, 2),
    }
    for name, tensor in found.items():
        print(f"{name}: {tuple(tensor.shape)} mean {float(tensor.mean()):.3f}, spread {float(tensor.std()):.3f}")
    kept = {f"retinaface-r50/{name}": tensor[:: layout.step].numpy() for name, tensor in found.items()}
    return {**kept, "retinaface-r50/state": rows, "retinaface-r50/anchors": np.array(len(priors))}


def parser() -> dict[str, np.ndarray]:
    """Probabilities, from facexlib's first output."""
    layout = FACES["bisenet-parse"]
    network, rows = filled(BiSeNet(num_class=19), "bisenet-parse")
    face = shown("bisenet-parse")
    # As inference/inference_parsing.py of facexlib prepares it.
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = network((face - mean) / deviation)[0].softmax(dim=1)
    print(f"probabilities: largest {float(found.max()):.3f}, spread {float(found.std()):.3f}")
    print(f"classes: {np.unique(found.argmax(1).numpy(), return_counts=True)}")
    kept = found[0, :, :: layout.step, :: layout.step].numpy()
    return {"bisenet-parse/probabilities": kept, "bisenet-parse/state": rows}


if __name__ == "__main__":
    arrays = {**detector(), **parser()}
    np.savez_compressed(GOLDEN, **{key: arrays[key] for key in sorted(arrays)})
