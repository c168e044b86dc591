"""What the memory pool itself costs, and whether it holds: leases, contention, eviction, demotion, prefetch, a soak.

    python bench/vram_leases.py [--operations 1000000] [--swaps 10000] [--json FILE]

The accelerator is simulated, so the figures are the pool's own work and need no GPU; for the prefetch its bus takes
real time. A duplicate is a load of a model that another thread loads at that moment, or whose weights are still in RAM;
the sources find out by themselves, without looking into the pool.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _figures import Figure, argument_parser, at_least, at_most, report
from _progress import bar, steps

from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.errors import LeaseTimeoutError, VramError
from photokeep_nodes.vram_manager import ModelSource, PlanStep, VramPool

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")
MIB = 2**20
TENSORS = 1000


def many_tensors(count: int = TENSORS, n_bytes: int = 4096) -> nn.Module:
    """Build a module of ``count`` parameters of ``n_bytes`` each."""
    module = nn.Module()
    for index in range(count):
        module.register_parameter(f"p{index}", nn.Parameter(torch.zeros(n_bytes // 4)))
    return module.eval()


def source(key: str, count: int = TENSORS, n_bytes: int = 4096) -> ModelSource:
    return ModelSource(key, lambda: many_tensors(count, n_bytes), count * n_bytes)


def new_pool(capacity_bytes: int, device: SimulatedDevice | None = None) -> VramPool:
    """Return a pool of the default policy over a simulated device."""
    device = device or SimulatedDevice(capacity_bytes)
    return VramPool(ram_budget_bytes=2**31, open_device=lambda _: device, accelerators=(DEVICE,))


def lease_repeatedly(pool: VramPool, model: ModelSource, times: int) -> None:
    for _ in range(times):
        with pool.lease(model, device=DEVICE):
            pass


def crowd_of(threads: int, work: Callable[[int], object]) -> float:
    """Run ``work`` in several threads at once, given their number.

    Returns:
        Seconds from the first start to the last end.
    """
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)

    crowd = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    started = time.perf_counter()
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    taken = time.perf_counter() - started
    if failures:
        raise failures[0]
    return taken


# -- leases -----------------------------------------------------------------------------------------------------------


def hot_lease_us(repeats: int = 5, times: int = 20_000) -> float:
    """Median over runs of the mean cost of entering and leaving a lease of a hot model."""
    pool, model = new_pool(3 * TENSORS * 4096), source("a")
    for key in "abc":
        lease_repeatedly(pool, source(key), 1)
    runs = []
    for _ in range(repeats):
        started = time.perf_counter()
        lease_repeatedly(pool, model, times)
        runs.append((time.perf_counter() - started) / times)
    pool.close()
    return statistics.median(runs) * 1e6


def contended_lease_us(threads: int = 8, times: int = 10_000) -> float:
    """Wall time per lease while ``threads`` threads lease hot models without pause."""
    pool = new_pool(3 * TENSORS * 4096)
    models = [source(key) for key in "abc"]
    for model in models:
        lease_repeatedly(pool, model, 1)
    taken = crowd_of(threads, lambda number: lease_repeatedly(pool, models[number % 3], times))
    pool.close()
    return taken / (threads * times) * 1e6


# -- evictions --------------------------------------------------------------------------------------------------------


def demote_ms(repeats: int = 9) -> float:
    """Median cost of moving one hot model of `TENSORS` tensors back to RAM."""
    pool, model = new_pool(TENSORS * 4096), source("a")
    runs = []
    for _ in range(repeats):
        lease_repeatedly(pool, model, 1)
        started = time.perf_counter()
        pool.trim("vram", 1)
        runs.append(time.perf_counter() - started)
    pool.close()
    return statistics.median(runs) * 1e3


def decision_ms(models: int = 15, repeats: int = 200, *, planned: bool = False) -> float:
    """Median time to decide who leaves, among ``models`` idle ones of different sizes, for one of half their bytes.

    Args:
        models: how many are hot and idle.
        repeats: decisions taken, all from the same state.
        planned: whether a plan of 40 steps is in force.
    """
    sources = [source(f"m{number}", number + 1, 1024) for number in range(models)]
    whole = sum(each.weight_bytes for each in sources)
    pool = new_pool(whole)
    for each in sources:
        lease_repeatedly(pool, each, 1)
    chance = random.Random(1)
    plan = [PlanStep((chance.choice(sources),), DEVICE) for _ in range(40 if planned else 0)]
    runs = []
    with pool.plan("bench", plan, prefetch=False), pool._lock:
        ledger = pool._state.ledgers[DEVICE]
        for _ in range(repeats):
            started = time.perf_counter()
            victims = pool._state.victims(ledger, whole // 2)
            runs.append(time.perf_counter() - started)
            if not victims:
                raise RuntimeError("nothing was decided")
    pool.close()
    return statistics.median(runs) * 1e3


# -- duplicate loads --------------------------------------------------------------------------------------------------


class WatchfulSource:
    """A model that notices when it is loaded although it is there.

    Attributes:
        loads: how often it was built.
        duplicates: how often while another load was under way, or while the weights of the last one were in RAM.
    """

    def __init__(self, key: str, units: int) -> None:
        self.key = key
        self.weight_bytes = units * 1024
        self.loads = 0
        self.duplicates = 0
        self._loading = threading.Lock()
        self._in_ram = 0  # allocations of the weights that something still refers to

    def load(self) -> nn.Module:
        """Build it."""
        alone = self._loading.acquire(blocking=False)
        try:
            self.loads += 1
            self.duplicates += not alone or self._in_ram > 0
            memory = np.full(self.weight_bytes // 4, len(self.key), dtype=np.float32)
            self._in_ram += 1
            weakref.finalize(memory, self._gone).atexit = False
            module = nn.Module()
            module.register_parameter("weight", nn.Parameter(torch.from_numpy(memory)))
            return module.eval()
        finally:
            if alone:
                self._loading.release()

    def _gone(self) -> None:
        self._in_ram -= 1


def random_operations(operations: int, threads: int = 4, seed: int = 1) -> tuple[list[WatchfulSource], float, VramPool]:
    """Lease at random, one model or two, here and there, and trim now and then; nothing is dropped by name.

    Most leases are of few models, as in life; one in sixteen is of any. The device holds about half of them and RAM
    most, so that models go both ways all the time.

    Returns:
        The models, seconds taken, and the pool.
    """
    sources = [WatchfulSource(f"m{number}", 1 + number % 4) for number in range(12)]
    whole = sum(each.weight_bytes for each in sources)
    device = SimulatedDevice(whole)
    pool = VramPool(
        vram_budgets={DEVICE: whole // 2},
        ram_budget_bytes=whole * 3 // 4,
        open_device=lambda _: device,
        accelerators=(DEVICE,),
    )
    each_does = operations // threads
    done = bar(f"{operations} random operations", operations)

    def work(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        draw, choice = chance.random, chance.choice
        for step in range(each_does):
            fate = draw()
            if fate < 0.94:
                with pool.lease(sources[int(draw() ** 3 * 4)], device=DEVICE):
                    pass
            elif fate < 0.998:
                wanted = chance.sample(sources, 2 if fate < 0.96 else 1)
                with (
                    suppress(LeaseTimeoutError),
                    pool.lease(wanted, device=CPU if fate > 0.99 else DEVICE, timeout_s=choice((None, 0))),
                ):
                    pass
            else:
                pool.trim(choice(("vram", "ram")), 4096)
            if step % 1000 == 999:
                done.update(1000)

    with done:
        taken = crowd_of(threads, work)
    return sources, taken, pool


def duplicates(operations: int) -> list[Figure]:
    sources, taken, pool = random_operations(operations)
    problems = audit(pool)
    counters = pool.stats()["counters"]
    figures = [
        at_most(
            f"duplicate loads in {operations:,} random operations", sum(each.duplicates for each in sources), "loads", 0
        ),
        at_most("faults in the books after them", len(problems), "faults", 0),
        Figure("  loads among them", sum(each.loads for each in sources), "loads"),
        Figure("  promotions among them", counters["promotions"], "promotions"),
        Figure("  wall time of one", taken / operations * 1e6, "us"),
    ]
    pool.close()
    return figures


# -- the soak ---------------------------------------------------------------------------------------------------------


def slope(xs: list[float], ys: list[float]) -> float:
    """Slope of the straight line through the points, by least squares."""
    return float(np.polyfit(xs, ys, 1)[0])


def rss_slope_mb(swaps: int, warm_up: int = 1000, every: int = 50) -> tuple[float, float]:
    """Swap two models that do not fit together, and watch the process' memory.

    Args:
        swaps: demotions and promotions of 1 MiB each, really copied.
        warm_up: swaps before the first sample: allocators settle.
        every: swaps between samples.
    Returns:
        Growth in MB per 1,000 swaps, and mean milliseconds of a swap.
    """
    models = [source(key, 64, MIB // 64) for key in "ab"]
    pool = new_pool(MIB)
    process = psutil.Process()
    xs: list[float] = []
    ys: list[float] = []
    started = 0.0
    for number in steps(range(warm_up + swaps), f"{swaps} swaps", warm_up + swaps):
        if number == warm_up:
            started = time.perf_counter()
        if number >= warm_up and number % every == 0:
            xs.append(number / 1000)
            ys.append(process.memory_info().rss / 1e6)
        lease_repeatedly(pool, models[number % 2], 1)
    taken = time.perf_counter() - started
    if pool.stats()["counters"]["promotions"] != warm_up + swaps:
        raise RuntimeError("the models did not move")
    pool.close()
    return slope(xs, ys), taken / swaps * 1e3


# -- prefetch ---------------------------------------------------------------------------------------------------------


class SlowBus(SimulatedDevice):
    """A simulated device whose copies take real time, during which other threads run, as over a real bus."""

    def __init__(self, capacity_bytes: int, bytes_per_s: float) -> None:
        super().__init__(capacity_bytes, bytes_per_s=bytes_per_s)
        self._bytes_per_s = bytes_per_s

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `SimulatedDevice`."""
        super().copy(source, target)
        time.sleep(source.nbytes() / self._bytes_per_s)


