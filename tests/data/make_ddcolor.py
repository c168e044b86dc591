"""Make ddcolor.npz: what the authors' own pipeline has its networks say, with the weights of support/ddcolor_files.py.

    python tests/data/make_ddcolor.py CHECKOUT

CHECKOUT is a git checkout of piddnad/DDColor; opencv-python is needed too. ``*/pipeline`` is what the network says when
the photo goes through the pipeline, as 8-bit BGR. OpenCV's L is off by up to 0.2, as it interpolates a table: ``*/ab``
is from the exact L, with OpenCV's gray of it, which is off by less than 1e-4.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from skimage import data

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
from ddcolor_files import STEP, layout, lightness, random_state  # noqa: E402

TARGET = Path(__file__).with_name("ddcolor.npz")


def load(checkout: Path) -> Any:
    """Import the checkout's ``ddcolor``, with its part of basicsr but not that framework's own start."""
    sys.path.insert(0, str(checkout))
    for name in ("basicsr", "basicsr.archs"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("ddcolor")


def outputs(upstream: Any, encoder: str) -> dict[str, np.ndarray]:
    """What ``ddcolor.npz`` holds of one size, built as ``build_ddcolor_model`` does."""
    network = upstream.DDColor(
        encoder_name=encoder,
        decoder_name="MultiScaleColorDecoder",
        input_size=[512, 512],
        num_output_channels=2,
        last_norm="Spectral",
        do_normalize=False,
        num_queries=100,
        num_scales=3,
        dec_layers=9,
    ).eval()
    state = random_state({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    network.load_state_dict(state, strict=True)
    said: list[torch.Tensor] = []
    network.register_forward_hook(lambda _network, _arguments, ab: said.append(ab))
    bgr = np.ascontiguousarray(data.astronaut()[..., ::-1])
    upstream.ColorizationPipeline(network, input_size=512, device=torch.device("cpu")).process(bgr)
    light = lightness()[0, 0].numpy()
    gray = cv2.cvtColor(np.stack((light, 0 * light, 0 * light), 2), cv2.COLOR_LAB2RGB)
    with torch.no_grad():
        network(torch.from_numpy(gray).permute(2, 0, 1)[None])
    through, ab = said
    print(f"{encoder}: mean {ab.mean((0, 2, 3)).tolist()}, spread {ab.std((0, 2, 3)).tolist()}")
    return {
        f"{encoder}/layout": np.array(layout(state)),
        f"{encoder}/ab": ab[0, :, ::STEP, ::STEP].numpy(),
        f"{encoder}/pipeline": through[0, :, ::STEP, ::STEP].numpy(),
    }


def main() -> None:
    upstream = load(Path(sys.argv[1]))
    arrays: dict[str, np.ndarray] = {}
    for encoder in ("convnext-t", "convnext-l"):
        arrays.update(outputs(upstream, encoder))
    np.savez_compressed(TARGET, **arrays)


if __name__ == "__main__":
    main()
