"""Upscale a 256 px photo x4 with Real-ESRGAN x4plus: ours beside realesrgan's RealESRGANer and spandrel called plainly.

    python bench/upscale.py [--side 256] [--rounds 3] [--json FILE]

Needs the starter and reference extras and scikit-image. All run the same weights on the same device in one process, in
turns, after a warm-up each; the best round counts, so that another program's burst does not decide.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import _basicsr_compat
import numpy as np
import skimage.data
import torch
from _figures import Figure, argument_parser, at_least, report

from photokeep_nodes import NODE_CLASS_MAPPINGS, models, weights
from photokeep_nodes.model_spec import ModelHandle

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 1.25


def reference(spec_id: str, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Build realesrgan's own upscaler at tile 128, on our weights in its own file format."""
    _basicsr_compat.install()
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from realesrgan import RealESRGANer

    path = folder / "x4plus.pth"
    state = {key: value.float() for key, value in weights.load_state_dict(models.catalogue()[spec_id]).items()}
    torch.save({"params_ema": state}, path)
    network = RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=23, num_grow_ch=32, scale=4)
    upsampler = RealESRGANer(scale=4, model_path=str(path), model=network, tile=128, tile_pad=10, pre_pad=0, half=False)

    def run(photo: np.ndarray) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints each tile
            output, _ = upsampler.enhance(photo[:, :, ::-1].copy())
        return output[:, :, ::-1]

    return run


def plain_spandrel(spec_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """Call spandrel's descriptor as its README does."""
    from spandrel import ModelLoader

    state = {key: value.float() for key, value in weights.load_state_dict(models.catalogue()[spec_id]).items()}
    descriptor = ModelLoader().load_from_state_dict(state).eval()

    def run(photo: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            output = descriptor(image)
        return (output[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()

    return run


def ours(spec_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """Call the Upscale node."""
    node = NODE_CLASS_MAPPINGS["PhotokeepUpscale"]()

    def run(photo: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(photo)[None].float() / 255
        (output,) = node.run(image, ModelHandle(spec_id), scale=4.0, tile=0)
        return (output[0] * 255).round().byte().numpy()

    return run


def main() -> None:
    parser = argument_parser("Upscale a photo x4: ours beside RealESRGANer and plain spandrel.")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    spec_id = "realesrgan-x4plus"
    corner = slice(40, 40 + options.side), slice(120, 120 + options.side)
    photo = np.ascontiguousarray(skimage.data.astronaut()[corner])
    with tempfile.TemporaryDirectory() as folder:
        peers = {
            "RealESRGANer, tile 128": reference(spec_id, Path(folder)),
            "spandrel, plain": plain_spandrel(spec_id),
            "photokeep Upscale": ours(spec_id),
        }
        outputs, best = {}, dict.fromkeys(peers, float("inf"))
        for run in peers.values():
            run(photo[:64, :64])
        for _ in range(options.rounds):
            for name, run in peers.items():
                started = time.perf_counter()
                outputs[name] = run(photo)
                best[name] = min(best[name], time.perf_counter() - started)
    truth = outputs["spandrel, plain"].astype(int)
    figures = []
    for name in peers:
        difference = int(np.abs(outputs[name].astype(int) - truth).max())
        figures.append(Figure(f"{name}: time", best[name], "s"))
        figures.append(Figure(f"{name}: largest difference from spandrel", difference, "/255"))
    mine = best["photokeep Upscale"]
    figures.append(at_least("speed over RealESRGANer", best["RealESRGANer, tile 128"] / mine, "x", GOAL))
    figures.append(Figure("speed over plain spandrel", best["spandrel, plain"] / mine, "x"))
    report(figures, options.json)


if __name__ == "__main__":
    main()
