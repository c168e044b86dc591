"""What the memory pool did during a run: for the result, for people, for Prometheus, for `photokeep doctor` later.

Imports no torch. A run that took everything from the cache has no pool, and then there is nothing to say.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from photokeep_nodes import vram_metrics
from photokeep_nodes.errors import PhotokeepError
from photokeep_nodes.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 1  # of the kept figures; those of another photokeep are not shown


class PoolWatch:
    """Takes the pool's counters when it is made, and tells the difference later."""

    def __init__(self) -> None:
        self._before = _counters()

    def figures(self) -> dict[str, Any] | None:
        """What the pool did since, as plain data; None if no model was asked for.

        Returns:
            ``counters`` of this stretch; ``devices`` (by name: budget, used, weights and, of the whole process, peak
            bytes); ``models`` (key, bytes, state, load seconds, where they are) as they are now.
        """
        pool = vram_metrics.pool_in_use()
        if pool is None:
            return None
        stats = pool.stats()
        counters = {name: _since(self._before.get(name), value) for name, value in stats["counters"].items()}
        if not any(map(_truthy, counters.values())):
            return None
        wanted = ("budget_bytes", "used_bytes", "weights_bytes", "peak_bytes")
        return {
            "counters": counters,
            "devices": {name: {key: tier[key] for key in wanted} for name, tier in stats["tiers"].items()},
            "models": [
                {key: model[key] for key in ("key", "n_bytes", "state", "in_ram", "load_s")}
                | {"places": sorted(model["places"])}
                for model in stats["models"]
            ],
        }

    def keep(self, workflow: Path) -> dict[str, Any] | None:
        """Leave the figures, if there are any, for `photokeep doctor`, and return them."""
        figures = self.figures()
        if figures is not None:
            vram_metrics.working_memory().save_run({"version": _VERSION, "workflow": str(workflow), **figures})
        return figures


def _counters() -> dict[str, Any]:
    pool = vram_metrics.pool_in_use()
    return {} if pool is None else dict(pool.stats()["counters"])


def _since(before: Any, now: Any) -> Any:
    if isinstance(now, dict):
        return {name: _since((before or {}).get(name), value) for name, value in now.items()}
    return now - (before or 0)


def _truthy(value: Any) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)


def last_run() -> dict[str, Any] | None:
    """The figures of the last run that used models, with ``age_s``; None if there are none."""
    found = vram_metrics.working_memory().last_run()
    if found is None or found.get("version") != _VERSION:
        return None
    return found | {"age_s": max(0.0, time.time() - found["at"])}


def write_metrics(path: Path) -> None:
    """Write the pool's figures for node_exporter's textfile collector, whole or not at all.

    Raises:
        MissingExtraError: the client library is not installed.
        PhotokeepError: the file cannot be written.
    """
    text = vram_metrics.prometheus_text(vram_metrics.pool_in_use())
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise PhotokeepError(f"{path} cannot be written: {error.strerror or error}") from error
