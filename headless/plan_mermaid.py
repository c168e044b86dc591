"""A plan as a Mermaid flowchart, as GitHub and many editors draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photokeep_nodes.errors import UsageError

from .graph import printable
from .plan_text import last_text, memory_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan_models import ModelPlan
    from .plan_report import Outcome, PlanReport, StagePlan

MOST_LINKS = 500
"""Mermaid's own limit; it draws nothing of a diagram that has more."""

MOST_CHARACTERS = 50_000
"""The same of its text."""

_WORDS: Mapping[Outcome, str] = {
    "run": "will run",
    "cached": "cached",
    "depends": "depends",
    "blocked": "stopped",
}
_CLASSES = """\
    classDef run fill:#d9f2e3,stroke:#1a8a4a,color:#14191f
    classDef cached fill:#dcebfa,stroke:#1873c9,color:#14191f
    classDef depends fill:#f9ecd0,stroke:#a86d00,color:#14191f
    classDef blocked fill:#fbdcde,stroke:#cf2f3a,color:#14191f
    classDef untrusted stroke-dasharray:6 4,stroke-width:3px
"""


def mermaid(report: PlanReport) -> str:
    """Write a plan as a flowchart; the stages are called s0, s1 and so on, whatever their ids are.

    Raises:
        UsageError: it is of several photos, or too large.
    """
    run = report.drawn_run("a Mermaid diagram")
    models = {model.id: model for model in report.models}
    names = {stage.id: f"s{index}" for index, stage in enumerate(run.stages)}
    links = [f"    {names[source]} --> {names[stage.id]}\n" for stage in run.stages for source in stage.after]
    boxes = [f'    {names[stage.id]}["{_label(stage, models)}"]:::{stage.outcome}\n' for stage in run.stages]
    lines = ["flowchart LR\n", *boxes, *links, _CLASSES]
    if others := [names[stage.id] for stage in run.stages if not stage.trusted]:
        lines.append(f"    class {','.join(others)} untrusted\n")
    text = "".join(lines)
    if len(links) > MOST_LINKS or len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"this plan is too large for Mermaid, which draws {MOST_LINKS} links and {MOST_CHARACTERS} characters"
            f" at most: it has {len(links)} and {len(text)}",
            hint="Use --format json, text or svg.",
        )
    return text


def _label(stage: StagePlan, models: Mapping[str, ModelPlan]) -> str:
    lines = [f"<b>{_escaped(stage.title)}</b>", _escaped(f"{_WORDS[stage.outcome]}: {stage.why}")]
    for model_id in stage.models:
        model = models[model_id]
        lines.append(_escaped(model.title + ("" if model.state == "installed" else f" ({model.state})")))
    if facts := ", ".join(filter(None, (memory_text(stage), last_text(stage)))):
        lines.append(_escaped(facts))
    if not stage.trusted:
        lines.append(_escaped(f"untrusted: {stage.pack}"))
    return "<br/>".join(lines)


def _escaped(text: str) -> str:
    """A stranger's text as Mermaid shows it and does nothing else with it: by number, all but letters and digits."""
    return "".join(char if char.isalnum() or char == " " else f"#{ord(char)};" for char in printable(text))
