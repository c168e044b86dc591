"""Upscale x4: ours beside realesrgan's RealESRGANer, spandrel called plainly and ComfyUI's upscale node.

    python bench/vs_reference.py [--sides 256,512,1024] [--megapixels 12] [--tile SIDE] [--json FILE]

Needs the starter and reference extras and scikit-image, and ComfyUI's node a COMFYUI_PATH (COMFYUI_PYTHON names its
interpreter). Prints time, peak memory beyond what the process held before, and the largest difference from ours in
float32. Squares of a real photo run through Real-ESRGAN x4plus; a photo of 12 million pixels, enlarged twice on the way
through a network of factor four, through the compact network. All use the same weights, and RealESRGANer tiles of the
same side as ours, which we choose by the free memory. ComfyUI's node chooses its own, and spandrel has none. Ours runs
twice: in the precision it chooses, and in full.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from _figures import Figure, argument_parser, at_least, at_most, report
from _progress import steps
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from photokeep_nodes import models, tiled_inference, weights

GOAL_SPEED = 1.4
GOAL_MEMORY_GIB = 8.0
LARGE, COMPACT = "realesrgan-x4plus", "realesr-animevideov3"
FULL = "photokeep, full precision"


@dataclass(frozen=True)
class Peer:
    """One way to upscale.

    Attributes:
        title: what it is called here.
        upscaler: of `_upscalers`.
        environment: variables it runs under.
        python: its interpreter.
    """

    title: str
    upscaler: str
    environment: dict[str, str]
    python: str = sys.executable

    def run(self, job: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Run it in a process of its own, and return its figures and its picture."""
        result = folder / "result.npy"
        path = folder / "job.json"
        path.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
        worker = Path(__file__).with_name("_upscalers.py")
        done = subprocess.run(
            [self.python, str(worker), self.upscaler, str(path)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.title} failed:\n{done.stderr[-2000:]}")
        return {**json.loads(done.stdout), "picture": np.load(result)}


def peers() -> list[Peer]:
    """Those that can run here."""
    found = [
        Peer("photokeep", "photokeep", {"PHOTOKEEP_PRECISION": "auto"}),
        Peer(FULL, "photokeep", {"PHOTOKEEP_PRECISION": "full"}),
        Peer("spandrel, plain", "spandrel", {}),
    ]
    if importlib.util.find_spec("realesrgan") is not None:
        found.append(Peer("RealESRGANer", "realesrganer", {}))
    if os.environ.get("COMFYUI_PATH"):
        python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        found.append(Peer("ComfyUI's node", "comfyui", {}, python))
    return found


def photo_of(height: int, width: int) -> np.ndarray:
    """Real photos, mirrored beside and below each other where one is too small."""
    tile = np.concatenate([skimage.data.astronaut(), skimage.data.astronaut()[:, ::-1]], axis=1)
    tile = np.concatenate([tile, tile[::-1]], axis=0)
    # A face and a flag in the first corner, so that small sides show something.
    tile = np.roll(tile, (-40, -120), axis=(0, 1))
    repeat = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
    return np.ascontiguousarray(np.tile(tile, repeat)[:height, :width])


def publish(model: str, folder: Path) -> Path:
    """Write our weights of a model in its publisher's file format."""
    state = {key: value.float() for key, value in weights.load_state_dict(models.catalogue()[model]).items()}
    path = folder / f"{model}.pth"
    torch.save({"params_ema": state}, path)
    return path


def compare(
    title: str, who: list[Peer], job: dict[str, Any], photo: np.ndarray, folder: Path
) -> tuple[list[Figure], dict[str, dict[str, Any]]]:
    """Run every peer on one photo."""
    np.save(folder / "photo.npy", photo)
    job = {**job, "photo": str(folder / "photo.npy")}
    found = {peer.title: peer.run(job, folder) for peer in steps(who, title)}
    ours = found[FULL]["picture"].astype(int)
    figures = [Figure(f"{title}: tile", job["tile"], "px")] if job["tile"] else []
    for name, each in found.items():
        figures.append(Figure(f"{title}: {name}", each["seconds"], "s"))
        figures.append(Figure(f"{title}: {name}, memory", each["peak_bytes"] / 2**20, "MiB"))
        if name != FULL:
            difference = np.abs(each["picture"].astype(int) - ours)
            figures.append(Figure(f"{title}: {name}, largest difference", int(difference.max()), "/255"))
            figures.append(Figure(f"{title}: {name}, mean difference", float(difference.mean()), "/255"))
    return figures, found


def chosen_tile(model: str, height: int, width: int) -> int:
    """Side of the tiles that our Upscale node would choose."""
    return tiled_inference.auto_tile(models.catalogue()[model], height, width)


def speed(title: str, found: dict[str, dict[str, Any]], goal: float | None = None) -> list[Figure]:
    """How many times as fast as each peer ours is."""
    figures = []
    for mine in ("photokeep", FULL):
        for name, each in found.items():
            if name in {"photokeep", FULL}:
                continue
            times = each["seconds"] / found[mine]["seconds"]
            label = f"{title}: {mine} over {name}"
            wanted = goal is not None and mine == "photokeep" and name == "RealESRGANer"
            figures.append(at_least(label, times, "x", goal or 0.0) if wanted else Figure(label, times, "x"))
    return figures


def likeness(who: list[Peer], job: dict[str, Any], folder: Path) -> list[Figure]:
    """How near to the truth a photo comes that was reduced to a quarter and enlarged again, in either precision."""
    truth = photo_of(512, 512)
    small = truth.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    _, found = compare("likeness", [peer for peer in who if peer.upscaler == "photokeep"], job, small, folder)
    figures = []
    for name, each in found.items():
        psnr = peak_signal_noise_ratio(truth, each["picture"])
        ssim = structural_similarity(truth, each["picture"], channel_axis=2)
        figures.append(Figure(f"reduced and enlarged: {name}, PSNR", psnr, "dB"))
        figures.append(Figure(f"reduced and enlarged: {name}, SSIM", ssim, ""))
    return figures


def main() -> None:
    parser = argument_parser("Upscale photos x4: ours beside the reference implementations.")
    parser.add_argument("--sides", default="256,512,1024", help="squares for x4plus")
    parser.add_argument("--megapixels", type=float, default=12.0, help="of the large photo; 0 leaves it out")
    parser.add_argument("--tile", type=int, default=0, help="side of a tile; 0 leaves it to us")
    options = parser.parse_args()
    who = peers()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = {"model": LARGE, "architecture": "RRDBNet", "weights": str(publish(LARGE, folder)), "scale": 4}
        for side in [int(text) for text in options.sides.split(",") if text]:
            title = f"x4plus, {side} px"
            # Without tiles spandrel's 15 KB per pixel would not fit.
            able = [peer for peer in who if peer.upscaler != "spandrel" or side <= 512]
            tile = options.tile or chosen_tile(LARGE, side, side)
            job = {**large, "tile": tile, "rounds": 3 if side <= 256 else 1}
            found_figures, found = compare(title, able, job, photo_of(side, side), folder)
            figures += found_figures + speed(title, found, GOAL_SPEED)
        figures += likeness(who, {**large, "tile": 0, "rounds": 1}, folder)
        if options.megapixels:
            height = round((options.megapixels * 1e6 * 3 / 4) ** 0.5)
            tile = options.tile or chosen_tile(COMPACT, height, height * 4 // 3)
            title = f"compact, {options.megapixels:g} MP, x2"
            job = {
                "model": COMPACT, "architecture": "SRVGGNetCompact", "weights": str(publish(COMPACT, folder)),
                "scale": 2, "tile": tile, "rounds": 1,
            }  # fmt: skip
            # ComfyUI's node knows no factor but the model's, and needs 2.3 GB for each copy of that.
            able = [peer for peer in who if peer.upscaler in {"photokeep", "realesrganer"}]
            found_figures, found = compare(title, able, job, photo_of(height, height * 4 // 3), folder)
            figures += found_figures + speed(title, found)
            gib = found["photokeep"]["peak_bytes"] / 2**30
            figures.append(at_most(f"{title}: memory beside the program", gib, "GiB", GOAL_MEMORY_GIB))
    report(figures, options.json)


if __name__ == "__main__":
    main()
