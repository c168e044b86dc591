"""Turn the editor's own format into what the editor would send to the host.

The rules are those of the editor's export (numbers as in the design notes on ComfyUI): virtual nodes are applied first
(1); muted and bypassed nodes are left out (2, 3), a bypassed one passing through what fits its consumer (4, 5);
subgraphs are taken apart (6, 7); widget values are matched to inputs by position (8, 9, 12) or by name (14), dynamic
ones included (13); links override them (10) and are matched by input name (11); texts are filled in (16). Group nodes
(15) are refused. Where a link leads is found out in `editor_links`.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes.errors import WorkflowFormatError

from .editor_graph import MUTED, EditorFile, read_editor_file
from .editor_ids import check_expansion, with_unique_ids
from .editor_links import LinkResolver, Scope, Source
from .editor_live import load_live
from .editor_nodes import PRIMITIVE, LiveGraph, LiveNode, sockets_by_source
from .editor_text import with_choices_made, with_placeholders_filled
from .editor_widgets import UNSET, Widget, as_entered, draws_widget
from .graph import InactiveNode, Problem, Workflow, WorkflowNode, printable, shown
from .schema import CUSTOM_COMBO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .editor_widgets import Socket
    from .json_text import Limits
    from .schema import NodeSchema

_GROUP_PREFIXES = ("workflow>", "workflow/")
_API_HINT = "In ComfyUI, save it with Workflow > Export (API): that file has everything spelled out."
_REPLACE_PROPERTY = "Run widget replace on values"

_GROWTH = 2  # times the size of the largest file

_NAMED_FILES = frozenset(
    {"CLIPSave", "LoraSave", "ModelSave", "Save3DAdvanced", "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveAudio"}
    | {"SaveAudioAdvanced", "SaveAudioMP3", "SaveAudioOpus", "SaveGLB", "SaveGaussianSplat", "SaveImage"}
    | {"SaveImageAdvanced", "SaveLatent", "SavePointCloud", "SaveSVGNode", "SaveVideo", "SaveWEBM", "VAESave"}
)
"""Classes in whose ``filename_prefix`` the editor fills in placeholders."""


def has_placeholders(class_type: str, name: str) -> bool:
    """Whether the editor fills placeholders in when it sends this input."""
    return name == "filename_prefix" and class_type in _NAMED_FILES


def convert(
    raw: Mapping[str, Any], schemas: Mapping[str, NodeSchema], limits: Limits, *, now: datetime | None = None
) -> Workflow:
    """Convert a graph in the editor's own format.

    Args:
        raw: the JSON object.
        schemas: what is known of node classes: widget values are saved without names.
        limits: what is refused as too large.
        now: what ``%date:...%`` in file names is filled in with; by default the time of the call.

    Raises:
        WorkflowFormatError: not of the form the editor writes, too large once subgraphs are taken apart, or it uses
            group nodes.
    """
    file = read_editor_file(raw, limits)
    _refuse_group_nodes(file)
    check_expansion(file, limits)
    graph = load_live(with_unique_ids(file), schemas)
    return _Converter(graph, now or datetime.now().astimezone(), limits).workflow(raw)


def _refuse_group_nodes(file: EditorFile) -> None:
    for graph in (file.graph, *(each.graph for each in file.subgraphs.values())):
        for node in graph.nodes.values():
            if node.type.startswith(_GROUP_PREFIXES):
                raise WorkflowFormatError(
                    f"node {printable(node.id)} {shown(node.title or node.type)} is a group node, a kind ComfyUI gave"
                    " up",
                    hint=f"Ungroup it in the editor (right click > Convert to nodes). {_API_HINT}",
                )


class _Converter:
    def __init__(self, graph: LiveGraph, now: datetime, limits: Limits) -> None:
        self.graph = graph
        self.now = now
        self.room = _Room(limits)
        self.resolver = LinkResolver()
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._by_name: dict[str, LiveNode] | None = None

    def workflow(self, raw: Mapping[str, Any]) -> Workflow:
        everything = list(_expanded(self.graph))
        fed = {id(scope.graph): scope.graph for scope, _ in everything}
        for graph in fed.values():
            self._apply_primitives(graph)
        nodes: dict[str, WorkflowNode] = {}
        inactive: list[InactiveNode] = []
        for scope, node in everything:
            node_id = scope.id_of(node)
            if node.saved.off:
                mode: Literal["muted", "bypassed"] = "muted" if node.saved.mode == MUTED else "bypassed"
                if node.saved.type not in _SILENT:
                    inactive.append(InactiveNode(node_id, node.saved.type, node.title, mode))
            elif not node.virtual:
                nodes[node_id] = self._emitted(scope, node, node_id)
        return Workflow(
            nodes=nodes,
            source="editor",
            editor_graph=raw,
            inactive=tuple(inactive),
            problems=tuple(self.problems),
            warnings=tuple(self.warnings),
        )

    def _apply_primitives(self, graph: LiveGraph) -> None:
        """Copy each primitive's value into the widgets it is linked to, whatever the modes (rule 1)."""
        primitives = [node for node in graph.nodes.values() if node.saved.type == PRIMITIVE]
        fed = sockets_by_source(graph) if primitives else {}
        for primitive in primitives:
            self._apply_primitive(primitive, fed.get((primitive.id, 0), []))

    def _apply_primitive(self, primitive: LiveNode, targets: list[tuple[LiveNode, Socket]]) -> None:
        if not targets or (targets[0][1].widget is None and not draws_widget(targets[0][1].type)):
            return
        first = targets[0][1].widget
        value = _primitive_value(primitive, UNSET if first is None else first.value)
        if value is UNSET:
            return
        if isinstance(value, str) and primitive.saved.properties.get(_REPLACE_PROPERTY):
            value = with_placeholders_filled(value, self._widget_text, self.now)
        for node, socket in targets:
            if socket.widget is not None:
                node.set_widget(socket.widget, as_entered(socket.widget.spec, value))

    def _emitted(self, scope: Scope, node: LiveNode, node_id: str) -> WorkflowNode:
        inputs: dict[str, Any] = {}
        chosen: list[str] = []
        self.room.take(node_id, node.title, node.saved.type)
        for widget in node.fields.widgets:
            self.room.take(widget.name, widget.value)
            value = self._sent(scope, node, widget, chosen)
            if value is not widget.value:  # a text that was filled in
                self.room.take(value)
            if widget.sent and widget.name and value is not UNSET:
                inputs[widget.name] = _wrapped(widget, value)
        dropped: dict[str, str] = {}
        broken: list[tuple[str, Source]] = [
            (
                name,
                Source(
                    code="bad_linked_input", reason=f"it names link {printable(link)}, which the file does not have"
                ),
            )
            for name, link in node.dangling.items()
        ]
        for socket in node.fields.sockets:
            source = self.resolver.source_of(scope, node, socket)
            if source is None:
                continue
            self.room.take(socket.name, source.value if source.link is None else source.link.node_id)
            if source.link is not None:
                inputs[socket.name] = source.link
            elif source.value is not UNSET:
                inputs[socket.name] = {"__value__": source.value} if isinstance(source.value, list) else source.value
            elif source.code:
                broken.append((socket.name, source))
            elif source.reason:
                dropped[socket.name] = source.reason
        made = WorkflowNode(
            id=node_id,
            class_type=node.saved.type,
            title=node.title,
            inputs=inputs,
            dropped=dropped,
            pack=node.saved.pack,
            within=scope.titles,
            meta=_meta(node.saved.properties),
        )
        self.problems += [
            Problem.at(made, source.code, source.reason, input_name=name, hint="Reconnect the input in the editor.")
            for name, source in broken
        ]
        self.warnings += [
            Problem.at(
                made,
                "choice_made",
                "of its {this|or that} one is taken, the same at each run; the editor takes one by chance",
                input_name=name,
            )
            for name in chosen
        ]
        self.warnings += [
            Problem.at(
                made,
                "values_disagree",
                f"the file has {shown(at_position)} for it by position and {shown(by_name)} by name",
                input_name=name,
                hint="The first is taken, as in the editor. Open the file there, look, and save it again.",
            )
            for name, at_position, by_name in node.fields.disagreeing
        ]
        return made

    def _sent(self, scope: Scope, node: LiveNode, widget: Widget, chosen: list[str]) -> Any:
        """What is sent of a widget: mostly its value. Its name goes to ``chosen`` where there was a choice to make."""
        value, spec = widget.value, widget.spec
        if node.saved.type == CUSTOM_COMBO and widget.name == "index":
            return self._custom_index(scope, node)
        if not isinstance(value, str) or spec is None:
            return value
        if spec.options.get("dynamicPrompts") and spec.type == "STRING":
            text, choice = with_choices_made(value)
            if choice:
                chosen.append(widget.name)
            return text
        if has_placeholders(node.saved.type, widget.name):
            return with_placeholders_filled(value, self._widget_text, self.now)
        return value

    def _custom_index(self, scope: Scope, node: LiveNode) -> int:
        """Which of the typed-in choices is taken, -1 for none."""
        choice = node.fields.widget("choice")
        socket = node.fields.socket("choice")
        source = self.resolver.source_of(scope, node, socket) if socket is not None else None
        value = source.value if source is not None and source.value is not UNSET else choice.value if choice else UNSET
        options = [each.value for each in node.fields.widgets if each.name.startswith("option")]
        return options.index(value) if value in options else -1

    def _widget_text(self, node_name: str, widget_name: str) -> str | None:
        """Value of a widget for a placeholder: its node is told by the name meant for that, else by its title."""
        if self._by_name is None:
            self._by_name = {}
            everywhere = [node for _, node in _expanded(self.graph)]
            for node in everywhere:
                self._by_name.setdefault(f"name {node.saved.properties.get('Node name for S&R')}", node)
                self._by_name.setdefault(f"title {node.title}", node)
        found = self._by_name.get(f"name {node_name}") or self._by_name.get(f"title {node_name}")
        widget = found.fields.widget(widget_name) if found is not None else None
        if widget is None:
            return None
        return "" if widget.value is UNSET or widget.value is None else str(widget.value)


