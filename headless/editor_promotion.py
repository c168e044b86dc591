"""Widgets that older files show on a subgraph's instances: ``properties.proxyWidgets``, pairs of node id and name.

Newer files give a subgraph an input for each such widget. A file of the older kind is brought to that form as the
editor does on loading it: an input is added to the subgraph, and so to every instance of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .editor_graph import SUBGRAPH_INPUT, reference
from .editor_nodes import PRIMITIVE, LiveBoundary, show_widget, sockets_by_source
from .editor_widgets import UNSET, Socket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .editor_nodes import LiveGraph, LiveNode

_PREFIX = re.compile(r"\s*(\d+)\s*:\s*(.+)", re.DOTALL)
_MAX_DEPTH = 100
_MAX_NAME = 1000


@dataclass(frozen=True)
class _Entry:
    """One pair of the list.

    Attributes:
        node_id: the node inside.
        name: of its widget.
        owner: id of the node deeper inside whose widget it is, where the name says so.
        value: what this instance has for it; ``UNSET`` where it has nothing.
    """

    node_id: str
    name: str
    owner: str
    value: Any


def show_listed_widgets(instance: LiveNode) -> None:
    """Add an input to an instance's subgraph for each widget the instance lists, and give it the saved value."""
    entries, graph = _entries(instance), instance.subgraph
    if graph is None or not entries:
        return
    shown = _Shown(instance, graph)
    primitives: dict[str, list[_Entry]] = {}
    for entry in entries:
        socket = shown.socket(entry)
        node = graph.nodes.get(entry.node_id)
        if socket is not None:
            _set(socket, entry)
        elif node is None:
            if entry.node_id == "-1":  # the instance's own input
                _set(instance.fields.socket(entry.name), entry)
        elif entry.node_id in graph.replaced:  # by another instance's list
            _set(instance.fields.sockets[graph.inputs.index(graph.replaced[entry.node_id])], entry)
        elif node.saved.type == PRIMITIVE:
            primitives.setdefault(entry.node_id, []).append(entry)
        else:
            inner = _inner_socket(node, entry)
            if inner is not None and not entry.name.startswith("$$"):
                shown.add(entry.name, inner.type, [(node, inner)], entry.value)
    fed = sockets_by_source(graph) if primitives else {}
    for node_id, those in primitives.items():
        made = _replacement(shown, graph.nodes[node_id], fed.get((node_id, 0), []), those)
        if made is not None:
            graph.replaced[node_id] = made


class _Shown:
    """What an instance's subgraph shows outside, while more is added to it."""

    def __init__(self, instance: LiveNode, graph: LiveGraph) -> None:
        self._instance = instance
        self._graph = graph
        self._names = {each.name for each in graph.inputs}
        self._numbers: dict[str, int] = {}
        self._sockets: dict[tuple[str, str], Socket] = {}
        for boundary, socket in zip(graph.inputs, instance.fields.sockets, strict=False):
            self._know(boundary, socket)

    def _know(self, boundary: LiveBoundary, socket: Socket) -> None:
        target = _target_of(boundary)
        if target is not None:
            self._sockets.setdefault(target, socket)

    def socket(self, entry: _Entry) -> Socket | None:
        """The instance's socket for what an entry names, where it is shown already."""
        return self._sockets.get((entry.node_id, entry.name))

    def _unique(self, name: str) -> str:
        unique, number = name, self._numbers.get(name, 1)
        while unique in self._names:
            unique = f"{name}_{number}"
            number += 1
        self._numbers[name] = number
        return unique

    def add(self, name: str, kind: str, targets: list[tuple[LiveNode, Socket]], value: Any) -> LiveBoundary:
        """Let a new input of the subgraph, and so of each of its instances, feed some sockets."""
        boundary = LiveBoundary(self._unique(name), kind, targets)
        for _, socket in targets:
            origin, index = socket.link or ("", 0)
            if origin == SUBGRAPH_INPUT and index < len(self._graph.inputs):
                other = self._graph.inputs[index]
                other.targets = [each for each in other.targets if each[1] is not socket]
            socket.link = (SUBGRAPH_INPUT, len(self._graph.inputs))
        self._graph.inputs.append(boundary)
        self._names.add(boundary.name)
        for owner in self._graph.instances:
            socket = Socket(boundary.name, kind)
            owner.fields.sockets.append(socket)
            show_widget(owner, socket, boundary)
            if owner is self._instance:
                self._know(boundary, socket)
                if socket.widget is not None and value is not UNSET:
                    socket.widget.value = value
        return boundary


