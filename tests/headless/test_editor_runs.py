"""A file of the editor's with inputs that come and go, run as it is: lists of choices, growing sockets, switches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headless.editor_format import convert
from headless.graph import Link
from headless.job import Job, node_schemas
from headless.json_text import DEFAULT_LIMITS
from headless.plan import check_plan, make_plan
from headless.schema import schemas_of
from headless.store import Store
from headless.workflow import parse_workflow
from photokeep_nodes import host

ROOT = Path(__file__).resolve().parents[2]
EDITOR_FILE = ROOT / "tests" / "data" / "workflows" / "core_nodes_editor.json"


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    (tmp_path / "workflow.json").write_bytes(EDITOR_FILE.read_bytes())
    (tmp_path / "old_portrait.jpg").write_bytes((ROOT / "workflows" / "old_portrait.jpg").read_bytes())

    def run(*overrides: str) -> dict[str, Any]:
        settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
        job = Job(tmp_path / "workflow.json", overrides=overrides, settings=settings, store=Store(tmp_path / "store"))
        (result,) = job.run(lambda _event: None)
        assert result.status == "done", [stage.error for stage in result.stages]
        return {stage.stage_id: stage for stage in result.stages}

    return run


def test_choices_growing_sockets_math_and_switches_run_as_they_are_wired(run: Any, tmp_path: Path) -> None:
    stages = run()
    assert "7" not in stages  # the way the switch does not take
    large = picture(stages["3"].files[0])
    assert large.shape == (390, 312, 3)  # 260 x 208, 1.5 times by the expression
    assert [picture(path).shape for path in stages["13"].files] == [(390, 312, 3)] * 2
    assert stages["11"].report == "1"  # the place of "soft" in the list that was typed in


def test_a_switch_that_is_turned_takes_the_other_way(run: Any) -> None:
    plain = picture(run()["3"].files[0])
    stages = run("Boolean.value=true")
    assert stages["7"].status == "ran"
    assert stages["2"].status == "cached"
    assert np.abs(255 - picture(stages["3"].files[0]) - plain).max() <= 1


def test_a_choices_own_input_can_be_set_and_linked(run: Any) -> None:
    stages = run("Float.value=2.0")
    assert picture(stages["3"].files[0]).shape == (260, 208, 3)


# Plans


def switch(value: Any) -> dict[str, Any]:
    image = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "EmptyImage", "inputs": image},
        "3": {"class_type": "PrimitiveBoolean", "inputs": {"value": True}},
        "4": {"class_type": "ComfySwitchNode", "inputs": {"switch": value, "on_false": ["1", 0], "on_true": ["2", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
        "6": {"class_type": "ComfyNotNode", "inputs": {"value": ["3", 0]}},
    }


@pytest.mark.parametrize(
    ("value", "stages"),
    [
        (False, ["1", "4", "5"]),
        (True, ["2", "4", "5"]),
        (["3", 0], ["2", "3", "4", "5"]),
        (["6", 0], ["1", "2", "3", "4", "5", "6"]),  # only known while it runs
    ],
)
def test_only_the_way_a_switch_takes_is_planned(value: Any, stages: list[str]) -> None:
    schemas = node_schemas()
    plan = make_plan(parse_workflow(switch(value), schemas), schemas)
    assert sorted(plan.order) == stages
    for name, node_id in (("on_false", "1"), ("on_true", "2")):
        taken = plan.stages["4"].inputs[name]
        assert taken == (Link(node_id, 0) if node_id in stages else None)


def test_a_node_that_cannot_say_what_it_needs_gets_everything() -> None:
    class Lazy:
        INPUT_TYPES = classmethod(
            lambda cls: {"required": {"a": ("INT", {"lazy": True}), "b": ("INT", {"lazy": True})}}
        )
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        def check_lazy_status(self, **_inputs: Any) -> list[str]:
            raise SystemExit(3)

        def run(self, a: int, b: int) -> tuple[()]:
            return ()

    schemas = {**node_schemas(), **schemas_of({"Lazy": Lazy})}
    prompt = {
        "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
        "2": {"class_type": "Lazy", "inputs": {"a": ["1", 0], "b": ["1", 0]}},
    }
    assert make_plan(parse_workflow(prompt, schemas), schemas).order == ("1", "2")


def problems_of(inputs: dict[str, Any], class_type: str) -> set[tuple[str, str]]:
    schemas = node_schemas()
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": class_type, "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        "4": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
        "5": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
    }
    found = check_plan(parse_workflow(prompt, schemas), schemas)
    return {(each.input, each.code) for each in (*found.problems, *found.warnings)}


def test_inputs_that_come_with_a_choice_are_checked_like_others() -> None:
    node = {"input": ["1", 0], "resize_type": "scale by multiplier", "scale_method": "area"}
    assert problems_of({**node, "resize_type.multiplier": 2.0}, "ResizeImageMaskNode") == set()
    assert problems_of(node, "ResizeImageMaskNode") == {("resize_type.multiplier", "required_input_missing")}
    assert problems_of({**node, "resize_type.multiplier": 99.0}, "ResizeImageMaskNode") == {
        ("resize_type.multiplier", "value_bigger_than_max")
    }
    assert problems_of({**node, "resize_type.multiplier": 2.0, "resize_type.width": 5}, "ResizeImageMaskNode") == {
        ("resize_type.width", "unknown_input")
    }
    assert ("resize_type", "value_not_in_list") in problems_of({**node, "resize_type": "so"}, "ResizeImageMaskNode")
    assert ("input", "return_type_mismatch") in problems_of(
        {**node, "resize_type.multiplier": 2.0, "input": ["5", 0]}, "ResizeImageMaskNode"
    )


def test_growing_sockets_are_checked_like_others() -> None:
    assert problems_of({"images.image0": ["1", 0], "images.image1": ["1", 0]}, "BatchImagesNode") == set()
    assert problems_of({}, "BatchImagesNode") == {("images.image0", "required_input_missing")}
    assert problems_of({"images.image0": ["1", 0], "images.image1": ["4", 0]}, "BatchImagesNode") == {
        ("images.image1", "return_type_mismatch")
    }
    assert problems_of({"images.image0": ["1", 0], "images.other": ["1", 0]}, "BatchImagesNode") == {
        ("images.other", "unknown_input")
    }


def test_the_editors_file_is_what_the_editor_would_send() -> None:
    raw = json.loads(EDITOR_FILE.read_text(encoding="utf-8"))
    prompt = convert(raw, node_schemas(), DEFAULT_LIMITS).to_prompt()
    assert prompt["2"]["inputs"] == {
        "input": ["1", 0], "resize_type": "scale by multiplier", "resize_type.multiplier": ["5", 0],
        "scale_method": "lanczos",
    }  # fmt: skip
    assert prompt["10"]["inputs"]["index"] == 1
