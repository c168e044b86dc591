"""Options that several commands share: which workflow over which photos, and with what settings."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from .job import Job

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

allow_pack_option = click.option(
    "--allow-pack",
    "packs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Import this node pack (a folder or .py file as in custom_nodes/) and run its code; may be repeated.",
)

_JOB_OPTIONS = (
    click.argument("workflow", type=click.Path(path_type=Path)),
    click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        metavar="PATH|DIR|GLOB",
        help="Photo, folder or pattern to feed into the workflow's load node; may be repeated. One run per photo.",
    ),
    click.option(
        "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Where results go.  [default: output]"
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="NODE.INPUT=VALUE",
        help="Change a value of the workflow; NODE is an id or a title. May be repeated.",
    ),
    click.option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.  [default: auto]"),
    click.option("--cache-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where finished stages are kept."),
    click.option("--no-cache", is_flag=True, help="Neither read nor keep finished stages."),
    allow_pack_option,
)


@dataclass(frozen=True)
class JobOptions:
    """What the user typed of the options above; what is None or empty was not."""

    workflow: Path
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    overrides: tuple[str, ...] = ()
    device: str | None = None
    cache_dir: Path | None = None
    no_cache: bool = False
    packs: tuple[Path, ...] = ()

    def require_places(self) -> None:
        """Find out before any work whether there is such a device, and whether results can be written.

        Raises:
            UsageError: there is no such device.
            click.UsageError: the output folder cannot be one.
        """
        from .settings import Settings, check_device, require_device

        defaults = Settings.from_environment()
        require_device(check_device(self.device) if self.device else defaults.device)
        require_folder(self.output or defaults.output_dir, "-o")

    def job(self, *, vram_budget_bytes: int | None = None) -> Job:
        """The job that these options describe.

        Args:
            vram_budget_bytes: cap on the memory pool of a GPU, where the user typed one.
        Raises:
            PhotokeepError: the workflow, an option or a node pack cannot be used.
        """
        from photokeep_nodes import host

        from .job import Job
        from .settings import Settings, check_device
        from .store import Store

        for path in self.packs:  # said before anything of it is imported
            click.echo(plain(f"warning: untrusted node pack {path}: its code runs with all your rights"), err=True)
        defaults = Settings.from_environment()
        settings = host.Standalone(
            output_dir=self.output or defaults.output_dir,
            device=check_device(self.device) if self.device else defaults.device,
            vram_budget_bytes=vram_budget_bytes or defaults.vram_budget_bytes,
        )
        store = None
        if not self.no_cache:
            store = Store(self.cache_dir or defaults.cache_dir / "stages", limit_bytes=defaults.cache_limit_bytes)
        return Job(
            self.workflow,
            overrides=self.overrides,
            inputs=self.inputs,
            settings=settings,
            store=store,
            packs=self.packs,
        )


def job_options(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options above, as a ``JobOptions``, its first argument."""

    @functools.wraps(command)
    def with_options(**values: Any) -> object:
        typed = {field.name: values.pop(field.name) for field in fields(JobOptions)}
        return command(JobOptions(**typed), **values)

    decorated: Callable[..., object] = with_options
    for option in reversed(_JOB_OPTIONS):
        decorated = option(decorated)
    return decorated


def require_report_place(target: str | Path | None, option: str, workflow: Path) -> None:
    """Refuse, before any work, a report that would be written over the workflow or a photo, or into no file.

    Args:
        target: file to write to; "-" and None are none.
        option: its name, for the message.
        workflow: what is read.

    Raises:
        click.UsageError: it would.
    """
    from photokeep_nodes.photo_io.paths import EXTENSIONS

    if target is None or str(target) == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise click.UsageError(f"{option} {target} is a folder: name a file in it")
    if _is_same(path, workflow):
        raise click.UsageError(f"{option} {target} is the workflow itself: name another file")
    if path.suffix.lower() in EXTENSIONS:
        raise click.UsageError(f"{option} {target}: that is the name of a photo, and what is written is none")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def require_folder(path: Path, option: str) -> None:
    """Refuse, before any work, an output folder that is a file or lies below one.

    Raises:
        click.UsageError: it is, or may not be written into.
    """
    nearest = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise click.UsageError(f"{option} {path}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise click.UsageError(f"{option} {path}: you may not write into {nearest}")
