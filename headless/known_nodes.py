"""What is known of the nodes that run here, as data: converting and describing import none of them.

``known_nodes.json`` is in the form of a host's ``/object_info``. It is made from the classes themselves by
``python -m headless.known_nodes`` after any change of what they declare; a test holds it to them. Choices that depend
on the machine, such as the photos in a folder, are left out.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .object_info import schemas_of_object_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .schema import NodeSchema

FILE = Path(__file__).with_name("known_nodes.json")


@cache
def _described() -> dict[str, NodeSchema]:
    return schemas_of_object_info(json.loads(FILE.read_text(encoding="utf-8")))


def known_schemas() -> dict[str, NodeSchema]:
    """Schemas of Photokeep's nodes and of ComfyUI's core ones that run here; without their classes."""
    return dict(_described())


def description(schemas: Mapping[str, NodeSchema]) -> dict[str, Any]:
    """The same as a host would describe it, without what depends on the machine.

    Args:
        schemas: made from classes.
    """
    return {name: _description(schema) for name, schema in sorted(schemas.items())}


def _description(schema: NodeSchema) -> dict[str, Any]:
    inputs: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for spec in schema.inputs:
        options = {name: value for name, value in spec.options.items() if name != "tooltip"}
        kind: Any = list(spec.choices or ()) if spec.listed else spec.type
        if spec.choices is not None and schema.checks_itself(spec.name):  # names of files: the class looks them up
            kind = [] if spec.listed else kind
            options = {name: value for name, value in options.items() if name not in {"default", "options"}}
        inputs["required" if spec.required else "optional"][spec.name] = [kind, options]
    return {
        "display_name": schema.display_name,
        "input": {**{name: group for name, group in inputs.items() if group}, "hidden": dict(schema.hidden)},
        "output": [list(each.choices) if each.choices is not None else each.type for each in schema.outputs],
        "output_name": [each.name for each in schema.outputs],
        "output_is_list": [each.is_list for each in schema.outputs],
        "output_node": schema.output_node,
        "is_input_list": schema.input_is_list,
        "category": schema.category,
        "accept_all_inputs": schema.accepts_all,
        "deprecated": schema.deprecated,
    }


def main() -> None:
    """Write the file anew."""
    from .job import node_schemas

    text = json.dumps(description(node_schemas()), indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
