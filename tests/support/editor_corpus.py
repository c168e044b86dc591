"""Real workflows, what the editor makes of them, and what its host says of the node classes they use."""

from __future__ import annotations

import json
import lzma
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
TEMPLATES = "comfyui-workflow-templates-json"
EDITORS_CLOCK = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - the time the editor's page was given
EDITOR_ONLY = frozenset({"PrimitiveNode", "Reroute", "Note", "MarkdownNote"})


def _packed(name: str) -> Any:
    return json.loads(lzma.decompress((DATA / name).read_bytes()))


@cache
def templates() -> dict[str, dict[str, Any]]:
    """Name to content of every workflow of the package."""
    found = {}
    for each in metadata.files(TEMPLATES) or ():
        if each.suffix == ".json" and "templates" in each.parts:
            content = json.loads(Path(str(each.locate())).read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("nodes"), list):
                found[each.stem] = content
    return dict(sorted(found.items()))


@cache
def object_info() -> dict[str, Any]:
    """What the host says of the classes that the templates use."""
    return dict(_packed("object_info.json.xz"))


@cache
def editor_answers() -> dict[str, Any]:
    """``answers``, name to ``nodes`` or ``error``, and the ``versions`` they are of."""
    return dict(_packed("editor_answers.json.xz"))


def classes_used(workflow: dict[str, Any]) -> set[str]:
    """Node classes of a file, within its subgraphs too; those that exist in the editor only are left out."""
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs", [])
    used = {node["type"] for graph in (workflow, *subgraphs) for node in graph["nodes"]}
    return used - EDITOR_ONLY - {each["id"] for each in subgraphs}


def comparable(prompt: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The editor's prompt with our titles for nodes that have none: the editor translates the names of classes."""
    named = {}
    for node_id, node in prompt.items():
        meta = dict(node["_meta"])
        ours = own.get(node_id)
        info = object_info().get(ours["class_type"], {}) if ours is not None else {}
        if ours is not None and ours["_meta"]["title"] == (info.get("display_name") or ours["class_type"]):
            meta["title"] = ours["_meta"]["title"]
        named[node_id] = {**node, "_meta": meta}
    return named
