"""How models, their licences and their downloads look on a terminal and in a log."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from photokeep_nodes import licences
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ROLE_TITLES
from photokeep_nodes.models._network import roles_of

from .models_report import OWN_FILE
from .terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from rich.console import Console

    from photokeep_nodes.fetching import Order
    from photokeep_nodes.importing import Imported

_STATES = {"installed": "green", "missing": "yellow", "corrupt": "bold red"}


def size(n_bytes: int) -> str:
    """Bytes as people read them."""
    value = float(n_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def _terms(licence: str, note: str, *, commercial: bool) -> str:
    return escape(licence) + ("*" if note else "") + ("" if commercial else " [red]non-commercial[/]")


def print_weights(console: Console, rows: Sequence[dict[str, Any]], *, details: bool = False) -> None:
    """Print one line a model: role, state, size, licence; and how to get what is missing.

    Args:
        console: where to.
        rows: of `models_report`.
        details: also what was found of those that are installed.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "role", "weights", "size"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    table.add_column("found" if details else "licence", overflow="fold")
    for row in rows:
        state = row["state"]
        last = _terms(row["licence"], row["note"], commercial=row["commercial"] is not False)
        if details:
            last = escape(row["detail"])
        elif row["role"] == OWN_FILE:
            last = escape(_own(row))
        table.add_row(
            escape(row["id"]),
            row["role"].replace("_", " "),
            f"[{_STATES[state]}]{state}[/]",
            size(row["size_bytes"]),
            last,
        )
    console.print(table)
    for row in rows:
        if row["state"] == "corrupt":
            why = "" if details else f": {escape(row['detail'])}"
            console.print(f"\n[bold red]corrupt[/] {escape(row['id'])}{why}")
            console.print(row["hint"], markup=False, soft_wrap=True)
    if any(row["note"] for row in rows) and not details:
        console.print("\n* with a caveat, see: photokeep models licenses", style="dim")
    _print_how_to_get(console, [row for row in rows if row["state"] == "missing"])


def _own(row: dict[str, Any]) -> str:
    """What a file of the user's is, and the nodes that take it."""
    if not row["architecture"]:
        return "not looked at yet; for a Model File node"
    titles = [title for role, title in ROLE_TITLES.items() if role in row["roles"]]
    return f"{row['architecture']}; " + (f"for Model File ({', '.join(titles)})" if titles else "no node takes it")


def _print_how_to_get(console: Console, missing: Sequence[dict[str, Any]]) -> None:
    ours = [row["id"] for row in missing if row["install"].startswith("photokeep ")]
    others = dict.fromkeys(row["install"] for row in missing if not row["install"].startswith("photokeep "))
    if not missing:
        return
    console.print()
    if len(ours) == 1:
        console.print(f"To get it: photokeep models get {ours[0]}", markup=False)
    elif ours:
        console.print(f"To get missing ones, by name: photokeep models get {ours[0]} ...", markup=False)
    for command in others:
        names = ", ".join(row["id"] for row in missing if row["install"] == command)
        console.print(f"To get {names}: {command}", markup=False)