def _entries(instance: LiveNode) -> list[_Entry]:
    listed = instance.saved.properties.get("proxyWidgets")
    values = instance.saved.widgets_values
    found = []
    for index, each in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(each, list) or len(each) < 2 or not isinstance(each[1], str):
            return []  # the editor takes the whole list or nothing of it
        node_id, owner = reference(each[0]), reference(each[2]) if len(each) > 2 else None
        value = values[index] if isinstance(values, list) and index < len(values) else UNSET
        name, prefix = each[1], ""
        if node_id is None:
            return []
        if not _leads_to_widget(instance, node_id, name):
            name, prefix = _without_prefixes(name)
        found.append(_Entry(node_id, name, prefix or owner or "", value))
    return found


def _without_prefixes(name: str) -> tuple[str, str]:
    """A name without the ids older files put before it, and the last of these."""
    owner = ""
    while len(name) <= _MAX_NAME and (match := _PREFIX.fullmatch(name)):
        owner, name = match.groups()
    return name, owner


def _leads_to_widget(instance: LiveNode, node_id: str, name: str) -> bool:
    graph = instance.subgraph
    for _ in range(_MAX_DEPTH):
        node = graph.nodes.get(node_id) if graph is not None else None
        if node is None:
            return False
        if node.subgraph is None:
            return node.fields.widget(name) is not None
        target = _target(node, name)
        if target is None:
            return False
        graph, (node_id, name) = node.subgraph, target
    return False


def _target(instance: LiveNode, input_name: str) -> tuple[str, str] | None:
    """Node id and widget (or, of an instance, input) that an instance's input leads to."""
    graph = instance.subgraph
    boundary = next((each for each in graph.inputs if each.name == input_name), None) if graph is not None else None
    return _target_of(boundary) if boundary is not None else None


def _target_of(boundary: LiveBoundary) -> tuple[str, str] | None:
    for node, socket in boundary.targets:
        if node.subgraph is not None:
            return node.id, socket.name
        if socket.widget is not None:
            return node.id, socket.widget.name
    return None


def _set(socket: Socket | None, entry: _Entry) -> None:
    if socket is not None and socket.widget is not None and entry.value is not UNSET:
        socket.widget.value = entry.value


def _inner_socket(node: LiveNode, entry: _Entry) -> Socket | None:
    """The socket inside that stands for the widget an entry names."""
    for socket in node.fields.sockets:
        if socket.widget is None:
            continue
        if node.subgraph is None:
            if socket.widget.name == entry.name:
                return socket
            continue
        target = _target(node, socket.name)
        fits = target == (entry.owner, entry.name) if entry.owner else (target is not None and target[1] == entry.name)
        if fits or (not entry.owner and socket.name == entry.name):
            return socket
    return None


def _replacement(
    shown: _Shown, primitive: LiveNode, targets: list[tuple[LiveNode, Socket]], entries: Sequence[_Entry]
) -> LiveBoundary | None:
    """A primitive whose value is shown outside gives way to an input that feeds the same sockets."""
    if len({entry.name for entry in entries}) != 1:
        return None
    kind = primitive.outputs[0] if primitive.outputs else "*"
    if not targets or any("*" not in {kind, socket.type} and socket.type != kind for _, socket in targets):
        return None
    title = primitive.title
    name = title if title and title != PRIMITIVE else entries[0].name
    return shown.add(name, kind, targets, next((entry.value for entry in entries if entry.value is not UNSET), UNSET))
