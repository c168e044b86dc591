"""The pack in a real ComfyUI: it loads, its nodes are shown, and the shipped workflow gives the runner's pixels."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import photokeep_nodes
from headless import load_workflow, parse_workflow, schemas_of

pytestmark = pytest.mark.comfyui

RESTORE = Path(__file__).resolve().parents[2] / "workflows" / "restore.json"
INSTALLED = " Installed:"
CORE_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def pixels(path: Path) -> np.ndarray:
    """Decoded by another library than the one that wrote it; [0, 1], so 8 and 16 bit files compare."""
    raw = imagecodecs.png_decode(path.read_bytes())
    return raw.astype(np.float64) / np.iinfo(raw.dtype).max


def largest_difference(one: Path, other: Path) -> float:
    a, b = pixels(one), pixels(other)
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def the_node(prompt: dict[str, Any], class_type: str) -> str:
    found = [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]
    assert len(found) == 1, f"{len(found)} {class_type} in {RESTORE.name}"
    return found[0]


def cached_nodes(entry: dict[str, Any]) -> set[str]:
    return {
        node for kind, facts in entry["status"]["messages"] if kind == "execution_cached" for node in facts["nodes"]
    }


@pytest.fixture(scope="module")
def editor_file() -> dict[str, Any]:
    return json.loads(RESTORE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def prompt() -> dict[str, Any]:
    """The shipped workflow as our own parser converts it."""
    workflow = parse_workflow(load_workflow(RESTORE), schemas_of(photokeep_nodes.NODE_CLASS_MAPPINGS))
    assert workflow.problems == ()
    return workflow.to_prompt()


@pytest.fixture(scope="module")
def finished(host: Any, prompt: dict[str, Any], editor_file: dict[str, Any]) -> dict[str, Any]:
    """History entry of the shipped workflow, run by the host."""
    return host.run(prompt, workflow=editor_file)


@pytest.fixture(scope="module")
def by_host(host: Any, finished: dict[str, Any]) -> Path:
    (path,) = host.saved(finished)
    return path


def test_the_pack_loads_cleanly(host: Any) -> None:
    log = host.log
    lines = [line for line in log.splitlines() if line.rstrip().endswith(str(host.pack))]
    assert any("seconds" in line for line in lines), "the host did not list the pack among its custom nodes"
    assert "IMPORT FAILED" not in "".join(lines)
    assert "Cannot import" not in log
    assert "Unable to parse pyproject.toml" not in log
    for trace in log.split("Traceback (most recent call last)")[1:]:
        assert str(host.pack) not in trace[:5000]


def test_the_editor_is_told_of_every_node(host: Any) -> None:
    listed = host.get("/object_info")
    for node_id, cls in photokeep_nodes.NODE_CLASS_MAPPINGS.items():
        told = listed[node_id]
        inputs = cls.INPUT_TYPES()
        assert told["display_name"] == cls.DISPLAY_NAME
        assert told["category"] == cls.CATEGORY
        # Which models are installed differs between the host and here.
        here, there = (
            text.replace("Not installed now", "Installed now") for text in (cls.DESCRIPTION, told["description"])
        )
        assert here == there
        assert told["python_module"] == "custom_nodes.photokeep"
        assert told["output"] == list(cls.RETURN_TYPES)
        assert told["output_node"] == getattr(cls, "OUTPUT_NODE", False)
        assert told["output_tooltips"] == list(cls.OUTPUT_TOOLTIPS)
        assert told["input_order"] == {group: list(names) for group, names in inputs.items()}
        for group in ("required", "optional"):
            for name, (_, options) in inputs.get(group, {}).items():
                assert told["input"][group][name][1]["tooltip"] == options["tooltip"]
    ours = {node_id for node_id, told in listed.items() if told["python_module"] == "custom_nodes.photokeep"}
    assert ours == set(photokeep_nodes.NODE_CLASS_MAPPINGS)


def test_every_socket_can_be_connected(host: Any) -> None:
    """A misspelt socket type makes an input that nothing fits."""
    listed = host.get("/object_info")
    offered = {kind for told in listed.values() for kind in told["output"] if isinstance(kind, str)}
    for node_id in photokeep_nodes.NODE_CLASS_MAPPINGS:
        told = listed[node_id]["input"]
        for name, declared in {**told.get("required", {}), **told.get("optional", {})}.items():
            if isinstance(declared[0], str) and declared[0] not in CORE_WIDGETS:
                for kind in declared[0].split(","):
                    assert kind in offered, f"{node_id}.{name}: no node gives a {kind}"


def test_the_shipped_workflows_are_offered_as_templates(host: Any) -> None:
    offered = host.get("/workflow_templates")["photokeep"]
    for path in RESTORE.parent.glob("*.json"):
        assert path.stem in offered
        assert host.get(f"/api/workflow_templates/photokeep/{path.name}") == json.loads(
            path.read_text(encoding="utf-8")
        )


def test_the_shipped_workflow_gives_the_runners_pixels(host: Any, by_host: Path, tmp_path: Path) -> None:
    done = host.photokeep_run("workflows/restore.json", "-o", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr + done.stdout
    (by_runner,) = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert by_runner.name == by_host.name
    difference = largest_difference(by_host, by_runner)
    assert difference <= 1 / 255, f"the host's and the runner's pixels differ by {difference * 255:.3f}/255"


def test_the_saved_photo_carries_its_workflow(
    by_host: Path, prompt: dict[str, Any], editor_file: dict[str, Any]
) -> None:
    with Image.open(by_host) as image:
        image.load()
        text = image.text
    # The host notes IS_CHANGED's answer in the prompt itself.
    carried = {node_id: {**node, "is_changed": ...} for node_id, node in json.loads(text["prompt"]).items()}
    assert carried == {node_id: {**node, "is_changed": ...} for node_id, node in prompt.items()}
    assert json.loads(text["workflow"]) == editor_file
    # What the user drops onto the editor can be given to the runner too, in either form.
    schemas = schemas_of(photokeep_nodes.NODE_CLASS_MAPPINGS)
    chunks = load_workflow(by_host)
    for form in (chunks, {"prompt": chunks["prompt"]}, chunks["workflow"]):
        assert parse_workflow(form, schemas).to_prompt() == prompt


def test_a_second_run_comes_from_the_hosts_cache(
    host: Any, finished: dict[str, Any], prompt: dict[str, Any], editor_file: dict[str, Any]
) -> None:
    assert cached_nodes(finished) == set()
    again = host.run(prompt, workflow=editor_file)
    assert set(prompt) - cached_nodes(again) <= {the_node(prompt, "PhotokeepSavePhoto")}


def test_an_interrupt_leaves_the_server_able_to_run(
    host: Any, finished: dict[str, Any], prompt: dict[str, Any]
) -> None:
    changed = copy.deepcopy(prompt)
    upscale = the_node(changed, "PhotokeepUpscale")
    changed[upscale]["inputs"]["tile"] = 64  # many short steps, and nothing of it in the cache
    with host.events("interrupt-test") as events:
        prompt_id = host.queue(changed, client_id="interrupt-test")
        for event in events:
            if event["type"] == "progress" and event["data"]["node"] == upscale and event["data"]["value"] >= 1:
                assert event["data"]["value"] < event["data"]["max"]
                break
            assert event["type"] not in ("execution_error", "execution_success"), event
    status, _ = host.post("/interrupt", {})
    assert status == 200
    ended = host.wait(prompt_id)
    stopped = [facts for kind, facts in ended["status"]["messages"] if kind == "execution_interrupted"]
    assert [facts["node_id"] for facts in stopped] == [upscale]
    assert not host.saved(ended)
    assert not list((host.base / "output").rglob("*.tmp*"))

    # The same model on something small: its lease was given back.
    model = prompt[upscale]["inputs"]["model"]
    small = {
        "a": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": 0x336699}},
        model[0]: prompt[model[0]],
        "b": {"class_type": "PhotokeepUpscale", "inputs": {"image": ["a", 0], "model": model, "scale": 2.0, "tile": 0}},
        "c": {"class_type": "SaveImage", "inputs": {"images": ["b", 0], "filename_prefix": "after-interrupt"}},
    }
    (path,) = host.saved(host.run(small))
    result = pixels(path)
    assert result.shape == (64, 96, 3)
    assert np.abs(result - np.array([0x33, 0x66, 0x99]) / 255).max() < 0.05


def test_an_uploaded_photo_can_be_chosen(host: Any, tmp_path: Path, prompt: dict[str, Any]) -> None:
    """The editor's upload button, then LoadPhoto and SavePhoto: 16 bit go in and come out unchanged."""
    ramp = np.random.default_rng(7).integers(0, 2**16, (40, 56, 3), dtype=np.uint16)
    (tmp_path / "scan.png").write_bytes(imagecodecs.png_encode(ramp))
    name = host.upload(tmp_path / "scan.png", "my scan ö.png")
    photo = {"class_type": "PhotokeepLoadPhoto", "inputs": {"photo": name, "on_damage": "refuse"}}
    save = copy.deepcopy(prompt[the_node(prompt, "PhotokeepSavePhoto")])
    save["inputs"] = {key: value for key, value in save["inputs"].items() if not isinstance(value, list)}
    save["inputs"] |= {"image": ["1", 0], "photo_info": ["1", 2], "format": "png", "bit_depth": "auto"}
    entry = host.run({"1": photo, "2": save})
    (path,) = host.saved(entry)
    assert path.name.startswith("my scan ö")
    saved = imagecodecs.png_decode(path.read_bytes())
    assert saved.dtype == np.uint16
    assert np.array_equal(saved, ramp)
    # Another photo under the same name must not be served from the cache.
    (host.base / "input" / name).write_bytes(imagecodecs.png_encode(65535 - ramp))
    (path,) = host.saved(host.run({"1": photo, "2": save}))
    assert np.array_equal(imagecodecs.png_decode(path.read_bytes()), 65535 - ramp)


