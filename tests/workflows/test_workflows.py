"""The shipped workflow files: as laid out by their script, tidy, planned by the runner, and true to their notes."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from headless.job import node_schemas
from headless.plan import make_plan
from headless.preflight import needed_models
from headless.workflow import load_workflow, parse_workflow
from photokeep_nodes import weights
from photokeep_nodes.model_spec import Download
from photokeep_nodes.models import catalogue

WORKFLOWS = Path(__file__).parents[2] / "workflows"
MADE = runpy.run_path(str(WORKFLOWS / "make_workflows.py"))
SHEETS = {sheet.name: sheet for sheet in (make() for make in MADE["SHEETS"])}
NAMES = sorted(SHEETS)
STARTER = {"restore", "scratches", "batch_album", "before_after"}


def saved(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_script_makes(name: str) -> None:
    assert saved(name) == json.loads(MADE["text_of"](SHEETS[name])), "run: python workflows/make_workflows.py"


def test_every_file_is_accounted_for() -> None:
    assert {path.stem for path in WORKFLOWS.glob("*.json")} == set(NAMES)


def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - 30, x + width, y + height  # the title's bar lies above


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_apart_in_groups_from_left_to_right(name: str) -> None:
    sheet = saved(name)
    boxes = {node["id"]: box(node) for node in sheet["nodes"]}
    for a, first in boxes.items():
        assert [b for b, second in boxes.items() if b > a and overlap(first, second)] == []
    groups = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in sheet["groups"])]
    assert len({tuple(group) for group in groups}) == len(groups) >= 4
    assert not any(overlap(a, b) for i, a in enumerate(groups) for b in groups[:i])
    for node in sheet["nodes"]:
        x0, y0, x1, y1 = boxes[node["id"]]
        inside = [g for g in groups if g[0] <= x0 and g[1] <= y0 and x1 <= g[2] and y1 <= g[3]]
        assert len(inside) == (0 if node["type"] == "MarkdownNote" else 1), node["type"]
    for _, source, _, target, _, _ in sheet["links"]:
        assert boxes[source][0] <= boxes[target][0], "a link runs backwards"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_explained_in_a_note(name: str) -> None:
    (note,) = [node for node in saved(name)["nodes"] if node["type"] == "MarkdownNote"]
    (text,) = note["widgets_values"]
    assert text.startswith("# ")
    # What it tells people to fetch is there, and what it calls by name stands on the sheet.
    for command in re.findall(r"photokeep models get ([^`]*)`", text):
        for word in command.split():
            assert word == "-w" or word in catalogue() or (WORKFLOWS.parent / word).is_file(), word
    titles = {node.get("title") for node in saved(name)["nodes"]}
    for title in re.findall(r"\*\*(.+?)\*\*", text):
        widgets = {"when"}
        assert title in titles | widgets, title


@pytest.mark.parametrize("name", NAMES)
def test_it_is_planned_and_its_models_are_known(name: str) -> None:
    schemas = node_schemas()
    plan = make_plan(parse_workflow(load_workflow(WORKFLOWS / f"{name}.json"), schemas), schemas)
    needed = needed_models(plan, schemas)
    assert needed.unusable == ()
    downloads = [spec.id for spec in needed.specs if isinstance(spec.weights[0].origin, Download)]
    assert bool(downloads) == (name not in STARTER), downloads
    if name in STARTER:
        weights.require(needed.specs)


def test_the_whole_catalogue_lies_on_one_sheet() -> None:
    types = {node["type"] for node in saved("restore_full")["nodes"]}
    assert {f"PhotokeepModel{spec.node_name}" for spec in catalogue().values()} <= types


@pytest.mark.parametrize("name", NAMES)
def test_what_is_painted_on_a_photo_does_not_make_the_result_transparent(name: str) -> None:
    """A mask is painted for Color Hint and Combine Masks; to Save Photo it would be the photo's transparency."""
    sheet = saved(name)
    types = {node["id"]: node["type"] for node in sheet["nodes"]}
    uses = {
        types[target]
        for _, source, _, target, _, kind in sheet["links"]
        if types[source] == "PhotokeepLoadPhoto" and kind == "MASK"
    }
    assert not ("PhotokeepSavePhoto" in uses and uses & {"PhotokeepColorHint", "PhotokeepMaskCombine"})
