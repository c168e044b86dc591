"""The editor's graph as it stands once a file is loaded: nodes with sockets and widgets, subgraphs with instances.

What the file leaves unsaid is filled in from the node classes, links are put to the inputs of their name, and each
instance of a subgraph gets the widgets that its subgraph shows outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .editor_graph import SUBGRAPH_INPUT, SUBGRAPH_OUTPUT
from .editor_ids import innermost_first
from .editor_nodes import VIRTUAL_TYPES, LiveBoundary, LiveGraph, LiveNode, show_widget
from .editor_promotion import show_listed_widgets
from .editor_widgets import Fields, Socket, Widget, filled_fields
from .schema import DYNAMIC_COMBO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .editor_graph import Boundary, EditorFile, EditorGraph, EditorLink, EditorNode, EditorSubgraph
    from .schema import NodeSchema


def load_live(file: EditorFile, schemas: Mapping[str, NodeSchema]) -> LiveGraph:
    """Load a file as the editor would.

    Args:
        file: its content, ids unique.
        schemas: what is known of node classes.

    Returns:
        The outermost graph.
    Raises:
        WorkflowFormatError: a subgraph holds itself.
    """
    subgraphs: dict[str, LiveGraph] = {}
    for definition in innermost_first(file.subgraphs):
        subgraphs[definition.id] = _loaded(definition.graph, schemas, subgraphs, definition)
    return _loaded(file.graph, schemas, subgraphs, None)


def _loaded(
    graph: EditorGraph,
    schemas: Mapping[str, NodeSchema],
    subgraphs: Mapping[str, LiveGraph],
    definition: EditorSubgraph | None,
) -> LiveGraph:
    live = LiveGraph(name=definition.name if definition else "")
    for node in graph.nodes.values():
        live.nodes[node.id] = _node(node, schemas.get(node.type), subgraphs.get(node.type))
    for link in _without_rivals(graph):
        _connect(live, link)
    for made in live.nodes.values():
        made.dangling = {
            slot.name: slot.link for slot in made.saved.inputs if slot.link is not None and slot.link not in graph.links
        }
    if definition is not None:
        live.inputs = [_entrance(live, graph, each, index) for index, each in enumerate(definition.inputs)]
        live.outputs = [_exit(graph, each, index) for index, each in enumerate(definition.outputs)]
    instances = [made for made in live.nodes.values() if made.subgraph is not None]
    for made in instances:
        if made.subgraph is not None:
            made.subgraph.instances.append(made)
    for made in instances:
        show_listed_widgets(made)
    return live


def _node(node: EditorNode, schema: NodeSchema | None, subgraph: LiveGraph | None) -> LiveNode:
    if subgraph is not None:
        fields = Fields([Socket(each.name, each.type) for each in subgraph.inputs])
        outputs = [each.type for each in subgraph.outputs]
        made = LiveNode(node, node.title or subgraph.name, fields, outputs, subgraph=subgraph)
        _show_linked_widgets(made, subgraph)
        return made
    if schema is None or node.type in VIRTUAL_TYPES:
        return LiveNode(node, node.title or node.type, _plain_fields(node), [each.type for each in node.outputs])
    fields = filled_fields(node, schema)
    groups = tuple(f"{each.name}." for each in schema.inputs if each.type == DYNAMIC_COMBO)
    for slot in node.inputs:
        # Inputs of a choice that is no longer taken are gone, as are those that stood for a widget that is gone.
        gone = slot.widget or (slot.name.startswith(groups) and not _grows(fields, slot.name))
        if fields.socket(slot.name) is None and not gone:
            fields.sockets.append(Socket(slot.name, slot.type))
    return LiveNode(node, node.title or schema.display_name, fields, [each.type for each in schema.outputs], schema)


def _grows(fields: Fields, name: str) -> bool:
    """Whether a socket is one more of a group that is there: groups grow as they are connected."""
    group = f"{name.rpartition('.')[0]}."
    return any(each.name.startswith(group) and each.name.count(".") == name.count(".") > 1 for each in fields.sockets)


def _plain_fields(node: EditorNode) -> Fields:
    """What the file says of a node whose class nobody knows: its sockets, and values that have names."""
    saved = node.widgets_values
    named = {**(saved if isinstance(saved, dict) else {}), **node.widgets_named}
    widgets = {name: Widget(name, value) for name, value in named.items()}
    sockets = [Socket(slot.name, slot.type, widgets.get(slot.widget)) for slot in node.inputs]
    return Fields(sockets, list(widgets.values()))


def _show_linked_widgets(instance: LiveNode, subgraph: LiveGraph) -> None:
    """Give an instance a widget for each input that leads to one inside, with the value the file has for it."""
    for socket, boundary in zip(instance.fields.sockets, subgraph.inputs, strict=True):
        show_widget(instance, socket, boundary)
    saved = instance.saved.widgets_values
    if isinstance(saved, list):
        for widget, value in zip(instance.fields.widgets, saved, strict=False):
            widget.value = value
    else:
        named = {**(saved or {}), **instance.saved.widgets_named}
        for widget in instance.fields.widgets:
            widget.value = named.get(widget.name, widget.value)
    for widget in instance.fields.widgets:
        if widget.value is None and widget.choices:
            widget.value = widget.choices[0]


def _without_rivals(graph: EditorGraph) -> Sequence[EditorLink]:
    """Links, one for each input: where two claim it, the one the input names, else the first."""
    named = {slot.link for node in graph.nodes.values() for slot in node.inputs if slot.link is not None}
    kept: dict[tuple[str, int], EditorLink] = {}
    for link in graph.links.values():
        place = (link.target_id, link.target_slot)
        rival = kept.get(place)
        if rival is None or (link.id in named and rival.id not in named):
            kept[place] = link
    return list(kept.values())


def _connect(live: LiveGraph, link: EditorLink) -> None:
    """Put a link to the input the file names it at; the slot number is what older files had before inputs moved."""
    node = live.nodes.get(link.target_id)
    if node is None or link.target_id in {SUBGRAPH_INPUT, SUBGRAPH_OUTPUT}:
        return
    slots = [slot for slot in node.saved.inputs if slot.link == link.id]
    names = [slot.name for slot in slots]
    fields = node.fields
    fitting = [index for index, socket in enumerate(fields.sockets) if socket.name in names]
    if fitting:
        socket = fields.sockets[link.target_slot if link.target_slot in fitting else fitting[0]]
    elif any(slot.widget for slot in slots):  # the class has no such widget any more, and its link went with it
        return
    else:
        by_number = _by_number(node, link.target_slot, named=bool(names))
        if by_number is None:
            return
        socket = by_number
    if socket.link is None:
        socket.link = (link.origin_id, link.origin_slot)


def _by_number(node: LiveNode, index: int, *, named: bool) -> Socket | None:
    """The socket a link means by number alone: that of the file's own list, or of a new node's where names say more."""
    if named:
        names = node.fields.first_sockets
        return node.fields.socket(names[index]) if index < len(names) else None
    saved = node.saved.inputs
    if not saved:
        return node.fields.sockets[index] if index < len(node.fields.sockets) else None
    if index >= len(saved) or saved[index].link is not None:
        return None
    return node.fields.socket(saved[index].name)


def _entrance(live: LiveGraph, graph: EditorGraph, boundary: Boundary, index: int) -> LiveBoundary:
    """A subgraph's input with the sockets it feeds: in its own order, then whatever else links say."""
    found = [link for link in graph.links.values() if link.origin_id == SUBGRAPH_INPUT and link.origin_slot == index]
    order = {link_id: position for position, link_id in enumerate(boundary.links)}
    found.sort(key=lambda link: order.get(link.id, len(order)))
    targets = []
    for link in found:
        node = live.nodes.get(link.target_id)
        for socket in node.fields.sockets if node is not None else ():
            if node is not None and socket.link == (SUBGRAPH_INPUT, index) and (node, socket) not in targets:
                targets.append((node, socket))
    return LiveBoundary(boundary.name, boundary.type, targets)


def _exit(graph: EditorGraph, boundary: Boundary, index: int) -> LiveBoundary:
    found = [link for link in graph.links.values() if link.target_id == SUBGRAPH_OUTPUT and link.target_slot == index]
    named = [link for link_id in boundary.links for link in found if link.id == link_id]
    first = next(iter([*named, *found]), None)
    source = (first.origin_id, first.origin_slot) if first is not None else None
    return LiveBoundary(boundary.name, boundary.type, source=source)
