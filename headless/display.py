"""What a run looks like on a terminal, in a log, and as a table at its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .events import RunEnded, RunEvent, RunStarted, StageEnded, StageProgressed, StageStarted, Warned
from .models_display import print_weights, size
from .terminal import one_line, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .events import RunResult, StageResult

_SIZES_SHOWN = 4

_WAITS = ("turn", "eviction", "other_thread")  # what a lease waits for that is not its own models' way
_INCIDENTS = {
    "memory_retries": "tried again with memory freed",
    "smaller_tiles": "with smaller tiles",
    "moved_elsewhere": "on another device",
    "devices_lost": "devices lost",
}
"""Counters of the pool that are worth a word where they are not 0."""

_STYLES = {"cached": "cyan", "ran": "green", "failed": "bold red", "skipped": "yellow"}


class LiveDisplay:
    """Follows a run: a bar with tile, ETA and elapsed time on a terminal, a line per stage anywhere else.

    Args:
        console: where to; a terminal gets the bar.
        quiet: only warnings.
        verbose: also why each stage runs.
    """

    def __init__(self, console: Console, *, quiet: bool, verbose: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._verbose = verbose
        self._many = False
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: RunEvent) -> None:
        """Show one event."""
        if isinstance(event, Warned):
            self._console.print(f"[yellow]warning:[/] {escape(event.message)}")
        elif self._quiet:
            return
        elif isinstance(event, StageStarted):
            self._begin(event)
        elif isinstance(event, StageProgressed):
            if self._task is not None:
                unit = plain(f"{event.unit} {min(int(event.done) + 1, event.total)}/{event.total}")
                unit = "" if event.total == 1 else unit
                self._progress.update(self._task, completed=event.done, total=event.total, unit=unit)
        elif isinstance(event, StageEnded):
            self._finish(event.result)
        elif isinstance(event, RunStarted):
            self._many = event.total > 1
            if self._many:
                self._console.print(f"[bold]{event.index}/{event.total}[/] {escape(str(event.photo))}")
        elif isinstance(event, RunEnded) and self._many:
            style = "green" if event.result.status == "done" else "bold red"
            self._console.print(f"    [{style}]{event.result.status}[/] in {event.result.seconds:.1f} s")

    def _begin(self, event: StageStarted) -> None:
        self._drop_task()
        if self._verbose or not self._console.is_terminal:
            why = f" ({escape(event.why)})" if self._verbose else ""
            self._console.print(f"  {escape(one_line(event.title))} ...{why}")
        description = f"{event.index}/{event.total} {one_line(event.title)}"
        self._task = self._progress.add_task(description, total=None, unit="")

    def _finish(self, result: StageResult) -> None:
        self._drop_task()
        style = _STYLES[result.status]
        seconds = f" {result.seconds:.1f} s" if result.status == "ran" else ""
        self._console.print(f"  [{style}]{result.status:>7}[/] {escape(one_line(result.title))}{seconds}")
        # A photo alone is looked at closely; of a thousand, the same is in --json.
        if result.report and (self._verbose or (result.status == "ran" and not self._many)):
            for line in result.report.splitlines():
                self._console.print(f"          [dim]{escape(line)}[/]" if line else "", highlight=False)

    def _drop_task(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def results_table(result: RunResult) -> Table:
    """Stage, what happened and why, seconds, peak memory."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage")
    table.add_column("result")
    table.add_column("why", overflow="fold")
    table.add_column("seconds", justify="right")
    table.add_column("peak memory", justify="right")
    for stage in result.stages:
        ran = stage.status == "ran"
        table.add_row(
            escape(one_line(stage.title)),
            f"[{_STYLES[stage.status]}]{stage.status}[/]",
            escape(stage.why if stage.error is None else stage.error.message.splitlines()[0]),
            f"{stage.seconds:.2f}" if ran else "",
            size(stage.peak_bytes) if ran else "",
        )
    return table