def stalls(copy_s: float, compute_s: float, rounds: int) -> tuple[float, float]:
    """Run a job with a plan: four warm models take turns, of which two fit on the device.

    Args:
        copy_s: what the copy of one takes.
        compute_s: what a step computes.
        rounds: steps.
    Returns:
        Seconds that the steps after the first waited for weights, and seconds that the bus was busy for them.
    """
    sources = [source(key, 8, MIB // 8) for key in "abcd"]
    device = SlowBus(2 * MIB, MIB / copy_s)
    pool = new_pool(2 * MIB, device)
    for each in sources:
        with pool.lease(each, device=CPU):
            pass
    order = [sources[number % 4] for number in range(rounds)]
    waited = 0.0
    with pool.plan("bench", [PlanStep((each,), DEVICE) for each in order]) as plan:
        for index, each in enumerate(order):
            plan.reach(index)
            started = time.perf_counter()
            with pool.lease(each, device=DEVICE):
                if index:
                    waited += time.perf_counter() - started
                time.sleep(compute_s)
    if not pool.close():
        raise VramError("the pool did not close")
    return waited, (device.bytes_copied / MIB - 1) * copy_s


def hidden_share(copy_s: float, compute_s: float, rounds: int) -> float:
    """Share of the transfers that a plan hides behind the computations."""
    waited, busy = stalls(copy_s, compute_s, rounds)
    return 1 - waited / busy


def main() -> None:
    parser = argument_parser("What the memory pool itself costs, on a simulated device.")
    parser.add_argument("--operations", type=int, default=1_000_000, help="random operations (default 1,000,000)")
    parser.add_argument("--swaps", type=int, default=10_000, help="of the soak (default 10,000)")
    parser.add_argument("--rounds", type=int, default=8, help="steps of the jobs with a plan (default 8)")
    options = parser.parse_args()
    grown, swap_ms = rss_slope_mb(options.swaps)  # first: the heap is still as a program leaves it
    figures = [
        at_most("hot lease, uncontended", hot_lease_us(), "us", 5),
        at_most("hot lease, 8 threads, wall per lease", contended_lease_us(), "us", 25),
        at_most("eviction decision among 15 idle models", decision_ms(), "ms", 1),
        at_most("the same under a plan of 40 steps", decision_ms(planned=True), "ms", 1),
        at_most("demote by pointer swap, per 1,000 tensors", demote_ms(), "ms", 20),
        at_most(f"growth of the process over {options.swaps:,} swaps, per 1,000", grown, "MB", 1),
        Figure("  a swap of 64 tensors and 1 MiB", swap_ms, "ms"),
        *duplicates(options.operations),
    ]
    for name, copy_s, compute_s in steps(
        [("compute 1.2 s, copy 0.4 s", 0.4, 1.2), ("compute 0.3 s, copy 0.2 s", 0.2, 0.3)], "prefetch", 2
    ):
        share = hidden_share(copy_s, compute_s, options.rounds)
        figures.append(at_least(f"share of the transfers hidden by a plan, {name}", 100 * share, "%", 80))
    report(figures, options.json)


if __name__ == "__main__":
    main()
