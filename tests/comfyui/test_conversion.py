"""Workflows in the editor's format, run by a real ComfyUI and by photokeep-run: the same picture from the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headless import convert_workflow
from headless.lint import lint
from headless.object_info import load_object_info

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "tests" / "data" / "rules"
CASES = [
    "06_nested", "06_shared", "07_promoted_shared", "07_proxy_shared", "07_promoted_linked", "04_bypass_chain",
    "05_reroute_chain", "13_dynamic_combo", "13_dynamic_combo_linked", "13_autogrow",
]  # fmt: skip


@pytest.fixture(scope="module")
def photo(host: Any) -> str:
    """A small photo in the host's input folder."""
    small = host.base / "small.png"
    with Image.open(ROOT / "workflows" / "old_portrait.jpg") as picture:
        picture.convert("RGB").resize((52, 65)).save(small)
    return str(host.upload(small, "photo.png"))


@pytest.mark.parametrize("name", CASES)
def test_the_host_and_the_runner_make_the_same_picture(host: Any, photo: str, tmp_path: Path, name: str) -> None:
    raw = json.loads((RULES / f"{name}.json").read_text(encoding="utf-8"))["workflow"]
    info = host.get("/object_info")
    prompt = convert_workflow(raw, info)
    if missing := {node["class_type"] for node in prompt.values()} - info.keys():
        pytest.skip(f"this host has no {', '.join(sorted(missing))}")
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = photo
    theirs = host.saved(host.run(prompt))
    (tmp_path / "photo.png").write_bytes((host.base / "input" / photo).read_bytes())
    (tmp_path / "workflow.json").write_text(json.dumps(raw))
    done = host.photokeep_run(tmp_path / "workflow.json", "-o", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    ours = sorted((tmp_path / "out").glob("*.png"))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, sorted(theirs), strict=True):
        with Image.open(one) as our_picture, Image.open(other) as their_picture:
            assert np.array_equal(np.asarray(our_picture), np.asarray(their_picture))


def test_a_running_host_describes_its_classes(host: Any, tmp_path: Path) -> None:
    described = load_object_info(host.url)
    assert {"KSampler", "SaveImage", "PhotokeepUpscale"} <= described.keys()
    (tmp_path / "w.json").write_text(json.dumps({"1": {"class_type": "KSampler", "inputs": {"seed": -1}}}))
    found = lint(tmp_path / "w.json", object_info=described)
    assert {"value_smaller_than_min", "required_input_missing"} <= {each.problem.code for each in found.findings}


def test_the_hosts_own_check_names_the_same_errors(host: Any, tmp_path: Path) -> None:
    """What the host refuses we refuse, by the same names; we go on where it stops."""
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 0, "color": 0}},
        "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "no", "scale_by": 99}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        "4": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
        "6": {"class_type": "ImageInvert", "inputs": {}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }
    status, answer = host.post("/prompt", {"prompt": prompt})
    assert status == 400
    theirs = {
        (node_id, error["extra_info"].get("input_name"), error["type"])
        for node_id, node in answer["node_errors"].items()
        for error in node["errors"]
    }
    (tmp_path / "w.json").write_text(json.dumps(prompt))
    found = lint(tmp_path / "w.json").findings
    ours = {(each.problem.node_id, each.problem.input, each.problem.code) for each in found if each.severity == "error"}
    assert theirs
    assert theirs <= ours
