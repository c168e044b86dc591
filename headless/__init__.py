"""Photokeep's headless runner: read a saved workflow, check it, run it without ComfyUI.

Public names are loaded when they are first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert import convert_workflow
    from .graph import Link, Problem, Workflow, WorkflowNode
    from .overrides import apply_overrides, feed_photo, input_stages
    from .plan import Plan, Stage, make_plan
    from .schema import NodeSchema, schemas_of
    from .workflow import load_workflow, parse_workflow

__all__ = [
    "Link",
    "NodeSchema",
    "Plan",
    "Problem",
    "Stage",
    "Workflow",
    "WorkflowNode",
    "apply_overrides",
    "convert_workflow",
    "feed_photo",
    "input_stages",
    "load_workflow",
    "make_plan",
    "parse_workflow",
    "schemas_of",
]

_HOMES = {
    "Link": "graph",
    "NodeSchema": "schema",
    "Plan": "plan",
    "Problem": "graph",
    "Stage": "plan",
    "Workflow": "graph",
    "WorkflowNode": "graph",
    "apply_overrides": "overrides",
    "convert_workflow": "convert",
    "feed_photo": "overrides",
    "input_stages": "overrides",
    "load_workflow": "workflow",
    "make_plan": "plan",
    "parse_workflow": "workflow",
    "schemas_of": "schema",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
