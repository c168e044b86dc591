"""What eviction policies cost: seeded traces of 15 models through the real memory pool over a simulated device.

Every policy drives the same pool over the same leases in virtual time, scaled down by 2**20 in bytes and rate. The
yardstick is exact: *captured* is the share of the avoidable transfer that a policy avoids, 0 for reloading at every
lease and 1 for the optimum that knows the future (dynamic programming over the sets of residents).

A lease of more than the whole budget is left out of the trace at that budget: no policy could grant it. All models are
warm in RAM, so that a stall is a copy over the bus. The policy was developed on the seeds 0 to 7; the default seeds are
others.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _baselines import Gdsf, SmallestFirst, SmallestSum
from _figures import Figure, argument_parser, at_least, at_most, report
from _traces import GB, KINDS, Trace, make_trace, optimal_bytes, reload_each_bytes
from tqdm import tqdm

from photokeep_nodes._vram.records import Request
from photokeep_nodes._vram.simulated import SimulatedDevice, VirtualClock
from photokeep_nodes.errors import VramExhaustedError
from photokeep_nodes.vram_manager import LruPolicy, ModelSource, PlanAwarePolicy, PlanStep, VramPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

DEVICE = torch.device("cuda", 0)
BUDGETS = (6, 10, 14, 24, 48)
FIRST_SEED = 1000
BYTES_PER_S = 16 * GB
STORAGES = 4  # per model
HEADROOM = 1.05  # capacity by budget, where the memory may fragment

RELOAD, LRU, UNPLANNED = "reload each time", "LRU", "ours, unplanned"
PLANNED, PREFETCHED = "ours, planned", "ours, with prefetch"

POLICIES: dict[str, Callable[[], Any]] = {
    RELOAD: LruPolicy,
    "smallest first (InvokeAI)": SmallestFirst,
    "smallest sum (diffusers)": SmallestSum,
    LRU: LruPolicy,
    "GDSF": Gdsf,
    UNPLANNED: PlanAwarePolicy,
    PLANNED: PlanAwarePolicy,
    PREFETCHED: PlanAwarePolicy,
}


@dataclass
class Outcome:
    """What one trace cost under one policy.

    Attributes:
        moved_bytes: to the device.
        stalls_s: virtual seconds that each lease had to wait.
        failed: leases that were refused although they fit.
        refused: allocations that the device could not serve, retried or not.
    """

    moved_bytes: int
    stalls_s: np.ndarray
    failed: int
    refused: int


def sources_of(trace: Trace) -> list[ModelSource]:
    """Return the trace's models; each consists of `STORAGES` buffers."""

    def loader(n_bytes: int) -> Callable[[], nn.Module]:
        def load() -> nn.Module:
            module = nn.Module()
            for index in range(STORAGES):
                module.register_buffer(f"b{index}", torch.zeros(n_bytes // STORAGES, dtype=torch.uint8))
            return module.eval()

        return load

    return [ModelSource(f"m{index:02}", loader(n_bytes), n_bytes) for index, n_bytes in enumerate(trace.sizes)]


def play(trace: Trace, budget: int, name: str, *, fragmenting: bool = False) -> Outcome:
    """Drive a pool through ``trace``.

    Args:
        trace: every lease of it fits.
        budget: bytes.
        name: of the policy; see `POLICIES`.
        fragmenting: whether blocks need holes of their size; the device then has some capacity beside the budget.
    """
    clock = VirtualClock()
    capacity = int(budget * HEADROOM) if fragmenting else budget
    device = SimulatedDevice(capacity, bytes_per_s=BYTES_PER_S, clock=clock, fragmenting=fragmenting)
    policy = POLICIES[name]()
    pool = VramPool(
        vram_budgets={DEVICE: budget},
        ram_budget_bytes=2 * sum(trace.sizes),
        policy=policy,
        open_device=lambda _: device,
        clock=clock,
    )
    sources = sources_of(trace)
    wanted = [tuple(sources[model] for model in step.models) for step in trace.steps]
    steps = [PlanStep(each, DEVICE, step.working_bytes) for each, step in zip(wanted, trace.steps, strict=True)]
    note_use = getattr(policy, "used", None)
    stalls_s, failed = [], 0
    planned, prefetched = name in (PLANNED, PREFETCHED), name == PREFETCHED
    pool._prefetcher.wake = lambda: None  # type: ignore[method-assign]  # `look_ahead` does its work, at a known time
    with pool.plan("trace", steps, prefetch=prefetched) as plan:
        if not planned:
            pool._end_plan(plan)
        for index, step in enumerate(trace.steps):
            if planned:
                plan.reach(index)
            asked = clock()
            try:
                with pool.lease(wanted[index], device=DEVICE, working_bytes=step.working_bytes) as lease:
                    device.await_copies(tensor for module in lease.modules for tensor in module.buffers())
                    stalls_s.append(clock() - asked)
                    if prefetched:
                        look_ahead(pool)
                    clock.advance(step.compute_s)
            except VramExhaustedError:
                failed += 1
            if note_use is not None:
                note_use([source.key for source in wanted[index]])
            if name == RELOAD:
                pool.trim("vram", budget)
    pool.close()
    return Outcome(device.bytes_copied, np.array(stalls_s), failed, device.refused)


def look_ahead(pool: VramPool) -> None:
    """Let the prefetcher bring what it can; in a thread of its own, so that its copies run beside the computing."""

    def work() -> None:
        while pool._bring_foreseen():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


Key = tuple[str, int, int]
"""Kind, seed, budget in GB."""


def play_all(
    seeds: Iterable[int], n_steps: int, budgets: Sequence[int] = BUDGETS
) -> tuple[dict[str, dict[Key, Outcome]], dict[str, dict[Key, float]], dict[str, int]]:
    """Play every trace under every policy.

    Returns:
        By policy: outcomes; captured shares; failed leases where the memory fragments.
    """
    keys: list[Key] = [(kind, seed, budget) for kind in KINDS for seed in seeds for budget in budgets]
    outcomes: dict[str, dict[Key, Outcome]] = defaultdict(dict)
    captured: dict[str, dict[Key, float]] = defaultdict(dict)
    broken: dict[str, int] = defaultdict(int)
    for key in tqdm(keys, unit="trace", file=sys.stderr):
        kind, seed, budget = key
        trace = make_trace(kind, seed, n_steps).fitting(budget * GB)
        most, least = reload_each_bytes(trace), optimal_bytes(trace, budget * GB)
        for name in POLICIES:
            outcome = outcomes[name][key] = play(trace, budget * GB, name)
            if most > least:
                captured[name][key] = (most - outcome.moved_bytes) / (most - least)
        for name in (LRU, UNPLANNED, PLANNED):
            broken[name] += play(trace, budget * GB, name, fragmenting=True).failed
    return outcomes, captured, broken


def print_tables(outcomes: dict[str, dict[Key, Outcome]], captured: dict[str, dict[Key, float]]) -> None:
    """Print one table per budget, one per kind of trace, and the sum of all."""
    every = list(outcomes[LRU])
    groups = {
        f"{budget} GB": [key for key in every if key[2] == budget] for budget in dict.fromkeys(k[2] for k in every)
    }
    groups |= {kind: [key for key in every if key[0] == kind] for kind in KINDS}
    groups["all"] = every
    for title, keys in groups.items():
        columns = ("captured", "worst", "stall p50", "stall p95", "moved GB", "failed")
        print(f"{title:<26}" + "".join(f"{column:>11}" for column in columns))
        for name in POLICIES:
            shares = [captured[name][key] for key in keys if key in captured[name]]
            stalls_s = np.concatenate([outcomes[name][key].stalls_s for key in keys])
            moved = sum(outcomes[name][key].moved_bytes for key in keys) / GB
            failed = sum(outcomes[name][key].failed for key in keys)
            p50, p95 = np.percentile(stalls_s, (50, 95))
            print(
                f"{name:<26}{np.mean(shares):>11.3f}{min(shares):>11.3f}{p50:>9.3f} s{p95:>9.3f} s{moved:>11.0f}"
                f"{failed:>11}"
            )
        print()


def decision_ms(*, planned: bool, repeats: int = 300) -> tuple[float, float]:
    """Time the whole choice among 15 idle models with a full memory of uses, as it is made under the pool's lock.

    Returns:
        Median and 99th percentile.
    """
    trace = make_trace("three users", 0, 600)
    pool = VramPool(
        vram_budgets={DEVICE: sum(trace.sizes)},
        ram_budget_bytes=2 * sum(trace.sizes),
        policy=PlanAwarePolicy(),
        open_device=lambda _: SimulatedDevice(sum(trace.sizes)),
    )
    sources = sources_of(trace)
    for model in (*range(len(sources)), *(model for step in trace.steps for model in step.models)):
        with pool.lease(sources[model], device=DEVICE):
            pass
    state, ledger = pool._state, pool._state.ledgers[DEVICE]
    steps = [PlanStep(tuple(sources[model] for model in step.models), DEVICE) for step in trace.steps]
    seconds = []
    with pool.plan("trace", steps, prefetch=False) as plan:
        if not planned:
            pool._end_plan(plan)
        for turn in range(repeats):
            newcomer = (1 + turn % 12) * GB
            request = Request((sources[turn % 15],), ledger, 0, threading.current_thread())
            started = time.perf_counter()
            state.victims(ledger, newcomer, (), request)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1e3, float(np.percentile(seconds, 99)) * 1e3


def figures_of(
    outcomes: dict[str, dict[Key, Outcome]], captured: dict[str, dict[Key, float]], broken: dict[str, int]
) -> list[Figure]:
    """Sum the outcomes up."""

    def below(name: str, other: str) -> float:
        return min(captured[name][key] - captured[other][key] for key in captured[name])

    def mean(name: str) -> float:
        return float(np.mean(list(captured[name].values())))

    figures = [
        at_least("captured by ours, planned, mean", mean(PLANNED), "", 0.92),
        at_least("captured by ours, unplanned, mean", mean(UNPLANNED), "", 0.70),
        at_least("ours, unplanned, over LRU, worst case", below(UNPLANNED, LRU), "", -0.05),
        at_least("ours, planned, over LRU, worst case", below(PLANNED, LRU), "", -0.05),
        at_least("ours, planned, over unplanned, worst case", below(PLANNED, UNPLANNED), "", -0.05),
    ]
    figures += [
        Figure(f"captured by {name}, mean", mean(name), "")
        for name in POLICIES
        if name not in (RELOAD, PLANNED, PREFETCHED, UNPLANNED)
    ]
    for name in (PLANNED, UNPLANNED, LRU):
        figures.append(Figure(f"captured by {name}, worst case", min(captured[name].values()), ""))
    for name in (PREFETCHED, PLANNED, UNPLANNED, LRU, RELOAD):
        stalls_s = np.concatenate([each.stalls_s for each in outcomes[name].values()])
        figures.append(Figure(f"stall under {name}, mean", float(stalls_s.mean()), "s"))
    failed = sum(each.failed for by_key in outcomes.values() for each in by_key.values())
    figures.append(at_most("leases refused though they fit", failed, "", 0))
    figures += [
        Figure(f"the same in fragmenting memory, {name}", broken[name], "") for name in (PLANNED, UNPLANNED, LRU)
    ]
    for planned, name in ((True, "planned"), (False, "unplanned")):
        median, high = decision_ms(planned=planned)
        figures.append(at_most(f"decision among 15 models, {name}", median, "ms", 1))
        figures.append(Figure(f"decision among 15 models, {name}, p99", high, "ms"))
    return figures


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the captured shares into FILE (.png or .svg)")
    parser.add_argument("--seeds", type=int, default=3, help="traces of each kind")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--steps", type=int, default=400, help="leases per trace")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("photokeep_nodes").setLevel(logging.ERROR)  # memory that fragments is meant to run short
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    outcomes, captured, broken = play_all(seeds, arguments.steps)
    print_tables(outcomes, captured)
    report(figures_of(outcomes, captured, broken), arguments.json)
    if arguments.plot is not None:
        from _policy_plot import draw

        shares = {
            name: {budget: [share for key, share in captured[name].items() if key[2] == budget] for budget in BUDGETS}
            for name in POLICIES
            if name not in (RELOAD, PREFETCHED)
        }
        draw(shares, arguments.plot)


if __name__ == "__main__":
    main()
