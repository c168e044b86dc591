"""Photos that claim more pixels than are read: found by their headers, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photokeep_nodes import photo_io
from photokeep_nodes.errors import PhotokeepError

from .graph import Link, Problem
from .parts import input_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Plan
    from .schema import NodeSchema


def oversized_inputs(plan: Plan, schemas: Mapping[str, NodeSchema]) -> list[Problem]:
    """One problem for each input of a plan that names such a photo.

    Args:
        plan: what would run.
        schemas: the node classes behind it.
    """
    problems = []
    for stage in plan.stages.values():
        schema = schemas[stage.class_type]
        for name in schema.file_inputs if schema.node_class is not None else ():
            value = stage.inputs.get(name)
            if not isinstance(value, str) or isinstance(value, Link):
                continue
            try:
                photo_io.check_size(input_file(schema, value))
            except PhotokeepError as error:
                node = plan.workflow.nodes[stage.id]
                problems.append(
                    Problem.at(node, "custom_validation_failed", error.message, input_name=name, hint=error.hint)
                )
    return problems
