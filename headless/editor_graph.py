"""The editor's own file format, read into plain records.

Two versions differ in how links are written: 0.4 has lists ``[id, from, from slot, to, to slot, type]``, 1 has objects.
Subgraph definitions always have objects. What is cosmetic (positions, groups, native reroutes, floating links) is left.
Records are what the file says; what the editor makes of them is in `editor_live`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from photokeep_nodes.errors import WorkflowFormatError

from .graph import printable, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .json_text import Limits

ANY_TYPE = "*"
MUTED = 2
BYPASSED = 4
SUBGRAPH_INPUT = "-10"
SUBGRAPH_OUTPUT = "-20"
"""What a link inside a subgraph names where it comes from, or goes to, the outside."""


_SAVE_HINT = "Open the workflow in ComfyUI and save it again."


@dataclass(frozen=True)
class Slot:
    """A socket as the file has it.

    Attributes:
        name: the input's or output's name.
        type: its type, ``*`` for any.
        link: id of the link into it; None where nothing is connected. Always None for outputs.
        widget: name of the widget it stands for; empty for a plain socket.
    """

    name: str
    type: str
    link: str | None = None
    widget: str = ""


@dataclass(frozen=True)
class EditorNode:
    """A node as the file has it.

    Attributes:
        id: unique in the file.
        type: class id, or the id of a subgraph.
        title: what the user called it; empty where the class's name is shown.
        mode: 0 runs, 2 is muted, 4 is bypassed.
        inputs: sockets in the file's order.
        outputs: likewise.
        widgets_values: saved values, by position or by name; None where there are none.
        widgets_named: values by name, which newer files add.
        properties: what the node keeps beside its widgets: its pack, and in older files which widgets a subgraph shows.
    """

    id: str
    type: str
    title: str
    mode: int
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    widgets_values: list[Any] | dict[str, Any] | None = None
    widgets_named: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pack(self) -> str:
        """The node pack it comes from, where the file says."""
        named = (self.properties.get("cnr_id"), self.properties.get("aux_id"))
        return next((each for each in named if isinstance(each, str)), "")

    @property
    def off(self) -> bool:
        """Whether it is muted or bypassed."""
        return self.mode in {MUTED, BYPASSED}


@dataclass(frozen=True)
class EditorLink:
    """A link as the file has it."""

    id: str
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True)
class EditorGraph:
    """A graph as the file has it, without what is cosmetic.

    Attributes:
        nodes: in the file's order.
        links: by id.
    """

    nodes: Mapping[str, EditorNode]
    links: Mapping[str, EditorLink]


@dataclass(frozen=True)
class Boundary:
    """A subgraph's own input or output.

    Attributes:
        name: unique on its side, mostly.
        type: its type.
        links: ids of the links on its inner side, in the file's order.
    """

    name: str
    type: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditorSubgraph:
    """A subgraph's definition; several nodes may be instances of it.

    Attributes:
        id: what the instances name as their type.
        name: what people see.
        graph: what is inside.
        inputs: what comes in.
        outputs: what goes out.
    """

    id: str
    name: str
    graph: EditorGraph
    inputs: tuple[Boundary, ...]
    outputs: tuple[Boundary, ...]


@dataclass(frozen=True)
class EditorFile:
    """A whole file.

    Attributes:
        graph: the outermost graph.
        subgraphs: definitions by id.
        last_node_id: the largest id the editor has given out.
    """

    graph: EditorGraph
    subgraphs: Mapping[str, EditorSubgraph]
    last_node_id: int = 0


def read_editor_file(raw: Mapping[str, Any], limits: Limits) -> EditorFile:
    """Read the editor's form of a workflow.

    Args:
        raw: the JSON object, with ``nodes`` and ``links``.
        limits: what is refused as too large.

    Raises:
        WorkflowFormatError: a node, socket, link or subgraph is not of the form the editor writes, or there are too
            many nodes.
    """
    graph = _graph(raw)
    subgraphs: dict[str, EditorSubgraph] = {}
    total = len(graph.nodes)
    for each in _definitions(raw):
        if each["id"] in subgraphs:  # the editor takes the first
            continue
        name = each.get("name")
        subgraph = EditorSubgraph(
            id=each["id"],
            name=name if isinstance(name, str) and name else each["id"],
            graph=_graph(each),
            inputs=_boundaries(each.get("inputs")),
            outputs=_boundaries(each.get("outputs")),
        )
        subgraphs[subgraph.id] = subgraph
        total += len(subgraph.graph.nodes)
    if total > limits.nodes:
        raise WorkflowFormatError(f"{total:,} nodes are more than the {limits.nodes:,} that are allowed")
    state = raw.get("state")
    last = state.get("lastNodeId") if isinstance(state, dict) else raw.get("last_node_id")
    return EditorFile(graph, subgraphs, last_node_id=_index(last) or 0)


def _definitions(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every definition; one that a definition brings along follows it."""
    found: list[dict[str, Any]] = []
    waiting: list[Mapping[str, Any]] = [raw]
    while waiting:
        definitions = waiting.pop().get("definitions")
        listed = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        for each in listed if isinstance(listed, list) else ():
            if not isinstance(each, dict) or not isinstance(each.get("id"), str) or not each["id"]:
                _refuse("a subgraph has no id")
            found.append(each)
            waiting.append(each)
    return found


