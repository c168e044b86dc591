"""The upscalers that `vs_reference` compares, each run in a process of its own, so that its peak memory is its own.

    python bench/_upscalers.py NAME JOB.json

The job names the weights, the photo (an 8-bit ``.npy``), the tile and where to put the result; the figures go to
standard output as JSON. ``comfyui`` runs under ComfyUI's interpreter, with nothing of Photokeep but the sampler of
memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # ComfyUI's interpreter need not have us installed
from photokeep_nodes.peak_memory import PeakSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    Upscaler = Callable[[np.ndarray], np.ndarray]


def photokeep(job: dict[str, Any]) -> Upscaler:
    """Our Upscale node."""
    from photokeep_nodes import NODE_CLASS_MAPPINGS
    from photokeep_nodes.model_spec import ModelHandle

    node = NODE_CLASS_MAPPINGS["PhotokeepUpscale"]()

    def run(photo: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(photo)[None].float() / 255
        (output,) = node.run(image, ModelHandle(job["model"]), scale=float(job["scale"]), tile=job["tile"])
        return _eight_bits(output[0])

    return run


def realesrganer(job: dict[str, Any]) -> Upscaler:
    """Upscale as realesrgan itself does, with its own defaults but for the tile."""
    import _basicsr_compat

    _basicsr_compat.install()
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from realesrgan import RealESRGANer
    from realesrgan.archs.srvgg_arch import SRVGGNetCompact

    if job["architecture"] == "RRDBNet":
        network = RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=23, num_grow_ch=32, scale=4)
    else:
        network = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4, act_type="prelu")
    tile = job["tile"]
    upsampler = RealESRGANer(scale=4, model_path=job["weights"], model=network, tile=tile, tile_pad=10, pre_pad=0)

    def run(photo: np.ndarray) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints each tile
            output, _ = upsampler.enhance(photo[:, :, ::-1].copy(), outscale=job["scale"])
        return output[:, :, ::-1]

    return run


def spandrel(job: dict[str, Any]) -> Upscaler:
    """Call spandrel's descriptor on the whole photo, as its README does."""
    from spandrel import ModelLoader

    descriptor = ModelLoader().load_from_file(job["weights"]).eval()

    def run(photo: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            return _eight_bits(descriptor(image)[0].permute(1, 2, 0))

    return run


def comfyui(job: dict[str, Any]) -> Upscaler:
    """ComfyUI's "Upscale Image (using Model)" as it is, tiles of 512 px."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv = [sys.argv[0], "--cpu"] if not torch.cuda.is_available() else [sys.argv[0]]
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    weights = Path(job["weights"])
    folder_paths.add_model_folder_path("upscale_models", str(weights.parent))
    (model,) = UpscaleModelLoader.execute(weights.name).args

    def run(photo: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(photo)[None].float() / 255
        with torch.inference_mode():
            return _eight_bits(ImageUpscaleWithModel.execute(model, image).args[0][0])

    return run


UPSCALERS: dict[str, Callable[[dict[str, Any]], Upscaler]] = {
    "photokeep": photokeep,
    "realesrganer": realesrganer,
    "spandrel": spandrel,
    "comfyui": comfyui,
}


def _eight_bits(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round_().byte().cpu().numpy()


def main() -> None:
    """Run one upscaler on one job."""
    name, path = sys.argv[1:]
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    real_stdout, sys.stdout = sys.stdout, sys.stderr  # what the peers print is not the figures
    photo = np.load(job["photo"])
    run = UPSCALERS[name](job)
    run(np.ascontiguousarray(photo[:64, :64]))
    best = float("inf")
    with PeakSampler() as memory:
        for _ in range(job["rounds"]):
            started = time.perf_counter()
            result = run(photo)
            best = min(best, time.perf_counter() - started)
    np.save(job["result"], result)
    json.dump({"seconds": best, "peak_bytes": memory.peak_bytes - memory.start_bytes}, real_stdout)


if __name__ == "__main__":
    main()
