"""Everything there is to say of a workflow before it runs: what is wrong, what is odd, what it will take.

Nothing is run and no node pack of others is imported; classes that only a host's description tells of are checked as
far as that goes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes import host
from photokeep_nodes.errors import PhotokeepError

from .artefact import stored_type
from .fingerprint import device_class
from .foresight import is_model_stage
from .graph import Link, Problem, printable, shown
from .input_sizes import oversized_inputs
from .job import Job, node_schemas
from .object_info import load_object_info
from .parts import always_new
from .plan import check_plan
from .plan_report import report
from .settings import Settings
from .store import Store
from .workflow import read_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .graph import Workflow, WorkflowNode
    from .plan import Plan, PlanCheck
    from .plan_models import ModelPlan
    from .plan_report import PlanReport
    from .schema import NodeSchema

Severity = Literal["error", "warning", "note"]

VERSION = 1
"""Of the JSON; keys are only added under one number."""


@dataclass(frozen=True)
class Finding:
    """One thing to say of a workflow.

    Attributes:
        severity: an "error" keeps it from running, a "warning" is likely not meant, a "note" is good to know.
        problem: what and where; its code is the host's name where the host has one.
    """

    severity: Severity
    problem: Problem

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"severity": self.severity, **asdict(self.problem), "within": list(self.problem.within)}


@dataclass(frozen=True)
class Estimate:
    """What a run will take, as far as earlier runs tell.

    Attributes:
        device: kind of device it would run on.
        memory_bytes: the most that one stage takes there; 0 where no stage uses a model.
        memory_is_least: whether it will be more than that, by an amount that is not known yet.
        seconds: of the stages whose time is known, together.
        stages: how many stages would be shown while it runs.
        timed_stages: of how many of them the time is known.
    """

    device: str
    memory_bytes: int
    memory_is_least: bool
    seconds: float
    stages: int
    timed_stages: int


@dataclass(frozen=True)
class LintReport:
    """What was found of one file.

    Attributes:
        workflow: the file.
        findings: errors first, each kind in the order of the nodes.
        models: those it needs, installed or not.
        estimate: None where it cannot run.
        unreadable: why it is no workflow at all; there is nothing else then.
    """

    workflow: str
    findings: tuple[Finding, ...] = ()
    models: tuple[ModelPlan, ...] = ()
    estimate: Estimate | None = None
    unreadable: PhotokeepError | None = None

    def count(self, severity: Severity) -> int:
        """How many findings there are of one severity."""
        return sum(each.severity == severity for each in self.findings)

    def exit_code(self, *, strict: bool) -> int:
        """0 clean, 1 errors (with ``strict``, warnings too), 2 not a workflow."""
        if self.unreadable is not None:
            return 2
        return 1 if self.count("error") or (strict and self.count("warning")) else 0

    def as_json(self) -> dict[str, Any]:
        """The same as plain data, with keys that stay."""
        return {
            "workflow": self.workflow,
            "is_workflow": self.unreadable is None,
            "why_not": None if self.unreadable is None else str(self.unreadable),
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
            "findings": [each.as_json() for each in self.findings],
            "models": [asdict(each) for each in self.models],
            "estimate": None if self.estimate is None else asdict(self.estimate),
        }


def lint(path: str | Path, *, object_info: Mapping[str, NodeSchema] | None = None) -> LintReport:
    """Look at a workflow file.

    Args:
        path: the file.
        object_info: classes of a host, by its own description; the workflow is then checked as for that host, which
            knows no others.
    """
    path = Path(path)
    ours = node_schemas()
    schemas = {**ours} if object_info is None else {**object_info}
    settings = host.Standalone(input_dirs=(path.resolve().parent, Path("input").resolve()))
    try:
        workflow = read_workflow(path, {**ours, **schemas})
    except PhotokeepError as error:
        return LintReport(str(path), unreadable=error)
    with host.standalone(settings):
        found = check_plan(workflow, schemas)
        findings = [
            *(Finding("error", each) for each in found.problems),
            *(Finding("warning", each) for each in found.warnings),
            *_unused_branches(workflow, found, schemas),
            *_about_classes(workflow, found, schemas, ours),
        ]
        runs_here = found.plan is not None and all(each.class_type in ours for each in found.plan.stages.values())
        if found.plan is not None and runs_here:
            if object_info is None:  # photos of another host are not here
                findings += (Finding("error", each) for each in oversized_inputs(found.plan, ours))
            findings += _uncached(found.plan, ours)
    planned = _planned(path) if runs_here else None
    if planned is not None:
        findings += _about_models(planned)
    order: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
    return LintReport(
        workflow=str(path),
        findings=tuple(sorted(findings, key=lambda each: order[each.severity])),
        models=planned.models if planned is not None else (),
        estimate=_estimate(planned) if planned is not None else None,
    )


def described_classes(source: str | None) -> dict[str, NodeSchema] | None:
    """Classes of a host, from a file or from the host itself; None where nothing is named.

    Raises:
        UsageError, WorkflowFormatError, NodeDefinitionError: it cannot be read or is no description.
    """
    return load_object_info(source) if source else None


def _planned(path: Path) -> PlanReport | None:
    """What a run would do, with what earlier ones left in the cache; None where that cannot be told."""
    defaults = Settings.from_environment()
    store = None
    with suppress(PhotokeepError):  # a cache that cannot be used tells nothing, and that is all
        store = Store(defaults.cache_dir / "stages", limit_bytes=defaults.cache_limit_bytes)
    with suppress(PhotokeepError):
        return report(Job(path, settings=host.Standalone(device=defaults.device), store=store))
    return None


def _unused_branches(workflow: Workflow, found: PlanCheck, schemas: Mapping[str, NodeSchema]) -> Iterator[Finding]:
    """One finding for each end of what no output needs, with how much hangs on it alone."""
    unused = set(found.unused)
    takers: dict[str, list[WorkflowNode]] = {}
    for node in workflow.nodes.values():
        for value in node.inputs.values():
            if isinstance(value, Link) and value.node_id in unused:
                takers.setdefault(value.node_id, []).append(node)
    for node_id in found.unused:
        taking = takers.get(node_id, [])
        if any(each.id in unused for each in taking) or workflow.nodes[node_id].class_type not in schemas:
            continue
        size = len(_branch(workflow, node_id, unused))
        others = f", with {size - 1} before it" if size > 1 else ""
        node = workflow.nodes[node_id]
        if taking:  # a switch that takes the other way
            name = f"node {printable(taking[0].id)} {shown(taking[0].title)}"
            message = f"{name} does not need it as its values stand{others}"
            yield Finding("note", Problem.at(node, "branch_not_taken", message))
        else:
            hint = "Connect it to an output, or delete it."
            yield Finding("warning", Problem.at(node, "unused_branch", f"no output needs it{others}", hint=hint))


def _branch(workflow: Workflow, end: str, unused: set[str]) -> set[str]:
    seen: set[str] = set()
    waiting = [end]
    while waiting:
        node_id = waiting.pop()
        if node_id in seen:
            continue
        seen.add(node_id)
        values = workflow.nodes[node_id].inputs.values()
        waiting += [value.node_id for value in values if isinstance(value, Link) and value.node_id in unused]
    return seen


def _about_classes(
    workflow: Workflow, found: PlanCheck, schemas: Mapping[str, NodeSchema], ours: Mapping[str, NodeSchema]
) -> Iterator[Finding]:
    told: set[str] = set()
    unused = set(found.unused)
    for node in workflow.nodes.values():
        schema = schemas.get(node.class_type)
        if schema is None or node.class_type in told or node.id in unused:
            continue
        if node.class_type not in ours:
            told.add(node.class_type)
            yield Finding(
                "warning",
                Problem.at(
                    node,
                    "not_runnable_here",
                    f"{printable(node.class_type)} is known by the host's description only",
                    hint="It runs in that ComfyUI, not in photokeep-run.",
                ),
            )
        if schema.deprecated:
            told.add(node.class_type)
            yield Finding("warning", Problem.at(node, "deprecated_node", "its authors advise against this class"))
    for off in workflow.inactive:
        schema = schemas.get(off.class_type)
        if schema is not None and schema.output_node:
            yield Finding(
                "note",
                Problem("output_off", f"it is an output, and {off.mode}", off.id, off.title, off.class_type),
            )


def _uncached(plan: Plan, schemas: Mapping[str, NodeSchema]) -> Iterator[Finding]:
    """Stages whose results are not kept from run to run."""
    for stage_id in plan.order:
        stage, node = plan.stages[stage_id], plan.workflow.nodes[stage_id]
        schema = schemas[stage.class_type]
        if is_model_stage(schema):
            continue
        odd = [output.type for output in schema.outputs if not stored_type(output.type)]
        if always_new(schema, stage):
            why = "its result may differ each time, so it runs each time"
        elif odd:
            why = f"it returns {printable(odd[0])}, which cannot be stored, so it runs each time"
        else:
            continue
        yield Finding("note", Problem.at(node, "not_cached", f"{why}, and what takes from it is looked at anew"))


def _about_models(planned: PlanReport) -> Iterator[Finding]:
    codes = {"missing": "weights_missing", "corrupt": "weights_corrupt", "unusable": "model_unusable"}
    for model in planned.models:
        terms = f"{model.licence or 'terms unknown'}{'' if model.commercial is not False else ', non-commercial'}"
        name = f"{model.title} ({terms})"
        if model.state == "installed":
            if model.commercial is False:
                yield Finding("note", Problem("non_commercial", f"{name} may not be used commercially"))
            continue
        what = f"{name} is {'not installed' if model.state == 'missing' else 'not usable'}"
        detail = f": {model.detail}" if model.detail else ""
        yield Finding(
            "warning",
            Problem(codes[model.state], f"{what}{detail}", hint=f"Get it: {model.install}" if model.install else ""),
        )


def _estimate(planned: PlanReport) -> Estimate:
    stages = [stage for run in planned.runs for stage in run.stages]
    memory = [(stage.memory_bytes, stage.memory_is_least) for stage in stages if stage.memory_bytes is not None]
    most = max((taken for taken, _ in memory), default=0)
    timed = [stage.last_seconds for stage in stages if stage.last_seconds is not None]
    return Estimate(
        device=device_class(Settings.from_environment().device),
        memory_bytes=most,
        memory_is_least=any(least for _, least in memory),
        seconds=round(sum(timed), 3),
        stages=len(stages),
        timed_stages=len(timed),
    )
