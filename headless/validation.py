"""Check one node as the host would, by the host's names for what can be wrong, and coerce its values.

Unlike the host, which stops at the first error of an input's source, every input of every node is looked at.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import PhotokeepError

from .dynamic_inputs import flat_inputs
from .editor_widgets import is_added
from .graph import Link, Problem, Workflow, WorkflowNode, printable, shown
from .schema import LIVE_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .schema import InputSchema, NodeSchema, OutputSchema

_ANY_TYPES = frozenset({"*", "COMFY_MATCHTYPE_V3"})
_SHOWN_CHOICES = 12

_LINK_ONLY = LIVE_TYPES | {"IMAGE", "MASK", "UPSCALE_MODEL"}
"""Types whose values exist only while a workflow runs: no widget, no JSON form."""


@dataclass
class Report:
    """What a check found, in the order it was found."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    guesses: int = 100  # looking for similar names is slow, and nobody reads thousands of suggestions

    def may_guess(self) -> bool:
        """Whether one more search for similar names is worth its time."""
        self.guesses -= 1
        return self.guesses >= 0

    def problem(self, node: WorkflowNode, code: str, message: str, input_name: str = "", hint: str = "") -> None:
        """Note a reason why the workflow cannot run."""
        self.problems.append(Problem.at(node, code, message, input_name=input_name, hint=hint))

    def warning(self, node: WorkflowNode, code: str, message: str, input_name: str = "", hint: str = "") -> None:
        """Note something the user should know."""
        self.warnings.append(Problem.at(node, code, message, input_name=input_name, hint=hint))


def checked_inputs(
    node: WorkflowNode, schema: NodeSchema, workflow: Workflow, schemas: Mapping[str, NodeSchema], report: Report
) -> dict[str, Any]:
    """Check a node's inputs and coerce its values.

    Args:
        node: the node.
        schema: its class.
        workflow: the graph its links lead into.
        schemas: every class known.
        report: gets what is wrong.

    Returns:
        Good inputs in the class's order: a ``Link``, or a value of the input's type.
    """
    inputs: dict[str, Any] = {}
    received: dict[str, str] = {}
    specs = flat_inputs(schema, node.inputs)
    for spec in specs:
        if spec.name not in node.inputs:
            if spec.required:
                _report_missing(node, spec, report)
            continue
        value = node.inputs[spec.name]
        if isinstance(value, Link):
            good = _check_link(node, spec, value, workflow, schemas, report, received, schema)
        elif isinstance(value, list):
            report.problem(
                node,
                "bad_linked_input",
                f"{shown(value)} is neither a value nor a link",
                spec.name,
                'A link is ["node id", output number]; a list that is a value is written {"__value__": [...]}.',
            )
            continue
        else:
            good, value = _checked_value(node, spec, value, schema, report)
        if good:
            inputs[spec.name] = value
    known = {spec.name for spec in specs}
    for name, value in node.inputs.items():
        if name in known or name in schema.hidden:
            continue
        if schema.accepts_all:
            inputs[name] = value
        elif not is_added(schema.class_type, name):
            report.warning(node, "unknown_input", "this class has no such input; it is ignored", name)
    _check_by_class(node, schema, workflow, inputs, received, report)
    return inputs


def types_match(output: OutputSchema, spec: InputSchema) -> bool:
    """Whether the host lets ``output`` be linked to ``spec``: equal, any, or unions that overlap.

    Lists of choices match only when they are the same list, and never the type name ``COMBO``.
    """
    if output.type in _ANY_TYPES or spec.type in _ANY_TYPES:
        return True
    if output.choices is not None or spec.listed:
        return output.choices is not None and spec.listed and output.choices == spec.choices
    return not {each.strip() for each in output.type.split(",")}.isdisjoint(
        each.strip() for each in spec.type.split(",")
    )


def closest(value: str, choices: Iterable[str]) -> str:
    """The choice that looks most like ``value``, or nothing."""
    found = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.6)
    return found[0] if found else ""


def as_number(value: Any, type_name: str) -> int | float:
    """Convert to INT or FLOAT as the host does.

    Raises:
        ValueError: no such number, or one that is not finite.
        TypeError: no number at all.
        OverflowError: too large for the type.
    """
    if type_name == "INT":
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number


