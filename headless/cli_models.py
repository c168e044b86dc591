"""``photokeep models``: options and printing, nothing else. Exit codes as in `headless.cli`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_options import allow_pack_option
from .terminal import open_console, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from photokeep_nodes.errors import PhotokeepError
    from photokeep_nodes.fetching import Order
    from photokeep_nodes.model_spec import ModelSpec

    from .preflight import NeededModels

_EXIT_MISSING = 3
_EXIT_INTERRUPTED = 130


class _Command(click.Command):
    """One of the commands below: each needs the model folders, and tells of a fault in full if asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        verbose = click.Option(
            ["-v", "--verbose"], is_flag=True, expose_value=False, help="Show faults of photokeep in full."
        )
        self.params.append(verbose)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, unless what is configured about ComfyUI's folders cannot be read; ``--help`` does not come here."""
        from photokeep_nodes import comfyui_folders

        comfyui_folders.check()
        return super().invoke(ctx)


class _Group(click.Group):
    command_class = _Command


@click.group(name="models", cls=_Group)
def models_group() -> None:
    """See, get, check and import the weights of the models."""


@models_group.command(name="list")
@click.option("--role", metavar="ROLE", help="Only models of this role, such as denoise.")
@click.option("--installed", is_flag=True, help="Only those that are here.")
@click.option("--missing", is_flag=True, help="Only those that are not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_list(role: str | None, *, installed: bool, missing: bool, as_json: bool) -> None:
    """Show every model: role, size, licence, whether it is installed; and the weight files of your own."""
    from .models_report import own_files_report, weights_report

    if installed and missing:
        raise click.UsageError("--installed and --missing contradict each other")
    if role is not None:
        role = _role(role)
    rows = [
        row
        for row in weights_report() + own_files_report()
        if role in {None, row["role"], *row.get("roles", ())}
        and not (missing if row["state"] == "installed" else installed)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from .models_display import print_weights

    print_weights(open_console(), rows)


@models_group.command(name="licenses")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_licenses(*, as_json: bool) -> None:
    """Show the licences of the weights, the models under each, and which you accepted."""
    from .models_report import licences_report

    rows = licences_report()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from .models_display import print_licences

    print_licences(open_console(), rows)


@models_group.command(name="path")
@click.argument("name", required=False)
def models_path(name: str | None) -> None:
    """Show where weight files are looked for, or where model NAME's file lies."""
    from photokeep_nodes import host, weights

    if name is None:
        for folder in host.user_model_dirs():
            click.echo(str(folder))
        upscalers, others = host.new_model_dir("upscale_models"), host.new_model_dir()
        click.echo(f"New files go into {others}", err=True)
        if upscalers != others:
            click.echo(f"Those that ComfyUI itself can load go into {upscalers}", err=True)
        return
    spec = _spec(name)
    weights.require([spec])
    found = weights.status(spec).installed
    click.echo("" if found is None else str(found.path))


@models_group.command(name="verify")
@click.argument("names", nargs=-1)
@click.option(
    "--trust", is_flag=True, help="Take the files of NAMES as right from now on, where no digest of them is published."
)
def models_verify(names: Sequence[str], *, trust: bool) -> None:
    """Hash the installed weight files (or those of NAMES) and compare them with what they should be.

    NAMES are models of the catalogue and imported files.
    """
    from photokeep_nodes import importing
    from photokeep_nodes.models import catalogue

    from .models_display import FetchDisplay, print_weights
    from .models_report import bytes_to_hash, imported_report, weights_report

    if trust and not names:
        raise click.UsageError("--trust needs the NAMES of the models whose files to trust")
    chosen = [_model_or_imported(name) for name in names]
    if not names:
        chosen = [*catalogue().values(), *importing.imported_files()]
    specs = {each.id: each for each in chosen if not isinstance(each, Path)}
    imported = list(dict.fromkeys(each for each in chosen if isinstance(each, Path)))
    if trust:
        _trust(specs.values(), imported)
    with FetchDisplay(open_console(stderr=True)) as display:
        count = display.counting("verifying", bytes_to_hash(specs.values(), imported))
        rows = weights_report(names=specs, check_digests=True, on_bytes=count)
        rows += imported_report(imported, on_bytes=count)
        display.end()
    missing = [row for row in rows if row["state"] == "missing"]
    print_weights(open_console(), [row for row in rows if names or row not in missing], details=True)
    if any(row["state"] == "corrupt" for row in rows):
        sys.exit(1)
    if names and missing:
        sys.exit(_EXIT_MISSING)


def _trust(specs: Iterable[ModelSpec], imported: Iterable[Path]) -> None:
    from photokeep_nodes import importing, weights

    for spec in specs:
        if not weights.trust(spec):
            raise click.UsageError(f"{spec.title}: its publisher states a digest, which is what counts")
    for path in imported:
        importing.trust(path)


@models_group.command(name="get")
@click.argument("names", nargs=-1)
@click.option(
    "-w",
    "--workflow",
    "workflows",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Get what this workflow needs; may be repeated.",
)
@click.option(
    "--accept-license",
    "accepted",
    multiple=True,
    metavar="ID",
    help="Accept a non-commercial licence that `photokeep models licenses` shows; it is remembered.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be fetched, and fetch nothing.")
@allow_pack_option
def models_get(
    names: Sequence[str], workflows: Sequence[Path], accepted: Sequence[str], packs: Sequence[Path], *, dry_run: bool
) -> None:
    """Download the weights of NAMES, each checked against its digest; a broken download is gone on with.

    \b
    photokeep models get gfpgan-1.4 siggraph17
    photokeep models get --workflow workflows/restore_full.json
    """  # noqa: D301 - click's mark against rewrapping is a real backspace
    from photokeep_nodes import fetching

    from .models_display import print_orders

    if not names and not workflows:
        raise click.UsageError("name the models to get, or a --workflow that needs them")
    specs = [_spec(name) for name in names]
    orders = fetching.orders(specs)
    known = {order.spec.id for order in orders}
    needed = [_needed_by(path, packs) for path in workflows]
    specs = [spec for each in needed for spec in each.specs]
    orders += [order for order in fetching.orders(specs, with_partners=False) if order.spec.id not in known]
    unusable = {str(error): error for each in needed for error in each.unusable}  # files of the user's own
    _accept(accepted, remember=not dry_run)
    print_orders(open_console(stderr=not dry_run), orders, accepting=accepted)
    missing = [order for order in orders if order.missing]
    if not missing and not unusable:
        click.echo("Nothing is missing.", err=not dry_run)
    failed = _get(missing) if missing and not dry_run else {}
    _explain([*failed.values(), *unusable.values()])
    if failed and len(missing) > 1:
        fetched = f"{len(missing) - len(failed)} of {len(missing)} files were fetched"
        click.echo(f"{fetched}; not: {', '.join(failed)}", err=True)
    if failed or unusable:
        codes = {error.exit_code for error in (*failed.values(), *unusable.values())}
        sys.exit(codes.pop() if len(codes) == 1 else 1)


def _get(orders: Sequence[Order]) -> dict[str, PhotokeepError]:
    """Fetch one after the other; one that fails does not keep the others from their turn.

    Returns:
        Why, for each that failed, by its id.
    """
    from photokeep_nodes import fetching
    from photokeep_nodes.downloads import Patience
    from photokeep_nodes.errors import PhotokeepError

    from .models_display import FetchDisplay

    paths: list[Path] = []
    failed: dict[str, PhotokeepError] = {}
    patience = Patience.from_environment()
    try:
        with FetchDisplay(open_console(stderr=True)) as display:
            for order in orders:
                file = order.file or order.spec.weights[0]
                display.begin(f"getting {file.filename}", file.size_bytes)
                try:
                    paths.append(fetching.fetch(order, listener=display, patience=patience))
                except PhotokeepError as error:
                    failed[order.spec.id] = error
                    display.end(f"[red]failed[/] {order.spec.id}")
                else:
                    display.end(f"[green]got[/] {order.spec.id}")
    except KeyboardInterrupt:
        click.echo("interrupted. What has come is kept: run the same command again to go on.", err=True)
        sys.exit(_EXIT_INTERRUPTED)
    finally:
        for path in paths:  # not sooner: a bar may be where they would be
            click.echo(str(path))
    return failed


def _explain(errors: Iterable[PhotokeepError]) -> None:
    for error in errors:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(plain(str(error)), err=True)


def _accept(ids: Sequence[str], *, remember: bool) -> None:
    from photokeep_nodes import licences

    from .models_report import catalogue_licences

    if not ids:
        return
    known = catalogue_licences()
    for licence_id in ids:
        if licence_id not in known:
            asking = [licence.id for licence in known.values() if not licence.commercial]
            near = f"Those that ask for consent: {', '.join(asking)}." if asking else "None of them asks for consent."
            raise click.UsageError(f"no model comes under a licence {licence_id!r}. {near}")
    for licence_id in ids if remember else ():
        licences.accept(known[licence_id])


def _needed_by(workflow: Path, packs: Sequence[Path]) -> NeededModels:
    from photokeep_nodes import host

    from .job import Job

    return Job(workflow, settings=host.Standalone(), store=None, packs=packs).needed_models()


@models_group.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--param", "param_path", type=click.Path(path_type=Path), metavar="FILE", help="Text of an ncnn .bin.")
@click.option("--name", metavar="NAME", help="Name of the new file.  [default: that of FILE]")
@click.option("--into", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the new file.")
@click.option("--force", is_flag=True, help="Replace a file of that name.")
def models_import(file: Path, param_path: Path | None, name: str | None, folder: Path | None, *, force: bool) -> None:
    """Check a weight FILE, find out what it is, and put it as safetensors where models are looked for.

    FILE is a PyTorch checkpoint (.pth, .pt, .ckpt), .safetensors, .onnx with its weights embedded, or an ncnn .bin with
    its .param beside it. It may come from a stranger: nothing in it is run.
    """
    from photokeep_nodes import importing

    from .models_display import FetchDisplay, imported_lines

    try:
        with FetchDisplay(open_console(stderr=True)) as display:
            found = importing.import_file(
                file,
                param_path=param_path,
                name=name,
                folder=folder,
                overwrite=force,
                on_bytes=display.counting(f"reading {file.name}", file.stat().st_size if file.is_file() else 0),
            )
    except KeyboardInterrupt:
        click.echo("interrupted. Nothing was written.", err=True)
        sys.exit(_EXIT_INTERRUPTED)
    for line in imported_lines(found, name=name, folder=folder):
        click.echo(line, err=True)
    click.echo(str(found.path))


def _model_or_imported(name: str) -> ModelSpec | Path:
    from photokeep_nodes import importing
    from photokeep_nodes.models import catalogue

    if name in catalogue():
        return catalogue()[name]
    paths = importing.imported_named(name)
    if len(paths) > 1:
        raise click.UsageError(
            f"{name} was imported more than once; name one by its path: {', '.join(map(str, paths))}"
        )
    if not paths:
        near = _near(name, [*catalogue(), *(path.name for path in importing.imported_files())])
        raise click.UsageError(f"there is no model or imported file {name!r}.{near}")
    return paths[0]


def _spec(name: str) -> ModelSpec:
    from photokeep_nodes.models import catalogue

    known = catalogue()
    if name not in known:
        raise click.UsageError(f"there is no model {name!r}.{_near(name, list(known))}")
    return known[name]


def _role(name: str) -> str:
    from photokeep_nodes.model_spec import ROLES

    role = name.lower().replace("-", "_").replace(" ", "_")
    if role not in ROLES:
        raise click.UsageError(f"there is no role {name!r}.{_near(role, list(ROLES))}")
    return role


def _near(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    plain = {each.casefold(): each for each in known}
    near = get_close_matches(name.casefold(), plain, n=1)
    return f" Did you mean {plain[near[0]]}?" if near else f" There are: {', '.join(known)}."
