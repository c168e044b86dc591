"""Workflows of ComfyUI's own nodes from the command line: the host's pixels, the cache, and no torch for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from headless.job import node_schemas

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(5).integers(0, 256, (30, 41, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path


def run(folder: Path, prompt: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "workflow.json").write_text(json.dumps(prompt))
    return subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-c", "from headless.cli import run_command; run_command()"),
            *("workflow.json", "--json", "-", *arguments),
        ],
        cwd=folder,
        env=os.environ | {"PHOTOKEEP_CACHE": str(folder / "cache"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}


def statuses(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = json.loads(done.stdout)["runs"]
    return {stage["title"]: stage["status"] for stage in found["stages"]}


def prompt(factor: float = 1.5) -> dict[str, Any]:
    scale = {"image": ["1", 0], "upscale_method": "bicubic", "scale_by": factor}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "ImageScaleBy", "inputs": scale},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "album/large"}},
    }


def expected(pixels: np.ndarray, factor: float) -> np.ndarray:
    image = torch.from_numpy(pixels.astype(np.float32) / 255.0)[None].movedim(-1, 1)
    size = (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor))
    large = torch.nn.functional.interpolate(image, size=size, mode="bicubic")[0].movedim(0, -1)
    return np.clip(255.0 * large.numpy(), 0, 255).astype(np.uint8)


def saved(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_second_run_is_cached_and_imports_no_torch(folder):
    first = run(folder, prompt())
    assert set(statuses(first).values()) == {"ran"}
    np.testing.assert_array_equal(saved(folder / "output/album/large_00001_.png"), expected(PIXELS, 1.5))
    second = run(folder, prompt())
    assert set(statuses(second).values()) == {"cached"}
    assert not {"torch", "numpy"} & imported(second)
    assert [path.name for path in (folder / "output/album").iterdir()] == ["large_00001_.png"]


def test_other_pixels_under_the_same_name_run_again(folder):
    statuses(run(folder, prompt()))
    Image.fromarray(PIXELS[::-1].copy()).save(folder / "photo.png")
    assert set(statuses(run(folder, prompt())).values()) == {"ran"}
    np.testing.assert_array_equal(saved(folder / "output/album/large_00002_.png"), expected(PIXELS[::-1], 1.5))


def test_photos_are_fed_to_load_image(folder):
    (folder / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS if name == "a.png" else 255 - PIXELS).save(folder / "in" / name)
    done = run(folder, prompt(0.5), "-i", "in", "-o", "out")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {saved(path).tobytes() for path in (folder / "out/album").iterdir()}
    assert found == {expected(pixels, 0.5).tobytes() for pixels in (PIXELS, 255 - PIXELS)}


def test_a_picture_that_was_saved_can_be_read(folder):
    statuses(run(folder, prompt()))
    loads = {
        "LoadImage": {"image": "album/large_00001_.png [output]"},
        "LoadImageMask": {"image": "album/large_00001_.png [output]", "channel": "red"},
        "LoadImageOutput": {"image": "album/large_00001_.png [output]"},
    }
    for node, inputs in loads.items():
        masks = node == "LoadImageMask"
        graph = {
            "1": {"class_type": node, "inputs": inputs},
            **({"2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0]}}} if masks else {}),
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2" if masks else "1", 0], "filename_prefix": node}},
        }
        for status in ("ran", "cached"):
            assert set(statuses(run(folder, graph)).values()) == {status}
        before = expected(PIXELS, 1.5)
        copy = saved(folder / f"output/{node}_00001_.png")
        np.testing.assert_array_equal(copy, before[..., :1].repeat(3, axis=2) if masks else before)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "gone.png", "gone.png [output]", "x.png [temp]"])
def test_a_picture_that_may_not_be_read_makes_no_plan(folder, name):
    graph = prompt()
    graph["1"]["inputs"]["image"] = name
    done = run(folder, graph)
    assert done.returncode == 2
    assert "custom_validation_failed" in done.stdout + done.stderr
    assert "torch" not in imported(done)


def test_planning_needs_neither_torch_nor_pillow(folder):
    done = run(folder, prompt(), "--plan")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not {"torch", "numpy", "PIL"} & imported(done)


def test_ours_and_the_hosts_nodes_have_names_of_their_own():
    from headless import core_nodes
    from photokeep_nodes import NODE_CLASS_MAPPINGS

    assert not set(core_nodes.node_classes()) & set(NODE_CLASS_MAPPINGS)
    assert set(node_schemas()) == {*core_nodes.node_classes(), *NODE_CLASS_MAPPINGS}
