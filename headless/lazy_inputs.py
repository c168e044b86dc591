"""Inputs that a node can do without: the branch a switch does not take is not run.

The host asks a node's ``check_lazy_status`` while it runs. Here it is asked when the plan is made, as far as the values
it decides by are known then: typed in, or from a node that does nothing but hold a value.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .graph import Link

if TYPE_CHECKING:
    from .graph import Workflow, WorkflowNode
    from .schema import NodeSchema

_VALUE_NODES = frozenset(
    {"PrimitiveBoolean", "PrimitiveFloat", "PrimitiveInt", "PrimitiveString", "PrimitiveStringMultiline"}
)


def unneeded_inputs(node: WorkflowNode, schema: NodeSchema, workflow: Workflow) -> frozenset[str]:
    """Linked lazy inputs that a node does not need, as its other values stand.

    Args:
        node: the node.
        schema: its class.
        workflow: the graph its links lead into.

    Returns:
        Names; none where the class has no lazy inputs, or what it decides by is only known while running.
    """
    ask = getattr(schema.node_class, "check_lazy_status", None)
    lazy = {spec.name for spec in schema.inputs if spec.lazy and isinstance(node.inputs.get(spec.name), Link)}
    if not lazy or not callable(ask) or schema.node_class is None:
        return frozenset()
    known: dict[str, Any] = {}
    for name, value in node.inputs.items():
        if name in lazy:
            continue
        found, constant = _constant(value, workflow)
        if not found:
            return frozenset()
        known[name] = constant
    wanted = inspect.signature(ask).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in wanted.values())
    arguments = {**known, **dict.fromkeys(lazy)}
    try:
        needed = schema.node_class().check_lazy_status(
            **{name: value for name, value in arguments.items() if takes_all or name in wanted}
        )
    except (Exception, SystemExit):  # noqa: BLE001 - a node's own code may raise anything; then every input is brought, as asked
        return frozenset()
    return frozenset(lazy - set(needed or ()))


def _constant(value: Any, workflow: Workflow) -> tuple[bool, Any]:
    """Whether a value is known before anything runs, and that value."""
    if not isinstance(value, Link):
        return True, value
    source = workflow.nodes.get(value.node_id)
    if source is None or source.class_type not in _VALUE_NODES:
        return False, None
    held = source.inputs.get("value")
    return (False, None) if held is None or isinstance(held, Link) else (True, held)
