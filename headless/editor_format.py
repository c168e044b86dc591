"""Turn the editor's own format into what the editor would send to the host.

The rules are those of the editor's export (numbers as in the design notes on ComfyUI): virtual nodes are applied first
(1); muted and bypassed nodes are left out (2, 3), a bypassed one passing through what fits the final consumer (4, 5);
widget values are matched to inputs by position (8, 9, 12) or by name (14); links override them (10) and are matched by
input name (11). Subgraphs (6, 7) and group nodes (15) are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes.errors import WorkflowFormatError

from .editor_graph import ANY_TYPE, BYPASSED, MUTED, EditorGraph, EditorNode, Slot, read_editor_graph
from .graph import InactiveNode, Link, Problem, Workflow, WorkflowNode, circle, from_smallest, printable, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .json_text import Limits
    from .schema import NodeSchema

PRIMITIVE = "PrimitiveNode"
VIRTUAL_TYPES = frozenset({PRIMITIVE, "Reroute", "Note", "MarkdownNote"})
"""Nodes that exist in the editor only."""

_GROUP_PREFIXES = ("workflow>", "workflow/")
_API_HINT = "In ComfyUI, save it with Workflow > Export (API): that file has everything spelled out."


def convert(raw: Mapping[str, Any], schemas: Mapping[str, NodeSchema], limits: Limits) -> Workflow:
    """Convert a graph in the editor's own format.

    Args:
        raw: the JSON object.
        schemas: what is known of node classes: widget values are saved without names.
        limits: what is refused as too large.

    Raises:
        WorkflowFormatError: not of the form the editor writes, or it uses subgraphs or group nodes.
    """
    graph = read_editor_graph(raw, limits)
    _refuse_nested(graph)
    return _Converter(graph, schemas).workflow(raw)


def compatible(one: str, other: str) -> bool:
    """Whether the editor lets sockets of these types be connected: any, equal, or unions that overlap."""
    if one in {"", ANY_TYPE} or other in {"", ANY_TYPE}:
        return True
    one, other = one.lower(), other.lower()
    return one == other or not {each.strip() for each in one.split(",")}.isdisjoint(
        each.strip() for each in other.split(",")
    )


def widget_values(node: EditorNode, schema: NodeSchema) -> dict[str, Any]:
    """Values of a node's widgets by input name, as the editor has them once the file is loaded.

    A widget the file has no value for shows its default; surplus values (an upload button's) are ignored.
    """
    saved = node.widgets_values
    positional = _without_forced(saved, schema) if isinstance(saved, list) else []
    by_name = {**(saved if isinstance(saved, dict) else {}), **node.widgets_named}
    values: dict[str, Any] = {}
    position = 0
    for widget in schema.widgets:
        if widget.name in by_name:
            value = by_name[widget.name]
        elif position < len(positional):
            value = positional[position]
        else:
            value = widget.widget_default
            if value is None:
                position += 1 + widget.control_slots
                continue
        # A bare list would read as a link.
        values[widget.name] = {"__value__": value} if isinstance(value, list) else value
        position += 1 + widget.control_slots
    return values


def with_widget_value(
    raw: Mapping[str, Any], node_id: str, schema: NodeSchema, name: str, value: Any
) -> dict[str, Any]:
    """The editor's graph with one widget set, so that a result opened in the editor shows what was run.

    Left as it is where the file says something else than a place among its widgets: a link into the widget, a node
    within a subgraph, places of forced inputs from old files.

    Args:
        raw: the graph; not changed.
        node_id: the node.
        schema: its class.
        name: the widget's input.
        value: as the widget holds it.
    """
    return {
        **raw,
        "nodes": [
            _with_widget_value(node, schema, name, value)
            if isinstance(node, dict) and str(node.get("id")) == node_id
            else node
            for node in raw.get("nodes", ())
        ],
    }


def _with_widget_value(node: dict[str, Any], schema: NodeSchema, name: str, value: Any) -> dict[str, Any]:
    sockets = node.get("inputs") or ()
    if any(isinstance(each, dict) and each.get("name") == name and each.get("link") is not None for each in sockets):
        return node
    changed = dict(node)
    if isinstance(named := node.get("widgets_values_named"), dict):
        changed["widgets_values_named"] = {**named, name: value}
    saved = node.get("widgets_values")
    if isinstance(saved, dict):
        changed["widgets_values"] = {**saved, name: value}
    elif isinstance(saved, list) and _without_forced(saved, schema) == saved:
        position = 0
        for widget in schema.widgets:
            if widget.name == name and position < len(saved):
                changed["widgets_values"] = [*saved[:position], value, *saved[position + 1 :]]
            position += 1 + widget.control_slots
    return changed


def _without_forced(saved: list[Any], schema: NodeSchema) -> list[Any]:
    """Drop the places that files from before frontend 1.16 have for inputs that are forced to be sockets."""
    forced: list[bool] = []
    for each in schema.inputs:
        if each.is_widget or each.force_input:
            forced += [each.force_input] + [False] * each.control_slots
    if len(forced) != len(saved):
        return saved
    return [value for value, drop in zip(saved, forced, strict=True) if not drop]


def _refuse_nested(graph: EditorGraph) -> None:
    for node in graph.nodes.values():
        if node.type.startswith(_GROUP_PREFIXES):
            raise WorkflowFormatError(
                f"node {printable(node.id)} {shown(node.title or node.type)} is a group node, a kind ComfyUI gave up",
                hint=f"Ungroup it in the editor (right click > Convert to nodes). {_API_HINT}",
            )
        # A muted or bypassed instance is never expanded, so it can stay.
        if node.type in graph.subgraphs and node.mode not in {MUTED, BYPASSED}:
            name = node.title or graph.subgraphs[node.type]
            raise WorkflowFormatError(
                f"node {printable(node.id)} {shown(name)} is a subgraph, which cannot be read from this format yet",
                hint=_API_HINT,
            )


@dataclass(frozen=True)
class _Source:
    """Where a link leads.

    Attributes:
        link: the output it comes from, or None.
        reason: why it leads nowhere; empty where that is as it should be.
        code: the error it amounts to; empty where the editor would drop it silently.
    """

    link: Link | None = None
    reason: str = ""
    code: str = ""


class _Converter:
    def __init__(self, graph: EditorGraph, schemas: Mapping[str, NodeSchema]) -> None:
        self.graph = graph
        self.schemas = schemas
        self.slots_of: dict[str, tuple[Slot, ...]] = {}
        self.sources: dict[tuple[str, str], _Source] = {}
        self.problems: list[Problem] = []

    def workflow(self, raw: Mapping[str, Any]) -> Workflow:
        values = {
            node.id: widget_values(node, self.schemas[node.type])
            if node.type in self.schemas
            else {**(node.widgets_values if isinstance(node.widgets_values, dict) else {}), **node.widgets_named}
            for node in self.graph.nodes.values()
            if node.type not in VIRTUAL_TYPES
        }
        self._apply_primitives(values)
        nodes: dict[str, WorkflowNode] = {}
        inactive: list[InactiveNode] = []
        for node in self.graph.nodes.values():
            if node.type in VIRTUAL_TYPES:
                continue
            if node.mode in {MUTED, BYPASSED}:
                mode: Literal["muted", "bypassed"] = "muted" if node.mode == MUTED else "bypassed"
                inactive.append(InactiveNode(node.id, node.type, self._title(node), mode))
                continue
            nodes[node.id] = self._emitted(node, values[node.id])
        return Workflow(
            nodes=nodes,
            source="editor",
            editor_graph=raw,
            inactive=tuple(inactive),
            problems=tuple(self.problems),
        )

    def _title(self, node: EditorNode) -> str:
        schema = self.schemas.get(node.type)
        return node.title or (schema.display_name if schema else node.type)

    def _apply_primitives(self, values: Mapping[str, dict[str, Any]]) -> None:
        """Copy each primitive's value into the widgets it is linked to, whatever the modes (rule 1)."""
        primitives = {node.id: node for node in self.graph.nodes.values() if node.type == PRIMITIVE}
        if not primitives:
            return
        for target in self.graph.nodes.values():
            schema = self.schemas.get(target.type)
            for slot in self._slots(target) if target.id in values else ():
                link = self.graph.links.get(slot.link) if slot.link is not None else None
                primitive = primitives.get(link.origin_id) if link is not None else None
                if primitive is None:
                    continue
                name = slot.widget or slot.name
                known = schema.input(name) if schema else None
                if known is not None and not known.is_widget:
                    continue
                found, value = _primitive_value(primitive)
                if found:
                    values[target.id][name] = {"__value__": value} if isinstance(value, list) else value

    def _slots(self, node: EditorNode) -> tuple[Slot, ...]:
        """A node's input sockets as they are once the editor has loaded it: in the class's order, links by name."""
        if node.id not in self.slots_of:
            self.slots_of[node.id] = self._laid_out(node)
        return self.slots_of[node.id]

    def _laid_out(self, node: EditorNode) -> tuple[Slot, ...]:
        schema = self.schemas.get(node.type)
        if schema is None:
            return node.inputs
        by_name = {slot.name: slot for slot in node.inputs}
        slots = []
        for each in schema.sockets:
            saved = by_name.pop(each.name, None)
            link = saved.link if saved else None
            slots.append(Slot(each.name, each.type, link, each.name if each.is_widget else ""))
        return (*slots, *by_name.values())

    def _emitted(self, node: EditorNode, values: Mapping[str, Any]) -> WorkflowNode:
        inputs: dict[str, Any] = dict(values)
        dropped: dict[str, str] = {}
        broken: list[tuple[str, _Source]] = []
        for slot in self._slots(node):
            if slot.link is None:
                continue
            source = self._resolved(slot.link, slot.type)
            if source.link is not None:
                inputs[slot.name] = source.link
            elif source.code:
                broken.append((slot.name, source))
            elif source.reason:
                dropped[slot.name] = source.reason
        made = WorkflowNode(
            id=node.id,
            class_type=node.type,
            title=self._title(node),
            inputs=inputs,
            dropped=dropped,
            pack=node.pack,
        )
        self.problems += [
            Problem.at(made, source.code, source.reason, input_name=name, hint="Reconnect the input in the editor.")
            for name, source in broken
        ]
        return made

    def _resolved(self, link_id: str, final_type: str) -> _Source:
        """Follow a link through virtual and bypassed nodes to the output it stands for.

        The type of the final consumer decides all along the way, so that every link on it has the same answer.
        """
        trail: dict[str, str] = {}  # link id to the node it comes from, in order
        current = link_id
        while True:
            known = self.sources.get((current, final_type))
            if known is not None:
                source = known
                break
            if current in trail:
                steps = list(trail)
                # The links were followed against the flow; the circle is told with it.
                loop = from_smallest([trail[each] for each in reversed(steps[steps.index(current) :])])
                path = circle(loop, {each: self._title(self.graph.nodes[each]) for each in loop})
                source = _Source(code="dependency_cycle", reason=f"its link runs in a circle: {path}")
                break
            step = self._step(current, final_type, trail)
            if isinstance(step, _Source):
                source = step
                break
            current = step
        for each in trail:
            self.sources[each, final_type] = source
        return source

    def _step(self, link_id: str, final_type: str, trail: dict[str, str]) -> _Source | str:
        """One link back: the source, or the id of the link before."""
        link = self.graph.links.get(link_id)
        if link is None:
            return _Source(
                code="bad_linked_input", reason=f"it names link {printable(link_id)}, which the file does not have"
            )
        trail[link_id] = link.origin_id
        origin = self.graph.nodes.get(link.origin_id)
        if origin is None:
            return _Source(
                code="bad_linked_input",
                reason=f"its link comes from node {printable(link.origin_id)}, which the file does not have",
            )
        name = f"node {printable(origin.id)} {shown(self._title(origin))}"
        if origin.mode == MUTED:
            return _Source(reason=f"{name} is muted")
        slots = self._slots(origin)
        if origin.mode == BYPASSED:
            slot = self._passed_through(origin, slots, link.origin_slot, final_type)
            if slot is None:
                return _Source(reason=f"{name} is bypassed and has no input of type {printable(final_type)} to pass on")
            if slot.link is None:
                return _Source(reason=f"{name} is bypassed and its input {shown(slot.name)} is not connected")
            return slot.link
        if origin.type not in VIRTUAL_TYPES:
            return _Source(link=Link(origin.id, link.origin_slot))
        if link.origin_slot < len(slots):
            before = slots[link.origin_slot].link
            return before if before is not None else _Source(reason=f"{name} has nothing connected to it")
        return _Source()  # a primitive: its value has been copied

    def _passed_through(self, origin: EditorNode, slots: Sequence[Slot], output: int, final_type: str) -> Slot | None:
        """Input that stands in for an output of a bypassed node (rule 4)."""
        same = slots[output] if output < len(slots) else None
        if final_type in {"", ANY_TYPE}:
            return same or (slots[0] if slots else None)
        output_type = self._output_type(origin, output)
        if same is not None and compatible(same.type, output_type) and compatible(same.type, final_type):
            return same
        for slot in slots:
            if slot.type == final_type:
                return slot
        for slot in slots:
            if compatible(slot.type, output_type) and compatible(slot.type, final_type):
                return slot
        return None

    def _output_type(self, node: EditorNode, output: int) -> str:
        schema = self.schemas.get(node.type)
        if schema is not None and output < len(schema.outputs):
            return schema.outputs[output].type
        return node.outputs[output].type if output < len(node.outputs) else ANY_TYPE


def _primitive_value(node: EditorNode) -> tuple[bool, Any]:
    """Whether a primitive has a value, and that value: its first widget's."""
    if "value" in node.widgets_named:
        return True, node.widgets_named["value"]
    if isinstance(node.widgets_values, list) and node.widgets_values:
        return True, node.widgets_values[0]
    if isinstance(node.widgets_values, dict) and "value" in node.widgets_values:
        return True, node.widgets_values["value"]
    return False, None
