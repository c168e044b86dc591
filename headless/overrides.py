"""Change values of a workflow from the command line: ``--set NODE.INPUT=VALUE`` and the photos of ``-i``."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from .editor_format import with_widget_value
from .graph import Problem, Workflow, WorkflowNode, id_key, invalid, printable, shown
from .host_nodes import unknown_class_hint
from .validation import as_number, closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .plan import Plan
    from .schema import InputSchema, NodeSchema

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_MAX_SPLITS = 1000
_FORM = "Write NODE.INPUT=VALUE, NODE being an id or a title."


def apply_overrides(workflow: Workflow, settings: Sequence[str], schemas: Mapping[str, NodeSchema]) -> Workflow:
    """Set widget values of a workflow.

    Args:
        workflow: left as it is.
        settings: ``NODE.INPUT=VALUE`` each; NODE is an id or a title (any case; it may have dots and spaces), VALUE is
            read as the input's type. A linked input loses its link. Later settings win.
        schemas: every class known.

    Returns:
        A workflow with the values set; ranges and choices are left for ``make_plan`` to check.

    Raises:
        WorkflowInvalidError: a setting names no node, several nodes or no such input, or its value cannot be read;
            ``context["problems"]`` lists every one.
    """
    values: list[tuple[str, str, Any]] = []
    by_title = _by_title(workflow)
    problems: list[Problem] = []
    for setting in settings:
        try:
            node_id, spec, text = _parsed(setting, workflow, by_title, schemas)
            values.append((node_id, spec.name, _value(workflow.nodes[node_id], spec, text)))
        except _RefusedError as refused:
            problems.append(refused.problem)
    if problems:
        raise invalid(problems, "The settings cannot be applied")
    return _with_values(workflow, values, schemas)


def _with_values(
    workflow: Workflow, values: Sequence[tuple[str, str, Any]], schemas: Mapping[str, NodeSchema]
) -> Workflow:
    """A workflow with (node id, input name, value) set; links into those inputs, broken ones too, are gone."""
    nodes, graph = dict(workflow.nodes), workflow.editor_graph
    for node_id, name, value in values:
        node = nodes[node_id]
        dropped = {key: reason for key, reason in node.dropped.items() if key != name}
        nodes[node_id] = replace(node, inputs={**node.inputs, name: value}, dropped=dropped)
        if graph is not None:
            graph = with_widget_value(graph, node_id, schemas[node.class_type], name, value)
    mended = {(node_id, name) for node_id, name, _ in values}
    problems = tuple(each for each in workflow.problems if (each.node_id, each.input) not in mended)
    return replace(workflow, nodes=nodes, editor_graph=graph, problems=problems)


def input_stages(plan_or_workflow: Plan | Workflow, schemas: Mapping[str, NodeSchema]) -> list[tuple[str, str]]:
    """Inputs that name input photos, as (node id, input name), smallest id first."""
    members = plan_or_workflow.nodes if isinstance(plan_or_workflow, Workflow) else plan_or_workflow.stages
    return [
        (node_id, name)
        for node_id in sorted(members, key=id_key)
        if (schema := schemas.get(members[node_id].class_type)) is not None
        for name in schema.file_inputs
    ]


def feed_photo(workflow: Workflow, photo: str, schemas: Mapping[str, NodeSchema]) -> Workflow:
    """Put a photo into the workflow's only load node.

    Args:
        workflow: left as it is.
        photo: what the load node takes: a name or a path.
        schemas: every class known.

    Raises:
        WorkflowInvalidError: there is no load node, or more than one.
    """
    places = input_stages(workflow, schemas)
    if len(places) == 1:
        return _with_values(workflow, [(*places[0], photo)], schemas)
    if not places:
        loaders = [schema.display_name for schema in schemas.values() if schema.file_inputs]
        hint = f"Add a node that does: {', '.join(loaders[:5])}." if loaders else ""
        raise invalid([Problem("no_input_node", "no node of this workflow reads a photo", hint=hint)])
    named = ", ".join(f"{printable(node_id)} {shown(workflow.nodes[node_id].title)}" for node_id, _ in places[:10])
    raise invalid(
        [
            Problem(
                "several_input_nodes",
                f"{len(places)} inputs of this workflow read photos: {named}",
                hint=f"Say which one with --set {printable(places[0][0])}.{places[0][1]}=PATH.",
            )
        ]
    )


class _RefusedError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _refused(setting: str, message: str, hint: str, node: WorkflowNode | None = None) -> _RefusedError:
    text = f"{shown(setting)}: {message}"
    if node is None:
        return _RefusedError(Problem("bad_override", text, hint=hint))
    return _RefusedError(Problem.at(node, "bad_override", text, hint=hint))


def _by_title(workflow: Workflow) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in workflow.nodes.values():
        found.setdefault(_folded(node.title), []).append(node.id)
    return found


def _folded(title: str) -> str:
    return " ".join(title.casefold().split())


def _splits(setting: str) -> Iterator[tuple[str, str, str]]:
    """Every way to read a setting as node, input and value, the most likely first.

    Titles may hold dots and equals signs and so may values; an input's name hardly ever does, so the first equals sign
    and the last dot before it are tried first.
    """
    for equals in (index for index, char in enumerate(setting) if char == "="):
        left, value = setting[:equals], setting[equals + 1 :]
        for dot in (index for index in range(len(left) - 1, -1, -1) if left[index] == "."):
            node, name = left[:dot].strip(), left[dot + 1 :].strip()
            if node and name:
                yield node, name, value


def _parsed(
    setting: str, workflow: Workflow, by_title: Mapping[str, list[str]], schemas: Mapping[str, NodeSchema]
) -> tuple[str, InputSchema, str]:
    complaint: _RefusedError | None = None
    first_name: str | None = None
    for node_name, input_name, value in islice(_splits(setting), _MAX_SPLITS):
        first_name = first_name or node_name
        node_ids = [node_name] if node_name in workflow.nodes else by_title.get(_folded(node_name), [])
        if not node_ids:
            continue
        if len(node_ids) > 1:
            ids = ", ".join(printable(each) for each in sorted(node_ids, key=id_key))
            complaint = complaint or _refused(
                setting, f"{len(node_ids)} nodes are called {shown(node_name)}", f"Use an id: {ids}."
            )
            continue
        node = workflow.nodes[node_ids[0]]
        schema = schemas.get(node.class_type)
        if schema is None:
            complaint = complaint or _refused(
                setting,
                f"there is no node class {shown(node.class_type)} here",
                unknown_class_hint(node, schemas),
                node,
            )
            continue
        spec = schema.input(input_name)
        if spec is not None and spec.is_widget:
            return node.id, spec, value
        complaint = complaint or _no_such_input(setting, node, schema, input_name, spec)
    if first_name is None:
        raise _refused(setting, "this is not of the form NODE.INPUT=VALUE", _FORM)
    raise complaint or _no_such_node(setting, first_name, workflow, by_title)


def _no_such_input(
    setting: str, node: WorkflowNode, schema: NodeSchema, name: str, spec: InputSchema | None
) -> _RefusedError:
    names = [each.name for each in schema.widgets]
    what = f"has no input {shown(name)}" if spec is None else f"takes {shown(name)} from a link only"
    near = closest(name, names)
    hint = f"Did you mean {near}? " if near else ""
    hint += f"It can be set: {', '.join(names)}." if names else "Nothing of this node can be set."
    return _refused(setting, f"this node {what}", hint, node)


def _no_such_node(setting: str, name: str, workflow: Workflow, by_title: Mapping[str, list[str]]) -> _RefusedError:
    for off in workflow.inactive:
        if off.id == name or _folded(off.title) == _folded(name):
            return _refused(
                setting,
                f"node {printable(off.id)} {shown(off.title)} is {off.mode} in this workflow",
                "Switch it on in the editor.",
            )
    near = closest(_folded(name), [title for title in by_title if title])
    if near:
        hint = f"Did you mean {shown(workflow.nodes[by_title[near][0]].title)}?"
    else:
        some = sorted(workflow.nodes.values(), key=lambda node: id_key(node.id))[:10]
        hint = "Its nodes are " + ", ".join(f"{printable(node.id)} {shown(node.title, 40)}" for node in some)
        hint += "." if len(some) == len(workflow.nodes) else f" and {len(workflow.nodes) - len(some)} more."
    return _refused(setting, f"there is no node {shown(name)}", hint)


def _value(node: WorkflowNode, spec: InputSchema, text: str) -> Any:
    """Read a setting's text as a value of the input's type."""
    if spec.type in {"INT", "FLOAT"}:
        try:
            return as_number(text.strip(), spec.type)
        except (ValueError, OverflowError):
            kind = "a whole number" if spec.type == "INT" else "a number"
            raise _RefusedError(
                Problem.at(
                    node,
                    "invalid_input_type",
                    f"{shown(text)} is not {kind}",
                    input_name=spec.name,
                    hint=f"Give {kind}.",
                )
            ) from None
    if spec.type == "BOOLEAN":
        word = text.strip().casefold()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise _RefusedError(
            Problem.at(
                node,
                "invalid_input_type",
                f"{shown(text)} is neither true nor false",
                input_name=spec.name,
                hint="Give true or false.",
            )
        )
    # Choices need not be text; the first that reads like the setting is meant.
    return next((each for each in spec.choices or () if str(each) == text), text)
