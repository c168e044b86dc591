"""Workflow files as a user may have left them: nodes switched off, links cut and moved, reroutes and primitives put in.

Unlike `workflow_mutants`, what comes out is of the form the editor itself would have saved.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

MODES = (0, 2, 4, 4)  # on, muted, bypassed
TYPED = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


def edited(raw: dict[str, Any], randomness: random.Random) -> dict[str, Any]:
    """A copy of a workflow with a few random edits.

    Args:
        raw: in the editor's format; not changed.
        randomness: what decides.
    """
    made = copy.deepcopy(raw)
    for _ in range(randomness.choice((1, 1, 2, 3, 5))):
        graph = _Graph(made, randomness.choice(_graphs(made)))
        if graph.nodes:
            randomness.choice(EDITS)(graph, randomness)
    return made


def _graphs(raw: dict[str, Any]) -> list[dict[str, Any]]:
    return [raw, *(raw.get("definitions") or {}).get("subgraphs", [])]


class _Graph:
    """One graph of a file: the outermost or a subgraph's."""

    def __init__(self, file: dict[str, Any], raw: dict[str, Any]) -> None:
        self.file = file
        self.raw = raw
        self.nodes: list[dict[str, Any]] = raw["nodes"]
        self.links: list[Any] = raw.setdefault("links", [])
        self.objects = raw is not file or any(isinstance(each, dict) for each in self.links)

    def parts(self, link: Any) -> tuple[Any, ...]:
        """Id, origin, its slot, target, its slot, type."""
        if isinstance(link, dict):
            return tuple(link.get(name) for name in FIELDS)
        return tuple(link[:6])

    def node(self, node_id: Any) -> dict[str, Any] | None:
        return next((each for each in self.nodes if str(each["id"]) == str(node_id)), None)

    def fresh(self, kind: str) -> int:
        """A number that no node, or no link, of the file has."""
        numbers = [0]
        for raw in _graphs(self.file):
            graph = _Graph(self.file, raw) if raw is not self.raw else self
            if kind == "link":
                numbers += [int(graph.parts(each)[0]) for each in graph.links]
            else:
                numbers += [int(each["id"]) for each in graph.nodes if str(each["id"]).isdigit()]
        found = max(numbers) + 1
        for holder in (self.file, self.raw):
            state = holder.get("state")
            if isinstance(state, dict):
                name = "lastLinkId" if kind == "link" else "lastNodeId"
                state[name] = max(state.get(name) or 0, found)
        name = f"last_{kind}_id"
        if name in self.file:
            self.file[name] = max(self.file[name] or 0, found)
        return found

    def cut(self, link: Any) -> None:
        """Remove a link everywhere it is named."""
        link_id = self.parts(link)[0]
        self.links.remove(link)
        for node in self.nodes:
            for socket in node.get("inputs") or []:
                if socket.get("link") == link_id:
                    socket["link"] = None
            for socket in node.get("outputs") or []:
                socket["links"] = [each for each in socket.get("links") or [] if each != link_id]
        if self.raw is not self.file:
            for boundary in (*(self.raw.get("inputs") or []), *(self.raw.get("outputs") or [])):
                boundary["linkIds"] = [each for each in boundary.get("linkIds") or [] if each != link_id]

    def connect(self, origin: dict[str, Any], output: int, target: dict[str, Any], index: int) -> None:
        """Link two nodes; what was linked there before is cut."""
        socket = target["inputs"][index]
        for link in [each for each in self.links if self.parts(each)[0] == socket.get("link")]:
            self.cut(link)
        link_id = self.fresh("link")
        values = (link_id, origin["id"], output, target["id"], index, origin["outputs"][output]["type"])
        self.links.append(dict(zip(FIELDS, values, strict=True)) if self.objects else list(values))
        socket["link"] = link_id
        origin["outputs"][output]["links"] = [*(origin["outputs"][output].get("links") or []), link_id]

    def reaches(self, start: dict[str, Any], end: dict[str, Any]) -> bool:
        """Whether a way leads along the flow from one node to another."""
        waiting, seen = [start["id"]], set()
        while waiting:
            current = waiting.pop()
            if current == end["id"]:
                return True
            if current not in seen:
                seen.add(current)
                waiting += [parts[3] for each in self.links if (parts := self.parts(each))[1] == current]
        return False

    def add(self, kind: str, **node: Any) -> dict[str, Any]:
        """Put in a node."""
        made = {
            "id": self.fresh("node"), "type": kind, "pos": [0, 0], "size": [100, 50], "flags": {}, "order": 0,
            "mode": 0, "inputs": [], "outputs": [], "properties": {}, **node,
        }  # fmt: skip
        self.nodes.append(made)
        return made


