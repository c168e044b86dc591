"""Upscale models between a real host's nodes and ours, both ways, and weight files of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import safetensors.torch
import torch
from skimage import data

pytestmark = pytest.mark.comfyui

BUNDLED = Path(__file__).resolve().parents[2] / "photokeep_nodes" / "bundled" / "realesr_animevideov3_x4.safetensors"
OURS = {"class_type": "PhotokeepModelRealESRAnimeVideoV3", "inputs": {}}
THEIRS = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "mine.pth"}}
FILE = {"class_type": "PhotokeepModelFileUpscale", "inputs": {"file": "mine.pth"}}
LENT = {"class_type": "PhotokeepToUpscaleModel", "inputs": {"model": ["ours", 0]}}


@pytest.fixture(scope="module")
def weights(host: Any) -> Path:
    """The bundled weights, in the host's folder of upscale models, as a trainer would have saved them."""
    path = host.base / "models" / "upscale_models" / "mine.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params": safetensors.torch.load_file(BUNDLED)}, path)
    return path


@pytest.fixture(scope="module", params=[(64, 80), (40, 600)], ids=["one tile of the host's", "two tiles"])
def photo(host: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    height, width = request.param
    picture = np.concatenate([data.astronaut()[20:220], data.astronaut()[20:220, ::-1]], axis=1)
    name = f"{height}x{width}.png"
    (host.base / "input" / name).write_bytes(imagecodecs.png_encode(picture[:height, :width].copy()))
    return {"class_type": "PhotokeepLoadPhoto", "inputs": {"photo": name, "on_damage": "refuse"}}


def by_host(model: dict[str, Any], photo: dict[str, Any]) -> dict[str, Any]:
    inputs = {"upscale_model": ["model", 0], "image": ["photo", 0]}
    return finished({"model": model, "photo": photo, "x4": {"class_type": "ImageUpscaleWithModel", "inputs": inputs}})


def by_us(model: dict[str, Any], photo: dict[str, Any]) -> dict[str, Any]:
    inputs = {"model": ["model", 0], "image": ["photo", 0], "scale": 4.0, "tile": 0}
    return finished({"model": model, "photo": photo, "x4": {"class_type": "PhotokeepUpscale", "inputs": inputs}})


def finished(prompt: dict[str, Any]) -> dict[str, Any]:
    save = {"class_type": "SaveImage", "inputs": {"images": ["x4", 0], "filename_prefix": "exchange"}}
    lent = {"ours": OURS} if prompt["model"] is LENT else {}
    return {**prompt, **lent, "save": save}


def pixels(host: Any, prompt: dict[str, Any]) -> np.ndarray:
    (path,) = host.saved(host.run(prompt))
    return imagecodecs.png_decode(path.read_bytes()).astype(int)


def test_the_hosts_model_in_our_stage(host: Any, weights: Path, photo: dict[str, Any]) -> None:
    expected = pixels(host, by_host(THEIRS, photo))
    found = pixels(host, by_us(THEIRS, photo))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1, "in steps of 255"
    assert np.abs(pixels(host, by_host(THEIRS, photo)) - expected).max() == 0, "the host's own model was left alone"


def test_our_model_in_the_hosts_node(host: Any, weights: Path, photo: dict[str, Any]) -> None:
    expected = pixels(host, by_us(OURS, photo))
    found = pixels(host, by_host(LENT, photo))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    memory = host.get("/photokeep_tests/memory")
    assert all(not model.get("leases") for model in memory["pool"]["models"])
    status, _ = host.post("/free", {"unload_models": True, "free_memory": True})
    assert status == 200
    assert np.abs(pixels(host, by_host(LENT, photo)) - expected).max() <= 1


def test_a_file_of_the_users_own(host: Any, weights: Path, photo: dict[str, Any]) -> None:
    (choices, _) = host.get("/object_info/PhotokeepModelFileUpscale")["PhotokeepModelFileUpscale"]["input"]["required"][
        "file"
    ]
    assert choices == ["mine.pth"]
    expected = pixels(host, by_us(OURS, photo))
    assert np.array_equal(pixels(host, by_us(FILE, photo)), expected)
    whole = weights.read_bytes()
    state = {name: tensor * 0.9 for name, tensor in safetensors.torch.load_file(BUNDLED).items()}
    torch.save({"params": state}, weights)
    try:
        assert not np.array_equal(pixels(host, by_us(FILE, photo)), expected), "the host served its cache"
    finally:
        weights.write_bytes(whole)


@pytest.mark.parametrize("name", ["(no model file found)", "../../x.pth", "/etc/hostname.pth"])
def test_a_file_that_cannot_be_is_refused_before_the_run(host: Any, photo: dict[str, Any], name: str) -> None:
    prompt = by_us({**FILE, "inputs": {"file": name}}, photo)
    status, answer = host.post("/prompt", {"prompt": prompt})
    assert status == 400
    assert "custom_validation_failed" in str(answer["node_errors"]["model"])


def test_the_tooltip_says_what_is_installed_now(host: Any) -> None:
    listed = host.get("/object_info")
    assert listed["PhotokeepModelRealESRAnimeVideoV3"]["description"].endswith("Installed: yes.")
    assert listed["PhotokeepModelGFPGANv14"]["description"].endswith("Installed: no.")
