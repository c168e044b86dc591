"""A workflow file as a sheet of nodes in groups: where a node goes, how large it is, in what order its widgets lie.

The editor's own format (0.4). Types, widgets and defaults come from the node classes; what is on which sheet is in
``make_workflows.py``.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from photokeep_nodes import NODE_CLASS_MAPPINGS

_WIDTH, _GAP, _TITLE = 310, 30, 30  # of a node; between nodes; the bar above a node, which its size does not count
_SLOT, _WIDGET, _REST = 20, 26, 16
_MARGIN, _GROUP_TITLE = 20, 44
_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN"}
_SIZES = {"PhotokeepLoadPhoto": (320, 420), "PhotokeepSavePhoto": (420, 560)}  # they show the picture
_COLOURS = {
    "Photo": "#3f789e",
    "Look": "#88A",
    "Clean": "#8A8",
    "Faces": "#b58b2a",
    "Colour": "#a1309b",
    "Size": "#b06634",
    "Shelf": "#444",
}


@dataclass
class Node:
    """One node: its class, its title, its widgets that differ from the defaults, and where its inputs come from."""

    kind: str
    title: str | None = None
    mode: int = 0
    widgets: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, tuple[Node, str]] = field(default_factory=dict)
    id: int = 0
    position: tuple[int, int] = (0, 0)

    def out(self, name: str) -> tuple[Node, str]:
        """One of its outputs, to connect."""
        return self, name

    @property
    def declared(self) -> dict[str, tuple[Any, dict[str, Any], bool]]:
        """Inputs by name: type, options, whether it is optional; in the order in which the editor has them."""
        types = NODE_CLASS_MAPPINGS[self.kind].INPUT_TYPES()
        return {
            name: (spec[0], spec[1] if len(spec) > 1 else {}, part == "optional")
            for part in ("required", "optional")
            for name, spec in types.get(part, {}).items()
        }

    @property
    def sockets(self) -> list[str]:
        """Names of the inputs that take a link."""
        return [name for name, (kind, _, _) in self.declared.items() if not _is_widget(kind)]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, enough for its slots and widgets."""
        if self.kind in _SIZES:
            return _SIZES[self.kind]
        rows = max(len(self.sockets), len(NODE_CLASS_MAPPINGS[self.kind].RETURN_TYPES))
        widgets = len(self.declared) - len(self.sockets)
        return _WIDTH, _REST + _SLOT * rows + _WIDGET * widgets


def _is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in _WIDGETS


@dataclass
class Group:
    """Nodes that belong together, in columns from left to right."""

    title: str
    colour: str
    columns: list[list[Node]]


