"""Write values back into the editor's own graph, so that a result opened in the editor shows what was run.

A value may have no place of its own in that graph: a subgraph used twice has one set of widgets for both, a promoted
widget shows another's value, a choice brings widgets along. So what was written is read again, as the editor would,
and a graph that says anything else than what is run is not given out.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import WorkflowFormatError

from .editor_format import convert, has_placeholders
from .editor_graph import read_node, reference
from .editor_widgets import UNSET, filled_fields, set_value, without_forced
from .graph import Problem
from .json_text import DEFAULT_LIMITS
from .schema import DYNAMIC_COMBO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .editor_widgets import Widget
    from .graph import Workflow, WorkflowNode
    from .schema import NodeSchema

_Changes = dict[str, dict[str, Any]]
"""New values by node id and input name; ``UNSET`` for an input that is gone."""


def graph_left_out(node: WorkflowNode, name: str) -> Problem:
    """The warning that results will not carry the editor's graph, at an input of which it says something else."""
    return Problem.at(
        node,
        "graph_left_out",
        "the editor's graph in the file does not say what is run, so results carry the prompt alone",
        input_name=name,
    )


def disagreement(workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> tuple[str, str] | None:
    """Where a prompt and the graph beside it, as in a picture, say different things: (node id, input).

    What the editor itself changes on the way is none: choices made in texts, and names filled in.

    Args:
        workflow: as it was read.
        schemas: what is known of node classes; of others the graph says nothing by name.

    Returns:
        None where there is no such place, no graph, or one that cannot be read.
    """
    if workflow.editor_graph is None or workflow.source == "editor":
        return None
    try:
        read = convert(workflow.editor_graph, schemas, DEFAULT_LIMITS).nodes
    except WorkflowFormatError:
        return None
    for node_id, node in workflow.nodes.items():
        schema, other = schemas.get(node.class_type), read.get(node_id)
        if schema is None or other is None:
            continue
        if other.class_type != node.class_type:
            return node_id, ""
        for name, value in node.inputs.items():
            spec = schema.input(name)
            chosen = spec is not None and spec.options.get("dynamicPrompts")
            if chosen or has_placeholders(node.class_type, name):
                continue
            if other.inputs.get(name, value) != value:
                return node_id, name
    return None


def with_values(
    raw: Mapping[str, Any],
    before: Mapping[str, WorkflowNode],
    after: Mapping[str, WorkflowNode],
    schemas: Mapping[str, NodeSchema],
) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    """The editor's graph with the values of some nodes changed.

    Args:
        raw: the graph; not changed.
        before: the nodes as they were.
        after: the same nodes as they are run.
        schemas: what is known of node classes.

    Returns:
        The graph, and ("", ""); or None where none was found that converts to just that, and the node's id and the
        input that it is about.
    """
    changes = _changes(before, after)
    culprit = next(((node_id, name) for node_id, values in changes.items() for name in values), ("", ""))
    now = datetime.now().astimezone()
    try:
        old = convert(raw, schemas, DEFAULT_LIMITS, now=now).nodes
        graph = dict(raw)
        for node_id, values in changes.items():
            for name, value in values.items():
                if value is UNSET:
                    continue
                written = _written(graph, node_id, schemas[after[node_id].class_type], name, value)
                if written is None:
                    return None, (node_id, name)
                graph = written
        new = convert(graph, schemas, DEFAULT_LIMITS, now=now).nodes
    except WorkflowFormatError:  # a picture's own, which came beside the prompt and was not read before
        return None, culprit
    if old.keys() != new.keys() or not changes.keys() <= old.keys():
        return None, culprit
    for node_id, node in new.items():
        expected = {**old[node_id].inputs, **changes.get(node_id, {})}
        for name in dict.fromkeys((*changes.get(node_id, ()), *expected, *node.inputs)):
            if node.inputs.get(name, UNSET) != expected.get(name, UNSET):
                mine = changes.get(node_id, {})
                return None, (node_id, name if name in mine else next(iter(mine))) if mine else culprit
    return graph, ("", "")


def _changes(before: Mapping[str, WorkflowNode], after: Mapping[str, WorkflowNode]) -> _Changes:
    changes: _Changes = {}
    for node_id, node in after.items():
        if node is before[node_id]:
            continue
        inputs = before[node_id].inputs
        values = {name: value for name, value in node.inputs.items() if inputs.get(name, UNSET) != value}
        gone = dict.fromkeys(inputs.keys() - node.inputs.keys(), UNSET)
        changes[node_id] = {**values, **gone}
    return changes


def _written(raw: dict[str, Any], node_id: str, schema: NodeSchema, name: str, value: Any) -> dict[str, Any] | None:
    """The graph with one widget set; that of a node in a subgraph is set in the definition, for all its instances.

    Returns:
        None where there is no such node.
    """
    *instances, own_id = node_id.split(":")
    definitions = _definitions(raw)
    holder: dict[str, Any] | None = raw
    for instance in instances:
        node = _node(holder or {}, instance) or {}
        holder = next((each for each in definitions if each.get("id") == node.get("type")), None)
    changing = _node(holder, own_id) if holder is not None else None
    if holder is None or changing is None:
        return None
    changed = _with_widget(changing, schema, name, value)
    graph = {**holder, "nodes": [changed if each is changing else each for each in holder["nodes"]]}
    if holder is raw:
        return graph
    listed = [graph if each is holder else each for each in definitions]
    return {**raw, "definitions": {**raw["definitions"], "subgraphs": listed}}


def _definitions(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    holder = raw.get("definitions")
    listed = holder.get("subgraphs") if isinstance(holder, dict) else None
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _node(graph: Mapping[str, Any], node_id: str) -> dict[str, Any] | None:
    nodes = graph.get("nodes")
    listed = nodes if isinstance(nodes, list) else []
    return next((each for each in listed if isinstance(each, dict) and reference(each.get("id")) == node_id), None)


def _with_widget(node: dict[str, Any], schema: NodeSchema, name: str, value: Any) -> dict[str, Any]:
    changed = dict(node)
    if isinstance(named := node.get("widgets_values_named"), dict):
        changed["widgets_values_named"] = {**named, name: value}
    saved = node.get("widgets_values")
    if isinstance(saved, dict):
        changed["widgets_values"] = {**saved, name: value}
        return changed
    if saved is not None and not isinstance(saved, list):
        return node
    made = filled_fields(read_node(node), schema)
    values = without_forced(saved or [], schema, made)
    places = [each for each in made.widgets if each.saved]
    position = next((index for index, each in enumerate(places) if each.name == name), None)
    if position is None:
        return changed
    widget, surplus = places[position], values[len(places) :]
    if widget.spec is not None and widget.spec.type == DYNAMIC_COMBO:  # the places behind it are of other widgets now
        set_value(made, schema, widget, value)
        places = [each for each in made.widgets if each.saved]
        changed["widgets_values"] = [*map(_written_value, places), *surplus]
    else:
        missing = map(_written_value, places[len(values) : position])
        changed["widgets_values"] = [*values[:position], *missing, value, *values[position + 1 :]]
    return changed


def _written_value(widget: Widget) -> Any:
    return None if widget.value is UNSET else widget.value
