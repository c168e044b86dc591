"""facexlib's weight files, filled as `published` fills others; `tests/data/make_face_networks.py` uses the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from published import Layout, photo, random_tensor

GOLDEN = Path(__file__).parents[1] / "data" / "face_networks.npz"

FACES = {
    "retinaface-r50": Layout("retinaface-r50", "", 95, 130, gain=1.0, centre=0.7, step=3),
    "bisenet-parse": Layout("bisenet-parse", "", 512, 512, gain=1.2, centre=0.9, step=32),
}
"""By model id; a detector's outputs were kept every ``step`` anchors."""


def shown(model: str) -> torch.Tensor:
    """What the network was shown: (1, 3, H, W) RGB, [0, 1], in the steps of 8 bits."""
    layout = FACES[model]
    if model == "retinaface-r50":
        return (photo(layout.height, layout.width) * 255).round() / 255
    size = (layout.height, layout.width)
    return torch.nn.functional.interpolate(photo(128, 128), size=size, mode="bilinear", align_corners=False)


def random_values(name: str, shape: tuple[int, ...], model: str) -> torch.Tensor:
    """Values for one tensor of a model's file."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    return random_tensor(name, shape, gain=FACES[model].gain, centre=FACES[model].centre)


def published_state(model: str) -> dict[str, torch.Tensor]:
    """The state dict of facexlib's own network, by its own names."""
    state = {}
    for row in np.load(GOLDEN)[f"{model}/state"]:
        name, *sides = str(row).split(" ")
        state[name] = random_values(name, tuple(map(int, sides)), model)
    return state