@dataclass
class Sheet:
    """One workflow file."""

    name: str
    note: str
    groups: list[Group]
    shelf: list[Node] = field(default_factory=list)

    def saved(self) -> dict[str, Any]:
        """What the editor would save."""
        groups, nodes = self._laid_out()
        for number, node in enumerate(nodes, 1):
            node.id = number
        links: list[list[Any]] = []
        outgoing: dict[tuple[int, int], list[int]] = {}
        for node in nodes:
            for at, name in enumerate(node.sockets):
                if name not in node.inputs:
                    continue
                source, output = node.inputs[name]
                cls = NODE_CLASS_MAPPINGS[source.kind]
                slot = cls.RETURN_NAMES.index(output)
                links.append([len(links) + 1, source.id, slot, node.id, at, cls.RETURN_TYPES[slot]])
                outgoing.setdefault((source.id, slot), []).append(len(links))
        incoming = {(link[3], link[4]): link[0] for link in links}
        entries = [_entry(node, order, incoming, outgoing) for order, node in enumerate(nodes)]
        entries.append(_note(self.note, len(nodes) + 1, len(nodes)))
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"photokeep/workflows/{self.name}")),
            "revision": 0,
            "last_node_id": len(entries),
            "last_link_id": len(links),
            "nodes": entries,
            "links": links,
            "groups": groups,
            "config": {},
            # Clear of the editor's bars, with the note in sight.
            "extra": {"ds": {"scale": 0.6, "offset": [120, 120 - entries[-1]["pos"][1]]}},
            "version": 0.4,
        }

    def _laid_out(self) -> tuple[list[dict[str, Any]], list[Node]]:
        """Give every node its place; the groups as saved, and the nodes from left to right."""
        saved: list[dict[str, Any]] = []
        nodes: list[Node] = []
        left = bottom = 0
        for group in self.groups:
            width, height = _arrange(group.columns, left + _MARGIN, _GROUP_TITLE)
            saved.append(_group(len(saved) + 1, group, left, 0, width + 2 * _MARGIN, height))
            nodes += [node for column in group.columns for node in column]
            left += width + 2 * _MARGIN + _GAP
            bottom = max(bottom, height)
        if self.shelf:
            top = bottom + 2 * _GAP
            across = max(1, (left - _GAP - 2 * _MARGIN + _GAP) // (_WIDTH + _GAP))
            columns = [self.shelf[i::across] for i in range(min(across, len(self.shelf)))]
            width, height = _arrange(columns, _MARGIN, top + _GROUP_TITLE)
            shelf = Group("More models: connect one in place of another", "Shelf", columns)
            saved.append(_group(len(saved) + 1, shelf, 0, top, width + 2 * _MARGIN, height - top))
            nodes += self.shelf
        return saved, nodes


def _arrange(columns: list[list[Node]], left: int, top: int) -> tuple[int, int]:
    """Place columns of nodes; their width together, and the bottom of the longest."""
    start, bottom = left, top
    for column in columns:
        y = top
        for node in column:
            node.position = (left, y + _TITLE)
            y += _TITLE + node.size[1] + _GAP
        bottom = max(bottom, y)
        left += max(node.size[0] for node in column) + _GAP
    return left - _GAP - start, bottom


def _group(number: int, group: Group, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": group.title,
        "bounding": [left, top, width, height],
        "color": _COLOURS[group.colour],
        "font_size": 24,
        "flags": {},
    }


def _entry(
    node: Node, order: int, incoming: dict[tuple[int, int], int], outgoing: dict[tuple[int, int], list[int]]
) -> dict[str, Any]:
    cls = NODE_CLASS_MAPPINGS[node.kind]
    declared = node.declared
    unknown = (node.widgets.keys() | node.inputs.keys()) - declared.keys()
    if unknown:
        raise ValueError(f"{node.kind} has no {', '.join(sorted(unknown))}")
    inputs = []
    for at, name in enumerate(node.sockets):
        kind, _, optional = declared[name]
        slot = {"name": name, "type": kind, "link": incoming.get((node.id, at))}
        inputs.append({**slot, "shape": 7} if optional else slot)
    outputs = [
        {"name": name, "type": kind, "links": outgoing.get((node.id, slot)), "slot_index": slot}
        for slot, (name, kind) in enumerate(zip(cls.RETURN_NAMES, cls.RETURN_TYPES, strict=True))
    ]
    values = []
    for name, (kind, options, _) in declared.items():
        if _is_widget(kind):
            values.append(node.widgets.get(name, options.get("default", kind[0] if isinstance(kind, list) else None)))
    if any(options.get("image_upload") for _, options, _ in declared.values()):
        values.append("image")  # the upload button's
    entry = {
        "id": node.id,
        "type": node.kind,
        "pos": list(node.position),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": node.mode,
        "inputs": inputs,
        "outputs": outputs,
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": values,
    }
    return entry if node.title is None else {**entry, "title": node.title}


def _note(text: str, number: int, order: int) -> dict[str, Any]:
    lines = sum(1 + len(line) // 105 for line in text.splitlines())
    height = 60 + 22 * lines
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, -height - 60],
        "size": [820, height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "About",
        "properties": {},
        "widgets_values": [text],
    }


def text_of(sheet: Sheet) -> str:
    """The file's text."""
    return json.dumps(sheet.saved(), indent=1) + "\n"
