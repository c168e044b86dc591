"""Our conversion against the editor's own: over every template of a published package, and rule by rule."""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from editor_corpus import (
    DATA,
    EDITORS_CLOCK,
    TEMPLATES,
    classes_used,
    comparable,
    editor_answers,
    object_info,
    templates,
)

from headless.editor_format import convert
from headless.json_text import DEFAULT_LIMITS
from headless.object_info import schemas_of_object_info
from headless.plan import make_plan
from photokeep_nodes.errors import WorkflowInvalidError

if TYPE_CHECKING:
    from pathlib import Path

RULES = sorted((DATA / "rules").glob("*.json"))


@pytest.fixture(scope="module")
def schemas() -> Any:
    return schemas_of_object_info(object_info())


def converted(raw: dict[str, Any], schemas: Any) -> dict[str, Any]:
    # As it is posted: the editor's JSON has no whole floats.
    return json.loads(json.dumps(convert(raw, schemas, DEFAULT_LIMITS, now=EDITORS_CLOCK).to_prompt()))


def explained() -> dict[str, str]:
    """Templates of the committed table, with the number of the rule each is explained by."""
    text = (DATA / "conformance.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (\w[\w.-]*) \| (\d+) \| .+ \|$", text, re.MULTILINE))


def test_the_answers_are_of_the_installed_templates() -> None:
    assert editor_answers()["versions"]["templates"] == metadata.version(TEMPLATES)
    assert editor_answers()["answers"].keys() == templates().keys()
    assert len(templates()) == 644


def test_every_template_is_converted_and_known_ones_as_the_editor_does(schemas: Any) -> None:
    answers = editor_answers()["answers"]
    known, different = 0, set()
    for name, raw in templates().items():
        own = converted(raw, schemas)  # never crashes, whatever the classes
        if not classes_used(raw) <= object_info().keys():
            continue
        known += 1
        theirs = answers[name].get("nodes")
        if theirs is None or comparable(theirs, own) != own:
            different.add(name)
    assert different == explained().keys()
    assert all(1 <= int(rule) <= 16 for rule in explained().values())
    assert known == 522
    assert len(different) <= 0.02 * known


def test_every_template_is_planned_or_refused_with_reasons(schemas: Any) -> None:
    refused = {}
    for name, raw in templates().items():
        workflow = convert(raw, schemas, DEFAULT_LIMITS)
        try:
            plan = make_plan(workflow, schemas)
        except WorkflowInvalidError as error:
            refused[name] = error.context["problems"]
        else:
            assert set(plan.order) | set(plan.unused) == workflow.nodes.keys(), name
    assert all(refused.values())
    assert len(refused) < len(templates())


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_rule_alone(path: Path, schemas: Any) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    own = converted(case["workflow"], schemas)
    assert comparable(case["api"], own) == own, case["about"]


def test_every_rule_of_the_design_has_a_case() -> None:
    ruled = {json.loads(path.read_text(encoding="utf-8"))["rule"] for path in RULES}
    assert ruled >= {*range(1, 15), 16}  # 15, group nodes, are refused: see test_editor_format
