"""The pool's state as plain data and as text: who holds what, since when."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .records import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Counters, Entry, Grant, Ledger


def snapshot(ledgers: Iterable[Ledger], entries: Iterable[Entry], counters: Counters, now: float) -> dict[str, Any]:
    """Describe the pool; called under its lock.

    Returns:
        ``{"tiers": {place: {...}}, "models": [...], "counters": {...}}``, all JSON-able. The host's tier is "cpu";
        `PoolState.report` adds the plans in force and the models that could not be loaded.
    """
    entries = list(entries)
    return {
        "tiers": {str(ledger.place): _tier(ledger, entries) for ledger in ledgers},
        "models": [_model(entry, now) for entry in entries],
        "counters": asdict(counters),
    }


def _tier(ledger: Ledger, entries: list[Entry]) -> dict[str, Any]:
    # Pairs, not a mapping: a dropped model may still be leased beside its successor of the same key.
    if ledger.is_host:
        weights = [(entry.key, entry.charge.held) for entry in entries if entry.master is not None]
    else:
        weights = [(each.key, each.residents[ledger].charge.held) for each in entries if ledger in each.residents]
    return {
        "budget_bytes": ledger.budget_bytes,
        "used_bytes": ledger.used_bytes,
        "fenced": ledger.fenced,
        "committed_bytes": ledger.committed_bytes,
        "peak_bytes": ledger.peak_bytes,
        "weights_bytes": sum(n_bytes for _, n_bytes in weights),
        "models": sorted(key for key, _ in weights),
    }


def _model(entry: Entry, now: float) -> dict[str, Any]:
    holders = {grant: str(each.ledger.place) for each in entry.residents.values() for grant in each.grants}
    return {
        "key": entry.key,
        "n_bytes": entry.n_bytes,
        "state": state_name(entry),
        "in_ram": entry.master is not None,
        "stale": entry.stale,
        "load_s": entry.load_s,
        "places": {
            str(each.ledger.place): {"phase": each.phase.value, "since_s": now - each.since if each.since else 0.0}
            for each in entry.residents.values()
        },
        "leases": [_holder(grant, place, now) for grant, place in holders.items()],
    }


def _holder(grant: Grant, place: str, now: float) -> dict[str, Any]:
    return {
        "place": place,
        "thread": grant.thread.name,
        "held_s": now - grant.since,
        "working_bytes": grant.working.held if grant.working else 0,
    }


def state_name(entry: Entry) -> str:
    """Name the entry's state as the design does: cold, loading, warm, promoting, hot, demoting, dropping."""
    away = [each.phase for each in entry.residents.values() if not each.ledger.is_host]
    if entry.loading is not None:
        return "loading"
    for phase, name in ((Phase.ARRIVING, "promoting"), (Phase.LEAVING, "demoting"), (Phase.RESIDENT, "hot")):
        if phase in away:
            return name
    if entry.charge.leaving:
        return "dropping"
    return "cold" if entry.master is None else "warm"


def readable(report: dict[str, Any], place: str) -> str:
    """Lay a snapshot out as lines about one tier, for an error's hint."""
    tier = report["tiers"].get(place)
    if tier is None:
        return ""
    lines = [f"{place}: {human(tier['used_bytes'])} of {human(tier['budget_bytes'])} in use"]
    if tier["fenced"]:
        lines.append(f"  it failed: {tier['fenced']}")
    for model in report["models"]:
        on_host = place == "cpu" and model["in_ram"]
        if place not in model["places"] and not on_host:
            continue
        leases = [_in_words(each) for each in model["leases"]]
        lines.append(
            f"  {model['key']} {human(model['n_bytes'])} {'leased by ' + ', '.join(leases) if leases else 'idle'}"
        )
    return "\n".join(lines)


def _in_words(lease: dict[str, Any]) -> str:
    extra = f" with {human(lease['working_bytes'])} of working memory" if lease["working_bytes"] else ""
    return f"{lease['thread']} for {lease['held_s']:.1f} s{extra}"


def human(n_bytes: int) -> str:
    """Name a size the way people read it: 512 B, 1.5 KiB, 2.0 MiB, 12.0 GiB."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