def batch_table(results: Sequence[RunResult]) -> Table:
    """One line a photo: how it ended, its stages by outcome, seconds."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("photo", "result", "ran", "cached", "failed", "skipped", "seconds", "saved as"):
        text = heading in {"photo", "result", "saved as"}
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for result in results:
        counts = [sum(stage.status == status for stage in result.stages) for status in _STYLES]
        ran, cached, failed, skipped = counts[1], counts[0], counts[2], counts[3]
        style = "green" if result.status == "done" else "bold red"
        saved = "\n".join(str(path) for path in result.files)
        numbers = [str(count) if count else "" for count in (ran, cached, failed, skipped)]
        table.add_row(
            escape(str(result.photo)), f"[{style}]{result.status}[/]", *numbers, f"{result.seconds:.2f}", escape(saved)
        )
    return table


def pool_lines(figures: dict[str, Any]) -> str:
    """What the memory pool did, from `PoolWatch.figures`, in two lines."""
    counters, models = figures["counters"], figures["models"]
    evicted = counters["evictions"] + counters["ram_evictions"]
    waited = sum(counters["stalls_s"][cause] for cause in _WAITS)
    places = [place for model in models for place in model["places"] if place != "cpu"]
    parts = [f"{len(models)} in memory"]
    parts += [f"{places.count(place)} on {place}" for place in dict.fromkeys(places)]
    if counters["cold_loads"]:
        parts.append(f"{counters['cold_loads']} loaded from disk in {counters['load_s']:.1f} s")
    # Two counts, neither a part of the other: what was still on its way when its stage began was brought ahead as well.
    if counters.get("foreseen_hits"):
        parts.append(f"{counters['foreseen_hits']} brought ahead of their stage")
    if counters["hits"]:
        parts.append(f"ready at once for {counters['hits']} {'uses' if counters['hits'] > 1 else 'use'}")
    if evicted:
        parts.append(f"{evicted} evicted")
    parts += [f"{counters[name]} {text}" for name, text in _INCIDENTS.items() if counters.get(name)]
    if counters["bytes_to_device"]:
        parts.append(f"{size(counters['bytes_to_device'])} moved")
    if waited >= 0.05:
        parts.append(f"waited {waited:.1f} s")
    peaks = [
        f"{size(device['peak_bytes'])} of {size(device['budget_bytes'])} ({name})"
        for name, device in figures["devices"].items()
        if device["peak_bytes"]
    ]
    return f"models: {', '.join(parts)}\npeak set aside for models and their work: {', '.join(peaks)}"


def _ago(seconds: float) -> str:
    """How long ago, in the largest unit that fits."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def learnt_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line a size of input: what calls of the model took beside its weights. Of each model the commonest sizes."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "tile", "computed in", "on", "working memory", "measured"):
        figure = heading in {"working memory", "measured"}
        table.add_column(heading, justify="right" if figure else "left", overflow="fold")
    shown: Counter[str] = Counter()
    for row in sorted(rows, key=lambda each: (each["model"], each["device"], each["dtype"], -each["times"])):
        family = f"{row['model']} {row['device']} {row['dtype']}"
        shown[family] += 1
        if shown[family] > _SIZES_SHOWN:
            continue
        table.add_row(
            escape(row["model"]),
            f"{row['width']} x {row['height']}",
            row["dtype"],
            escape(row["device"]),
            _working(row),
            f"{row['times']} time{'s' if row['times'] != 1 else ''}",
        )
    if more := sum(max(0, count - _SIZES_SHOWN) for count in shown.values()):
        table.caption = f"and {more} more: photokeep doctor --json"
    return table


def _working(row: dict[str, Any]) -> str:
    """What calls took; "at least" where it was sampled, and what is asked for after one ran out of memory."""
    taken = f"{'>= ' if row['sampled'] else ''}{size(row['peak_bytes'])}" if row["peak_bytes"] else ""
    refused = f"[yellow]ran out, now {size(row['refused_bytes'])}[/]" if row["refused_bytes"] else ""
    return "\n".join(filter(None, (taken, refused)))


def _user(process: dict[str, Any]) -> str:
    used = "" if process["used_bytes"] is None else f"{size(process['used_bytes'])} used by "
    return f"{used}{escape(process['name'] or 'process')} ({process['pid']})"


def _device_line(device: dict[str, Any]) -> str:
    """What the pool may use of a device, and who has the rest."""
    room = f"{size(device['free_bytes'])} free of {size(device['total_bytes'])}"
    others = f"{size(device['others_bytes'])} used by others"
    return f"{device['device']}: up to {size(device['budget_bytes'])} for models; {room}, {others}"


def _last_run(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "none yet that used models"
    return f"{_ago(figures['age_s'])}, {figures['workflow']}\n{pool_lines(figures)}"


def print_doctor(console: Console, found: dict[str, Any]) -> None:
    """Show what `photokeep doctor` found."""
    memory, torch = found["memory"], found["torch"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("photokeep", f"{found['photokeep']}, Python {found['python']} on {found['platform']}")
    table.add_row("memory", f"{size(memory['available_bytes'])} free of {size(memory['total_bytes'])}")
    table.add_row("processor", f"{found['cpu_count']} cores")
    for gpu in found["nvidia"]:
        room = f"{size(gpu['free_bytes'])} free of {size(gpu['total_bytes'])}"
        users = "".join(f"\n  {_user(process)}" for process in gpu["processes"])
        table.add_row("GPU", f"{escape(gpu['name'])}, {room}, driver {gpu['driver']}{users}")
    if not found["nvidia"]:
        table.add_row("GPU", "[yellow]no NVIDIA driver found[/]")
    if "error" in torch:
        table.add_row("torch", f"[bold red]cannot be imported:[/] {escape(torch['error'])}")
    else:
        table.add_row(
            "torch",
            f"{torch['version']}, computes on [bold]{torch['device']}[/] in {' or '.join(torch['precisions'])},"
            f" {torch['threads']} threads",
        )
    for device in found["vram"]["devices"]:
        table.add_row("model memory", _device_line(device))
    table.add_row("last run", escape(_last_run(found["vram"]["last_run"])))
    table.add_row("cache", f"{escape(found['cache']['path'])}, {size(found['cache']['free_bytes'])} free on its disk")
    table.add_row("model folders", escape("\n".join(found["model_folders"])))
    table.add_row("ComfyUI", escape(found["comfyui_path"] or "COMFYUI_PATH is not set (not needed to run workflows)"))
    versions = [f"{name} {version}" for name, version in found["versions"].items() if version and name != "photokeep"]
    table.add_row("versions", ", ".join(versions))
    console.print(table)
    console.print()
    print_weights(console, found["weights"])
    console.print()
    if learnt := found["vram"]["learnt"]:
        console.print("What one call takes beside the weights, as measured:", style="dim")
        console.print(learnt_table(learnt))
    else:
        console.print("How much memory models take is learnt as they run; nothing is known yet.", style="dim")
