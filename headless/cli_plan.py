"""``photokeep plan``: options and printing, nothing else. Exit codes as in `headless.cli`.

The plan is shown in any case; 3 then says that a run would end with 3, because weights are missing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from .cli_options import HELP_OPTIONS, JobOptions, job_options, require_report_place
from .terminal import as_json_text, only_reports_on_stdout, open_console, plain, write_text

if TYPE_CHECKING:
    from .plan_report import PlanReport

Format = Literal["text", "mermaid", "json", "svg"]


@click.command(name="plan", context_settings=HELP_OPTIONS)
@job_options
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "mermaid", "json", "svg"]),
    default="text",
    show_default=True,
    help="A table, a diagram for Markdown, data, or a picture.",
)
@click.option("-O", "--output-file", "target", metavar="FILE|-", default="-", help="Where to write it.  [default: -]")
@click.option("-v", "--verbose", is_flag=True, help="Print full details of faults.")
def plan_command(options: JobOptions, format_name: Format, target: str, *, verbose: bool) -> None:  # noqa: ARG001
    """Show what a run of WORKFLOW would do, and do nothing.

    The stages in order, which of them are cached and why the others are not, their models, memory and time.

    \b
    photokeep plan workflows/restore.json
    photokeep plan workflows/restore.json -i scan.jpg --format svg -O plan.svg
    """  # noqa: D301 - click's mark against rewrapping is a real backspace
    require_report_place(target, "-O", options.workflow)
    show_plan(options, format_name, target)


def show_plan(
    options: JobOptions, format_name: Format | None, target: str = "-", *, json_path: str | None = None
) -> None:
    """Show a plan, and end the program with the exit code that a run would have.

    Args:
        options: of which job.
        format_name: None shows none, only writes the JSON.
        target: file to write to, or "-".
        json_path: where to write the plan as JSON besides; with "-" what is for people goes to standard error.
    """
    from .plan_report import report

    with only_reports_on_stdout():
        found = report(options.job())
    if format_name == "text":
        _print_text(found, target, stderr=json_path == "-")
    elif format_name is not None:
        write_text(target, _rendered(found, format_name))
        if found.problem is not None:  # which a table says itself
            click.echo(plain(f"warning: {found.problem}"), err=True)
    elif found.problem is not None:
        click.echo(plain(f"error: {found.problem}"), err=True)
    if json_path is not None:
        write_text(json_path, as_json_text(found.as_json()))
    if found.exit_code:
        sys.exit(found.exit_code)


def _rendered(found: PlanReport, format_name: Format) -> str:
    if format_name == "json":
        return as_json_text(found.as_json())
    if format_name == "mermaid":
        from .plan_mermaid import mermaid

        return mermaid(found)
    from .plan_svg import svg

    return svg(found)


def _print_text(found: PlanReport, target: str, *, stderr: bool) -> None:
    from .plan_text import print_plan

    if target == "-":
        print_plan(open_console(stderr=stderr), found)
        return
    from io import StringIO

    text = StringIO()
    print_plan(open_console(file=text), found)
    write_text(target, text.getvalue())
