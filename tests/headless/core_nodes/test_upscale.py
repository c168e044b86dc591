"""Load Upscale Model and Upscale Image (using Model) in a plan: names, weights, precision, tiles, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import small_networks
import torch
from PIL import Image
from skimage import data

from headless import core_nodes
from headless.core_nodes import _tiles
from headless.job import Job
from headless.store import Store
from photokeep_nodes import exchange, host, inference, models, precision
from photokeep_nodes.errors import NodeInputError, WeightsMissingError, WorkflowInvalidError
from photokeep_nodes.model_spec import ModelHandle

ROOT = Path(__file__).resolve().parents[3]
BUNDLED = ROOT / "photokeep_nodes" / "bundled" / "realesr_animevideov3_x4.safetensors"
CLASSES = core_nodes.node_classes()
LOADER, UPSCALE = CLASSES["UpscaleModelLoader"], CLASSES["ImageUpscaleWithModel"]
PHOTO = torch.from_numpy(data.astronaut()[30:70, 190:246].astype(np.float32) / 255)[None]


@pytest.fixture
def mine(model_folder: Path) -> Path:
    path = model_folder / "sub" / "mine.pth"
    path.parent.mkdir()
    torch.save({"params_ema": safetensors.torch.load_file(BUNDLED)}, path)
    return path


def as_spandrel(image: torch.Tensor) -> torch.Tensor:
    """What spandrel itself, and so the host, makes of a photo that is one tile."""
    from spandrel import ModelLoader

    descriptor = ModelLoader("cpu").load_from_state_dict(safetensors.torch.load_file(BUNDLED)).eval()
    return descriptor(image.movedim(-1, 1)).movedim(1, -1)


def test_real_weights_enlarge_as_spandrel_does(mine, on_the_cpu):
    (large,) = UPSCALE().run(LOADER().run("sub/mine.pth")[0], PHOTO)
    assert large.shape == (1, 160, 224, 3)
    np.testing.assert_allclose(large.numpy(), as_spandrel(PHOTO).numpy(), atol=5e-6)


def test_it_computes_in_float32_where_the_device_prefers_less(mine, on_the_cpu, monkeypatch):
    monkeypatch.delenv("PHOTOKEEP_PRECISION")
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    spec = models.get(LOADER.handle("sub/mine.pth"))
    assert precision.choose(spec, torch.device("cpu")) == torch.float32
    used = []
    run = inference.Network.__call__
    monkeypatch.setattr(
        inference.Network, "__call__", lambda network, *given: used.append(network.dtype) or run(network, *given)
    )
    (large,) = UPSCALE().run(LOADER().run("sub/mine.pth")[0], PHOTO)
    lent = exchange.LentUpscaler(ModelHandle("realesr-animevideov3"))
    (other,) = UPSCALE().run(lent, PHOTO)
    assert set(used) == {torch.float32}
    np.testing.assert_allclose(large.numpy(), other.numpy(), atol=5e-6)


def test_out_of_memory_is_answered_with_smaller_tiles(mine, on_the_cpu, monkeypatch):
    photo = torch.rand(1, 150, 300, 3)
    asked = []

    def ladder(spec: Any, call: Any, tiles: Any, size_of: Any, dtype: Any) -> Any:
        asked.append([(tile, size_of(tile)) for tile in tiles])
        return real(spec, call, tiles[-1:], size_of, dtype)

    real = inference.run_on_ladder
    monkeypatch.setattr(inference, "run_on_ladder", ladder)
    (large,) = UPSCALE().run(LOADER().run("sub/mine.pth")[0], photo)
    assert asked == [[(512, (150, 300)), (256, (150, 256)), (128, (128, 128))]]
    np.testing.assert_allclose(large.numpy(), as_spandrel(photo).numpy(), atol=0.1)


def test_tiles_are_counted_and_cover_the_photo():
    for length in (1, 32, 33, 512, 513, 544, 545, 992, 993, 3000):
        starts = _tiles._starts(length, 512)
        covered = {place for start in starts for place in range(start, min(start + 512, length))}
        assert len(covered) == length
    assert _tiles.count(513, 512, 512) == 2
    assert _tiles.count(2000, 3000, 512) == 5 * 7


def test_progress_is_told_tile_by_tile(mine):
    told = []
    settings = host.Standalone(device="cpu", progress=lambda done, total, unit: told.append((done, total, unit)))
    with host.standalone(settings):
        UPSCALE().run(LOADER().run("sub/mine.pth")[0], torch.rand(2, 16, 520, 3))
    assert [each for each in told if each[1] == 4] == [(float(i), 4, "tiles") for i in range(5)]


@pytest.mark.parametrize("channels", [1, 4])
def test_only_colour_is_enlarged(mine, on_the_cpu, channels):
    with pytest.raises(NodeInputError, match=f"the picture has {channels}"):
        UPSCALE().run(LOADER().run("sub/mine.pth")[0], torch.rand(1, 8, 8, channels))


def test_gray_networks_are_refused(model_folder, on_the_cpu):
    torch.save(small_networks.compact(2, 1).state_dict(), model_folder / "gray.pth")
    with pytest.raises(NodeInputError, match="takes 1 channels"):
        UPSCALE().run(LOADER().run("gray.pth")[0], PHOTO)


def test_a_result_that_is_not_finite_is_refused(model_folder, on_the_cpu):
    state = {name: torch.full_like(tensor, 1e38) for name, tensor in small_networks.compact(2).state_dict().items()}
    torch.save(state, model_folder / "wild.pth")
    with pytest.raises(NodeInputError, match="not numbers"):
        UPSCALE().run(LOADER().run("wild.pth")[0], PHOTO)


def test_absurd_results_are_refused(mine, on_the_cpu):
    with pytest.raises(NodeInputError, match="the result would have"):
        UPSCALE().run(LOADER().run("sub/mine.pth")[0], torch.zeros(1, 1, 1, 3).expand(1, 16384, 16384, 3))


# -- names -------------------------------------------------------------------------------------------------------------


def test_files_in_the_model_folders_are_offered(mine):
    torch.save({}, mine.parent.parent / "RealESRGAN_x4plus.pth")  # the catalogue's own names are for it, too
    (choices,) = (LOADER.INPUT_TYPES()["required"]["model_name"][1]["options"],)
    assert choices == ["RealESRGAN_x4plus.pth", "sub/mine.pth"]


@pytest.mark.parametrize("name", ["../mine.pth", "/etc/passwd", "a.txt", "", "x\\y.pth", ".hidden/x.pth", "a\0.pth"])
def test_names_that_lead_out_are_refused(model_folder, name):
    assert "cannot be a model file" in LOADER.VALIDATE_INPUTS(name)
    with pytest.raises(NodeInputError, match="cannot be a model file"):
        models.get(LOADER.handle(name))


def test_a_name_that_a_link_brings_is_not_judged():
    assert LOADER.VALIDATE_INPUTS() is True
    assert LOADER.handle() is None


def test_a_published_file_that_is_not_there_is_the_catalogues(own_folders):
    """Its weights may lie elsewhere, and where they do not, the catalogue says how to get them."""
    assert LOADER.handle("RealESRGAN_x4plus.pth").model_id == "exact:realesrgan-x4plus"
    assert LOADER.handle("upscale/RealESRGAN_x2plus.pth").model_id == "exact:realesrgan-x2plus"
    with pytest.raises(WeightsMissingError, match="no model file 'nobody_knows"):
        models.get(LOADER.handle("nobody_knows.pth"))


def test_a_network_that_does_not_enlarge_serves_too(model_folder, on_the_cpu):
    torch.save(small_networks.compact(1).state_dict(), model_folder / "x1.pth")
    (same_size,) = UPSCALE().run(LOADER().run("x1.pth")[0], PHOTO)
    assert same_size.shape == PHOTO.shape


# -- in a plan ---------------------------------------------------------------------------------------------------------


def job(tmp_path: Path, model_name: str) -> Job:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": model_name}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "large"}},
    }
    Image.fromarray(data.astronaut()[30:70, 190:246]).save(tmp_path / "photo.png")
    (tmp_path / "workflow.json").write_text(json.dumps(prompt))
    settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
    return Job(tmp_path / "workflow.json", settings=settings, store=Store(tmp_path / "store"))


def statuses(tmp_path: Path, model_name: str) -> dict[str, str]:
    (result,) = job(tmp_path, model_name).run(lambda _event: None)
    assert result.status == "done", [stage.error for stage in result.stages]
    return {stage.class_type: stage.status for stage in result.stages}


def test_other_weights_under_the_same_name_run_again(tmp_path, mine):
    assert set(statuses(tmp_path, "sub/mine.pth").values()) == {"ran"}
    with Image.open(tmp_path / "out" / "large_00001_.png") as saved:
        expected = np.clip(255.0 * as_spandrel(PHOTO)[0].numpy(), 0, 255)
        assert np.abs(np.asarray(saved).astype(np.float32) - expected).max() <= 1.001
    assert set(statuses(tmp_path, "sub/mine.pth").values()) == {"cached"}
    state = safetensors.torch.load_file(BUNDLED)
    torch.save({name: tensor * 0.99 for name, tensor in state.items()}, mine)
    again = statuses(tmp_path, "sub/mine.pth")
    assert again == {"LoadImage": "cached", "ImageUpscaleWithModel": "ran", "SaveImage": "ran"}


def test_a_missing_file_is_said_before_any_work(tmp_path, model_folder):
    with pytest.raises(WeightsMissingError, match="nobody_knows"):
        list(job(tmp_path, "nobody_knows.pth").run(lambda _event: None))
    assert not (tmp_path / "out").exists()


def test_a_name_that_leads_out_makes_no_plan(tmp_path, model_folder):
    with pytest.raises(WorkflowInvalidError, match="cannot be a model file"):
        list(job(tmp_path, "../../x.pth").run(lambda _event: None))
