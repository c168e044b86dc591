"""Ids of nodes inside subgraphs, and the order in which subgraphs are put together.

A run is told of a node by its ids from the outside in (``5:9``), so a file in which two subgraphs use one number gets
the editor's own new numbers.
"""

from __future__ import annotations

from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import WorkflowFormatError

from .editor_graph import EditorFile, EditorGraph, EditorLink, EditorNode, EditorSubgraph, reference
from .graph import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .json_text import Limits

_Renumbered = dict[str, dict[str, str]]
"""New ids by old ones, for each subgraph."""


def with_unique_ids(file: EditorFile) -> EditorFile:
    """The same file, nodes of subgraphs renumbered where their number is taken elsewhere in it."""
    used = {int(each) for each in file.graph.nodes if _is_number(each)}
    counter = max([file.last_node_id, *used])
    renumbered: _Renumbered = {}
    for subgraph in file.subgraphs.values():
        for node_id in subgraph.graph.nodes:
            if not _is_number(node_id):
                continue
            number = int(node_id)
            if number in used:
                number = counter + 1
                while number in used:
                    number += 1
                renumbered.setdefault(subgraph.id, {})[node_id] = str(number)
            counter = max(counter, number)
            used.add(number)
    if not renumbered:
        return file
    return replace(
        file,
        graph=_moved(file.graph, {}, renumbered),
        subgraphs={
            name: replace(each, graph=_moved(each.graph, renumbered.get(name, {}), renumbered))
            for name, each in file.subgraphs.items()
        },
    )


def check_expansion(file: EditorFile, limits: Limits) -> None:
    """Refuse a file that a few subgraphs would unfold into more than is allowed.

    Raises:
        WorkflowFormatError: it would be too many nodes or levels, or a subgraph holds itself.
    """
    sizes: dict[str, tuple[int, int]] = {}  # nodes and levels

    def unfolded(graph: EditorGraph, *, outermost: bool) -> tuple[int, int]:
        total, deepest = len(graph.nodes), 0
        for node in graph.nodes.values():
            inner = sizes.get(node.type)
            if inner is not None and not (outermost and node.off):
                total, deepest = total + inner[0], max(deepest, inner[1])
        return total, deepest + 1

    for subgraph in innermost_first(file.subgraphs):
        sizes[subgraph.id] = unfolded(subgraph.graph, outermost=False)
    nodes, levels = unfolded(file.graph, outermost=True)
    if nodes > limits.nodes:
        raise WorkflowFormatError(
            f"with its subgraphs taken apart it has more than the {limits.nodes:,} nodes that are allowed"
        )
    if levels > limits.depth:
        raise WorkflowFormatError(f"its subgraphs lie more than {limits.depth} deep inside each other")


def innermost_first(subgraphs: Mapping[str, EditorSubgraph]) -> list[EditorSubgraph]:
    """The definitions, each after those it holds instances of.

    Raises:
        WorkflowFormatError: one holds itself, directly or not.
    """
    holds = {
        name: {node.type for node in each.graph.nodes.values() if node.type in subgraphs}
        for name, each in subgraphs.items()
    }
    try:
        return [subgraphs[name] for name in TopologicalSorter(holds).static_order()]
    except CycleError as error:
        raise WorkflowFormatError(
            f"the subgraph {shown(subgraphs[error.args[1][0]].name)} holds itself",
            hint="Take the instance of it out of it, or use the file from before it was put there.",
        ) from None


def _is_number(node_id: str) -> bool:
    return node_id.isascii() and node_id.isdigit() and len(node_id) <= 15


def _moved(graph: EditorGraph, new_ids: Mapping[str, str], renumbered: _Renumbered) -> EditorGraph:
    nodes = [_with_new_widget_owners(node, renumbered) for node in graph.nodes.values()]
    return EditorGraph(
        nodes={new_ids.get(node.id, node.id): replace(node, id=new_ids.get(node.id, node.id)) for node in nodes},
        links={
            name: EditorLink(
                id=name,
                origin_id=new_ids.get(link.origin_id, link.origin_id),
                origin_slot=link.origin_slot,
                target_id=new_ids.get(link.target_id, link.target_id),
                target_slot=link.target_slot,
            )
            for name, link in graph.links.items()
        },
    )


def _with_new_widget_owners(node: EditorNode, renumbered: _Renumbered) -> EditorNode:
    """An instance, its list of shown widgets naming the new ids."""
    new_ids, listed = renumbered.get(node.type), node.properties.get("proxyWidgets")
    if not new_ids or not isinstance(listed, list):
        return node

    def moved(entry: Any) -> Any:
        if not isinstance(entry, list) or not entry:
            return entry
        return [new_ids.get(reference(entry[0]) or "", entry[0]), *entry[1:]]

    return replace(node, properties={**node.properties, "proxyWidgets": [moved(each) for each in listed]})
