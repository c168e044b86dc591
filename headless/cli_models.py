"""``photokeep models``: options and printing, nothing else. Exit codes as in `headless.cli`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .terminal import open_console

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group(name="models")
def models_group() -> None:
    """See, check and get the weights of the models."""


@models_group.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_list(*, as_json: bool) -> None:
    """Show every model: role, size, licence, whether it is installed."""
    from .doctor import weights_report

    rows = weights_report()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from .display import weights_table

    open_console().print(weights_table(rows))


@models_group.command(name="path")
@click.argument("name", required=False)
def models_path(name: str | None) -> None:
    """Show where weight files are looked for, or where model NAME's file lies."""
    from photokeep_nodes import host, weights

    if name is None:
        for folder in host.user_model_dirs():
            click.echo(str(folder))
        return
    spec = _spec(name)
    weights.require([spec])
    found = weights.status(spec).installed
    click.echo("" if found is None else str(found.path))


@models_group.command(name="verify")
@click.argument("names", nargs=-1)
def models_verify(names: Sequence[str]) -> None:
    """Hash the installed weight files (or those of NAMES) and compare them with the catalogue."""
    from .display import weights_table
    from .doctor import weights_report

    wanted = {_spec(name).id for name in names}
    rows = [row for row in weights_report(check_digests=True) if not wanted or row["id"] in wanted]
    shown = [row for row in rows if row["state"] != "missing" or row["id"] in wanted]
    open_console().print(weights_table(shown))
    if any(row["state"] == "corrupt" for row in rows):
        sys.exit(1)
    if any(row["state"] == "missing" and row["id"] in wanted for row in rows):
        sys.exit(3)


@models_group.command(name="get")
@click.argument("names", nargs=-1, required=True)
def models_get(names: Sequence[str]) -> None:
    """Download the weights of NAMES into the first model folder; each is checked against its digest."""
    from photokeep_nodes import weights

    for name in names:
        spec = _spec(name)
        if weights.status(spec).state == "installed":
            click.echo(f"{spec.title} is installed")
            continue
        licence = spec.weights[0].licence
        click.echo(f"{spec.title}: licence {licence.id}, {licence.url}" + (f"\n{licence.note}" if licence.note else ""))
        click.echo(str(weights.fetch(spec, progress=sys.stderr.isatty())))


def _spec(name: str) -> Any:
    from difflib import get_close_matches

    from photokeep_nodes.models import catalogue

    known = catalogue()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
        raise click.UsageError(f"there is no model {name!r}.{hint}")
    return known[name]
