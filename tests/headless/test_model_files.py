"""Weight files of the user's own through the runner: the catalogue's pixels, and one key per content."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import small_networks
import torch
from PIL import Image
from skimage import data

from headless.job import Job
from headless.store import Store
from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, WeightsMissingError, WorkflowInvalidError

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "photokeep_nodes" / "bundled" / "realesr_animevideov3_x4.safetensors"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.fromarray(data.astronaut()[30:70, 190:246]).save(tmp_path / "in" / "photo.png")
    return model_folder


def prompt(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "load": {"class_type": "PhotokeepLoadPhoto", "inputs": {"photo": "photo.png", "on_damage": "refuse"}},
        "model": model,
        "upscale": {
            "class_type": "PhotokeepUpscale",
            "inputs": {"image": ["load", 0], "model": ["model", 0], "scale": 4.0, "tile": 0},
        },
        "save": {
            "class_type": "PhotokeepSavePhoto",
            "inputs": {
                "image": ["upscale", 0],
                "photo_info": ["load", 2],
                "filename": "out",
                "format": "png",
                "bit_depth": "16",
                "quality": 95,
                "if_exists": "overwrite",
            },
        },
    }


def of_file(name: str) -> dict[str, Any]:
    return {"class_type": "PhotokeepModelFileUpscale", "inputs": {"file": name}}


def job(tmp_path: Path, model: dict[str, Any]) -> Job:
    settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
    (tmp_path / "workflow.json").write_text(json.dumps(prompt(model)))
    store = Store(tmp_path / "store")
    return Job(tmp_path / "workflow.json", inputs=[str(tmp_path / "in")], settings=settings, store=store)


def ran(tmp_path: Path, model: dict[str, Any]) -> tuple[dict[str, str], np.ndarray]:
    (result,) = job(tmp_path, model).run(lambda _event: None)
    assert result.status == "done", result
    (path,) = result.stages[-1].files
    return {stage.title: stage.status for stage in result.stages}, np.asarray(Image.open(path))


def test_the_same_weights_give_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    torch.save({"params": safetensors.torch.load_file(BUNDLED)}, folder / "mine.pth")
    _, expected = ran(tmp_path, {"class_type": "PhotokeepModelRealESRAnimeVideoV3", "inputs": {}})
    _, found = ran(tmp_path, of_file("mine.pth"))
    assert found.shape == (160, 224, 3)
    assert np.array_equal(found, expected)


def test_a_stage_runs_again_when_the_file_changes_and_only_then(folder: Path, tmp_path: Path) -> None:
    small_networks.save(small_networks.compact(4), folder / "mine.pth")
    first, pixels = ran(tmp_path, of_file("mine.pth"))
    assert first == {"Load Photo": "ran", "Upscale": "ran", "Save Photo": "ran"}
    again, same = ran(tmp_path, of_file("mine.pth"))
    assert again["Upscale"] == "cached"
    assert np.array_equal(pixels, same)
    small_networks.save(small_networks.compact(2), folder / "mine.pth")
    changed, other = ran(tmp_path, of_file("mine.pth"))
    assert (changed["Load Photo"], changed["Upscale"]) == ("cached", "ran")
    assert not np.array_equal(pixels, other)


def test_a_missing_file_is_said_before_any_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"no model file 'none\.pth'") as caught:
        next(job(tmp_path, of_file("none.pth")).run(lambda _event: None))
    assert "models get" not in str(caught.value), "it cannot be got"


def two_models(tmp_path: Path, own: str) -> Job:
    """A workflow that upscales twice: with a file of the user's own, and with a published one that is not here."""
    raw = prompt(of_file(own)) | {"catalogue": {"class_type": "PhotokeepModelRealESRGANx2plus", "inputs": {}}}
    raw["again"] = {"class_type": "PhotokeepUpscale", "inputs": raw["upscale"]["inputs"] | {"model": ["catalogue", 0]}}
    raw["again"]["inputs"]["image"] = ["upscale", 0]
    raw["save"]["inputs"]["image"] = ["again", 0]
    (tmp_path / "two.json").write_text(json.dumps(raw))
    settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
    return Job(tmp_path / "two.json", inputs=[str(tmp_path / "in")], settings=settings, store=None)


def test_a_missing_file_does_not_hide_what_else_is_missing(folder: Path, tmp_path: Path) -> None:
    both = two_models(tmp_path, "none.pth")
    with pytest.raises(WeightsMissingError) as caught:
        next(both.run(lambda _event: None))
    text = str(caught.value)
    for part in ("1 weight file is not", "x2plus", "no model file 'none.pth'", f"Put it into one of: {folder}"):
        assert part in text, text
    assert f"All but your own files: photokeep models get -w {tmp_path / 'two.json'}" in text
    assert [each["file"] for each in caught.value.context["missing"]] == ["RealESRGAN_x2plus.pth", "none.pth"]
    assert [spec.id for spec in both.needed_models().specs] == ["realesrgan-x2plus"], "it can be got all the same"
    assert "no model file 'none.pth'" in str(both.needed_models().unusable[0])


def test_an_unusable_file_does_not_hide_what_is_missing(folder: Path, tmp_path: Path) -> None:
    small_networks.save(small_networks.compact(1), folder / "mine.pth")
    with pytest.raises(WeightsMissingError, match=r"(?s)x2plus.*Compact x1, which does not enlarge"):
        next(two_models(tmp_path, "mine.pth").run(lambda _event: None))


