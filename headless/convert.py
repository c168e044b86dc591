"""From any saved workflow to the API format, without a host and without importing a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .known_nodes import known_schemas
from .object_info import load_object_info, schemas_of_object_info
from .workflow import read_workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .schema import NodeSchema


def convert_workflow(
    source: str | Path | Mapping[str, Any], object_info: str | Path | Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The API ("prompt") form of a workflow, as the editor would send it to the host.

    Nodes of classes that nobody describes keep their links, but values saved without names cannot be told: ask
    `headless.workflow.read_workflow` where that matters.

    Args:
        source: path of a workflow file (JSON, or a PNG or WebP that carries one), or what was read from one.
        object_info: what a host's ``/object_info`` answers, or the path of a file that holds it, or the URL of a
            running host. Classes it does not describe, or all without it, are Photokeep's own and those of ComfyUI's
            core that Photokeep runs.

    Returns:
        Node id to ``{"inputs": {...}, "class_type": "...", "_meta": {"title": "..."}}``.
    Raises:
        WorkflowFormatError: not a workflow, over a limit, or of a kind that cannot be converted.
        UsageError: the description cannot be read.
        NodeDefinitionError: it is not what a host answers.
    """
    return read_workflow(source, schemas_for(object_info)).to_prompt()


def schemas_for(object_info: str | Path | Mapping[str, Any] | None) -> dict[str, NodeSchema]:
    """Photokeep's own classes and ComfyUI's core ones, and over them those that a host describes.

    Raises:
        UsageError, WorkflowFormatError, NodeDefinitionError: the description cannot be read or is none.
    """
    known = known_schemas()
    if object_info is None:
        return known
    described = (
        load_object_info(object_info) if isinstance(object_info, (str, Path)) else schemas_of_object_info(object_info)
    )
    return {**known, **described}
