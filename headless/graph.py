"""A parsed workflow as plain data, and the problems found in one.

Whatever format a file had, what comes out is the API ("prompt") form: nodes by id, each input a value or a link.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes.errors import WorkflowInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_PROBLEMS = 50
"""How many problems an error's text spells out; its context holds all of them."""

KEPT_LEVELS = 16
"""How many of the subgraphs around a node a problem keeps; the node's id names all."""

SHOWN_LEVELS = 4
"""How many of them a message names."""

SHOWN_STEPS = 12
"""How many nodes of a cycle a message names."""


@dataclass(frozen=True)
class Link:
    """One node's output, as another node's input.

    Attributes:
        node_id: the node that gives.
        output_index: which of its outputs, from 0.
    """

    node_id: str
    output_index: int


@dataclass(frozen=True)
class WorkflowNode:
    """One node that would be sent to the host.

    Attributes:
        id: key within the workflow; ``parent:child`` where it came out of a subgraph.
        class_type: id of its class; empty where the file names none.
        title: what the user calls it.
        inputs: name to a ``Link`` or a JSON value.
        dropped: inputs whose link led nowhere (a muted or bypassed node), with the reason.
        pack: the node pack the file says the class comes from; may be empty.
        within: titles of the subgraph instances around it, from the outside in.
        meta: what the host is told of it besides its title: pack and version.
    """

    id: str
    class_type: str
    title: str
    inputs: Mapping[str, Any]
    dropped: Mapping[str, str] = field(default_factory=dict)
    pack: str = ""
    within: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InactiveNode:
    """A node the user switched off in the editor."""

    id: str
    class_type: str
    title: str
    mode: Literal["muted", "bypassed"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a workflow.

    Attributes:
        code: the host's name for it where it has one.
        message: what is wrong.
        node_id: the node it is about, empty where it is about the whole file.
        title: that node's title.
        class_type: that node's class.
        input: the input it is about; may be empty.
        hint: what to do.
        within: titles of the subgraph instances around that node, from the outside in.
    """

    code: str
    message: str
    node_id: str = ""
    title: str = ""
    class_type: str = ""
    input: str = ""
    hint: str = ""
    within: tuple[str, ...] = ()

    @classmethod
    def at(cls, node: WorkflowNode, code: str, message: str, *, input_name: str = "", hint: str = "") -> Problem:
        """A problem of ``node``; names that would fill a page are cut."""
        title, class_type, name = (printable(each, 200) for each in (node.title, node.class_type, input_name))
        within = tuple(printable(each, 100) for each in node.within[-KEPT_LEVELS:])
        return cls(code, message, node.id, title, class_type, name, hint, within)

    def line(self) -> str:
        """The problem on one line: code, node id and title, input, what is wrong, what to do."""
        where = ""
        if self.node_id:
            where = f"node {printable(self.node_id)}"
            if self.title:
                where += f" {shown(self.title)}"
            if self.within:
                where += f" in {' > '.join(shown(each, 40) for each in self.within[-SHOWN_LEVELS:])}"
            if self.input:
                where += f", input {shown(self.input)}"
            where += ": "
        return f"{self.code}: {where}{self.message}. {self.hint}".rstrip()


@dataclass(frozen=True)
class Workflow:
    """A parsed workflow.

    Attributes:
        nodes: nodes that would be sent to the host, by id.
        source: the format it was read from.
        editor_graph: the editor's own form, to be embedded in results; None where the file has none.
        inactive: nodes the user muted or bypassed.
        problems: what the reader could not make sense of; ``make_plan`` reports it with the rest.
        warnings: what the reader decided and the user should know.
    """

    nodes: Mapping[str, WorkflowNode]
    source: Literal["api", "editor"] = "api"
    editor_graph: Mapping[str, Any] | None = None
    inactive: tuple[InactiveNode, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def extra_pnginfo(self) -> dict[str, Any]:
        """What the host hands to nodes as ``EXTRA_PNGINFO``."""
        return {} if self.editor_graph is None else {"workflow": self.editor_graph}

    def to_prompt(self) -> dict[str, Any]:
        """The API form as the host takes it and as pictures carry it."""
        return {
            node.id: {
                "inputs": {
                    name: [value.node_id, value.output_index] if isinstance(value, Link) else value
                    for name, value in node.inputs.items()
                },
                "class_type": node.class_type,
                "_meta": {"title": node.title, **node.meta},
            }
            for node in self.nodes.values()
        }


def invalid(problems: Sequence[Problem], what: str = "The workflow cannot run") -> WorkflowInvalidError:
    """One error that lists every problem.

    Args:
        problems: at least one.
        what: how the text begins.
    """
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{what}: {count}", *(f"  {each.line()}" for each in problems[:SHOWN_PROBLEMS])]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
    return WorkflowInvalidError("\n".join(lines), problems=[asdict(each) for each in problems])


def printable(text: str, limit: int = 80) -> str:
    """``text`` on one line, no longer than ``limit``, without characters that could steer a terminal."""
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return "".join(char if char.isprintable() else "?" for char in text)


def shown(value: Any, limit: int = 80) -> str:
    """A JSON value as a message shows it: text in quotes, everything cut to ``limit``."""
    if isinstance(value, str):
        return f'"{printable(value, limit)}"'
    if isinstance(value, (bool, int, float)) or value is None:
        return printable(json.dumps(value), limit)
    return "a list" if isinstance(value, (list, tuple)) else "an object"


def circle(ids: Sequence[str], titles: Mapping[str, str]) -> str:
    """A cycle as text, ``2 "Denoise" -> 3 "Upscale" -> 2 "Denoise"``, its middle left out where it is long.

    Args:
        ids: the cycle's nodes along the flow, each once.
        titles: what the nodes are called.
    """
    names = [f"{printable(each, 40)} {shown(titles[each], 40)}" for each in ids]
    if len(names) > SHOWN_STEPS:
        half = SHOWN_STEPS // 2
        names[half:-half] = [f"... {len(names) - 2 * half} more ..."]
    return " -> ".join([*names, names[0]])


def from_smallest(cycle: Sequence[str]) -> list[str]:
    """The same cycle, beginning with its smallest id."""
    first = cycle.index(min(cycle, key=id_key))
    return [*cycle[first:], *cycle[:first]]


def id_key(node_id: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts 2 before 10 and ``5:9`` between 5 and 6; names come after numbers."""
    return tuple(
        (0, int(part), part) if part.isascii() and part.isdigit() and len(part) <= 18 else (1, 0, part)
        for part in node_id.split(":")
    )