FIELDS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def _switch(graph: _Graph, randomness: random.Random) -> None:
    randomness.choice(graph.nodes)["mode"] = randomness.choice(MODES)


def _cut(graph: _Graph, randomness: random.Random) -> None:
    if graph.links:
        graph.cut(randomness.choice(graph.links))


def _move(graph: _Graph, randomness: random.Random) -> None:
    """Let an input come from another output of its type."""
    target = randomness.choice(graph.nodes)
    places = [index for index, each in enumerate(target.get("inputs") or []) if isinstance(each.get("type"), str)]
    if not places:
        return
    index = randomness.choice(places)
    wanted = set(target["inputs"][index]["type"].split(","))
    sources = [
        (node, output)
        for node in graph.nodes
        for output, socket in enumerate(node.get("outputs") or [])
        if socket.get("type") in wanted and not graph.reaches(target, node)
    ]
    if sources:
        graph.connect(*randomness.choice(sources), target, index)


def _reroute(graph: _Graph, randomness: random.Random) -> None:
    """Put a reroute into a link."""
    if not graph.links:
        return
    link = randomness.choice(graph.links)
    _, origin_id, output, target_id, index, kind = graph.parts(link)
    origin, target = graph.node(origin_id), graph.node(target_id)
    if origin is None or target is None or index >= len(target.get("inputs") or []):
        return
    made = graph.add(
        "Reroute",
        mode=randomness.choice((0, 0, *MODES)),
        inputs=[{"name": "", "type": "*", "link": None}],
        outputs=[{"name": "", "type": kind, "links": []}],
    )
    graph.connect(origin, output, made, 0)
    graph.connect(made, 0, target, index)


def _primitive(graph: _Graph, randomness: random.Random) -> None:
    """Feed a widget from a primitive."""
    places = [
        (node, index, socket)
        for node in graph.nodes
        for index, socket in enumerate(node.get("inputs") or [])
        if socket.get("widget") and socket.get("type") in TYPED and node["type"] not in {"Reroute", "PrimitiveNode"}
    ]
    if not places:
        return
    target, index, socket = randomness.choice(places)
    values = {"INT": [7, "fixed"], "FLOAT": [0.5, "fixed"], "STRING": ["typed in"], "BOOLEAN": [True], "COMBO": ["a"]}
    made = graph.add(
        "PrimitiveNode",
        mode=randomness.choice((0, 0, *MODES)),
        outputs=[{"name": socket["type"], "type": socket["type"], "links": [], "widget": socket["widget"]}],
        properties={"Run widget replace on values": randomness.random() < 0.2},
        widgets_values=values[socket["type"]],
    )
    graph.connect(made, 0, target, index)


def _again(graph: _Graph, randomness: random.Random) -> None:
    """Put in a copy of a node, linked to what the first is linked to: of an instance of a subgraph, another one."""
    node = randomness.choice(graph.nodes)
    made = graph.add(node["type"], **{name: copy.deepcopy(value) for name, value in node.items() if name != "id"})
    for socket in made.get("outputs") or []:
        socket["links"] = []
    for index, socket in enumerate(made.get("inputs") or []):
        link_id, socket["link"] = socket.get("link"), None
        link = next((each for each in graph.links if graph.parts(each)[0] == link_id), None)
        origin = graph.node(graph.parts(link)[1]) if link is not None else None
        if link is not None and origin is not None:
            graph.connect(origin, graph.parts(link)[2], made, index)


def _value(graph: _Graph, randomness: random.Random) -> None:
    node = randomness.choice(graph.nodes)
    values = node.get("widgets_values")
    if isinstance(values, list) and values:
        index = randomness.randrange(len(values))
        value = values[index]
        if isinstance(value, bool):
            values[index] = not value
        elif isinstance(value, (int, float)):
            values[index] = value + 1


def _order(graph: _Graph, randomness: random.Random) -> None:
    randomness.shuffle(graph.nodes)


EDITS = (_switch, _switch, _switch, _cut, _move, _move, _reroute, _primitive, _again, _value, _order)
