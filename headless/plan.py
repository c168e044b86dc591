"""Make a plan of a workflow: a validated, acyclic graph of the stages that have to run.

A workflow is refused as a whole, with everything that is wrong in one error; the host would drop invalid outputs and
run the rest. Linear in the number of nodes and links, apart from the sort, and without recursion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .dynamic_inputs import flat_inputs
from .graph import Link, Problem, Workflow, WorkflowNode, circle, from_smallest, id_key, invalid, printable, shown
from .host_nodes import unknown_class_hint
from .lazy_inputs import unneeded_inputs
from .validation import Report, checked_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import networkx as nx

    from .schema import NodeSchema


@dataclass(frozen=True)
class Stage:
    """One node's occurrence in a plan.

    Attributes:
        id: the node's id.
        class_type: id of its class.
        title: what the user calls it.
        inputs: in the class's order: a ``Link``, or a value of the input's own type.
        output_node: the workflow is run for the sake of it.
    """

    id: str
    class_type: str
    title: str
    inputs: Mapping[str, Any]
    output_node: bool = False

    @property
    def links(self) -> dict[str, Link]:
        """Inputs that come from other stages."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}


@dataclass(frozen=True)
class Plan:
    """What has to run, and in which order.

    Attributes:
        graph: stage ids; an edge goes from the stage that gives to the one that takes. Each node has its ``stage``.
        stages: by id.
        order: every stage after those it takes from; among the free ones the smallest id first.
        unused: ids of nodes that no output needs.
        warnings: what the user should know, none of which keeps the plan from running.
        workflow: what the plan was made of.
    """

    graph: nx.DiGraph[str]
    stages: Mapping[str, Stage]
    order: tuple[str, ...]
    unused: tuple[str, ...]
    warnings: tuple[Problem, ...]
    workflow: Workflow


@dataclass(frozen=True)
class PlanCheck:
    """What was found when a workflow was looked at.

    Attributes:
        plan: None where it cannot run.
        problems: why it cannot.
        warnings: what the user should know besides; those of the plan where there is one.
        unused: ids of nodes that no output needs.
    """

    plan: Plan | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    unused: tuple[str, ...]