def _graph(raw: Mapping[str, Any]) -> EditorGraph:
    raw_nodes = raw.get("nodes", [])
    if not isinstance(raw_nodes, list):
        _refuse("its nodes are not a list")
    links = _links(raw.get("links"))
    unnamed = {(link.target_id, link.target_slot): link.id for link in links.values()}
    nodes: dict[str, EditorNode] = {}
    for index, raw_node in enumerate(raw_nodes):
        node = _node(index, raw_node, unnamed)
        if node.id in nodes:
            _refuse(f"two nodes have the id {printable(node.id)}")
        nodes[node.id] = node
    return EditorGraph(nodes=nodes, links=links)


def _boundaries(raw: Any) -> tuple[Boundary, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        _refuse("the inputs or outputs of a subgraph are not a list")
    found = []
    for each in raw:
        if not isinstance(each, dict):
            _refuse(f"an input or output of a subgraph is {shown(each)}")
        name, ids = each.get("name"), each.get("linkIds")
        links = [reference(value) for value in ids] if isinstance(ids, list) else []
        found.append(
            Boundary(
                name=name if isinstance(name, str) else "",
                type=_type(each.get("type")),
                links=tuple(link for link in links if link is not None),
            )
        )
    return tuple(found)


def read_node(raw: Mapping[str, Any]) -> EditorNode:
    """One node alone, its links as its own sockets name them.

    Raises:
        WorkflowFormatError: it is not of the form the editor writes.
    """
    return _node(0, raw, {})


def reference(value: Any) -> str | None:
    """An id as text, so that 5 and "5" are one; None where it is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _refuse(what: str) -> NoReturn:
    raise WorkflowFormatError(f"this is no workflow the editor wrote: {what}", hint=_SAVE_HINT)


def _index(value: Any) -> int | None:
    text = reference(value)
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 9 else None


def _links(raw: Any) -> dict[str, EditorLink]:
    if raw is None:
        return {}
    if isinstance(raw, dict):  # the version 1 draft kept them by id
        raw = list(raw.values())
    if not isinstance(raw, list):
        _refuse("its links are not a list")
    links: dict[str, EditorLink] = {}
    for position, each in enumerate(raw):
        if each is None:  # left behind by a link that was deleted
            continue
        if isinstance(each, list) and len(each) >= 5:
            parts = each[:5]
        elif isinstance(each, dict):
            parts = [each.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
        else:
            _refuse(f"link number {position + 1} is {shown(each)}")
        link_id, origin_id, target_id = reference(parts[0]), reference(parts[1]), reference(parts[3])
        origin_slot, target_slot = _index(parts[2]), _index(parts[4])
        if link_id is None or origin_id is None or target_id is None or origin_slot is None or target_slot is None:
            _refuse(f"link number {position + 1} does not name two nodes and their slots")
        links[link_id] = EditorLink(link_id, origin_id, origin_slot, target_id, target_slot)
    return links


def _node(index: int, raw: Any, unnamed: Mapping[tuple[str, int], str]) -> EditorNode:
    if not isinstance(raw, dict):
        _refuse(f"node number {index + 1} is {shown(raw)}")
    node_id, node_type = reference(raw.get("id")), raw.get("type")
    if node_id is None:
        _refuse(f"node number {index + 1} has no id")
    if not isinstance(node_type, str) or not node_type:
        _refuse(f"node {printable(node_id)} has no type")
    title, mode, values = raw.get("title"), raw.get("mode"), raw.get("widgets_values")
    named, properties = raw.get("widgets_values_named"), raw.get("properties")
    return EditorNode(
        id=node_id,
        type=node_type,
        title=title if isinstance(title, str) else "",
        mode=mode if isinstance(mode, int) else 0,
        inputs=_slots(node_id, raw.get("inputs"), unnamed),
        outputs=_slots(node_id, raw.get("outputs"), None),
        widgets_values=values if isinstance(values, (list, dict)) else None,
        widgets_named=named if isinstance(named, dict) else {},
        properties=properties if isinstance(properties, dict) else {},
    )


def _slots(node_id: str, raw: Any, unnamed: Mapping[tuple[str, int], str] | None) -> tuple[Slot, ...]:
    """Sockets of one side of a node.

    Args:
        node_id: the node.
        raw: what the file has.
        unnamed: for inputs, link ids by node and slot: an input's own ``link`` entry says what is connected, and only
            one that has no such entry at all is looked up by position.
    """
    if raw is None:
        return ()
    if not isinstance(raw, list):
        _refuse(f"the sockets of node {printable(node_id)} are not a list")
    slots = []
    for index, each in enumerate(raw):
        if not isinstance(each, dict):
            _refuse(f"a socket of node {printable(node_id)} is {shown(each)}")
        name, widget = each.get("name"), each.get("widget")
        if isinstance(widget, dict):
            widget = widget.get("name")
        link = None
        if unnamed is not None:
            link = reference(each["link"]) if "link" in each else unnamed.get((node_id, index))
        slots.append(
            Slot(
                name=name if isinstance(name, str) else "",
                type=_type(each.get("type")),
                link=link,
                widget=widget if isinstance(widget, str) else "",
            )
        )
    return tuple(slots)


def _type(raw: Any) -> str:
    if isinstance(raw, list):  # older files wrote a list of choices out
        return "COMBO"
    return raw if isinstance(raw, str) and raw else ANY_TYPE
