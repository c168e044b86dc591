"""Make bopb_scratch.npz: what the authors' own network makes of the weights and photo of scratch_weights.py.

    python tests/data/make_bopb_scratch.py CHECKOUT

CHECKOUT is a git checkout of microsoft/Bringing-Old-Photos-Back-to-Life. Its batch normalisation for several devices,
which it fetches from elsewhere and which changes nothing but training, is replaced.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from published import layout_digest
from scratch_weights import LAYOUT, gray, random_state

TARGET = Path(__file__).with_name("bopb_scratch.npz")


def main() -> None:
    sys.path.insert(0, str(Path(sys.argv[1]) / "Global"))
    stub = types.ModuleType("detection_models.sync_batchnorm")
    stub.DataParallelWithCallback = lambda module: module  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    from detection_models import networks

    network = networks.UNet(  # Global/detection.py
        in_channels=1,
        out_channels=1,
        depth=4,
        conv_num=2,
        wf=6,
        padding=True,
        batch_norm=True,
        up_mode="upsample",
        with_tanh=False,
        sync_bn=True,
        antialiasing=True,
    ).eval()
    filters = {name: tensor for name, tensor in network.state_dict().items() if name.endswith(".filt")}
    state = random_state(network.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in filters.items())
    network.load_state_dict(state)
    with torch.no_grad():
        probability = torch.sigmoid(network((gray() - 0.5) / 0.5))
    print(f"from {float(probability.min()):.3f} to {float(probability.max()):.3f}")
    kept = probability[0, 0, :: LAYOUT.step, :: LAYOUT.step].numpy()
    np.savez_compressed(TARGET, probability=kept, layout=np.array(layout_digest(state)))


if __name__ == "__main__":
    main()
