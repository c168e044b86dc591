"""DDColor's published files, filled with numbers that are the same on every machine; see ``published``."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from published import random_tensor
from skimage import data

from photokeep_nodes.ops import colour

if TYPE_CHECKING:
    from collections.abc import Mapping

STEP = 13  # every how many pixels the golden outputs were kept; prime to the grids that folding channels out leaves
NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """What a published file with these names and shapes holds, with random weights.

    Singular vectors are one step of power iteration off, as those of short training are: who takes the weights' true
    norm, or leaves it out, gets other colours.
    """
    state = {}
    for name in sorted(shapes):
        shape, leaf = shapes[name], name.rpartition(".")[2]
        if leaf in NORMALISATION:
            state[name] = torch.tensor(NORMALISATION[leaf]).view(shape)
        elif leaf == "num_batches_tracked":
            state[name] = torch.tensor(400_000)
        elif leaf == "in_proj_weight":
            # Large enough for attention to prefer some pixels to others.
            state[name] = random_tensor(f"{name}.weight", shape, gain=2.0, centre=1.0)
        elif "_embed.weight" in name or "query_feat" in name:
            # As far apart as the normalised pixels they are compared with, or all hundred would come out the same.
            state[name] = random_tensor(name, shape, gain=math.sqrt(shape[1]), centre=1.0)
        elif name.endswith(("out_proj.weight", "linear2.weight")):
            # Small, as each layer is added to what came before and normalised: else the first are soon forgotten.
            state[name] = random_tensor(name, shape, gain=0.4, centre=1.0)
        elif leaf == "gamma":
            state[name] = random_tensor(f"{name}.weight", shape, gain=1.0, centre=0.3)
        elif leaf == "weight_orig":
            weight = random_tensor(f"{name}.weight", shape, gain=3.0, centre=1.0)
            rows = weight.flatten(1).numpy().astype(np.float64)
            left = random_tensor(f"{name}.left", rows.shape[:1], gain=1.0, centre=1.0).numpy().astype(np.float64)
            right = rows.T @ left
            stem = name.removesuffix("_orig")
            state[name] = weight
            state[f"{stem}_u"] = torch.from_numpy((left / np.linalg.norm(left)).astype(np.float32))
            state[f"{stem}_v"] = torch.from_numpy((right / np.linalg.norm(right)).astype(np.float32))
        elif leaf not in {"weight_u", "weight_v"}:
            state[name] = random_tensor(name, shape, gain=1.0, centre=1.0)
    return state


def published_shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the authors' own network of that size has, told from ours.

    Args:
        network: ours, which has spectral norms folded into its weights and nothing that only training used.
    """
    shapes = {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        normed = len(shape) == 4 and name.startswith(("decoder.layers.", "decoder.last_shuf.", "refine_net."))
        shapes[f"{name}_orig" if normed else name] = shape
    (width,) = shapes["encoder.arch.norm3.weight"]
    return shapes | {"encoder.arch.norm.weight": (width,), "encoder.arch.norm.bias": (width,)}


def classifier(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What published files have besides: left over from the encoder's training, and in no version of the code."""
    (width,) = state["encoder.arch.norm.weight"].shape
    return {"encoder.arch.head_cls.weight": torch.zeros(4, width), "encoder.arch.head_cls.bias": torch.zeros(4)}


def layout(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of all names, shapes and types."""
    lines = sorted(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n" for name, tensor in state.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def lightness() -> torch.Tensor:
    """CIE L (1, 1, 512, 512) of a photo."""
    photo = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW
    return colour.srgb_to_lab(photo)[:, :1]
