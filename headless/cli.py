"""The command line: options, exit codes and printing, nothing else.

Exit codes: 0 done, 1 a stage failed, 2 bad usage or bad workflow, 3 weights missing, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .cli_models import models_group
from .cli_options import HELP_OPTIONS, JobOptions, job_options, require_folder, require_report_place
from .cli_plan import plan_command, show_plan
from .cli_workflow import convert_command, lint_command
from .terminal import as_json_text, only_reports_on_stdout, open_console, plain, write_text

# Everything heavier is imported by the command that needs it, so that --help answers at once.

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from photokeep_nodes.errors import PhotokeepError

    from .events import RunResult
    from .job import Job
    from .pool_figures import PoolWatch

EXIT_STAGE_FAILED = 1
EXIT_INTERRUPTED = 130
_MOMENT_S = 0.005  # after which an interrupt that came at a bad moment is tried again


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            version = metadata.version("photokeep")
        except metadata.PackageNotFoundError:
            version = "(not installed as a package)"
        click.echo(f"photokeep {version}")
        context.exit()


_version_option = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)


@click.command(name="run", context_settings=HELP_OPTIONS)
@job_options
@click.option("--plan", "plan_only", is_flag=True, help="Show what would run and why, and run nothing.")
@click.option("--vram-budget", metavar="SIZE", help="Most GPU memory to hold models in, such as 8G.")
@click.option("--json", "json_path", metavar="FILE|-", help="Write the result as JSON; - is standard output.")
@click.option(
    "--metrics",
    "metrics_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the memory pool's figures for Prometheus (node_exporter's textfile collector), photo by photo.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
@click.option("-v", "--verbose", is_flag=True, help="Print why each stage runs, and full details of faults.")
@_version_option
def run_workflow(
    options: JobOptions,
    json_path: str | None,
    metrics_path: Path | None,
    *,
    plan_only: bool,
    vram_budget: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Run a saved WORKFLOW: the editor's own file, the API format, or a picture (PNG, WebP) that carries one.

    \b
    photokeep-run workflows/restore.json
    photokeep-run workflows/restore.json -i scans/ -o restored/
    photokeep-run workflows/restore.json --set Upscale.scale=2 --plan
    """  # noqa: D301 - click's mark against rewrapping is a real backspace
    from .pool_figures import PoolWatch, write_metrics
    from .settings import parse_size

    if quiet and verbose:
        raise click.UsageError("-q and -v contradict each other")
    budget = parse_size(vram_budget) if vram_budget else None
    require_report_place(json_path, "--json", options.workflow)
    require_report_place(metrics_path, "--metrics", options.workflow)
    if plan_only:
        show_plan(options, None if quiet else "text", json_path=json_path)
        return
    options.require_places()
    if metrics_path is not None:
        _require_metrics(metrics_path)
    # With the JSON on standard output, everything for people goes to standard error.
    console = open_console(stderr=json_path == "-")
    watch = PoolWatch()
    with only_reports_on_stdout(wanted=json_path == "-"):
        job = options.job(vram_budget_bytes=budget)
        results, error = _run_all(job, console, watch, metrics_path, quiet=quiet, verbose=verbose)
    interrupted = isinstance(error, KeyboardInterrupt)
    code = _exit_code(results, error)
    if json_path is not None:
        status = "interrupted" if interrupted else "failed" if code else "done"
        found = {
            "version": 1,
            "workflow": str(options.workflow),
            "status": status,
            "exit_code": code,
            "runs": [result.as_json() for result in results],
            "packs": [pack.as_json() for pack in job.packs],
            "vram": watch.figures(),
        }
        write_text(json_path, as_json_text(found))
    if metrics_path is not None:
        write_metrics(metrics_path)
    if interrupted:
        kept = "" if options.no_cache else " Finished stages are kept: run the same command again to go on."
        _fail(f"interrupted.{kept}", EXIT_INTERRUPTED)
    if error is not None:
        raise error
    if code:
        sys.exit(code)


def _run_all(
    job: Job, console: Console, watch: PoolWatch, metrics_path: Path | None, *, quiet: bool, verbose: bool
) -> tuple[list[RunResult], PhotokeepError | KeyboardInterrupt | None]:
    """Run every photo; what finished before an error or an interruption is kept for the report."""
    from photokeep_nodes.errors import PhotokeepError

    from .display import LiveDisplay
    from .pool_figures import write_metrics

    results: list[RunResult] = []
    error: PhotokeepError | KeyboardInterrupt | None = None
    _route_logging(console)
    try:
        with LiveDisplay(console, quiet=quiet, verbose=verbose) as display:
            for result in job.run(display):
                results.append(result)
                _explain_failures(result, verbose=verbose)
                if metrics_path is not None and len(job.photos) > 1:
                    with suppress(PhotokeepError):  # a batch goes on without; the last one says what is wrong
                        write_metrics(metrics_path)
    except (PhotokeepError, KeyboardInterrupt) as caught:
        error = caught
    figures = watch.keep(job.workflow_path)
    if results and not quiet:
        _show_results(console, results, figures)
    return results, error


