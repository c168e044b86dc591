"""A pool under a `pool_scheduler.Scheduler`: devices and models during whose work others run, and the last check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.vram_manager import VramPool

if TYPE_CHECKING:
    from pool_scheduler import Scheduler

GPU = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
CPU = torch.device("cpu")
UNIT = 64


class Device(SimulatedDevice):
    """A simulated device whose calls may be interleaved, and of which one may fail.

    Attributes:
        calls: allocations and copies so far.
        fails_at: the number of the call that fails; 0 for none.
        fails_with: what it raises.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(1000 * UNIT)
        self._scheduler = scheduler
        self.calls = 0
        self.fails_at = 0
        self.fails_with: type[Exception] = torch.OutOfMemoryError

    def _call(self) -> None:
        self._scheduler.point(0.3)
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.fails_with("simulated: this one fails")

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        self._call()
        return super().allocate(n_bytes)

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        self._call()
        super().copy(source, target)

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        self._scheduler.point(0.3)
        super().free(storages)


def no_fault() -> None:
    """Let a load work."""


class Source:
    """A model of ``units`` during whose load others may run; notices if two loads overlap.

    Attributes:
        fails: what the next loads raise, last first; None for a load that works.
        fault: asked by each load what to raise, where ``fails`` is empty.
        fails_late: whether they raise after the module was built.
    """

    def __init__(self, scheduler: Scheduler, key: str, units: int) -> None:
        self._scheduler = scheduler
        self.key = key
        self.weight_bytes = units * UNIT
        self.loads = 0
        self.overlapped = False
        self.fails: list[BaseException | None] = []
        self.fault = no_fault
        self.fails_late = False
        self._busy = False

    @property
    def value(self) -> float:
        """What all its weights are."""
        return float(sum(map(ord, self.key)))

    def load(self) -> nn.Module:
        self.overlapped |= self._busy
        self._busy = True
        self.loads += 1
        try:
            error = self.fails.pop() if self.fails else self.fault()
            self._scheduler.point(0.5)
            if error is not None and not self.fails_late:
                raise error
            module = nn.Module()
            module.one = nn.Parameter(torch.full((self.weight_bytes // 8,), self.value))
            module.register_buffer("two", torch.full((self.weight_bytes // 8,), self.value))
            self._scheduler.point(0.5)
            if error is not None:
                raise error
            return module.eval()
        finally:
            self._busy = False

    def intact(self, module: nn.Module) -> bool:
        """Whether a lease's module has this model's weights."""
        return bool((module.one == self.value).all()) and bool((module.two == self.value).all())


class Crowd:
    """A pool on two devices and four models of 1, 1, 2 and 3 units."""

    def __init__(self, scheduler: Scheduler, vram: int, ram: int) -> None:
        self.scheduler = scheduler
        self.devices = {place: Device(scheduler) for place in (GPU, OTHER)}
        self.gpu = self.devices[GPU]
        self.pool = VramPool(
            vram_budgets={GPU: vram * UNIT, OTHER: vram * UNIT},
            ram_budget_bytes=ram * UNIT,
            open_device=self.devices.__getitem__,
            accelerators=(GPU, OTHER),
            clock=scheduler.clock,
        )
        self.models = [Source(scheduler, key, units) for key, units in zip("abcd", (1, 1, 2, 3), strict=True)]

    def touch(self, *sources: Source, device: torch.device | None = GPU, compute_s: float = 0.0, **options) -> None:
        """Lease, look at the weights, compute, look again."""
        with self.pool.lease(list(sources), device=device, **options) as lease:
            assert all(map(Source.intact, sources, lease.modules)), "I9: other weights"
            problems = audit(self.pool, resting=False)
            assert problems == []
            if compute_s:
                self.scheduler.sleep(compute_s)
            assert all(map(Source.intact, sources, lease.modules)), "I2: moved or emptied while leased"

    def check(self) -> None:
        """Whatever happened: the books are right, everything can be leased again, and goes when told to."""
        pool, seed = self.pool, f"seed {self.scheduler.seed}"
        pool._collect_lost()
        pool._work_off()  # an eviction that was interrupted waits for whoever comes by next
        assert audit(pool) == [], seed
        assert not any(source.overlapped for source in self.models), f"{seed}: two loads at once (I3)"
        assert not pool._prefetcher.alive, f"{seed}: the prefetch thread has no plan and lives on"
        for device in self.devices.values():
            device.fails_at = 0
        pool.set_budget(GPU, 6 * UNIT)
        pool.set_budget(CPU, 50 * UNIT)
        tiers = pool.stats()["tiers"]
        place = next((each for each in (GPU, OTHER) if not tiers.get(str(each), {}).get("fenced")), CPU)
        for source in self.models:
            source.fails.clear()
            source.fault = no_fault
            pool.drop(source.key)  # or it would have to wait, if it failed twice in a row
            with pool.lease(source, device=place, timeout_s=0) as lease:
                assert source.intact(lease.module), seed
        assert audit(pool) == [], seed
        assert pool.close(0), f"{seed}: close left something"
        assert all(device.live_bytes == 0 for device in self.devices.values()), f"{seed}: bytes left behind"
        assert pool.stats()["models"] == [], seed
