"""The editor's graph as it stands once a file is loaded: nodes with sockets and widgets, subgraphs with instances.

What the file leaves unsaid is filled in from the node classes, links are put to the inputs of their name, and each
instance of a subgraph gets the widgets that its subgraph shows outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .editor_graph import ANY_TYPE, SUBGRAPH_INPUT, SUBGRAPH_OUTPUT
from .editor_ids import innermost_first
from .editor_nodes import VIRTUAL_TYPES, LiveBoundary, LiveGraph, LiveNode, show_widget, sockets_by_source
from .editor_promotion import show_listed_widgets
from .editor_widgets import Fields, Socket, Widget, filled_fields
from .schema import DYNAMIC_COMBO, MATCH_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .editor_graph import Boundary, EditorFile, EditorGraph, EditorLink, EditorNode, EditorSubgraph, Slot
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
    places = {node_id: _Places(node) for node_id, node in live.nodes.items()}
    for link in _without_rivals(graph):
        if link.target_id in places:
            places[link.target_id].connect(link)
    for made in live.nodes.values():
        made.dangling = {
            slot.name: slot.link for slot in made.saved.inputs if slot.link is not None and slot.link not in graph.links
        }
    if definition is not None:
        live.inputs = _entrances(live, definition.inputs)
        live.outputs = _exits(graph, definition.outputs)
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
    found = {slot.name: slot.type for slot in node.inputs if slot.type not in {"", ANY_TYPE, MATCH_TYPE}}
    for socket in fields.sockets:
        if socket.matching:
            socket.type = found.get(socket.name, socket.type)
    choices = tuple(f"{each.name}." for each in schema.inputs if each.type == DYNAMIC_COMBO)
    # Groups grow as they are connected, those that come with a choice as well.
    growing = {each.name.rpartition(".")[0] for each in fields.sockets if each.name.count(".") > 1}
    known = {each.name for each in fields.sockets}
    for slot in node.inputs:
        # Inputs of a choice that is no longer taken are gone, as are those that stood for a widget that is gone.
        unchosen = slot.name.startswith(choices) and slot.name.rpartition(".")[0] not in growing
        if slot.name not in known and not slot.widget and not unchosen:
            known.add(slot.name)
            fields.sockets.append(Socket(slot.name, slot.type))
    # An output of whatever type it is given starts as one of any type.
    outputs = [ANY_TYPE if each.type == MATCH_TYPE else each.type for each in schema.outputs]
    return LiveNode(node, node.title or schema.display_name, fields, outputs, schema)


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


class _Places:
    """Where links into one node go: to the input the file names them at.

    The slot number is what older files had before inputs moved.
    """

    def __init__(self, node: LiveNode) -> None:
        self._node = node
        self._named: dict[str, list[Slot]] = {}
        for slot in node.saved.inputs:
            if slot.link is not None:
                self._named.setdefault(slot.link, []).append(slot)
        self._by_name: dict[str, list[int]] = {}
        for index, socket in enumerate(node.fields.sockets):
            self._by_name.setdefault(socket.name, []).append(index)

    def connect(self, link: EditorLink) -> None:
        """Put a link to its socket, if that is there and free."""
        slots = self._named.get(link.id, [])
        fitting = [
            index for name in dict.fromkeys(slot.name for slot in slots) for index in self._by_name.get(name, ())
        ]
        if fitting:
            index = link.target_slot if link.target_slot in fitting else min(fitting)
            socket: Socket | None = self._node.fields.sockets[index]
        elif any(slot.widget for slot in slots):  # the class has no such widget any more, and its link went with it
            return
        else:
            socket = self._by_number(link.target_slot, named=bool(slots))
        if socket is not None and socket.link is None:
            socket.link, socket.link_id = (link.origin_id, link.origin_slot), link.id

    def _by_number(self, index: int, *, named: bool) -> Socket | None:
        """The socket that is meant by number: that of the file's own list, or of a new node's where names say more."""
        sockets, saved = self._node.fields.sockets, self._node.saved.inputs
        if not named and not saved:
            return sockets[index] if index < len(sockets) else None
        name = None
        if named and index < len(self._node.fields.first_sockets):
            name = self._node.fields.first_sockets[index]
        elif not named and index < len(saved) and saved[index].link is None:
            name = saved[index].name
        found = self._by_name.get(name) if name is not None else None
        return sockets[found[0]] if found else None


def _entrances(live: LiveGraph, inputs: Sequence[Boundary]) -> list[LiveBoundary]:
    """A subgraph's inputs with the sockets they feed: in the order that the input gives, then that of the file."""
    fed = sockets_by_source(live)
    made = []
    for index, boundary in enumerate(inputs):
        order = {link_id: position for position, link_id in enumerate(boundary.links)}
        targets = sorted(fed.get((SUBGRAPH_INPUT, index), ()), key=lambda each: order.get(each[1].link_id, len(order)))
        made.append(LiveBoundary(boundary.name, boundary.type, targets))
    return made


def _exits(graph: EditorGraph, outputs: Sequence[Boundary]) -> list[LiveBoundary]:
    """A subgraph's outputs with what they come from: the first link that the output names.

    Of several links into one output the editor keeps the first in the file, under the names of all of them.
    """
    kept: dict[int, EditorLink] = {}
    for link in graph.links.values():
        if link.target_id == SUBGRAPH_OUTPUT:
            kept.setdefault(link.target_slot, link)
    made = []
    for boundary in outputs:
        named = next((graph.links[link_id] for link_id in boundary.links if link_id in graph.links), None)
        if named is not None and named.target_id == SUBGRAPH_OUTPUT:
            named = kept[named.target_slot]
        source = (named.origin_id, named.origin_slot) if named is not None else None
        made.append(LiveBoundary(boundary.name, boundary.type, source=source))
    return made
