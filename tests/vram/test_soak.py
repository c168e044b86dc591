"""Thousands of swaps, one after the other: nothing wears off, nothing piles up. In brackets the invariants."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from vram_rig import GPU

from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.vram_manager import ModelSource, PlanStep, VramPool

KIB = 1024


class Knotted(nn.Module):
    """Tied weights, a view, a non-persistent buffer and two types, in three storages of random bytes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.rand(32, 24, generator=chance).t())
        self.tied = self.first
        self.part = nn.Parameter(self.first.data[2:5, 1:])
        self.register_buffer("halves", torch.rand(100, generator=chance).half())
        self.register_buffer("table", torch.randint(0, 99, (50,), generator=chance), persistent=False)


KNOTTED_BYTES = 32 * 24 * 4 + 100 * 2 + 50 * 8


def tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


class Rig:
    """Three models that take turns on a device with room for one, so that each lease is a swap."""

    def __init__(self) -> None:
        self.device = SimulatedDevice(KNOTTED_BYTES)
        self.pool = VramPool(ram_budget_bytes=100 * KIB, open_device=lambda _: self.device, accelerators=(GPU,))
        self.loads: Counter[str] = Counter()
        self.built: list[weakref.ref[nn.Module]] = []
        self.sources = [ModelSource(key, lambda key=key: self._load(key), KNOTTED_BYTES) for key in "abc"]
        self.expected = {key: [each.clone() for each in tensors(Knotted(ord(key)))] for key in "abc"}
        self.swaps = 0

    def _load(self, key: str) -> nn.Module:
        self.loads[key] += 1
        module = Knotted(ord(key)).eval()
        self.built.append(weakref.ref(module))
        return module

    def swap(self, times: int, check_every: int) -> None:
        """Lease the models in turn; each lease moves one up and one down. Look at the weights now and then (I9)."""
        for _ in range(times):
            source = self.sources[self.swaps % 3]
            with self.pool.lease(source, device=GPU) as lease:
                if self.swaps % check_every == 0:
                    assert lease.module.tied is lease.module.first
                    assert all(map(torch.equal, tensors(lease.module), self.expected[source.key]))
            self.swaps += 1


def population() -> Counter[str]:
    """Live objects by type, of those that the pool makes, and of all that the collector knows."""
    gc.collect()
    alive = Counter(type(each).__name__ for each in gc.get_objects())
    kinds = ("Grant", "Waiter", "Request", "Flight", "Departure", "Charge", "Resident", "Entry", "Lease", "Candidate")
    return Counter({kind: alive[kind] for kind in (*kinds, "Condition", "UntypedStorage", "Parameter", "ndarray")})


def soak(rig: Rig, swaps: int) -> None:
    rig.swap(60, check_every=1)  # a warm-up: caches fill
    threads, before, blocks = threading.active_count(), population(), sys.getallocatedblocks()
    copied = rig.device.bytes_copied
    rig.swap(swaps, check_every=37)
    counters = rig.pool.stats()["counters"]
    assert counters["promotions"] == rig.swaps
    assert counters["evictions"] == rig.swaps - 1
    assert rig.device.bytes_copied - copied == swaps * KNOTTED_BYTES  # I5: up only; the device knows no way down
    assert rig.loads == {"a": 1, "b": 1, "c": 1}
    assert (rig.device.live_bytes, rig.device.peak_bytes) == (KNOTTED_BYTES, KNOTTED_BYTES)  # I1, I4
    assert rig.device.emptied == 0
    assert audit(rig.pool) == []
    assert threading.active_count() == threads
    assert population() == before
    assert sys.getallocatedblocks() - blocks < swaps / 4 + 2000, "something grows with every few swaps"


def finish(rig: Rig) -> None:
    assert rig.pool.close()
    gc.collect()
    assert rig.device.live_bytes == 0
    assert [module() for module in rig.built] == [None, None, None]


def test_a_thousand_swaps_leave_no_trace():  # I1, I4, I5, I9, I11
    rig = Rig()
    soak(rig, 1000)
    finish(rig)


@pytest.mark.slow
def test_ten_thousand_swaps_leave_no_trace():
    rig = Rig()
    soak(rig, 10_000)
    finish(rig)


def test_hundreds_of_plans_leave_no_trace():  # I11
    rig = Rig()
    rig.swap(60, check_every=1)

    def plans(times: int) -> None:
        for number in range(times):
            with rig.pool.plan(f"job {number}", [PlanStep((source,), GPU) for source in rig.sources]) as plan:
                for index, source in enumerate(rig.sources):
                    plan.reach(index)
                    with rig.pool.lease(source, device=GPU) as lease:
                        assert all(map(torch.equal, tensors(lease.module), rig.expected[source.key]))
        helper = rig.pool._prefetcher._thread
        if helper is not None:  # it may be about to end by itself
            helper.join(20)

    plans(10)
    threads, before = threading.active_count(), population()
    plans(300)
    assert threading.active_count() == threads
    assert not rig.pool._prefetcher.alive
    assert population() == before
    assert audit(rig.pool) == []
    finish(rig)