def _require_metrics(path: Path) -> None:
    """Find out before any work whether ``--metrics`` can be written."""
    from photokeep_nodes.vram_metrics import require_prometheus

    require_folder(path.parent, "--metrics")
    require_prometheus()


def _show_results(console: Console, results: list[RunResult], figures: dict[str, Any] | None) -> None:
    from .display import batch_table, pool_lines, results_table

    console.print()
    console.print(batch_table(results) if len(results) > 1 else results_table(results[0]))
    if figures is not None:
        console.print(pool_lines(figures), style="dim", markup=False)
    if len(results) == 1:
        for path in results[0].files:
            console.print(str(path), style="bold", markup=False)


def _explain_failures(result: RunResult, *, verbose: bool) -> None:
    from rich.markup import escape

    console = open_console(stderr=True)
    errors = [(f"{stage.title}: ", stage.error) for stage in result.stages if stage.error is not None]
    if result.error is not None:
        errors.append(("", result.error))
    for where, error in errors:
        console.print(f"[bold red]error:[/] {escape(where)}{escape(str(error))}")
        if verbose:
            import traceback

            console.print(escape("".join(traceback.format_exception(error))))


def _route_logging(console: Console) -> None:
    """Print what nodes log where it does not break the progress bar."""
    import logging

    from rich.logging import RichHandler

    class PlainFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return plain(super().format(record))

    handler = RichHandler(console=console, show_time=False, show_path=False, markup=False, level=logging.WARNING)
    handler.setFormatter(PlainFormatter())
    logging.getLogger("photokeep_nodes").addHandler(handler)


def _exit_code(results: Sequence[RunResult], error: BaseException | None) -> int:
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if error is not None:
        return int(getattr(error, "exit_code", EXIT_STAGE_FAILED))
    return EXIT_STAGE_FAILED if any(result.status == "failed" for result in results) else 0


@click.group(context_settings=HELP_OPTIONS)
@_version_option
def photokeep() -> None:
    """Restore old photos with many deep models on your own GPUs."""


photokeep.add_command(run_workflow)
photokeep.add_command(plan_command)
photokeep.add_command(lint_command)
photokeep.add_command(convert_command)
photokeep.add_command(models_group)


@photokeep.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
    """Show what was found: devices, memory, weights, versions."""
    from .doctor import report

    found = report()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from .display import print_doctor

    print_doctor(open_console(), found)


def _fail(message: str, code: int) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(plain(message), err=True)
    sys.exit(code)


def _interrupt(number: int, _frame: object) -> None:
    pool_code = sys.modules.get("photokeep_nodes.vram_manager")  # which a cached run never imports
    if pool_code is not None and not pool_code.may_interrupt():
        import threading

        def again() -> None:
            if hasattr(signal, "pthread_kill"):  # wakes the main thread even where it sleeps
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            else:
                signal.raise_signal(number)

        threading.Timer(_MOMENT_S, again).start()
        return
    raise KeyboardInterrupt


def _guarded(command: Callable[..., object]) -> None:
    """Run a click command; turn errors into a message and an exit code."""
    from photokeep_nodes.errors import PhotokeepError

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' words to developers; -W and PYTHONWARNINGS bring them back
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that is no text must not end a run
    # A service manager's "stop" is as clean as Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a background job of a shell: not ours to undo
            signal.signal(number, _interrupt)
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        click.echo(plain(text.getvalue()), err=True, nl=False)  # with names of files that a shell's * has found
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted.", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (such as `head`) has gone; point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_STAGE_FAILED)
    except PhotokeepError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        if {"-v", "--verbose"} & set(sys.argv):
            raise
        hint = "This is a fault in photokeep. Run again with -v for the details, and please report them."
        _fail(f"{type(error).__name__}: {error}\n{hint}", EXIT_STAGE_FAILED)


def main() -> None:
    """Entry point of ``photokeep``."""
    _guarded(photokeep)


def run_command() -> None:
    """Entry point of ``photokeep-run``."""
    _guarded(run_workflow)
