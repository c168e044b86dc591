"""A plan as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from .graph import printable
from .models_display import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .plan_models import ModelPlan
    from .plan_report import PlanReport, RunPlan, StagePlan

_WOULD = {
    "run": "[green]run[/]",
    "cached": "[cyan]be cached[/]",
    "depends": "[yellow]depend[/]",
    "blocked": "[bold red]be stopped[/]",
}
_COUNTED = {"run": "to run", "cached": "cached", "depends": "depending", "blocked": "stopped"}
_STATES = {
    "installed": "[green]installed[/]",
    "missing": "[bold red]missing[/]",
    "corrupt": "[bold red]corrupt[/]",
    "unusable": "[bold red]unusable[/]",
}
_BASIS = {"measured": "", "at least": ">= ", "estimate": "about "}
_UNUSED_SHOWN = 10


def print_plan(console: Console, report: PlanReport) -> None:
    """Print a plan: the stages of each photo, then the models, what is not used, and what is amiss."""
    for pack in report.packs:
        console.print(f"[yellow]warning:[/] {escape(pack.warning())}")
    for run in report.runs:
        if run.photo is not None:
            console.print(f"[bold]{escape(str(run.photo))}[/]")
        if run.error is not None:
            console.print(f"  [bold red]error:[/] {escape(str(run.error))}")
            continue
        console.print(stages_table(run, report))
        console.print(summary(run), style="dim")
        console.print()
    if report.models:
        console.print(models_table(report.models))
        console.print()
    if report.unused:
        names = [f"{shown(node.id)} {shown(node.title)}" for node in report.unused[:_UNUSED_SHOWN]]
        more = len(report.unused) - len(names)
        console.print(
            f"Not used by any output: {', '.join(names)}{f' and {more} more' if more else ''}",
            style="dim",
            markup=False,
        )
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    if report.problem is not None:
        hint = f"\n{report.problem.hint}" if report.problem.hint else ""
        headline = report.problem.message.splitlines()[0].rstrip(":")
        console.print(f"[bold red]A run would stop:[/] {escape(headline + hint)}")


def stages_table(run: RunPlan, report: PlanReport) -> Table:
    """One line a stage: id, title, what would happen and why, its models, memory, and time."""
    titles = {model.id: model.title for model in report.models}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("stage", overflow="fold")
    table.add_column("would")
    table.add_column("why", overflow="fold")
    table.add_column("models", overflow="fold")
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("last time", justify="right", no_wrap=True)
    if report.packs:
        table.add_column("code of", overflow="fold")
    for stage in run.stages:
        cells = [
            escape(shown(stage.id)),
            escape(shown(stage.title)),
            _WOULD[stage.outcome],
            escape(shown(stage.why, 300)),
            escape(", ".join(titles[model_id] for model_id in stage.models)),
            memory_text(stage),
            last_text(stage),
        ]
        if report.packs:
            cells.append("" if stage.trusted else f"[yellow]{escape(shown(stage.pack))} (untrusted)[/]")
        table.add_row(*cells)
    return table


def summary(run: RunPlan) -> str:
    """The plan in one line: how many stages there are of each kind, the largest memory, how long it took last time."""
    stages = "1 stage" if len(run.stages) == 1 else f"{len(run.stages)} stages"
    text = f"{stages}: " + ", ".join(f"{count} {_COUNTED[outcome]}" for outcome, count in run.counts.items())
    waiting = [stage for stage in run.stages if stage.outcome != "cached"]
    largest = max(
        (stage for stage in waiting if stage.memory_bytes), key=lambda each: each.memory_bytes or 0, default=None
    )
    if largest is not None:
        known = " as far as is known" if any(stage.memory_is_least for stage in waiting) else ""
        text += f"; models take up to {memory_text(largest).removeprefix('>= ')}{known}"
    seconds = [stage.last_seconds for stage in waiting if stage.last_seconds is not None]
    if seconds:
        text += f"; {sum(seconds):.1f} s last time"
    return text


def models_table(models: Sequence[ModelPlan]) -> Table:
    """One line a model: file, size, terms, whether it is here, what it takes in memory."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "for", "file", "size", "licence", "state", "weights", "working memory"):
        figure = heading in {"size", "weights", "working memory"}
        table.add_column(heading, justify="right" if figure else "left", overflow="fold", no_wrap=figure)
    for model in models:
        terms = escape(model.licence) + (" [red]non-commercial[/]" if model.commercial is False else "")
        state = _STATES[model.state]
        if model.state != "installed" and (model.install or model.detail):
            state += f": {escape(model.install or model.detail)}"
        table.add_row(
            escape(model.title),
            model.role.replace("_", " "),
            escape(model.file),
            size(model.size_bytes) if model.size_bytes else "",
            terms,
            state,
            size(model.weight_bytes) if model.weight_bytes else "",
            working_text(model),
        )
    return table


def working_text(model: ModelPlan) -> str:
    """What a call takes beside the weights, and how well that is known; empty where it is not."""
    if model.working_bytes is None or not model.working_is:
        return ""
    return f"{_BASIS[model.working_is]}{size(model.working_bytes)}"


def memory_text(stage: StagePlan) -> str:
    """What a stage's models take; ">=" where that is not all."""
    if not stage.memory_bytes:
        return ""
    return f"{'>= ' if stage.memory_is_least else ''}{size(stage.memory_bytes)}"


def last_text(stage: StagePlan) -> str:
    """How long a stage took last time."""
    return "" if stage.last_seconds is None else f"{stage.last_seconds:.1f} s"


def shown(text: str, limit: int = 80) -> str:
    """A stranger's text on one line, as far as it can be shown."""
    return printable(text, limit)
