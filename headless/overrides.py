"""Change values of a workflow from the command line: ``--set NODE.INPUT=VALUE`` and the photos of ``-i``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from .dynamic_inputs import flat_inputs
from .editor_format import has_placeholders
from .editor_rewrite import graph_left_out, with_values
from .editor_text import with_placeholders_filled
from .graph import Link, Problem, Workflow, WorkflowNode, id_key, invalid, printable, shown
from .host_nodes import unknown_class_hint
from .schema import CUSTOM_COMBO, DYNAMIC_COMBO
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
    by_title = _by_title(workflow)
    nodes = dict(workflow.nodes)

    def parsed(setting: str) -> tuple[str, InputSchema, Any]:
        node_id, spec, text = _parsed(setting, replace(workflow, nodes=nodes), by_title, schemas)
        return node_id, spec, _value(nodes[node_id], spec, text)

    mended: list[tuple[str, str]] = []
    waiting = list(enumerate(settings))
    # Choices first, the outer before the inner: each decides which inputs there are to be set, and resets them.
    for only_choices in (True, False):
        while True:
            found = []
            for place in waiting:
                with suppress(_RefusedError):
                    found.append((place, *parsed(place[1])))
            if only_choices:
                found = [each for each in found if each[2].widget_type == DYNAMIC_COMBO]
                outermost = min((each[2].name.count(".") for each in found), default=0)
                found = [each for each in found if each[2].name.count(".") == outermost]
            if not found:
                break
            for _, node_id, spec, value in found:
                schema = schemas[nodes[node_id].class_type]
                text = _filled(schema.class_type, spec.name, value, nodes)
                nodes[node_id] = _with_value(nodes[node_id], schema, spec.name, text)
                mended.append((node_id, spec.name))
            done = {each[0] for each in found}
            waiting = [each for each in waiting if each not in done]
    problems = []
    for _, setting in waiting:
        try:
            parsed(setting)
        except _RefusedError as refused:
            problems.append(refused.problem)
    if problems:
        raise invalid(problems, "The settings cannot be applied")
    return _with_nodes(workflow, nodes, mended, schemas)


def _with_nodes(
    workflow: Workflow,
    nodes: Mapping[str, WorkflowNode],
    mended: Sequence[tuple[str, str]],
    schemas: Mapping[str, NodeSchema],
) -> Workflow:
    """A workflow with new nodes in place of some; what was wrong with inputs that have new values is so no longer."""
    graph, warnings = workflow.editor_graph, list(workflow.warnings)
    if graph is not None and mended:
        graph, (node_id, name) = with_values(graph, workflow.nodes, nodes, schemas)
        if graph is None:
            warnings.append(graph_left_out(nodes[node_id], name))
    problems = tuple(each for each in workflow.problems if (each.node_id, each.input) not in set(mended))
    return replace(workflow, nodes=nodes, editor_graph=graph, problems=problems, warnings=tuple(warnings))


def _with_value(node: WorkflowNode, schema: NodeSchema, name: str, value: Any) -> WorkflowNode:
    """A node with one input set; a link into it, a broken one too, is gone, and what hangs on a choice follows it."""
    inputs = {**node.inputs, name: value}
    spec = next((each for each in flat_inputs(schema, node.inputs) if each.name == name), None)
    if schema.class_type == CUSTOM_COMBO and value in _typed_choices(node):
        inputs["index"] = _typed_choices(node).index(value)
    elif spec is not None and spec.widget_type == DYNAMIC_COMBO and node.inputs.get(name) != value:
        inputs = _with_inputs_of_choice(schema, name, inputs)
    dropped = {key: reason for key, reason in node.dropped.items() if key != name}
    return replace(node, inputs=inputs, dropped=dropped)


def _filled(class_type: str, name: str, value: Any, nodes: Mapping[str, WorkflowNode]) -> Any:
    """A value with its placeholders filled in where the editor would do so: ``%Node.widget%`` goes by titles."""
    if not isinstance(value, str) or not has_placeholders(class_type, name):
        return value

    def text(title: str, widget: str) -> str | None:
        found = next((each.inputs.get(widget) for each in nodes.values() if each.title == title), None)
        return None if found is None or isinstance(found, (Link, list, dict)) else str(found)

    return with_placeholders_filled(value, text, datetime.now().astimezone())


def _with_inputs_of_choice(schema: NodeSchema, choice: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with those that come with a choice: links stay where they fit, widgets begin with their defaults."""
    prefix = f"{choice}."
    links = {name: value for name, value in inputs.items() if isinstance(value, Link)}
    found = {name: value for name, value in inputs.items() if not name.startswith(prefix)}
    while True:  # a choice may bring another
        wanted = [each for each in flat_inputs(schema, found) if each.name.startswith(prefix)]
        values = {each.name: links.get(each.name, each.widget_default if each.is_widget else None) for each in wanted}
        new = {name: value for name, value in values.items() if value is not None and name not in found}
        if not new:
            return found
        found |= new


def _typed_choices(node: WorkflowNode) -> list[Any]:
    """What the user has typed in as choices of a ``CustomCombo``."""
    return [value for name, value in node.inputs.items() if name.startswith("option") and value != ""]


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
        node_id, name = places[0]
        node = workflow.nodes[node_id]
        fed = _with_value(node, schemas[node.class_type], name, photo)
        return _with_nodes(workflow, {**workflow.nodes, node_id: fed}, [(node_id, name)], schemas)
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
        specs = flat_inputs(schema, node.inputs)
        spec = next((each for each in specs if each.name == input_name), None)
        if spec is not None and spec.is_widget:
            return node.id, spec, value
        complaint = complaint or _no_such_input(setting, node, specs, input_name, spec)
    if first_name is None:
        raise _refused(setting, "this is not of the form NODE.INPUT=VALUE", _FORM)
    raise complaint or _no_such_node(setting, first_name, workflow, by_title)


def _no_such_input(
    setting: str, node: WorkflowNode, specs: Sequence[InputSchema], name: str, spec: InputSchema | None
) -> _RefusedError:
    names = [each.name for each in specs if each.is_widget]
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
    typed = _typed_choices(node) if node.class_type == CUSTOM_COMBO else []
    if typed and text not in typed:
        some = ", ".join(shown(each, 40) for each in typed[:12])
        message, hint = f"{shown(text)} is not among the choices", f"Choose from {some}."
        raise _RefusedError(Problem.at(node, "value_not_in_list", message, input_name=spec.name, hint=hint))
    # Choices need not be text; the first that reads like the setting is meant.
    return next((each for each in spec.choices or () if str(each) == text), text)