def make_plan(workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> Plan:
    """Validate a workflow and put its stages in order.

    Args:
        workflow: a parsed workflow.
        schemas: every node class that can run.

    Raises:
        WorkflowInvalidError: it cannot run; ``context["problems"]`` lists every reason.
    """
    found = check_plan(workflow, schemas)
    if found.plan is None:
        raise invalid(found.problems)
    return found.plan


def check_plan(workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> PlanCheck:
    """Look at all of a workflow, and plan it if it can run.

    Args:
        workflow: a parsed workflow.
        schemas: every node class that can run.
    """
    import networkx as nx

    report = Report()
    _check_classes(workflow, schemas, report)
    outputs = [node.id for node in workflow.nodes.values() if _is_output(node, schemas)]
    if not outputs and not report.problems:
        report.problems.append(_no_outputs(workflow, schemas))
    sources = {node.id: _sources(node, workflow, schemas) for node in workflow.nodes.values()}
    # With no output to start from, everything is looked at, so that the user sees all there is to mend.
    needed = _ancestors(outputs, sources) if outputs else set(workflow.nodes)
    graph: nx.DiGraph[str] = nx.DiGraph()
    stages: dict[str, Stage] = {}
    ids = sorted(needed, key=id_key)
    for node_id in ids:
        node = workflow.nodes[node_id]
        stages[node_id] = _stage(node, workflow, schemas, report)
        graph.add_node(node_id, stage=stages[node_id])
    for node_id in ids:
        graph.add_edges_from((source, node_id) for source in sources[node_id])
    order = _in_order(graph, workflow, report)
    _add_readers(workflow.problems, needed, report)
    problems = tuple(sorted(report.problems, key=lambda each: id_key(each.node_id)))
    warnings = (*(each for each in workflow.warnings if each.node_id in needed), *report.warnings)
    unused = tuple(sorted(workflow.nodes.keys() - needed, key=id_key))
    plan = None if problems else Plan(graph, stages, order, unused, warnings, workflow)
    return PlanCheck(plan, problems, warnings, unused)


def _add_readers(problems: Iterable[Problem], needed: set[str], report: Report) -> None:
    """Add what the reader could not follow: a problem where it leads to an output, else a warning."""
    told = {(each.node_id, each.input) for each in problems if each.input}
    # An input whose link is broken is missing too, but that is no news.
    report.problems = [
        each
        for each in report.problems
        if each.code != "required_input_missing" or (each.node_id, each.input) not in told
    ]
    for problem in problems:
        matters = problem.node_id in needed or problem.code == "missing_node_type"
        (report.problems if matters else report.warnings).append(problem)


def _is_output(node: WorkflowNode, schemas: Mapping[str, NodeSchema]) -> bool:
    schema = schemas.get(node.class_type)
    return schema is not None and schema.output_node


def _check_classes(workflow: Workflow, schemas: Mapping[str, NodeSchema], report: Report) -> None:
    """Every node's class must be known, needed or not: an unknown one might be an output."""
    hints: dict[tuple[str, str], str] = {}
    for node in workflow.nodes.values():
        if node.class_type in schemas or not node.class_type:
            continue
        key = (node.class_type, node.pack)
        if key not in hints:
            hints[key] = unknown_class_hint(node, schemas if report.may_guess() else ())
        report.problem(
            node, "missing_node_type", f"there is no node class {shown(node.class_type)} here", hint=hints[key]
        )


def _no_outputs(workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> Problem:
    off = [each for each in workflow.inactive if each.class_type in schemas and schemas[each.class_type].output_node]
    if off:
        hint = f"Node {printable(off[0].id)} {shown(off[0].title)} is {off[0].mode}: switch it on."
    else:
        outputs = [schema for schema in schemas.values() if schema.output_node]
        # Those that save come first, as the next best thing to do is to look at a result.
        outputs.sort(key=lambda each: not each.display_name.startswith("Save"))
        known = [each.display_name for each in outputs]
        hint = f"Add a node that writes a result: {', '.join(known[:5])}." if known else ""
    return Problem("prompt_no_outputs", "nothing in this workflow writes a result", hint=hint)


def _sources(node: WorkflowNode, workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> tuple[str, ...]:
    """Ids of the existing nodes that ``node`` takes from.

    Links into inputs that its class does not have, or can do without as its values stand, are ignored.
    """
    schema = schemas.get(node.class_type)
    links = [(name, value.node_id) for name, value in node.inputs.items() if isinstance(value, Link)]
    if not links:
        return ()
    known = None if schema is None or schema.accepts_all else {spec.name for spec in flat_inputs(schema, node.inputs)}
    idle = unneeded_inputs(node, schema, workflow) if schema is not None else frozenset()
    linked = [
        node_id
        for name, node_id in links
        if node_id in workflow.nodes and (known is None or name in known) and name not in idle
    ]
    return tuple(dict.fromkeys(linked))


def _ancestors(outputs: Iterable[str], sources: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The outputs and everything they take from, directly or not."""
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting.extend(sources[node_id])
    return found


def _stage(node: WorkflowNode, workflow: Workflow, schemas: Mapping[str, NodeSchema], report: Report) -> Stage:
    schema = schemas.get(node.class_type)
    if schema is None:
        return Stage(node.id, node.class_type, node.title, {})
    inputs = checked_inputs(node, schema, workflow, schemas, report)
    inputs |= dict.fromkeys(unneeded_inputs(node, schema, workflow) & inputs.keys())
    return Stage(node.id, node.class_type, node.title, inputs, schema.output_node)


def _in_order(graph: nx.DiGraph[str], workflow: Workflow, report: Report) -> tuple[str, ...]:
    import networkx as nx

    try:
        return tuple(nx.lexicographical_topological_sort(graph, key=id_key))
    except nx.NetworkXUnfeasible:
        for cycle in _cycles(graph):
            report.problems.append(_cycle_problem(cycle, workflow))
        return ()


def _cycles(graph: nx.DiGraph[str]) -> list[list[str]]:
    """One cycle of each knot of the graph, along the flow, beginning with its smallest id; linear."""
    import networkx as nx

    cycles = []
    for knot in nx.strongly_connected_components(graph):
        start = min(knot, key=id_key)
        if len(knot) == 1 and not graph.has_edge(start, start):
            continue
        # Every member of a knot has a successor in it, so a walk that stays inside must come round.
        seen: dict[str, int] = {}
        walk: list[str] = []
        current = start
        while current not in seen:
            seen[current] = len(walk)
            walk.append(current)
            current = min((each for each in graph.successors(current) if each in knot), key=id_key)
        cycles.append(from_smallest(walk[seen[current] :]))
    return sorted(cycles, key=lambda cycle: id_key(cycle[0]))


def _cycle_problem(cycle: list[str], workflow: Workflow) -> Problem:
    into = workflow.nodes[cycle[0]]
    closing = next(
        (name for name, value in into.inputs.items() if isinstance(value, Link) and value.node_id == cycle[-1]), ""
    )
    path = circle(cycle, {each: workflow.nodes[each].title for each in cycle})
    return Problem.at(
        into, "dependency_cycle", f"it depends on itself: {path}", input_name=closing, hint="Remove one of these links."
    )
