"""The pool's figures in Prometheus' text format."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from vram_rig import CPU, GPU, UNIT, Rig, Source

from photokeep_nodes import vram_manager, vram_metrics
from photokeep_nodes.errors import MissingExtraError, UsageError

ROOT = Path(__file__).resolve().parents[1]


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels; each may come once."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def one(text: str, name: str, **labels: str) -> float:
    return parsed(text)[f"photokeep_vram_{name}", tuple(sorted(labels.items()))]


def test_says_what_the_pool_holds_and_did():
    rig, a = Rig(3), Source("a", 2)
    with rig.pool.lease(a, device=GPU, working_bytes=UNIT):
        inside = vram_metrics.prometheus_text(rig.pool)
    rig.touch(a)
    rig.touch(Source("b", 2))
    text = vram_metrics.prometheus_text(rig.pool)
    assert one(text, "pool_in_use") == 1
    assert one(inside, "used_bytes", device="cuda:0") == 3 * UNIT
    assert one(text, "used_bytes", device="cuda:0") == 2 * UNIT
    assert one(text, "budget_bytes", device="cuda:0") == 3 * UNIT
    assert one(text, "peak_bytes", device="cuda:0") == 3 * UNIT
    assert one(text, "used_bytes", device="cpu") == 4 * UNIT
    assert one(text, "hits_total") == 1
    assert one(text, "cold_loads_total") == 2
    assert one(text, "promotions_total") == 2
    assert one(text, "evictions_total") == 1
    assert one(text, "moved_bytes_total") == 4 * UNIT
    assert one(text, "stall_seconds_total") >= one(text, "stall_cause_seconds_total", cause="load") >= 0
    assert one(text, "load_seconds_total") >= 0
    assert one(inside, "leases", model="a") == 1
    assert one(text, "leases", model="a") == 0
    assert one(text, "model_bytes", model="a", state="warm") == 2 * UNIT
    assert one(text, "model_bytes", model="b", state="hot") == 2 * UNIT


def test_a_dropped_model_and_its_successor_are_one_series():
    rig, a = Rig(10), Source("a", 2)
    with rig.pool.lease(a, device=GPU):
        rig.pool.drop("a")
        with rig.pool.lease(Source("a", 2), device=GPU):
            text = vram_metrics.prometheus_text(rig.pool)
    assert one(text, "model_bytes", model="a", state="hot") == 4 * UNIT
    assert one(text, "leases", model="a") == 2


class Stub:
    """A pool of some other version."""

    def stats(self):
        return {
            "tiers": {
                "cpu": {"budget_bytes": 5, "fenced": "", "models": ["a"]},
                "cuda:0": {"budget_bytes": None, "spare_bytes": 2, "fenced": "lost"},
            },
            "models": [],
            "counters": {"new_things": 4, "grace_s": 0.5, "why": {"x": 1.5}, "named": "text", "flag": True},
        }


def test_figures_nobody_has_thought_of_yet_come_along():
    text = vram_metrics.prometheus_text(Stub())
    assert one(text, "budget_bytes", device="cpu") == 5
    assert one(text, "spare_bytes", device="cuda:0") == 2
    assert one(text, "new_things_total") == 4
    assert one(text, "grace_seconds_total") == 0.5
    assert one(text, "why_total", cause="x") == 1.5
    assert "named" not in text
    assert "flag" not in text
    assert "fenced" not in text


def test_without_a_pool_that_is_all_there_is_to_say():
    assert parsed(vram_metrics.prometheus_text(None)) == {("photokeep_vram_pool_in_use", ()): 0}


def test_a_registry_may_ask_again_and_again():
    rig, registry = Rig(3), CollectorRegistry()
    registry.register(vram_metrics.PoolCollector(rig.pool))
    rig.touch(Source("a"))
    assert one(generate_latest(registry).decode(), "cold_loads_total") == 1
    rig.touch(Source("b"))
    assert one(generate_latest(registry).decode(), "cold_loads_total") == 2


def test_without_the_client_library_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for ask in (lambda: vram_metrics.prometheus_text(None), lambda: vram_metrics.PoolCollector(None)):
        with pytest.raises(MissingExtraError, match="prometheus-client") as caught:
            ask()
        assert "pip install 'photokeep[prometheus]'" in caught.value.hint
        assert isinstance(caught.value, UsageError)


def test_finds_the_pool_of_this_process_and_makes_none(monkeypatch):
    monkeypatch.delitem(sys.modules, vram_manager._SHARED_KEY, raising=False)
    assert vram_metrics.pool_in_use() is None
    assert vram_manager._SHARED_KEY not in sys.modules
    space = types.ModuleType(vram_manager._SHARED_KEY)
    space.pool = None
    monkeypatch.setitem(sys.modules, vram_manager._SHARED_KEY, space)
    assert vram_metrics.pool_in_use() is None
    space.pool = Rig(1).pool
    assert vram_metrics.pool_in_use() is space.pool
    assert space.pool.occupancy(CPU)[0] == 0


def test_needs_no_torch():
    code = (
        "import sys\n"
        "from photokeep_nodes import vram_metrics\n"
        "text = vram_metrics.prometheus_text(vram_metrics.pool_in_use())\n"
        "vram_metrics.working_memory().listing()\n"
        "print('pool_in_use 0' in text, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True False"
