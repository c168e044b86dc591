"""What the memory pool itself costs: leases of hot models, contention, demotion by pointer swap.

The accelerator is simulated, so the figures are the pool's own work and need no GPU.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _figures import Figure, argument_parser, at_most, report

from photokeep_nodes._vram.simulated import SimulatedDevice
from photokeep_nodes.vram_manager import ModelSource, VramPool

DEVICE = torch.device("cuda", 0)
TENSORS = 1000


def many_tensors() -> nn.Module:
    """Build a module of `TENSORS` parameters of 4 KiB each."""
    module = nn.Module()
    for index in range(TENSORS):
        module.register_parameter(f"p{index}", nn.Parameter(torch.zeros(1024)))
    return module.eval()


def source(key: str) -> ModelSource:
    return ModelSource(key, many_tensors, TENSORS * 4096)


def new_pool(models: int) -> VramPool:
    """Return a pool whose device holds ``models`` models of `many_tensors`."""
    device = SimulatedDevice(TENSORS * 4096 * models)
    return VramPool(ram_budget_bytes=2**30, open_device=lambda _: device)


def lease_repeatedly(pool: VramPool, model: ModelSource, times: int) -> None:
    for _ in range(times):
        with pool.lease(model, device=DEVICE):
            pass


def hot_lease_us(repeats: int = 5, times: int = 20_000) -> float:
    """Median over runs of the mean cost of entering and leaving a lease of a hot model."""
    pool, model = new_pool(3), source("a")
    for key in "abc":
        lease_repeatedly(pool, source(key), 1)
    runs = []
    for _ in range(repeats):
        started = time.perf_counter()
        lease_repeatedly(pool, model, times)
        runs.append((time.perf_counter() - started) / times)
    return sorted(runs)[repeats // 2] * 1e6


def contended_lease_us(threads: int = 8, times: int = 10_000) -> float:
    """Wall time per lease while ``threads`` threads lease hot models without pause."""
    pool = new_pool(3)
    models = [source(key) for key in "abc"]
    for model in models:
        lease_repeatedly(pool, model, 1)
    crowd = [
        threading.Thread(target=lease_repeatedly, args=(pool, models[index % 3], times)) for index in range(threads)
    ]
    started = time.perf_counter()
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return (time.perf_counter() - started) / (threads * times) * 1e6


def demote_ms(repeats: int = 9) -> float:
    """Median cost of moving one hot model of `TENSORS` tensors back to RAM."""
    pool, model = new_pool(1), source("a")
    runs = []
    for _ in range(repeats):
        lease_repeatedly(pool, model, 1)
        started = time.perf_counter()
        pool.trim("vram", 1)
        runs.append(time.perf_counter() - started)
    return sorted(runs)[repeats // 2] * 1e3


def main() -> None:
    arguments = argument_parser(__doc__ or "").parse_args()
    figures: list[Figure] = [
        at_most("hot lease, uncontended", hot_lease_us(), "us", 5),
        at_most("hot lease, 8 threads, wall per lease", contended_lease_us(), "us", 25),
        at_most("demote by pointer swap, per 1,000 tensors", demote_ms(), "ms", 20),
    ]
    report(figures, arguments.json)


if __name__ == "__main__":
    main()
