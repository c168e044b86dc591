"""A plan as plain data: what will run, what is cached and why not, models and memory per stage.

`plan_text`, `plan_mermaid`, `plan_svg` and the JSON are four renderings of it. Imports no torch: what a model takes is
read from what earlier runs have measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes.errors import PhotokeepError, UsageError

from .fingerprint import device_class
from .foresight import handle_of
from .packs import by_class_type
from .plan_models import Figures, ModelPlan, model_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelHandle

    from .events import RunEvent
    from .job import Job, PlannedRun
    from .packs import Pack
    from .plan import Plan
    from .run import Forecast
    from .schema import NodeSchema

VERSION = 1
"""Of the JSON; keys are only added under one number."""

DRAWN_STAGES = 300
"""The most stages that are drawn as a picture or a diagram."""

Outcome = Literal["run", "cached", "depends", "blocked"]

_OUTCOMES: Mapping[bool | None, Outcome] = {True: "run", False: "cached", None: "depends"}


@dataclass(frozen=True)
class StagePlan:
    """A stage of a plan; stages that only name a model are not stages here.

    Attributes:
        id: id of its node.
        title: as the user named it.
        class_type: id of its class.
        outcome: what would happen to it; "depends" on what an earlier stage returns, "blocked" by a model
            or a file that is not there.
        why: the reason in a few words.
        after: ids of the stages it takes from.
        models: ids of the models it uses.
        memory_bytes: its models' weights together and the largest of their calls; None without models.
        memory_is_least: whether it will be more than that, by an amount that is not known yet.
        last_seconds: time it took last time, with whatever inputs; None if nothing is known.
        last_peak_bytes: highest memory in use while it ran last time; None if nothing is known.
        pack: the node pack its code comes from, if that is not Photokeep itself.
    """

    id: str
    title: str
    class_type: str
    outcome: Outcome
    why: str
    after: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    memory_bytes: int | None = None
    memory_is_least: bool = False
    last_seconds: float | None = None
    last_peak_bytes: int | None = None
    pack: str = ""

    @property
    def trusted(self) -> bool:
        """Whether its code is Photokeep's own."""
        return not self.pack

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        will_run = {"run": True, "cached": False}.get(self.outcome)
        return asdict(self) | {
            "after": list(self.after),
            "models": list(self.models),
            "will_run": will_run,
            "pack": self.pack or None,
            "trusted": self.trusted,
        }


@dataclass(frozen=True)
class UnusedNode:
    """A node that no output needs."""

    id: str
    title: str
    class_type: str