def print_licences(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print each licence with its terms, the models under it, and whether it was accepted."""
    for licence_id, group in groupby(rows, key=lambda row: row["id"]):
        each = list(group)
        terms, accepted = "commercial use allowed", each[0]["accepted"]
        if not each[0]["commercial"]:
            consent = "[yellow]not accepted[/]" if accepted is None else f"accepted {escape(accepted)}"
            terms = f"[bold red]non-commercial[/], {consent}"
        console.print(f"[bold]{escape(licence_id)}[/]: {terms}")
        for row in each:
            console.print(f"  {', '.join(row['models'])}", markup=False)
            console.print(f"    {row['url']}", markup=False, style="dim")
            if row["note"]:
                console.print(f"    {row['note']}", markup=False, style="dim")


def print_orders(console: Console, orders: Sequence[Order], *, accepting: Collection[str] = ()) -> None:
    """Say what is going to be fetched, how much that is, under which terms, and what is here already.

    Args:
        console: where to.
        orders: of `fetching`.
        accepting: ids of the licences that the same command accepts, whether or not that is remembered yet.
    """
    missing = [order for order in orders if order.missing]
    here = [order.spec.id for order in orders if not order.missing]
    if missing:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for column in range(4):
            table.add_column(no_wrap=column < 3, overflow="fold", justify="right" if column == 2 else "left")
        for order in missing:
            file = order.file or order.spec.weights[0]
            notes = _terms(file.licence.id, "", commercial=file.licence.commercial)
            accepted = file.licence.id in accepting or licences.accepted_at(file.licence.id) is not None
            if not file.licence.commercial and not accepted:
                notes += ", [yellow]not accepted[/]"
            if order.status.state == "corrupt":
                notes += ", [bold red]corrupt[/] here"
            if order.kept_bytes:
                notes += f", [cyan]{size(order.kept_bytes)} here already[/]"
            if order.wanted_by is not None:
                notes += f", for the slider of {escape(order.wanted_by.id)}"
            table.add_row(f"  {escape(order.spec.id)}", escape(file.filename), size(file.size_bytes), notes)
        total = sum((order.file or order.spec.weights[0]).size_bytes for order in missing)
        kept = sum(order.kept_bytes for order in missing)
        rest = f", {size(kept)} of it here already" if kept else ""
        console.print(f"To get: {len(missing)} file{'s' if len(missing) > 1 else ''}, {size(total)}{rest}")
        console.print(table)
        for folder in dict.fromkeys(order.target.parent for order in missing if order.target is not None):
            console.print(f"  into {folder}", markup=False, style="dim")
        for note in dict.fromkeys(order.file.licence.note for order in missing if order.file is not None):
            if note:
                console.print(f"  note: {note}", markup=False, style="dim")
        for need in dict.fromkeys(order.spec.requirement for order in missing):
            if need:
                console.print(f"  its code is in another package: pip install '{need}'", markup=False)
    if here:
        console.print(f"Here already: {', '.join(here)}", markup=False)


class FetchDisplay:
    """Follows downloads: a bar with speed and time left on a terminal, a line at the start of each anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> FetchDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> None:
        """A file of ``total`` bytes is next."""
        self.end()
        self._task = self._progress.add_task(plain(what), total=total)
        if not self._console.is_terminal:
            self._console.print(f"{what}, {size(total)} ...", markup=False)

    def counting(self, what: str, total: int) -> Callable[[int], None]:
        """A bar of ``total`` bytes; it advances by what it is called with."""
        if total:
            self.begin(what, total)
        done = 0

        def count(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            self.reached(done, total)

        return count

    def end(self, how: str = "") -> None:
        """The file is done with; ``how`` it ended is shown, as rich markup."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        if how:
            self._console.print(f"  {how}")

    def reached(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` bytes are here."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=max(done, total))

    def note(self, text: str) -> None:
        """Show a line above the bar."""
        self._console.print(f"  {text}", markup=False)


def imported_lines(found: Imported, *, name: str | None = None, folder: Path | None = None) -> list[str]:
    """What was imported, and how to use it.

    Args:
        found: the import.
        name: that the user asked for.
        folder: that the user asked for.
    """
    if found.spec is not None:
        licence = found.spec.weights[0].licence
        lines = [f"It is the published file of {found.spec.title} ({found.spec.id})."]
        if name not in {None, found.path.name, found.path.stem}:
            lines.append(f"It keeps its published name, under which it is looked for; --name {name} does not count.")
        if folder is not None and found.path.parent != folder:
            lines.append("It came with a package and is used where that keeps it; --into does not count.")
        return [*lines, f"Licence: {licence.id}, {licence.url}", *_not_found(found)]
    facts = found.facts
    if facts is None:
        return _not_found(found)
    what = f"{found.architecture} x{facts.scale}, {found.parameters / 1e6:.1f} million parameters"
    if (facts.input_channels, facts.output_channels) != (3, 3):
        what += f", {facts.input_channels} channels in and {facts.output_channels} out"
    name = found.found_as or found.path.name
    try:
        titles = [ROLE_TITLES[role] for role in roles_of(facts, name)]
    except NodeInputError as error:
        return [what, f"No Model File node takes it: {error.message}."]
    if len(titles) == 1:
        use = f"Use it with the node Model File ({titles[0]}), as {name}."
    else:
        several = f"{', '.join(titles[:-1])} or {titles[-1]}"
        use = f"Use it as {name} with the Model File node of what it was trained for: {several}."
    return [what, use, *_not_found(found)]


def _not_found(found: Imported) -> list[str]:
    if found.found_as is not None:
        return []
    return [
        f"It is not found in {found.path.parent}, though: `photokeep models path` shows where models are looked for."
    ]