@pytest.mark.parametrize("name", ["no such photo.png", "../comfyui.log", "/etc/hostname"])
def test_a_photo_that_cannot_be_is_refused_before_the_run(host: Any, prompt: dict[str, Any], name: str) -> None:
    changed = copy.deepcopy(prompt)
    load = the_node(changed, "PhotokeepLoadPhoto")
    changed[load]["inputs"]["photo"] = name
    status, answer = host.post("/prompt", {"prompt": changed})
    assert status == 400
    kinds = {error["type"] for error in answer["node_errors"][load]["errors"]}
    assert kinds <= {"custom_validation_failed", "value_not_in_list"}


def test_missing_weights_are_explained_where_the_user_looks(host: Any, prompt: dict[str, Any]) -> None:
    load, save = the_node(prompt, "PhotokeepLoadPhoto"), the_node(prompt, "PhotokeepSavePhoto")
    changed = {
        load: prompt[load],
        "detector": {"class_type": "PhotokeepModelRetinaFaceMobileNet", "inputs": {}},
        "model": {"class_type": "PhotokeepModelGFPGANv14", "inputs": {}},
        "faces": {
            "class_type": "PhotokeepFaceRestore",
            "inputs": {
                "image": [load, 0],
                "model": ["model", 0],
                "detector": ["detector", 0],
                "strength": 0.8,
                "min_score": 0.5,
                "feather": 0.25,
            },
        },
        save: copy.deepcopy(prompt[save]),
    }
    changed[save]["inputs"]["image"] = ["faces", 0]
    ended = host.wait(host.queue(changed))
    (failed,) = [facts for kind, facts in ended["status"]["messages"] if kind == "execution_error"]
    assert failed["node_id"] == "faces"
    assert failed["exception_type"].endswith("WeightsMissingError")
    for part in ("GFPGANv1.4.pth", "MB", "Apache-2.0", "photokeep models get gfpgan-1.4"):
        assert part in failed["exception_message"]
