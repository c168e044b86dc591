"""Figures about the memory pool for whoever watches it, Prometheus among them. Imports no torch.

Every counter of ``pool.stats()`` is exported under a name made from its own, so that a new one needs nothing here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, cast

from ._vram import SHARED_KEY
from ._vram.learnt import working_memory
from ._vram.pressure import gauge
from .errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

__all__ = ["PoolCollector", "gauge", "pool_in_use", "prometheus_text", "require_prometheus", "working_memory"]

PREFIX = "photokeep_vram_"

_RENAMED = {"bytes_to_device": "moved_bytes", "stalls_s": "stall_cause_s"}

_MEANING = {
    "hits": "Leases of a model that was where it was asked for.",
    "promotions": "Models copied from RAM to a device.",
    "cold_loads": "Models read from disk.",
    "evictions": "Models taken off a device.",
    "ram_evictions": "Models forgotten in RAM.",
    "bytes_to_device": "Bytes of weights copied to devices.",
    "load_s": "Seconds spent reading models from disk.",
    "stall_s": "Seconds leases took to be granted when the models were not at hand.",
    "stalls_s": "The same seconds by what they were spent on.",
    "budget_bytes": "What the pool may use.",
    "used_bytes": "Weights and promised working memory.",
    "peak_bytes": "Most that was in use at one time.",
}


class Reporting(Protocol):
    """What is asked of a pool."""

    def stats(self) -> dict[str, Any]:
        """See `VramPool.stats`."""


def pool_in_use() -> Reporting | None:
    """The pool of this process, if anything has made one."""
    space = sys.modules.get(SHARED_KEY)
    return None if space is None else cast("Reporting | None", vars(space)["pool"])


def require_prometheus() -> ModuleType:
    """The client library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise MissingExtraError(
            "metrics for Prometheus need the package prometheus-client",
            hint="Get it with: pip install 'photokeep[prometheus]'",
        ) from error
    return prometheus_client


def prometheus_text(pool: Reporting | None) -> str:
    """The pool's figures in Prometheus' text format, as node_exporter's textfile collector reads it.

    Args:
        pool: None where no model was used; that is all the text says then.
    Raises:
        MissingExtraError: the client library is not installed.
    """
    client = require_prometheus()
    registry = client.CollectorRegistry()
    registry.register(cast("Collector", PoolCollector(pool)))
    return bytes(client.generate_latest(registry)).decode()


class PoolCollector:
    """Asks a pool for its figures whenever Prometheus does; give it to a ``CollectorRegistry``.

    Args:
        pool: whose; None where there is none.
    Raises:
        MissingExtraError: the client library is not installed.
    """

    def __init__(self, pool: Reporting | None) -> None:
        require_prometheus()
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """The pool's figures at this moment."""
        from prometheus_client.core import GaugeMetricFamily

        in_use = int(self._pool is not None)
        yield GaugeMetricFamily(f"{PREFIX}pool_in_use", "Whether any model was used in this process.", value=in_use)
        if self._pool is not None:
            stats = self._pool.stats()
            yield from _tiers(stats["tiers"])
            yield from _models(stats["models"])
            yield from _counters(stats["counters"])


def _tiers(tiers: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    names = dict.fromkeys(name for tier in tiers.values() for name in tier)
    for name in names:
        numbers = {device: float(tier[name]) for device, tier in tiers.items() if _is_number(tier.get(name))}
        if numbers:
            family = GaugeMetricFamily(f"{PREFIX}{name}", _meaning(name), labels=["device"])
            for device, number in numbers.items():
                family.add_metric([device], number)
            yield family


def _models(models: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    held = GaugeMetricFamily(f"{PREFIX}model_bytes", "Weights of a model the pool knows.", labels=["model", "state"])
    leases = GaugeMetricFamily(f"{PREFIX}leases", "Leases of a model that are out.", labels=["model"])
    # A dropped model may still be in use beside its successor of the same name; Prometheus wants each series once.
    sizes: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    for model in models:
        key, state = str(model["key"]), str(model["state"])
        sizes[key, state] = sizes.get((key, state), 0) + model["n_bytes"]
        counts[key] = counts.get(key, 0) + len(model["leases"])
    for (key, state), n_bytes in sizes.items():
        held.add_metric([key, state], n_bytes)
    for key, count in counts.items():
        leases.add_metric([key], count)
    yield held
    yield leases


def _counters(counters: dict[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for name, value in counters.items():
        public = _RENAMED.get(name, name)
        if public.endswith("_s"):  # Prometheus spells units out
            public = f"{public.removesuffix('_s')}_seconds"
        if _is_number(value):
            yield CounterMetricFamily(f"{PREFIX}{public}", _meaning(name), value=value)
        elif isinstance(value, dict):
            family = CounterMetricFamily(f"{PREFIX}{public}", _meaning(name), labels=["cause"])
            for cause, amount in value.items():
                family.add_metric([str(cause)], amount)
            yield family


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _meaning(name: str) -> str:
    return _MEANING.get(name, f"The pool's {name.replace('_', ' ')}.")
