"""``photokeep convert`` and ``photokeep lint``: options and printing, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .cli_options import HELP_OPTIONS, require_report_place
from .terminal import as_json_text, open_console, plain, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .graph import Workflow
    from .lint import LintReport
    from .schema import NodeSchema

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}

_object_info_option = click.option(
    "--object-info",
    metavar="FILE|URL",
    help="Node classes as a ComfyUI describes them: what its /object_info answered, or its address.",
)


@click.command(name="convert", context_settings=HELP_OPTIONS)
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", metavar="FILE|-", default="-", help="Where to write it.  [default: -]")
@_object_info_option
def convert_command(workflow: Path, target: str, object_info: str | None) -> None:
    """Print the API format of WORKFLOW: what the editor would send to a ComfyUI.

    The editor's own file, a PNG or WebP that carries one, or the API format already. Exit code 1 says that something
    could not be told, and standard error says what; 2 that this is no workflow.

    \b
    photokeep convert workflow.json -o workflow_api.json
    photokeep convert picture.png --object-info http://127.0.0.1:8188
    """  # noqa: D301 - click's mark against rewrapping is a real backspace
    from .convert import schemas_for
    from .workflow import read_workflow

    require_report_place(target, "-o", workflow)
    schemas = schemas_for(object_info)
    found = read_workflow(workflow, schemas)
    write_text(target, as_json_text(found.to_prompt()))
    doubts = _doubts(found, schemas)
    for line in doubts:
        click.echo(plain(f"warning: {line}"), err=True)
    if doubts and (found.problems or any(node.class_type not in schemas for node in found.nodes.values())):
        sys.exit(1)


def _doubts(found: Workflow, schemas: dict[str, NodeSchema]) -> list[str]:
    """What could not be told, and what was decided."""
    from .graph import printable

    lines = [problem.line() for problem in (*found.problems, *found.warnings)]
    unknown = sorted({node.class_type for node in found.nodes.values()} - schemas.keys())
    if unknown and found.source == "editor":
        some = ", ".join(map(printable, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        lines.append(
            f"nobody describes {some}: what the file has typed in for them is left out."
            " Name a ComfyUI that knows them with --object-info."
        )
    return lines


@click.command(name="lint", context_settings=HELP_OPTIONS)
@click.argument("workflows", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="WORKFLOW...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
@_object_info_option
def lint_command(
    workflows: Sequence[Path], object_info: str | None, *, as_json: bool, strict: bool, quiet: bool
) -> None:
    """Say what is wrong with a WORKFLOW, and what it will take, without running it.

    Exit code 0: clean, but for warnings; 1: errors; 2: one of the files is no workflow.

    \b
    photokeep lint workflow.json
    photokeep lint *.json --json
    photokeep lint workflow.json --object-info http://127.0.0.1:8188
    """  # noqa: D301 - click's mark against rewrapping is a real backspace
    from .lint import VERSION, described_classes, lint

    described = described_classes(object_info)
    found = [lint(path, object_info=described) for path in workflows]
    if as_json:
        write_text("-", as_json_text({"version": VERSION, "files": [each.as_json() for each in found]}))
    else:
        console = open_console()
        for each in found:
            _print(console, each, quiet=quiet)
    if code := max(each.exit_code(strict=strict) for each in found):
        sys.exit(code)


def _print(console: Console, found: LintReport, *, quiet: bool) -> None:
    from rich.markup import escape

    if found.unreadable is not None:
        console.print(f"[bold red]not a workflow[/] {escape(str(found.unreadable))}")
        return
    for each in found.findings:
        if quiet and each.severity == "note":
            continue
        style = _STYLES[each.severity]
        console.print(f"[{style}]{each.severity:>7}[/] {escape(each.problem.line())}")
    counts = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for severity in ("error", "warning", "note")
        if (count := sum(each.severity == severity for each in found.findings))
    ]
    summary = ", ".join(counts) or "clean"
    console.print(f"[bold]{escape(found.workflow)}[/]: {summary}{escape(_expected(found))}")


def _expected(found: LintReport) -> str:
    """What a run will take, in a few words."""
    from .models_display import size

    estimate = found.estimate
    if estimate is None:
        return ""
    parts = [f"{estimate.stages} stages on {estimate.device}"]
    if estimate.memory_bytes:
        at_least = "at least " if estimate.memory_is_least else ""
        parts.append(f"{at_least}{size(estimate.memory_bytes)} of memory at its peak")
    if estimate.timed_stages:
        whole = estimate.timed_stages == estimate.stages
        of_some = "" if whole else f" for the {estimate.timed_stages} that ran before"
        parts.append(f"{estimate.seconds:.1f} s{of_some}")
    return ". It has " + ", ".join(parts) + "."