def _report_missing(node: WorkflowNode, spec: InputSchema, report: Report) -> None:
    reason = node.dropped.get(spec.name)
    if reason is not None:
        message = f"it is required, but {reason}"
        hint = "Switch that node on, or bypass this one too."
    elif spec.is_widget:
        message, hint = "it is required and has no value", f"Give it a value of type {printable(spec.type)}."
    else:
        message, hint = "it is required and not connected", f"Connect an output of type {printable(spec.type)}."
    report.problem(node, "required_input_missing", message, spec.name, hint)


def _check_link(
    node: WorkflowNode,
    spec: InputSchema,
    link: Link,
    workflow: Workflow,
    schemas: Mapping[str, NodeSchema],
    report: Report,
    received: dict[str, str],
    schema: NodeSchema,
) -> bool:
    source = workflow.nodes.get(link.node_id)
    if source is None:
        report.problem(
            node,
            "bad_linked_input",
            f"it is linked to node {printable(link.node_id)}, which does not exist",
            spec.name,
            "Link it to an existing node.",
        )
        return False
    source_schema = schemas.get(source.class_type)
    if source_schema is None:  # said once, as missing_node_type
        return False
    name = f"node {printable(source.id)} {shown(source.title)}"
    if not 0 <= link.output_index < len(source_schema.outputs):
        have = len(source_schema.outputs)
        allowed = f"It has outputs 0 to {have - 1}." if have else "It has no outputs."
        report.problem(node, "bad_linked_input", f"{name} has no output {shown(link.output_index)}", spec.name, allowed)
        return False
    output = source_schema.outputs[link.output_index]
    received[spec.name] = output.type
    if "input_types" not in schema.validate_args and not types_match(output, spec):
        fitting = [
            f"{index} ({printable(each.name)})"
            for index, each in enumerate(source_schema.outputs)
            if types_match(each, spec)
        ]
        hint = f"Its output {fitting[0]} would fit." if fitting else f"Link an output of type {printable(spec.type)}."
        report.problem(
            node,
            "return_type_mismatch",
            f"it takes {_type_text(spec)}, but {name} gives {printable(output.type)}",
            spec.name,
            hint,
        )
        return False
    return True


def _type_text(spec: InputSchema) -> str:
    return "one of a list of choices" if spec.listed else printable(spec.type)


def _checked_value(
    node: WorkflowNode, spec: InputSchema, value: Any, schema: NodeSchema, report: Report
) -> tuple[bool, Any]:
    """Whether a value is good, and what it is as the input's type."""
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    if spec.type in _LINK_ONLY or spec.type.startswith("PHOTOKEEP_"):
        if value is None and not spec.required:
            return True, None
        report.problem(
            node,
            "invalid_input_type",
            f"{shown(value)} cannot be {spec.type}",
            spec.name,
            f"Connect an output of type {spec.type}.",
        )
        return False, None
    try:
        converted = _converted(value, spec.type)
    except (ValueError, TypeError, OverflowError):
        report.problem(
            node, "invalid_input_type", f"{shown(value)} is no {spec.type} value", spec.name, _range_hint(spec)
        )
        return False, None
    _warn_of_loss(node, spec, value, converted, report)
    if schema.checks_itself(spec.name):
        return True, converted
    if spec.choices is not None:
        return _chosen(node, spec, spec.choices, converted, report)
    return _in_range(node, spec, converted, report), converted


def _converted(value: Any, type_name: str) -> Any:
    if type_name in {"INT", "FLOAT"}:
        return as_number(value, type_name)
    if type_name == "STRING":
        return str(value)
    if type_name == "BOOLEAN":
        return bool(value)
    return value


def _warn_of_loss(node: WorkflowNode, spec: InputSchema, value: Any, converted: Any, report: Report) -> None:
    """Say where the host's conversion changes what the file says."""
    if spec.type == "INT" and isinstance(value, float) and value != converted:
        report.warning(node, "value_converted", f"{value} is cut to {converted}", spec.name)
    elif spec.type == "BOOLEAN" and isinstance(value, str):
        report.warning(node, "value_converted", f"the text {shown(value)} counts as {shown(converted)}", spec.name)


