"""What the scratch detector's published file holds, with numbers that are the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from published import Layout, photo, random_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAYOUT = Layout("bopb-scratch", "model_state", 64, 96, gain=1.4, channels=1, step=3)

_BLUR = torch.tensor([1.0, 2.0, 1.0])


def random_state(template: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values for each tensor of ``template``; the blur and the counters are not random in the published file either."""
    state = {}
    for name, tensor in template.items():
        leaf = name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            state[name] = torch.tensor(7)
        elif leaf == "filt":
            state[name] = (torch.outer(_BLUR, _BLUR) / 16).expand(tensor.shape).contiguous()
        else:
            state[name] = random_tensor(name, tuple(tensor.shape), gain=LAYOUT.gain, centre=LAYOUT.centre)
    return state


def with_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with the counters of training steps that the published file has."""
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in state if "running_var" in name
    }
    return {**state, **counters}


def publish(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write ``state`` as its authors did: in the old format, beside what Adam remembers of each weight."""
    trained = [tensor for name, tensor in state.items() if name.endswith((".weight", ".bias"))]
    optimiser: dict[str, Any] = {
        "state": {
            number: {"step": 11, "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
            for number, each in enumerate(trained)
        },
        "param_groups": [{"lr": 1e-4, "betas": (0.5, 0.999), "params": list(range(len(trained)))}],
    }
    whole = {"epoch": 3, "model_state": dict(state), "optimizer_state": optimiser, "best_iou": 0.5}
    torch.save(whole, path, _use_new_zipfile_serialization=False)


def gray() -> torch.Tensor:
    """(1, 1, H, W): the part of a photo that the proof is made on."""
    return photo(LAYOUT.height, LAYOUT.width, LAYOUT.channels)
