"""The yardstick of the policy benchmark, and the benchmark itself on a small scale."""

from __future__ import annotations

import importlib
import random
import sys
from itertools import combinations
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def load(monkeypatch):
    """Import modules from bench/, and forget them afterwards."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (BENCH / f"{name}.py").exists():
            del sys.modules[name]


def brute_force(trace, budget: int) -> int:
    """Try every set of models to keep at every step."""

    def serve(index: int, there: frozenset[int], memo: dict) -> int:
        if index == len(trace.steps):
            return 0
        if (index, there) not in memo:
            step = trace.steps[index]
            missing = set(step.models) - there
            pool = sorted(there | missing)
            kept = (
                frozenset(each)
                for count in range(len(pool) + 1)
                for each in combinations(pool, count)
                if set(step.models) <= set(each)
                and sum(trace.sizes[model] for model in each) + step.working_bytes <= budget
            )
            memo[index, there] = sum(trace.sizes[model] for model in missing) + min(
                serve(index + 1, each, memo) for each in kept
            )
        return memo[index, there]

    return serve(0, frozenset(), {})


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_that_of_brute_force(load, seed):
    traces = load("_traces")
    rng = random.Random(seed)
    sizes = tuple(rng.randint(1, 9) for _ in range(4))
    steps = [traces.Step(tuple(rng.sample(range(4), rng.choice((1, 1, 2)))), rng.randint(0, 3), 1.0) for _ in range(12)]
    trace = traces.Trace("random", seed, sizes, tuple(steps)).fitting(15)
    assert trace.steps
    optimum = traces.optimal_bytes(trace, 15)
    assert optimum == brute_force(trace, 15)
    assert optimum <= traces.reload_each_bytes(trace)


def test_traces_repeat_and_leave_out_what_cannot_fit(load):
    traces = load("_traces")
    for kind in traces.KINDS:
        trace = traces.make_trace(kind, 1, 60)
        assert trace == traces.make_trace(kind, 1, 60)
        assert trace != traces.make_trace(kind, 2, 60)
        assert (len(trace.sizes), min(trace.sizes), max(trace.sizes)) == (15, traces.GB, 12 * traces.GB)
        fitting = trace.fitting(6 * traces.GB)
        assert len(fitting.steps) <= len(trace.steps)
        assert all(trace.need_bytes(step) <= 6 * traces.GB for step in fitting.steps)


def test_every_policy_serves_a_trace_and_none_beats_the_optimum(load, capsys):
    bench, traces = load("vram_policies"), load("_traces")
    outcomes, captured, broken, cold = bench.play_all([3], 40, [10, 24])
    for name in bench.POLICIES:
        for (kind, seed, budget), outcome in outcomes[name].items():
            trace = traces.make_trace(kind, seed, 40).fitting(budget * traces.GB)
            optimum = traces.optimal_bytes(trace, budget * traces.GB)
            assert optimum <= outcome.moved_bytes
            assert (outcome.failed, outcome.refused) == (0, 0)
            assert len(outcome.stalls_s) == len(trace.steps)
            if name == bench.RELOAD:
                assert outcome.moved_bytes == traces.reload_each_bytes(trace)
    assert all(share <= 1 for by_key in captured.values() for share in by_key.values())
    bench.print_tables(outcomes, captured)
    bench.decision_ms = lambda planned: (0.0, 0.0)
    figures = bench.figures_of(outcomes, captured, broken, cold)
    assert "three users" in capsys.readouterr().out
    assert any(figure.name.startswith("captured by ours") for figure in figures)
