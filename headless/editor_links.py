"""Where a link of the editor's graph leads: through reroutes, bypassed nodes and the borders of subgraphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .editor_graph import ANY_TYPE, BYPASSED, MUTED, SUBGRAPH_INPUT
from .editor_nodes import REROUTE, LiveGraph, LiveNode
from .editor_widgets import UNSET, Socket
from .graph import Link, circle, from_smallest, printable, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Source:
    """What an input gets.

    Attributes:
        link: the output it comes from, or None.
        value: a value that a subgraph's instance holds; ``UNSET`` where it holds none.
        reason: why there is neither; empty where that is as it should be.
        code: the error it amounts to; empty where the editor would drop it silently.
    """

    link: Link | None = None
    value: Any = UNSET
    reason: str = ""
    code: str = ""


class Scope:
    """One place where a graph is used: the outermost, or inside one instance.

    Args:
        path: ids of the instances around it, from the outside in.
        graph: the graph.
        instance: the instance it is inside of.
        parent: the scope that instance is in.
    """

    def __init__(
        self, path: tuple[str, ...], graph: LiveGraph, instance: LiveNode | None = None, parent: Scope | None = None
    ) -> None:
        self.path = path
        self.graph = graph
        self.instance = instance
        self.parent = parent
        self._inner: dict[str, Scope] = {}

    def inside(self, instance: LiveNode) -> Scope:
        """The scope inside an instance of a subgraph."""
        if instance.id not in self._inner:
            if instance.subgraph is None:
                raise ValueError(f"{instance.id} is no instance of a subgraph")
            self._inner[instance.id] = Scope((*self.path, instance.id), instance.subgraph, instance, self)
        return self._inner[instance.id]

    def id_of(self, node: LiveNode) -> str:
        """A node's id in the prompt."""
        return ":".join((*self.path, node.id))

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of the instances around it, from the outside in."""
        return tuple(reversed([each.title for each in self._instances()]))

    def _instances(self) -> Iterator[LiveNode]:
        scope: Scope | None = self
        while scope is not None and scope.instance is not None:
            yield scope.instance
            scope = scope.parent


@dataclass(frozen=True)
class _Input:
    """Asking for what arrives at a socket; ``type`` is that of the final consumer where a reroute handed it on."""

    scope: Scope
    node: LiveNode
    socket: Socket
    type: str = ""


@dataclass(frozen=True)
class _Output:
    """Asking for what leaves a node by one of its outputs, for a consumer that takes ``type``."""

    scope: Scope
    node: LiveNode
    index: int
    type: str


class LinkResolver:
    """Follows links, each way once: many inputs behind one chain of reroutes cost no more than one."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Source] = {}

    def source_of(self, scope: Scope, node: LiveNode, socket: Socket) -> Source | None:
        """What a socket gets, or None where nothing is connected to it."""
        if socket.link is None:
            return None
        trail: dict[tuple[Any, ...], _Input | _Output] = {}
        step: _Input | _Output | Source = _Input(scope, node, socket)
        while not isinstance(step, Source):
            key = _key(step)
            if key in self._known:
                step = self._known[key]
            elif key in trail:
                step = _circle(list(trail.values())[list(trail).index(key) :])
            else:
                trail[key] = step
                step = _arriving(step) if isinstance(step, _Input) else _leaving(step)
        for key in trail:
            self._known[key] = step
        return step


def compatible(one: str, other: str) -> bool:
    """Whether the editor lets sockets of these types be connected: any, equal, or unions that overlap."""
    if one in {"", ANY_TYPE} or other in {"", ANY_TYPE}:
        return True
    one, other = one.lower(), other.lower()
    return one == other or not set(one.split(",")).isdisjoint(other.split(","))


def _key(step: _Input | _Output) -> tuple[Any, ...]:
    where = step.socket if isinstance(step, _Input) else step.index
    return (id(step.scope), id(step.node), where if isinstance(where, int) else id(where), step.type)


def _name(scope: Scope, node: LiveNode) -> str:
    return f"node {printable(scope.id_of(node))} {shown(node.title)}"


