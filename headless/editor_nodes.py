"""What the editor's graph is made of while it is held: nodes, graphs, and the borders of subgraphs.

Compared by identity: two nodes with the same content are still two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .editor_widgets import Fields, Socket, Widget, set_value

if TYPE_CHECKING:
    from .editor_graph import EditorNode
    from .schema import NodeSchema

PRIMITIVE = "PrimitiveNode"
REROUTE = "Reroute"
VIRTUAL_TYPES = frozenset({PRIMITIVE, REROUTE, "Note", "MarkdownNote"})
"""Nodes that exist in the editor only."""


@dataclass(eq=False)
class LiveNode:
    """A node as the editor holds it.

    Attributes:
        saved: what the file says of it.
        title: what people see.
        fields: its sockets and widgets.
        outputs: types of its outputs.
        schema: its class, where it is known.
        subgraph: what it is an instance of.
        dangling: inputs whose link the file does not have, with that link's id.
    """

    saved: EditorNode
    title: str
    fields: Fields
    outputs: list[str]
    schema: NodeSchema | None = None
    subgraph: LiveGraph | None = None
    dangling: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id within its graph."""
        return self.saved.id

    @property
    def virtual(self) -> bool:
        """Whether only the editor knows it: the host is never sent one."""
        return self.subgraph is not None or self.saved.type in VIRTUAL_TYPES

    def set_widget(self, widget: Widget, value: Any) -> None:
        """Set one of its widgets, with all that follows."""
        if self.schema is not None:
            set_value(self.fields, self.schema, widget, value)
        else:
            widget.value = value


@dataclass(eq=False)
class LiveBoundary:
    """A subgraph's input or output with what it is connected to inside.

    Attributes:
        name: its name.
        type: its type.
        targets: for an input, the sockets it feeds, in order.
        source: for an output, where its value comes from.
    """

    name: str
    type: str
    targets: list[tuple[LiveNode, Socket]] = field(default_factory=list)
    source: tuple[str, int] | None = None


@dataclass(eq=False)
class LiveGraph:
    """One graph: the outermost or a subgraph's.

    Attributes:
        nodes: by id, in the file's order.
        name: of a subgraph.
        inputs: of a subgraph.
        outputs: of a subgraph.
        replaced: inputs that primitives have given way to, by the id of the primitive.
        instances: nodes that stand for it, wherever they are.
    """

    nodes: dict[str, LiveNode] = field(default_factory=dict)
    name: str = ""
    inputs: list[LiveBoundary] = field(default_factory=list)
    outputs: list[LiveBoundary] = field(default_factory=list)
    replaced: dict[str, LiveBoundary] = field(default_factory=dict)
    instances: list[LiveNode] = field(default_factory=list)


def show_widget(instance: LiveNode, socket: Socket, boundary: LiveBoundary) -> None:
    """Let an instance's input hold a value where its subgraph's input leads to a widget."""
    for _, target in boundary.targets:
        if target.widget is not None:
            shown = Widget(boundary.name, target.widget.value, target.widget.spec)
            socket.widget = shown
            instance.fields.widgets.append(shown)
            return


def sockets_by_source(graph: LiveGraph) -> dict[tuple[str, int], list[tuple[LiveNode, Socket]]]:
    """The connected sockets of a graph, by the (node id, output index) they are connected to."""
    found: dict[tuple[str, int], list[tuple[LiveNode, Socket]]] = {}
    for node in graph.nodes.values():
        for socket in node.fields.sockets:
            if socket.link is not None:
                found.setdefault(socket.link, []).append((node, socket))
    return found