def test_every_file_of_ones_own_is_named(folder: Path, tmp_path: Path) -> None:
    raw = prompt(of_file("a.pth"))
    raw["other"] = of_file("b.pth")
    raw["again"] = {"class_type": "PhotokeepUpscale", "inputs": raw["upscale"]["inputs"] | {"model": ["other", 0]}}
    raw["save"]["inputs"]["image"] = ["again", 0]
    raw["again"]["inputs"]["image"] = ["upscale", 0]
    (tmp_path / "two.json").write_text(json.dumps(raw))
    both = Job(tmp_path / "two.json", inputs=[str(tmp_path / "in")], settings=host.Standalone(), store=None)
    with pytest.raises(WeightsMissingError, match=r"(?s)^2 models cannot be used.*'a\.pth'.*'b\.pth'") as caught:
        next(both.run(lambda _event: None))
    assert "models get" not in str(caught.value), "nothing of it can be got"


@pytest.mark.parametrize("name", ["../mine.pth", "(no model file found)"])
def test_a_name_that_cannot_be_is_an_error_of_the_workflow(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkflowInvalidError) as caught:
        next(job(tmp_path, of_file(name)).run(lambda _event: None))
    (problem,) = caught.value.context["problems"]
    assert (problem["code"], problem["input"]) == ("custom_validation_failed", "file")


def test_a_network_of_another_stage_is_said_before_any_work(folder: Path, tmp_path: Path) -> None:
    small_networks.save(small_networks.compact(1), folder / "mine.pth")
    with pytest.raises(NodeInputError, match="Compact x1, which does not enlarge"):
        next(job(tmp_path, of_file("mine.pth")).run(lambda _event: None))


def test_a_model_for_the_hosts_nodes_comes_back_to_ours(folder: Path, tmp_path: Path) -> None:
    """Where there is no host, the way out and in again is the same as none."""
    model = {"class_type": "PhotokeepModelRealESRAnimeVideoV3", "inputs": {}}
    _, expected = ran(tmp_path, model)
    _, found = ran_lent(tmp_path, model)
    assert np.array_equal(found, expected)


def ran_lent(tmp_path: Path, model: dict[str, Any], *, scale: float = 4.0) -> tuple[dict[str, str], np.ndarray]:
    """As ``ran``, with the model made one for the host's nodes."""
    raw = prompt({"class_type": "PhotokeepToUpscaleModel", "inputs": {"model": ["ours", 0]}}) | {"ours": model}
    raw["upscale"]["inputs"]["scale"] = scale
    (tmp_path / "lent.json").write_text(json.dumps(raw))
    settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
    store = Store(tmp_path / "store")
    (result,) = Job(tmp_path / "lent.json", inputs=[str(tmp_path / "in")], settings=settings, store=store).run(
        lambda _event: None
    )
    assert result.status == "done", result
    return {stage.title: stage.status for stage in result.stages}, np.asarray(Image.open(result.stages[-1].files[0]))


def test_a_model_for_the_hosts_nodes_is_kept_as_any_other_output(folder: Path, tmp_path: Path) -> None:
    small_networks.save(small_networks.compact(4), folder / "mine.pth")
    first, pixels = ran_lent(tmp_path, of_file("mine.pth"))
    assert set(first.values()) == {"ran"}
    again, same = ran_lent(tmp_path, of_file("mine.pth"))
    assert set(again.values()) == {"cached"}
    assert np.array_equal(pixels, same)
    smaller, _ = ran_lent(tmp_path, of_file("mine.pth"), scale=2.0)
    assert (smaller["As UPSCALE_MODEL"], smaller["Upscale"]) == ("cached", "ran"), "the kept one can be used"
    small_networks.save(small_networks.compact(2), folder / "mine.pth")
    changed, other = ran_lent(tmp_path, of_file("mine.pth"))
    assert (changed["As UPSCALE_MODEL"], changed["Upscale"]) == ("ran", "ran")
    assert not np.array_equal(pixels, other)


def test_a_kept_model_for_the_hosts_nodes_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    small_networks.save(small_networks.compact(4), folder / "mine.pth")
    ran_lent(tmp_path, of_file("mine.pth"))
    code = (
        "import sys; from pathlib import Path; from headless.job import Job; from headless.store import Store;"
        "from photokeep_nodes import host; folder = Path(sys.argv[1]);"
        "settings = host.Standalone(output_dir=folder / 'out', device='cpu');"
        "store = Store(folder / 'store');"
        "job = Job(folder / 'lent.json', inputs=[str(folder / 'in')], settings=settings, store=store);"
        "(result,) = job.run(lambda _event: None);"
        "print({stage.status for stage in result.stages}, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "{'cached'} False", done.stderr


def test_a_model_cannot_be_typed_in(folder: Path, tmp_path: Path) -> None:
    """Also where either of two types would do."""
    raw = prompt(of_file("mine.pth"))
    raw["upscale"]["inputs"]["model"] = "realesrgan"
    (tmp_path / "workflow.json").write_text(json.dumps(raw))
    settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
    with pytest.raises(WorkflowInvalidError) as caught:
        Job(tmp_path / "workflow.json", settings=settings, store=None).planned(None)
    codes = {problem["code"] for problem in caught.value.context["problems"] if problem["input"] == "model"}
    assert codes == {"invalid_input_type"}