def _arriving(step: _Input) -> _Input | _Output | Source:
    scope, socket = step.scope, step.socket
    if socket.link is None:
        return Source(reason=f"{_name(scope, step.node)} has nothing connected to it")
    origin_id, index = socket.link
    if origin_id == SUBGRAPH_INPUT and scope.instance is not None:
        return _from_outside(scope, index)
    origin = scope.graph.nodes.get(origin_id)
    if origin is None:
        return Source(
            code="bad_linked_input",
            reason=f"its link comes from node {printable(origin_id)}, which the file does not have",
        )
    return _Output(scope, origin, index, step.type or socket.type)


def _from_outside(scope: Scope, index: int) -> _Input | Source:
    """What an instance gets by one of its inputs: a link beats the value it holds."""
    instance, parent = scope.instance, scope.parent
    if instance is None or parent is None or index >= len(instance.fields.sockets):
        return Source(code="bad_linked_input", reason="its link comes from an input that the subgraph does not have")
    socket = instance.fields.sockets[index]
    if socket.link is not None:
        return _Input(parent, instance, socket)
    if socket.widget is not None:
        return Source(value=socket.widget.value)
    return Source(reason=f"input {shown(socket.name)} of the subgraph {_name(parent, instance)} is not connected")


def _leaving(step: _Output) -> _Input | _Output | Source:
    scope, node, index = step.scope, step.node, step.index
    if node.saved.mode == MUTED:
        return Source(reason=f"{_name(scope, node)} is muted")
    if node.saved.mode == BYPASSED:
        passed = _passed_through(node, index, step.type)
        if passed is None:
            return Source(
                reason=f"{_name(scope, node)} is bypassed and has no input of type {printable(step.type)} to pass on"
            )
        if passed.link is None:
            return Source(
                reason=f"{_name(scope, node)} is bypassed and its input {shown(passed.name)} is not connected"
            )
        return _Input(scope, node, passed)
    if node.subgraph is not None:
        return _from_inside(step, node.subgraph)
    if node.saved.type == REROUTE:
        sockets = node.fields.sockets
        return _Input(scope, node, sockets[0], step.type) if sockets else Source(reason="a reroute has no input")
    if node.virtual:
        return Source()  # a primitive: its value has been copied
    return Source(link=Link(scope.id_of(node), index))


def _from_inside(step: _Output, subgraph: LiveGraph) -> _Input | _Output | Source:
    name = _name(step.scope, step.node)
    if step.index >= len(subgraph.outputs):
        return Source(code="bad_linked_input", reason=f"the subgraph {name} has no output {step.index}")
    boundary = subgraph.outputs[step.index]
    if boundary.source is None:
        return Source(reason=f"output {shown(boundary.name)} of the subgraph {name} is not connected inside")
    origin_id, index = boundary.source
    inner = step.scope.inside(step.node)
    if origin_id == SUBGRAPH_INPUT:  # straight through
        return _from_outside(inner, index)
    origin = subgraph.nodes.get(origin_id)
    if origin is None:
        return Source(
            code="bad_linked_input", reason=f"output {shown(boundary.name)} of {name} comes from no node that exists"
        )
    return _Output(inner, origin, index, step.type)


def _passed_through(node: LiveNode, output: int, consumer: str) -> Socket | None:
    """Input that stands in for an output of a bypassed node (rule 4)."""
    sockets = node.fields.sockets
    same = sockets[output] if output < len(sockets) else None
    if consumer in {"", ANY_TYPE}:
        return same or (sockets[0] if sockets else None)
    output_type = node.outputs[output] if output < len(node.outputs) else ANY_TYPE
    if same is not None and compatible(same.type, output_type) and compatible(same.type, consumer):
        return same
    for socket in sockets:
        if socket.type == consumer:
            return socket
    for socket in sockets:
        if compatible(socket.type, output_type) and compatible(socket.type, consumer):
            return socket
    return None


def _circle(steps: list[_Input | _Output]) -> Source:
    # The links were followed against the flow; the circle is told with it.
    ids = {each.scope.id_of(each.node): each.node.title for each in reversed(steps)}
    path = circle(from_smallest(list(ids)), ids)
    return Source(code="dependency_cycle", reason=f"its link runs in a circle: {path}")