def _expanded(graph: LiveGraph) -> Iterator[tuple[Scope, LiveNode]]:
    """Every node, those of a subgraph once for each of its instances, in the file's order."""
    outermost = Scope((), graph)
    waiting = [(outermost, iter(graph.nodes.values()))]
    while waiting:
        current, nodes = waiting[-1]
        node = next(nodes, None)
        if node is None:
            waiting.pop()
            continue
        yield current, node
        # The editor looks at the mode of the outermost instances only: of those inside a subgraph it sends what they
        # hold, though nothing that depends on them gets a value.
        if node.subgraph is not None and not (node.saved.off and current.instance is None):
            inner = current.inside(node)
            waiting.append((inner, iter(inner.graph.nodes.values())))


_SILENT = frozenset({"Note", "MarkdownNote"})


class _Room:
    """How much more a file may grow to as its subgraphs are taken apart: each instance has all values again."""

    def __init__(self, limits: Limits) -> None:
        self.allowed = _GROWTH * limits.file_bytes
        self.left = self.allowed
        self._sizes: dict[int, int] = {}

    def take(self, *values: Any) -> None:
        """Count values in.

        Raises:
            WorkflowFormatError: they are too many.
        """
        self.left -= sum(len(value) if isinstance(value, str) else self._size(value) for value in values)
        if self.left < 0:
            raise WorkflowFormatError(
                f"with its subgraphs taken apart it has more than the {self.allowed:,} characters that are allowed"
            )

    def _size(self, value: Any) -> int:
        if not isinstance(value, (list, dict)):
            return 1
        if id(value) not in self._sizes:  # the file's own objects, which outlive this
            self._sizes[id(value)] = len(json.dumps(value))
        return self._sizes[id(value)]


def _primitive_value(node: LiveNode, otherwise: Any) -> Any:
    """The value of a primitive's widget: as saved, else that of the first widget it feeds."""
    saved = node.saved.widgets_values
    if isinstance(saved, list) and saved:
        return saved[0]
    named = {**(saved if isinstance(saved, dict) else {}), **node.saved.widgets_named}
    return named.get("value", otherwise)


def _wrapped(widget: Widget, value: Any) -> Any:
    """A value as the host takes it: a bare list would read as a link."""
    if widget.spec is not None and widget.spec.widget_type == "CURVE" and value is not None:
        return {"__type__": "CURVE", "__value__": value}
    return {"__value__": value} if isinstance(value, list) else value


def _meta(properties: Mapping[str, Any]) -> dict[str, str]:
    """Which pack and version the node comes from, where the file says."""
    return {name: value for name in ("cnr_id", "aux_id", "ver") if isinstance(value := properties.get(name), str)}