def _range_hint(spec: InputSchema) -> str:
    if spec.type not in {"INT", "FLOAT"}:
        return f"Give a value of type {printable(spec.type)}."
    kind = "a whole number" if spec.type == "INT" else "a number"
    if spec.min is not None and spec.max is not None:
        return f"Give {kind} from {spec.min} to {spec.max}."
    if spec.min is not None:
        return f"Give {kind} of at least {spec.min}."
    return f"Give {kind} of at most {spec.max}." if spec.max is not None else f"Give {kind}."


def _in_range(node: WorkflowNode, spec: InputSchema, value: Any, report: Report) -> bool:
    if spec.type not in {"INT", "FLOAT"}:
        return True
    if spec.min is not None and value < spec.min:
        report.problem(
            node, "value_smaller_than_min", f"{shown(value)} is below {spec.min}", spec.name, _range_hint(spec)
        )
        return False
    if spec.max is not None and value > spec.max:
        report.problem(
            node, "value_bigger_than_max", f"{shown(value)} is above {spec.max}", spec.name, _range_hint(spec)
        )
        return False
    return True


def _chosen(
    node: WorkflowNode, spec: InputSchema, choices: tuple[Any, ...], value: Any, report: Report
) -> tuple[bool, Any]:
    """Whether a value is among the choices, and the choices it stands for: 2.0 in a file is the 2 of the class."""
    many = spec.multiselect and isinstance(value, list)
    picked: list[Any] = []
    for each in value if many else [value]:
        same = [one for one in choices if one == each and isinstance(one, bool) == isinstance(each, bool)]
        if not same:
            _report_not_in_list(node, spec, choices, each, report)
            return False, value
        picked.append(same[0])
    return True, picked if many else picked[0]


def _report_not_in_list(
    node: WorkflowNode, spec: InputSchema, choices: tuple[Any, ...], value: Any, report: Report
) -> None:
    guess = isinstance(value, str) and report.may_guess()
    near = closest(value, [str(each) for each in choices]) if guess else ""
    offered = ", ".join(shown(each, 40) for each in choices[:_SHOWN_CHOICES])
    more = f" and {len(choices) - _SHOWN_CHOICES} more" if len(choices) > _SHOWN_CHOICES else ""
    hint = f"Did you mean {shown(near)}? " if near else ""
    hint += f"Choose from {offered}{more}." if offered else "There is nothing to choose from."
    report.problem(node, "value_not_in_list", f"{shown(value)} is not among the choices", spec.name, hint)


def _check_by_class(
    node: WorkflowNode,
    schema: NodeSchema,
    workflow: Workflow,
    inputs: Mapping[str, Any],
    received: Mapping[str, str],
    report: Report,
) -> None:
    """Ask the class's own VALIDATE_INPUTS about the values, as far as they are known before anything runs."""
    if schema.node_class is None or not (schema.validate_args or schema.validate_all):
        return
    known = {
        name: value for name, value in inputs.items() if schema.checks_itself(name) and not isinstance(value, Link)
    }
    for name, kind in schema.hidden.items():
        if name in schema.validate_args:
            known[name] = {
                "PROMPT": workflow.to_prompt,
                "UNIQUE_ID": lambda: node.id,
                "EXTRA_PNGINFO": lambda: workflow.extra_pnginfo,
            }.get(kind, lambda: None)()
    if "input_types" in schema.validate_args:
        known["input_types"] = dict(received)
    if not schema.validate_required <= known.keys():
        return  # it wants a value that is only known while running, or one that was already refused
    check = schema.node_class.VALIDATE_INPUTS  # type: ignore[attr-defined]
    try:
        answer = check(**known)
    except PhotokeepError as error:
        report.problem(node, "custom_validation_failed", printable(error.message, 300), _only(known), error.hint)
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a node's own code may raise anything
        report.problem(
            node,
            "custom_validation_failed",
            f"its check failed: {type(error).__name__}: {printable(str(error), 300)}",
            _only(known),
        )
        return
    if answer is not True:
        message = (
            printable(str(answer), 300) if answer is not False and answer is not None else "the node refuses its values"
        )
        report.problem(node, "custom_validation_failed", message.rstrip("."), _only(known))


def _only(known: Mapping[str, Any]) -> str:
    """The input a class's complaint is about, where it was shown just one."""
    return next(iter(known)) if len(known) == 1 else ""