@dataclass(frozen=True)
class RunPlan:
    """What one photo's run would do.

    Attributes:
        photo: what ``-i`` named, or None if the workflow names its own.
        stages: in the order they are taken.
        error: why this photo's run could not begin; there are no stages then.
    """

    photo: Path | None
    stages: tuple[StagePlan, ...] = ()
    error: PhotokeepError | None = None

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many stages there are of each outcome that there is."""
        outcomes = [stage.outcome for stage in self.stages]
        every: tuple[Outcome, ...] = ("run", "cached", "depends", "blocked")
        return {each: outcomes.count(each) for each in every if each in outcomes}


@dataclass(frozen=True)
class PlanReport:
    """Everything there is to show of a plan.

    Attributes:
        workflow: the file.
        runs: one for each photo.
        models: those of all stages, in the order they are used.
        unused: nodes that no output needs.
        warnings: what the user should know, none of which keeps the plan from running.
        packs: node packs of others.
        problem: what a run would end with before any work; None if it could begin.
    """

    workflow: str
    runs: tuple[RunPlan, ...]
    models: tuple[ModelPlan, ...] = ()
    unused: tuple[UnusedNode, ...] = ()
    warnings: tuple[str, ...] = ()
    packs: tuple[Pack, ...] = ()
    problem: PhotokeepError | None = None

    @property
    def exit_code(self) -> int:
        """What a run would end with, as far as can be told before any work."""
        if self.problem is not None:
            return self.problem.exit_code
        return 1 if any(run.error is not None for run in self.runs) else 0

    def as_json(self) -> dict[str, Any]:
        """The same as plain data, with keys that stay."""
        return {
            "version": VERSION,
            "workflow": self.workflow,
            "runs": [
                {
                    "photo": None if run.photo is None else str(run.photo),
                    "stages": [stage.as_json() for stage in run.stages],
                    "error": _error_as_json(run.error),
                }
                for run in self.runs
            ],
            "models": [asdict(model) for model in self.models],
            "unused": [asdict(node) for node in self.unused],
            "warnings": list(self.warnings),
            "packs": [pack.as_json() for pack in self.packs],
            "problem": _error_as_json(self.problem),
        }

    def drawn_run(self, what: str) -> RunPlan:
        """The one run of a plan that can be drawn.

        Args:
            what: name of the rendering, for the messages.
        Raises:
            UsageError: there are several photos, or too many stages.
            PhotokeepError: the photo cannot be used.
        """
        (run, *others) = self.runs
        if others:
            raise UsageError(
                f"{what} shows the plan of one photo, and there are {len(self.runs)}",
                hint="Name one photo with -i, or use --format json or text.",
            )
        if run.error is not None:
            raise run.error
        if len(run.stages) > DRAWN_STAGES:
            raise UsageError(
                f"a plan of {len(run.stages)} stages is too large for {what}: {DRAWN_STAGES} at most",
                hint="Use --format json or text.",
            )
        return run


def _error_as_json(error: PhotokeepError | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


def report(job: Job) -> PlanReport:
    """Describe what a job would do, and do nothing.

    Raises:
        PhotokeepError: the workflow cannot run, or none of the photos can be used.
    """
    job.check(_ignore, need_models=False)
    runs: list[RunPlan] = []
    shared: _Shared | None = None
    problem: PhotokeepError | None = None
    for photo in job.photos:
        try:
            planned = job.laid_out(photo)
        except PhotokeepError as error:  # about this photo: the rest has been checked
            runs.append(RunPlan(photo, error=error))
            continue
        if shared is None:  # photos differ in what is cached, and in nothing else
            shared = _Shared(job, planned)
            try:
                job.require_models(planned)
            except PhotokeepError as error:
                problem = error
        runs.append(RunPlan(photo, tuple(map(shared.stage, job.forecast(planned)))))
    if shared is None:
        raise next(run.error for run in runs if run.error is not None)
    plan = shared.plan
    return PlanReport(
        workflow=str(job.workflow_path),
        runs=tuple(runs),
        models=tuple(shared.models.values()),
        unused=tuple(
            UnusedNode(each, plan.workflow.nodes[each].title, plan.workflow.nodes[each].class_type)
            for each in plan.unused
        ),
        warnings=(*(line for pack in job.packs for line in pack.left_out), *(each.line() for each in plan.warnings)),
        packs=job.packs,
        problem=problem,
    )


def _ignore(_event: RunEvent) -> None:
    """Warnings are told with the plan."""


class _Shared:
    """What the plans of all photos of a job have in common."""

    def __init__(self, job: Job, planned: PlannedRun) -> None:
        self.plan = planned.plan
        self._packs = by_class_type(job.packs)
        self._figures = Figures(device_class(planned.settings.device))
        self.models: dict[str, ModelPlan] = {}
        self._after, uses = _dependencies(self.plan, job.schemas)
        known = {handle: self._model(handle) for handles in uses.values() for handle in dict.fromkeys(handles)}
        self._uses = {
            stage_id: tuple(dict.fromkeys(known[handle] for handle in handles)) for stage_id, handles in uses.items()
        }

    def _model(self, handle: ModelHandle) -> str:
        """Look a model up and return its id."""
        found = model_plan(handle, self._figures)
        return self.models.setdefault(found.id, found).id

    def stage(self, forecast: Forecast) -> StagePlan:
        """A stage with what is known of it beside what would happen to it."""
        stage = self.plan.stages[forecast.stage_id]
        used = [self.models[model_id] for model_id in self._uses[stage.id]]
        last = forecast.last
        outcome: Outcome = "blocked" if forecast.blocked else _OUTCOMES[forecast.will_run]
        why = forecast.why
        unusable = [model.title for model in used if model.state != "installed"]
        if unusable and outcome in {"run", "depends"}:  # its weights are there, and the code of the network is not
            outcome, why = "blocked", f"{unusable[0]} cannot be used"
        return StagePlan(
            id=stage.id,
            title=stage.title,
            class_type=stage.class_type,
            outcome=outcome,
            why=why,
            after=self._after[stage.id],
            models=tuple(model.id for model in used),
            memory_bytes=_memory(used) if used else None,
            memory_is_least=any(model.working_is in {"", "at least"} for model in used),
            last_seconds=None if last is None else round(last.seconds, 4),
            last_peak_bytes=None if last is None or not last.peak_bytes else last.peak_bytes,
            pack=self._packs[stage.class_type].name if stage.class_type in self._packs else "",
        )


def _memory(used: Sequence[ModelPlan]) -> int:
    return sum(model.weight_bytes for model in used) + max(model.working_bytes or 0 for model in used)


def _dependencies(
    plan: Plan, schemas: Mapping[str, NodeSchema]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[ModelHandle, ...]]]:
    """The stages that each stage follows, and the models it uses; model stages are seen through."""
    after: dict[str, tuple[str, ...]] = {}
    uses: dict[str, tuple[ModelHandle, ...]] = {}
    handles: dict[str, ModelHandle] = {}
    for stage_id in plan.order:
        stage = plan.stages[stage_id]
        sources = list(dict.fromkeys(link.node_id for link in stage.links.values()))
        after[stage_id] = tuple(
            dict.fromkeys(each for source in sources for each in (after[source] if source in handles else (source,)))
        )
        if (handle := handle_of(stage, schemas[stage.class_type])) is not None:
            handles[stage_id] = handle
        else:
            uses[stage_id] = tuple(handles[source] for source in sources if source in handles)
    return after, uses
